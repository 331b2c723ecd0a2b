//! Tests backups that are interrupted, and backups of files that change or vanish meanwhile.

use crate::common::peers::{HOST, Peer, Repo, Running};
use crate::common::{Random, scratch, wait_for};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn packs(repo: &Repo) -> Vec<PathBuf> {
    let dirs = fs::read_dir(repo.path().join("data")).expect("a folder repository").flatten();
    let files = dirs.filter_map(|dir| fs::read_dir(dir.path()).ok()).flat_map(|files| files.flatten());
    files.map(|file| file.path()).filter(|path| path.file_name().is_some_and(|name| name.len() == 64)).collect()
}

/// Interrupts a backup of standard input after two packs, and asserts that nothing is lost, left
/// behind or stored twice.
fn stopped_by(signal: Signal) {
    let repo = Repo::empty(2);
    let content = Random(21).bytes(96 << 20);
    let command = || {
        let mut command = repo.command(Peer::Vsm);
        command.args(["backup", "--json", "--host", HOST, "--stdin", "--stdin-filename", "data"]);
        command
    };
    let mut running = Running::start(command());
    running.write(&content[..64 << 20]);
    wait_for("two packs", || (packs(&repo).len() >= 2).then_some(()));
    running.signal(signal);
    // The pipe stays open until the process has received the signal, so that the input does not end
    // first.
    running.wait_for_error("signal received");
    running.finish().exits(130);

    assert_eq!(repo.snapshots(Peer::Restic019).len(), 0, "no snapshot of half a file");
    assert!(repo.lock_files().is_empty(), "a lock is left");
    repo.check(Peer::Restic019).ok();
    let uploaded: u64 = packs(&repo).iter().map(|path| path.metadata().expect("a pack").len()).sum();
    assert!(uploaded > 32 << 20, "{uploaded} bytes");

    let mut running = Running::start(command());
    running.write(&content);
    let summary = running.finish().ok().summary();
    let added = summary["data_added"].as_u64().expect("a number");
    assert!(added + uploaded < (content.len() as u64) + (2 << 20), "{added} bytes were added to {uploaded}: {summary}");
    let dumped = repo.run(Peer::Restic019, ["dump", "latest", "/data"]).ok();
    assert!(dumped.stdout() == content, "restic reads something else");
    repo.check(Peer::Restic019).ok();
}

#[test]
fn sigterm_leaves_uploaded_packs_indexed() {
    stopped_by(Signal::TERM);
}

#[test]
fn sigint_leaves_uploaded_packs_indexed() {
    stopped_by(Signal::INT);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_reported() {
    let repo = Repo::empty(2);
    let source = scratch();
    let path = source.path().join("growing");
    fs::write(&path, Random(22).bytes(64 << 20)).expect("a file");
    fs::write(source.path().join("still"), b"still").expect("a file");
    let done = AtomicBool::new(false);
    let run = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&path).expect("the file");
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"more").expect("space");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let run = repo.try_backup(Peer::Vsm, source.path(), ".", &[]);
        done.store(true, Ordering::Relaxed);
        run
    });
    let run = run.exits(3);
    assert!(run.errors().contains("growing") && run.errors().contains("changed"), "{run}");
    assert!(!run.errors().contains("still"), "{run}");
    assert_eq!(run.summary()["total_files_processed"], 2, "the data that was read is kept");
    repo.check(Peer::Restic019).ok();
}

/// The walk stalls after it has listed the directory: it prints each excluded file, and the test
/// reads that output only after it has removed `gone`.
#[test]
fn a_file_that_vanishes_after_it_was_listed_is_reported() {
    let repo = Repo::empty(2);
    let source = scratch();
    let long = "n".repeat(200);
    for number in 0..2000 {
        fs::write(source.path().join(format!("excluded-{number:04}-{long}")), b"").expect("a file");
    }
    let gone = source.path().join("gone");
    fs::write(&gone, b"never read").expect("a file");
    fs::write(source.path().join("still"), b"still").expect("a file");

    let mut command = repo.command(Peer::Vsm);
    command.args(["backup", "--json", "-vv", "--host", HOST, "--exclude", "excluded-*"]).arg(source.path());
    let mut running = Running::start(command);
    while !running.read_line().contains("excluded_item") {}
    fs::remove_file(&gone).expect("the file");
    let run = running.finish().exits(3);
    let told = run.errors();
    assert!(told.contains(&gone.display().to_string()) && told.contains("vanished"), "{run}");
    assert_eq!(run.summary()["total_files_processed"], 1);
    let kept = repo.ls(Peer::Restic019, "latest").into_iter().filter(|node| node["type"] == "file");
    let kept: Vec<_> = kept.map(|node| node["name"].clone()).collect();
    assert_eq!(kept, ["still"]);
    repo.check(Peer::Restic019).ok();
}
