//! An S3 server of a test's own: versitygw over a folder, on a free port of the loopback interface.

use super::peers::{Repo, installed};
use super::{scratch, wait_for};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct S3 {
    server: Child,
    port: u16,
    /// Holds the objects.
    dir: TempDir,
}

pub const ACCESS: &str = "tests-access";
pub const SECRET: &str = "tests-secret-key";
pub const BUCKET: &str = "bucket";

impl Default for S3 {
    fn default() -> Self {
        Self::new()
    }
}

impl S3 {
    /// Starts a server with one empty bucket.
    pub fn new() -> S3 {
        S3::with(&[])
    }

    /// Starts a server with more options of versitygw's, and one empty bucket. A port can be taken by another process between our choice and the
    /// server's start; then the server ends and another port is tried.
    pub fn with(options: &[&str]) -> S3 {
        let dir = scratch();
        // In versitygw's POSIX back end a folder below the root is a bucket.
        std::fs::create_dir_all(dir.path().join("root").join(BUCKET)).expect("a bucket");
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
            let mut server = start(&dir, port, options);
            let up = wait_for("the S3 server", || match server.try_wait() {
                Ok(None) => TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true),
                _ => Some(false),
            });
            // The connection may have been answered by whoever took the port: ours must still be alive.
            std::thread::sleep(std::time::Duration::from_millis(100));
            if up && server.try_wait().is_ok_and(|ended| ended.is_none()) {
                return S3 { server, port, dir };
            }
            let _ = server.wait();
        }
        panic!("versitygw does not start: {}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// Where the server listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds the buckets.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A repository in the bucket under `prefix`, with the credentials for it.
    pub fn repo(&self, prefix: &str) -> Repo {
        let mut repo = Repo::at(format!("s3:http://127.0.0.1:{}/{BUCKET}/{prefix}", self.port));
        repo.set("AWS_ACCESS_KEY_ID", ACCESS)
            .set("AWS_SECRET_ACCESS_KEY", SECRET)
            .set("AWS_DEFAULT_REGION", "us-east-1");
        repo
    }
}

fn start(dir: &TempDir, port: u16, options: &[&str]) -> Child {
    let log = || File::options().create(true).append(true).open(dir.path().join("log")).expect("a log");
    let mut command = Command::new(installed("versitygw"));
    command.env_clear().args([
        "--access",
        ACCESS,
        "--secret",
        SECRET,
        "--port",
        &format!("127.0.0.1:{port}"),
        "--quiet",
    ]);
    command.args(options).arg("posix").arg(dir.path().join("root")).stdin(Stdio::null()).stdout(log()).stderr(log());
    command.spawn().expect("versitygw starts")
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
