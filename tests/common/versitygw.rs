//! A versitygw process: an S3 server over a folder.

use super::listening::Server;
use std::fs;
use std::path::Path;
use std::process::Command;

pub const ACCESS: &str = "tests-access";
pub const SECRET: &str = "tests-secret-key";
pub const BUCKET: &str = "bucket";

/// Starts `program` with one bucket below `root`, where a folder is a bucket.
pub fn start(program: &Path, root: &Path, log: &Path, options: &[&str]) -> Server {
    fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
    Server::start(log, |port| {
        let mut command = Command::new(program);
        command.env_clear().args(["--access", ACCESS, "--secret", SECRET, "--quiet"]);
        command.arg("--port").arg(format!("127.0.0.1:{port}")).args(options).arg("posix").arg(root);
        command
    })
}
