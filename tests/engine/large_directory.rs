//! A directory with very many entries, in less memory than its tree takes.

use crate::common::compare::{self, Options};
use crate::common::memory::MemoryLimit;
use crate::common::peers::{HOST, Peer, Repo, Run};
use crate::common::{Random, scratch};
use crate::engine::same_bytes::{EXACT, demand_same_newest_tree};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Files with names and content of a usual length, in no order.
fn fill(dir: &Path, count: u64) {
    fs::create_dir_all(dir).expect("a directory");
    let mut random = Random(32);
    for number in 0..count {
        let name = format!("{:016x} a name of a usual length {number}", random.next());
        fs::write(dir.join(name), number.to_string()).expect("space");
    }
}

/// Our program within a limit of the kernel and its own.
struct Limited<'r> {
    repo: &'r Repo,
    limit: MemoryLimit,
    memory: &'static str,
}

impl Limited<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.repo.command(Peer::Vsm);
        command.args(["--memory", self.memory]).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Run {
        Run::of(&mut self.limit.command(&self.command(words))).ok()
    }

    fn backup(&self, from: &Path, target: &str) {
        let mut command = self.command(&["backup", "--json", "--host", HOST]);
        command.args(EXACT).arg(target).current_dir(from);
        Run::of(&mut self.limit.command(&command)).ok();
    }
}

/// Every command that reads or writes trees, on a directory of so many files.
fn go_through_all_commands(count: u64, memory: &'static str, mib: u64) {
    let source = scratch();
    let volume = source.path().join("v");
    fill(&volume.join("spool"), count);
    fs::write(volume.join("beside"), "beside").expect("space");
    let (repo, theirs) = (Repo::empty(2), Repo::empty(2));
    let ours = Limited { repo: &repo, limit: MemoryLimit::of_mib(mib), memory };

    ours.backup(source.path(), "v");
    theirs.backup(Peer::Restic019, source.path(), "v", &[]);
    demand_same_newest_tree(&theirs, &repo, "a large directory");
    let first = repo.newest_tree();
    ours.backup(source.path(), "v");
    assert_eq!(repo.newest_tree(), first, "nothing has changed");
    let changed = fs::read_dir(volume.join("spool")).expect("a list").next().expect("a file").expect("a file").path();
    fs::write(&changed, "changed").expect("space");
    ours.backup(source.path(), "v");
    theirs.backup(Peer::Restic019, source.path(), "v", &[]);
    demand_same_newest_tree(&theirs, &repo, "one file of a large directory has changed");
    repo.check(Peer::Restic019).ok();

    let lines = |run: &Run| run.text().lines().count() as u64;
    assert!(lines(&ours.run(&["ls", "latest"])) >= count + 3);
    let name = changed.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(ours.run(&["find", name]).text().contains(name));
    let snapshots = repo.list("snapshots");
    let [first, .., last] = [&repo.snapshots(Peer::Vsm)[0], &repo.snapshots(Peer::Vsm)[2]]
        .map(|snapshot| snapshot["id"].as_str().expect("an id").to_owned());
    assert_eq!(snapshots.len(), 3);
    let diff = ours.run(&["diff", &first, &last]).text();
    assert!(diff.contains(name) && diff.lines().all(|line| !line.starts_with("+  ")), "{diff}");
    ours.run(&["check", "--read-data"]);
    ours.run(&["stats"]);
    ours.run(&["stats", "--mode", "raw-data"]);
    let archive = repo.beside("archive.tar");
    ours.run(&["dump", "latest", "/v/spool", "--target", archive.to_str().expect("UTF-8")]);
    assert!(fs::metadata(&archive).expect("an archive").len() > count * 512);
    let target = scratch();
    let into = target.path().join("t");
    ours.run(&["restore", "latest", "--target", into.to_str().expect("UTF-8")]);
    compare::assert_same(&volume, &into.join("v"), Options::default());
    // A second time everything is there, and is compared; one file is not what it should be.
    fs::write(into.join("v/spool").join(name), "other").expect("space");
    let again = ours.run(&["restore", "latest", "--json", "--verify", "--target", into.to_str().expect("UTF-8")]);
    assert_eq!(again.summary()["files_skipped"], count, "{}", again.text());
    compare::assert_same(&volume, &into.join("v"), Options::default());

    let other = Repo::empty(2);
    let mut command = other.command(Peer::Vsm);
    command.args(["--memory", memory, "copy"]).env("RESTIC_FROM_REPOSITORY", &repo.url);
    command.env("RESTIC_FROM_PASSWORD", crate::common::peers::PASSWORD);
    Run::of(&mut ours.limit.command(&command)).ok();
    other.check(Peer::Restic019).ok();

    ours.run(&["rewrite", "--exclude", name, "--forget"]);
    ours.run(&["forget", "--keep-last", "1"]);
    ours.run(&["prune", "--max-unused", "0"]);
    repo.check(Peer::Restic019).ok();
}

#[test]
fn a_large_directory_takes_no_more_memory_than_it_is_given() {
    go_through_all_commands(60_000, "64M", 96);
}

#[test]
#[ignore = "takes a quarter of an hour: a million files, each command within 160 MiB"]
fn a_million_files_in_one_directory() {
    go_through_all_commands(1_000_000, "128M", 160);
}
