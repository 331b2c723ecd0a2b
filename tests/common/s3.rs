//! An S3 server of a test's own: versitygw over a folder, on a free port of the loopback interface.

use super::listening::Server;
use super::peers::{Repo, installed};
use super::scratch;
use super::versitygw;
use std::path::PathBuf;
use tempfile::TempDir;

pub use super::versitygw::{ACCESS, BUCKET, SECRET};

pub struct S3 {
    server: Server,
    /// Holds the objects.
    dir: TempDir,
}

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

    /// Starts a server with more options of versitygw's, and one empty bucket.
    pub fn with(options: &[&str]) -> S3 {
        let dir = scratch();
        let (root, log) = (dir.path().join("root"), dir.path().join("log"));
        S3 { server: versitygw::start(&installed("versitygw"), &root, &log, options), dir }
    }

    /// Where the server listens.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The folder that holds the buckets.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A repository in the bucket under `prefix`, with the credentials for it.
    pub fn repo(&self, prefix: &str) -> Repo {
        let mut repo = Repo::at(format!("s3:http://127.0.0.1:{}/{BUCKET}/{prefix}", self.port()));
        repo.set("AWS_ACCESS_KEY_ID", ACCESS)
            .set("AWS_SECRET_ACCESS_KEY", SECRET)
            .set("AWS_DEFAULT_REGION", "us-east-1");
        repo
    }
}
