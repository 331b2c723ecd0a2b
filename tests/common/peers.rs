//! Runs the programs that write and read restic repositories: three peers, and ours.
//!
//! A call never inherits this machine's environment: no configuration, cache, credential or time
//! zone of the user reaches a peer, so the results are the same on every machine.

use super::scratch;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use vsm::repo::{Password, Repository, Settings};

/// A program under test or one it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The oldest restic that reads format 2.
    Restic014,
    /// The newest restic, which tests call "restic".
    Restic019,
    Rustic,
    /// Ours.
    Vsm,
}

pub const PASSWORD: &str = "correct horse battery staple";

/// The host of every snapshot, so that parent snapshots are found on every machine.
pub const HOST: &str = "tests";

impl Peer {
    /// The name in messages and documents.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Restic014 => "restic 0.14",
            Peer::Restic019 => "restic 0.19",
            Peer::Rustic => "rustic 0.11",
            Peer::Vsm => "ours",
        }
    }

    pub fn program(self) -> PathBuf {
        match self {
            Peer::Restic014 => installed("restic-0.14"),
            Peer::Restic019 => installed("restic-0.19"),
            Peer::Rustic => installed("rustic"),
            // VSM_MOVER selects another build of ours.
            Peer::Vsm => {
                std::env::var_os("VSM_MOVER").map_or_else(|| env!("CARGO_BIN_EXE_vsm-mover").into(), PathBuf::from)
            }
        }
    }
}

/// The path of a peer's program. Fails with the command that installs it if it is missing.
pub fn installed(name: &str) -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        let peers = std::env::var_os("VSM_PEERS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from);
        peers.join("bin")
    });
    let program = bin.join(name);
    assert!(program.exists(), "{name} is not in {bin:?}: run tests/peers/install first (tests/run does)");
    program
}

/// A repository and everything a program needs to work with it, in its own directory.
pub struct Repo {
    pub url: OsString,
    /// Additional environment variables, such as credentials of a store or a time zone.
    environment: Vec<(OsString, OsString)>,
    /// Extended options for restic and ours.
    options: Vec<String>,
    /// Extended options for ours only.
    own_options: Vec<String>,
    dir: TempDir,
}

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

impl Repo {
    /// A folder that does not exist yet.
    pub fn new() -> Repo {
        let dir = scratch();
        Repo {
            url: dir.path().join("repository").into(),
            environment: Vec::new(),
            options: Vec::new(),
            own_options: Vec::new(),
            dir,
        }
    }

    /// A repository at a URL.
    pub fn at(url: impl Into<OsString>) -> Repo {
        Repo { url: url.into(), environment: Vec::new(), options: Vec::new(), own_options: Vec::new(), dir: scratch() }
    }

    /// A new folder, initialised by `peer` in `format`.
    pub fn made_by(peer: Peer, format: u32) -> Repo {
        let repo = Repo::new();
        repo.init(peer, format).ok();
        repo
    }

    /// An empty repository in a new folder, made by the tests themselves, which opens quickly. Two
    /// such repositories have the same polynomial.
    pub fn empty(format: u32) -> Repo {
        Repo::new().made_empty(format)
    }

    /// Makes an empty repository in the folder of `self`, which opens quickly.
    pub fn made_empty(self, format: u32) -> Repo {
        super::empty::make(self.path(), format);
        self
    }

