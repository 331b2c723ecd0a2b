//! The programs that are compared, and one way to call them.

use crate::versitygw::{ACCESS, BUCKET, SECRET};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    Ours,
    /// With `--no-extra-verify`: without the check that each sealed blob opens again, which all
    /// other tools make.
    OursUnverified,
    Restic,
    Rustic,
}

pub const TOOLS: [Tool; 4] = [Tool::Ours, Tool::OursUnverified, Tool::Restic, Tool::Rustic];

/// The password of every repository.
pub const PASSWORD: &str = "bench";

/// The time and memory that one process took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall_seconds: f64,
    pub user_seconds: f64,
    pub system_seconds: f64,
    pub peak_kib: u64,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::Ours => "ours",
            Tool::OursUnverified => "ours, --no-extra-verify",
            Tool::Restic => "restic",
            Tool::Rustic => "rustic",
        }
    }

    fn program(self, peers: &Path) -> PathBuf {
        match self {
            // The binary of the profile that ships.
            Tool::Ours | Tool::OursUnverified => env!("CARGO_BIN_EXE_vsm-mover").into(),
            Tool::Restic => peers.join("restic-0.19"),
            Tool::Rustic => rustic(peers),
        }
    }

    pub fn version(self, peers: &Path) -> String {
        let argument = if self == Tool::Rustic { "--version" } else { "version" };
        let output = Command::new(self.program(peers)).arg(argument).output().expect("the program starts");
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        let quick = self == Tool::Rustic && rustic(peers) != peers.join(RUSTIC);
        if quick { format!("{version} as the tests build it") } else { version }
    }
}

/// rustic as its authors build it.
const RUSTIC: &str = "rustic-release";

/// The release build of rustic, or else that of the tests: optimised, but not across its crates.
fn rustic(peers: &Path) -> PathBuf {
    let release = peers.join(RUSTIC);
    if release.exists() { release } else { peers.join("rustic") }
}

/// Identifies the measured binary of ours.
pub fn fingerprint() -> String {
    let output = Command::new("sha256sum").arg(env!("CARGO_BIN_EXE_vsm-mover")).output().expect("sha256sum starts");
    String::from_utf8_lossy(&output.stdout).chars().take(16).collect()
}

/// The repository of one tool, and where its process may write other files.
pub struct Place<'p> {
    pub tool: Tool,
    pub peers: &'p Path,
    /// The repository's location in restic's notation.
    repository: OsString,
    /// On the repository's medium: cache, temporary files and measurements.
    scratch: &'p Path,
    /// The port of the server or of a link to it, if there is one.
    port: Option<u16>,
    /// Connections, if not the tool's own number.
    connections: Option<usize>,
}

impl<'p> Place<'p> {
    pub fn folder(tool: Tool, peers: &'p Path, scratch: &'p Path, repository: &Path) -> Place<'p> {
        Place { tool, peers, repository: repository.into(), scratch, port: None, connections: None }
    }

    pub fn s3(tool: Tool, peers: &'p Path, scratch: &'p Path, port: u16, connections: Option<usize>) -> Place<'p> {
        let repository = format!("s3:http://127.0.0.1:{port}/{BUCKET}/repository").into();
        Place { tool, peers, repository, scratch, port: Some(port), connections }
    }

    /// The same repository for another tool.
    pub fn by(self, tool: Tool) -> Place<'p> {
        Place { tool, ..self }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/time");
        command.arg("--format=%U %S %M").arg("--output").arg(self.cost_file()).arg(self.tool.program(self.peers));
        command.env_clear();
        let (cache, temporary) = (self.cache(), self.scratch.join("tmp"));
        fs::create_dir_all(&cache).and_then(|()| fs::create_dir_all(&temporary)).expect("directories");
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.scratch)
            .env("XDG_CACHE_HOME", cache)
            .env("AWS_ACCESS_KEY_ID", ACCESS)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("TMPDIR", temporary);
        match self.tool {
            Tool::Rustic => {
                command.env("RUSTIC_PASSWORD", PASSWORD).args(["--no-progress", "--log-level", "error"]);
                match self.port {
                    Some(port) => command
                        .env("RUSTIC_REPOSITORY", "opendal:s3")
                        .env("RUSTIC_REPO_OPT_BUCKET", BUCKET)
                        .env("RUSTIC_REPO_OPT_ROOT", "/repository")
                        .env("RUSTIC_REPO_OPT_ENDPOINT", format!("http://127.0.0.1:{port}"))
                        .env("RUSTIC_REPO_OPT_REGION", "us-east-1"),
                    None => command.env("RUSTIC_REPOSITORY", &self.repository),
                };
                if let Some(connections) = self.connections {
                    command.env("RUSTIC_REPO_OPT_CONNECTIONS", connections.to_string());
                }
            }
            _ => {
                command
                    .env("RESTIC_PASSWORD", PASSWORD)
                    .env("RESTIC_REPOSITORY", &self.repository)
                    .env("AWS_DEFAULT_REGION", "us-east-1")
                    .arg("--quiet");
                if let Some(connections) = self.connections {
                    command.arg("-o").arg(format!("s3.connections={connections}"));
                }
            }
        }
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn cache(&self) -> PathBuf {
        self.scratch.join("cache")
    }

    /// Removes the tool's local cache.
    pub fn forget_cache(&self) {
        fs::remove_dir_all(self.cache()).expect("it can be removed");
    }

    fn cost_file(&self) -> PathBuf {
        self.scratch.join("cost")
    }

    /// Runs a command, which must succeed, and returns its cost.
    fn run(&self, mut command: Command) -> Cost {
        let start = Instant::now();
        let status = command.status().expect("/usr/bin/time starts");
        let wall_seconds = start.elapsed().as_secs_f64();
        assert!(status.success(), "{command:?} failed: {status}");
        let text = fs::read_to_string(self.cost_file()).expect("the cost");
        let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        Cost { wall_seconds, user_seconds: next(), system_seconds: next(), peak_kib: next() as u64 }
    }

    pub fn init(&self) {
        self.run(self.command(&["init"]));
    }

    pub fn backup(&self, source: &Path) -> Cost {
        let mut command = self.command(&["backup", "--host", "bench"]);
        match self.tool {
            Tool::OursUnverified => command.arg("--no-extra-verify"),
            _ => &mut command,
        };
        command.arg(".").current_dir(source);
        self.run(command)
    }

    pub fn restore(&self, target: &Path) -> Cost {
        let mut command = self.command(&["restore"]);
        match self.tool {
            Tool::Rustic => command.arg("latest").arg(target),
            _ => command.arg("latest").arg("--target").arg(target),
        };
        self.run(command)
    }

    pub fn prune(&self) -> Cost {
        self.run(self.command(&["prune"]))
    }

    pub fn snapshots(&self) -> Cost {
        self.run(self.command(&["snapshots"]))
    }

    pub fn check(&self) -> Cost {
        self.run(self.command(&["check", "--read-data"]))
    }
}
