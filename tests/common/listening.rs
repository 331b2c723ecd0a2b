//! Starts the servers of tests, each on a free port of the loopback interface.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server; stopped on drop.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts the command that `command` makes for a port, with its output in `log`. If another
    /// process takes the port between our choice and the server's start, the server ends and the
    /// next port is tried.
    pub fn start(log: &Path, command: impl Fn(u16) -> Command) -> Server {
        let output = || File::options().create(true).append(true).open(log).expect("a log");
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
            let mut command = command(port);
            let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
            let mut server = Server { child: child.expect("the server starts"), port };
            if server.answers() {
                return server;
            }
        }
        panic!("a server does not start: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Waits until the server accepts connections; `false` if it ends before.
    fn answers(&mut self) -> bool {
        let mut alive = || self.child.try_wait().is_ok_and(|ended| ended.is_none());
        for _ in 0..1200 {
            if !alive() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                // Another process may have taken the port and accepted the connection: our server
                // must still be alive.
                std::thread::sleep(Duration::from_millis(100));
                return alive();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