    /// A new folder whose chunks are cut as in `other`: restic makes it with the same polynomial.
    pub fn with_cuts_of(other: &Repo) -> Repo {
        let repo = Repo::new();
        let mut command = repo.command(Peer::Restic019);
        command
            .env("RESTIC_FROM_PASSWORD", PASSWORD)
            .args(["init", "--copy-chunker-params", "--from-repo"])
            .arg(&other.url);
        Run::of(&mut command).ok();
        repo
    }

    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Repo {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets an extended option.
    pub fn option(&mut self, option: &str) -> &mut Repo {
        self.options.push(option.to_owned());
        self
    }

    /// Sets an extended option that restic does not have.
    pub fn own_option(&mut self, option: &str) -> &mut Repo {
        self.own_options.push(option.to_owned());
        self
    }

    /// This repository, with all further processes in another time zone.
    pub fn in_zone(mut self, zone: &str) -> Repo {
        self.set("TZ", zone);
        self
    }

    /// A copy of a folder repository at another path, with the modification times of its files.
    pub fn copy(&self) -> Repo {
        let copy = Repo::new();
        Run::of(Command::new("cp").arg("-a").arg(self.path()).arg(copy.path())).ok();
        copy
    }

    /// The repository, opened by our library.
    pub fn opened(&self) -> Arc<Repository> {
        let location = self.path().to_str().expect("UTF-8").parse().expect("a location");
        let store = vsm::store::open(&location, &vsm::store::Options::default()).expect("a store");
        let settings = Settings { aside: Some(std::env::temp_dir()), ..Settings::default() };
        Arc::new(Repository::open(store, &Password::new(PASSWORD), None, settings).expect("a repository"))
    }

    /// The path of a folder repository.
    pub fn path(&self) -> &Path {
        Path::new(&self.url)
    }

    /// A path beside the repository, for other files of the test.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with its environment and the repository, without arguments.
    pub fn command(&self, peer: Peer) -> Command {
        let mut command = Command::new(peer.program());
        let home = self.dir.path().join(format!("home-{peer:?}"));
        let cache = home.join("cache");
        std::fs::create_dir_all(&cache).expect("a home");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        command
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", &cache)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("TMPDIR", self.dir.path());
        if peer == Peer::Rustic {
            command
                .env("RUSTIC_REPOSITORY", &self.url)
                .env("RUSTIC_PASSWORD", PASSWORD)
                .env("RUSTIC_CACHE_DIR", &cache);
            command.env("RUSTIC_NO_PROGRESS", "true").env("RUSTIC_LOG_LEVEL", "warn");
        } else {
            command
                .env("RESTIC_REPOSITORY", &self.url)
                .env("RESTIC_PASSWORD", PASSWORD)
                .env("RESTIC_CACHE_DIR", &cache);
            let own = if peer == Peer::Vsm { &self.own_options[..] } else { &[] };
            command.args(self.options.iter().chain(own).flat_map(|option| ["-o", option]));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of `peer` to its end.
    pub fn run<S: AsRef<OsStr>>(&self, peer: Peer, arguments: impl IntoIterator<Item = S>) -> Run {
        let mut command = self.command(peer);
        command.args(arguments);
        Run::of(&mut command)
    }

    pub fn init(&self, peer: Peer, format: u32) -> Run {
        let version = format.to_string();
        match peer {
            Peer::Rustic => self.run(peer, ["init", "--set-version", &version]),
            _ => self.run(peer, ["init", "--repository-version", &version]),
        }
    }

    /// Backs up `target`, a path relative to `from`, and returns the summary as JSON (rustic: of
    /// the snapshot).
    pub fn backup(&self, peer: Peer, from: &Path, target: &str, extra: &[&str]) -> Value {
        self.try_backup(peer, from, target, extra).ok().summary()
    }

    pub fn try_backup(&self, peer: Peer, from: &Path, target: &str, extra: &[&str]) -> Run {
        let mut command = self.command(peer);
        command.current_dir(from).args(["backup", "--json", "--host", HOST]).args(extra).arg(target);
        Run::of(&mut command)
    }

    /// Runs the fullest check of a peer, which reads every byte.
    pub fn check(&self, peer: Peer) -> Run {
        self.run(peer, ["check", "--read-data"])
    }

    /// Restores `snapshot` (an id, `latest`, or either with `:path`) into the new directory
    /// `target`.
    pub fn restore(&self, peer: Peer, snapshot: &str, target: &Path) -> Run {
        self.restore_with(peer, snapshot, target, &[])
    }

    pub fn restore_with(&self, peer: Peer, snapshot: &str, target: &Path, extra: &[&str]) -> Run {
        let mut command = self.command(peer);
        match peer {
            // By number, as restic does; rustic would look the stored names up first.
            Peer::Rustic => command.args(["restore", "--numeric-id"]).args(extra).arg(snapshot).arg(target),
            _ => command.args(["restore", snapshot, "--target"]).arg(target).args(extra),
        };
        Run::of(&mut command)
    }

    /// Every path in the snapshot as the peer's JSON writes it, from its root, with the whole node.
    pub fn ls(&self, peer: Peer, snapshot: &str) -> Vec<Value> {
        assert_ne!(peer, Peer::Rustic, "rustic's listing has another form");
        let lines = self.run(peer, ["ls", "--json", snapshot]).ok().json_lines();
        lines.into_iter().filter(|line| line["struct_type"] == "node").collect()
    }

    /// All snapshots, oldest first, as the peer's `snapshots` lists them.
    pub fn snapshots(&self, peer: Peer) -> Vec<Value> {
        let listed: Value = self.run(peer, ["snapshots", "--json"]).ok().json();
        listed.as_array().expect("a list of snapshots").clone()
    }

    /// The ID of the root tree of the newest snapshot, from restic.
    pub fn newest_tree(&self) -> String {
        let all = self.snapshots(Peer::Restic019);
        let newest = all.last().expect("a snapshot");
        newest["tree"].as_str().expect("a tree id").to_owned()
    }

    /// The nodes of a tree, decoded from restic's own output.
    pub fn tree(&self, id: &str) -> Vec<Value> {
        let tree: Value = self.run(Peer::Restic019, ["cat", "blob", id]).ok().json();
        tree["nodes"].as_array().expect("nodes").clone()
    }

    /// Ids of all files of one kind, from restic.
    pub fn list(&self, kind: &str) -> Vec<String> {
        let output = self.run(Peer::Restic019, ["list", kind, "--no-lock"]).ok();
        output.text().lines().map(str::to_owned).collect()
    }

    /// The lock files of a folder repository right now.
    pub fn lock_files(&self) -> Vec<PathBuf> {
        let dir = std::fs::read_dir(self.path().join("locks")).expect("a folder repository");
        dir.flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.len() == 64))
            .collect()
    }
}

/// A program that has ended, and its output.
pub struct Run {
    line: String,
    output: Output,
}

impl Run {
    pub fn of(command: &mut Command) -> Run {
        let line = written(command);
        let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
        Run { line, output }
    }

