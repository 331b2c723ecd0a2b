//! A versitygw process: an S3 server over a folder, on a free port of the loopback interface.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const ACCESS: &str = "tests-access";
pub const SECRET: &str = "tests-secret-key";
pub const BUCKET: &str = "bucket";

/// A running server; stopped on drop.
pub struct Versitygw {
    server: Child,
    pub port: u16,
}

impl Versitygw {
    /// Starts `program` with one bucket below `root`, where a folder is a bucket. A port can be taken by another process between our
    /// choice and the server's start; then the server ends and another port is tried.
    pub fn start(program: &Path, root: &Path, log: &Path, options: &[&str]) -> Versitygw {
        fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
        let output = || File::options().create(true).append(true).open(log).expect("a log");
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
            let mut command = Command::new(program);
            command.env_clear().args(["--access", ACCESS, "--secret", SECRET, "--quiet"]);
            command.arg("--port").arg(format!("127.0.0.1:{port}")).args(options).arg("posix").arg(root);
            let server = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
            let mut server = Versitygw { server: server.expect("versitygw starts"), port };
            if server.answers() {
                return server;
            }
        }
        panic!("versitygw does not start: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Waits until the server takes connections; `false` if it ends before.
    fn answers(&mut self) -> bool {
        let mut alive = || self.server.try_wait().is_ok_and(|ended| ended.is_none());
        for _ in 0..600 {
            if !alive() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                // The connection may have been answered by whoever took the port: ours must still be alive.
                std::thread::sleep(Duration::from_millis(100));
                return alive();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
