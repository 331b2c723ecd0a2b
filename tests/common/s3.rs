//! An S3 server for one test on a free loopback port: versitygw over a folder, or MinIO.

use super::listening::Server;
use super::peers::{Repo, installed};
use super::scratch;
use super::versitygw;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub use super::versitygw::{ACCESS, BUCKET, SECRET};

pub struct S3 {
    server: Server,
    dir: TempDir,
}

impl Default for S3 {
    fn default() -> Self {
        Self::new()
    }
}

impl S3 {
    /// Starts versitygw with one empty bucket.
    pub fn new() -> S3 {
        S3::with(&[])
    }

    /// Starts versitygw with one empty bucket and more options.
    pub fn with(options: &[&str]) -> S3 {
        let dir = scratch();
        let (root, log) = (dir.path().join("root"), dir.path().join("log"));
        S3 { server: versitygw::start(&installed("versitygw"), &root, &log, options), dir }
    }

    /// Starts MinIO with one empty bucket; it stores objects in its own format.
    pub fn minio() -> S3 {
        let (dir, program) = (scratch(), installed("minio"));
        let root = dir.path().join("root");
        fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
        let server = Server::start(&dir.path().join("log"), |port| {
            let mut command = Command::new(&program);
            command.env_clear().env("HOME", dir.path()).env("MINIO_BROWSER", "off");
            command.env("MINIO_ROOT_USER", ACCESS).env("MINIO_ROOT_PASSWORD", SECRET);
            command.args(["server", "--address", &format!("127.0.0.1:{port}")]).arg(&root);
            command
        });
        S3 { server, dir }
    }

    /// The port on which the server listens.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The folder that holds the buckets, and versitygw's objects as files.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A repository in the bucket under `prefix`, with the credentials for it.
    pub fn repo(&self, prefix: &str) -> Repo {
        self.repo_by(self.port(), prefix)
    }

    /// A repository that is reached through another port, which leads to the server.
    pub fn repo_by(&self, port: u16, prefix: &str) -> Repo {
        let mut repo = Repo::at(format!("s3:http://127.0.0.1:{port}/{BUCKET}/{prefix}"));
        repo.set("AWS_ACCESS_KEY_ID", ACCESS)
            .set("AWS_SECRET_ACCESS_KEY", SECRET)
            .set("AWS_DEFAULT_REGION", "us-east-1");
        repo
    }
}