    /// Runs a program to its end and meanwhile calls `watch` with its process ID repeatedly.
    pub fn watched(command: &mut Command, mut watch: impl FnMut(u32)) -> Run {
        let line = written(command);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{line}: {error}"));
        let id = child.id();
        let ended = std::thread::spawn(move || child.wait_with_output());
        while !ended.is_finished() {
            watch(id);
        }
        let output = ended.join().expect("no panic").unwrap_or_else(|error| panic!("{line}: {error}"));
        Run { line, output }
    }

    pub fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    /// The exit code, or the negative number of the signal that ended the program.
    pub fn code(&self) -> i32 {
        let status = self.output.status;
        status.code().unwrap_or_else(|| -status.signal().expect("an exit code or a signal"))
    }

    /// Demands exit code 0.
    pub fn ok(self) -> Run {
        self.exits(0)
    }

    /// Demands an exit code.
    pub fn exits(self, code: i32) -> Run {
        assert!(self.code() == code, "exit code {} instead of {code}\n{self}", self.code());
        self
    }

    pub fn stdout(&self) -> &[u8] {
        &self.output.stdout
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{self}"))
    }

    /// Standard output as JSON lines; every line must be one.
    pub fn json_lines(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}\n{self}"));
        self.text().lines().filter(|line| !line.is_empty()).map(parse).collect()
    }

    /// The summary of a backup or restore: a field of the snapshot (rustic) or a line of its own.
    pub fn summary(&self) -> Value {
        if let Ok(snapshot) = serde_json::from_slice::<Value>(&self.output.stdout)
            && snapshot["summary"].is_object()
        {
            return snapshot["summary"].clone();
        }
        let summary = self.json_lines().into_iter().find(|line| line["message_type"] == "summary");
        summary.unwrap_or_else(|| panic!("no summary\n{self}"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shorten = |text: String| match text.char_indices().nth(6000) {
            Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
            None => text,
        };
        writeln!(out, "$ {}", self.line)?;
        writeln!(out, "stdout: {}", shorten(self.text()))?;
        write!(out, "stderr: {}", shorten(self.errors()))
    }
}

/// A program that is still running; killed on drop.
pub struct Running {
    line: String,
    child: Option<Child>,
}

impl Running {
    /// Starts `command` with its standard input kept open for the test to write to.
    pub fn start(mut command: Command) -> Running {
        let line = written(&command);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { child: Some(child.unwrap_or_else(|error| panic!("{line}: {error}"))), line }
    }

    pub fn id(&self) -> rustix::process::Pid {
        let id = self.child.as_ref().expect("it runs").id();
        rustix::process::Pid::from_raw(id as i32).expect("a process id")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.id(), signal).expect("it can be signalled");
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.as_mut().expect("it runs").stdin.as_mut().expect("its input is open");
        stdin.write_all(bytes).expect("it reads");
        stdin.flush().expect("it reads");
    }

    /// Reads one line of its standard output, and no byte beyond it.
    pub fn read_line(&mut self) -> String {
        let stdout = self.child.as_mut().expect("it runs").stdout.as_mut().expect("its output is open");
        let mut line = Vec::new();
        let mut byte = [0];
        while byte[0] != b'\n' {
            stdout.read_exact(&mut byte).expect("it writes a line");
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("UTF-8")
    }

    /// Reads its standard error up to the end of a line that contains `text`; that line.
    pub fn wait_for_error(&mut self, text: &str) -> String {
        let stderr = self.child.as_mut().expect("it runs").stderr.as_mut().expect("its errors are open");
        let mut lines = Vec::new();
        let mut byte = [0];
        loop {
            if stderr.read(&mut byte).expect("it can be read") == 0 {
                panic!("it never wrote {text:?}: {}", String::from_utf8_lossy(&lines));
            }
            lines.push(byte[0]);
            if byte == *b"\n" {
                let read = String::from_utf8_lossy(&lines).into_owned();
                match read.lines().next_back() {
                    Some(line) if line.contains(text) => return line.to_owned(),
                    _ => {}
                }
            }
        }
    }

    /// Fails if the program has ended.
    pub fn must_run(&mut self) {
        let ended = self.child.as_mut().expect("it runs").try_wait().expect("it can be asked");
        if ended.is_some() {
            let line = self.line.clone();
            let output = self.child.take().expect("it ran").wait_with_output().expect("its output");
            panic!("ended too early\n{}", Run { line, output });
        }
    }

    /// Closes its input and waits for its end.
    pub fn finish(mut self) -> Run {
        let mut child = self.child.take().expect("it runs");
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("{}: {error}", self.line));
        Run { line: self.line.clone(), output }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command line, for messages.
fn written(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
