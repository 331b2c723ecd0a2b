//! Tests that our locks and restic's are compatible: both tools respect each other's locks, and can
//! work in one repository at the same time.

use crate::common::peers::{HOST, Peer, Repo, Running};
use crate::common::{Random, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// A backup from standard input that holds its lock and waits for more input.
fn slow_backup(repo: &Repo, peer: Peer, name: &str) -> Running {
    let before = repo.lock_files().len();
    let mut command = repo.command(peer);
    command.args(["backup", "--host", HOST, "--stdin", "--stdin-filename", name]);
    let mut running = Running::start(command);
    running.write(&Random(1).bytes(3000));
    wait_for("the lock", || {
        running.must_run();
        (repo.lock_files().len() > before).then_some(())
    });
    running
}

/// restic, stopped in the middle of a `check` that reads at 1 KiB/s: it holds an exclusive lock.
fn exclusive_restic(repo: &Repo) -> Running {
    let mut command = repo.command(Peer::Restic019);
    command.args(["check", "--read-data", "--limit-download", "1"]);
    let mut running = Running::start(command);
    wait_for("the exclusive lock", || {
        running.must_run();
        locks(repo).iter().any(|lock| lock["exclusive"] == true).then_some(())
    });
    // restic confirms its lock 200 ms after it wrote it; by the time the process is resumed, both
    // have happened or are due.
    running.signal(Signal::STOP);
    running
}

/// The locks, as restic reads them. A lock that is removed meanwhile is skipped.
fn locks(repo: &Repo) -> Vec<Value> {
    let cat = |id: &String| repo.run(Peer::Restic019, ["cat", "lock", id, "--no-lock"]);
    repo.list("locks").iter().map(cat).filter(|run| run.succeeded()).map(|run| run.json()).collect()
}

/// A repository with a small snapshot.
fn repository() -> Repo {
    let repo = Repo::empty(2);
    let dir = repo.beside("source");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("file"), Random(2).bytes(3 << 20)).expect("a file");
    repo.backup(Peer::Restic019, &repo.beside("."), "source", &[]);
    repo
}

/// Under restic's exclusive lock a command fails with exit code 11 if restic's does, and succeeds
/// if restic's does.
#[test]
fn restics_exclusive_lock_is_honoured() {
    let repo = repository();
    let holder = exclusive_restic(&repo);
    let source = repo.beside("source");
    let source = source.to_str().expect("a path");
    let target = repo.beside("out");
    let target = target.to_str().expect("a path");
    let commands: [(&[&str], i32); 9] = [
        (&["backup", source], 11),
        (&["restore", "latest", "--target", target], 11),
        (&["snapshots"], 11),
        (&["ls", "latest"], 11),
        (&["check"], 11),
        (&["forget", "--keep-last", "1"], 11),
        (&["tag", "--add", "x"], 11),
        (&["snapshots", "--no-lock"], 0),
        (&["ls", "latest", "--no-lock"], 0),
    ];
    for (arguments, code) in commands {
        for peer in [Peer::Restic019, Peer::Vsm] {
            let run = repo.run(peer, arguments);
            assert_eq!(run.code(), code, "{peer:?} under restic's exclusive lock\n{run}");
        }
    }
    assert_eq!(repo.lock_files().len(), 1, "refused commands left locks");
    holder.signal(Signal::CONT);
    drop(holder);
}

/// During our backup, restic refuses commands that need an exclusive lock, and runs others.
#[test]
fn our_lock_keeps_restic_from_deleting() {
    let repo = repository();
    let ours = slow_backup(&repo, Peer::Vsm, "slow");
    let lock = &locks(&repo)[0];
    assert_eq!(lock["exclusive"], false, "{lock}");
    assert_eq!(lock["pid"], ours.id().as_raw_nonzero().get(), "{lock}");
    for arguments in [&["prune"][..], &["forget", "--keep-last", "1", "--prune"], &["check"]] {
        repo.run(Peer::Restic019, arguments).exits(11);
    }
    repo.backup(Peer::Restic019, &repo.beside("."), "source", &[]);
    ours.finish().ok();
    assert!(repo.lock_files().is_empty(), "our lock was left");
    repo.run(Peer::Restic019, ["forget", "--keep-last", "1", "--prune"]).ok();
}

/// During a backup of restic's, we refuse commands that need an exclusive lock.
#[test]
fn restics_lock_keeps_us_from_deleting() {
    let repo = repository();
    let theirs = slow_backup(&repo, Peer::Restic019, "slow");
    for arguments in [&["forget", "--keep-last", "1"][..], &["tag", "--add", "x"], &["check"]] {
        repo.run(Peer::Vsm, arguments).exits(11);
    }
    repo.backup(Peer::Vsm, &repo.beside("."), "source", &[]);
    theirs.finish().ok();
    repo.run(Peer::Vsm, ["forget", "--keep-last", "1"]).ok();
}

/// Two backups at the same time, one by each tool, each with data of its own: both snapshots are
/// complete.
#[test]
fn both_tools_back_up_at_the_same_moment() {
    let repo = repository();
    let (mut ours, mut theirs) = (slow_backup(&repo, Peer::Vsm, "ours"), slow_backup(&repo, Peer::Restic019, "theirs"));
    let mut sent = (Random(1).bytes(3000), Random(1).bytes(3000));
    let mut random = Random(3);
    for _ in 0..40 {
        // Half the pieces are the same for both, so that both store the same blobs at once.
        let (common, own) = (random.bytes(400_000), random.bytes(200_000));
        ours.write(&common);
        theirs.write(&common);
        sent.0.extend(&common);
        sent.1.extend(&common);
        theirs.write(&own);
        sent.1.extend(&own);
    }
    ours.must_run();
    theirs.must_run();
    assert_eq!(repo.lock_files().len(), 2);
    ours.finish().ok();
    theirs.finish().ok();
    repo.check(Peer::Restic019).ok();
    repo.check(Peer::Vsm).ok();
    for (name, sent) in [("/ours", sent.0), ("/theirs", sent.1)] {
        for peer in [Peer::Restic019, Peer::Vsm] {
            let dumped = repo.run(peer, ["dump", "latest", "--path", name, name]).ok();
            assert!(dumped.stdout() == sent, "{peer:?} dumps other bytes for {name}");
        }
    }
}

/// A lock whose process is dead still blocks (in restic too), until `unlock` removes it.
#[test]
fn each_tool_unlocks_what_the_other_left() {
    for (dead, cleaner) in [(Peer::Vsm, Peer::Restic019), (Peer::Restic019, Peer::Vsm)] {
        let repo = repository();
        drop(slow_backup(&repo, dead, "killed"));
        assert_eq!(repo.lock_files().len(), 1, "{dead:?} was killed with its lock held");
        for peer in [Peer::Restic019, Peer::Vsm] {
            repo.run(peer, ["forget", "--keep-last", "1"]).exits(11);
        }
        repo.run(cleaner, ["unlock"]).ok();
        assert!(repo.lock_files().is_empty(), "{cleaner:?} left the dead lock of {dead:?}");
        repo.run(dead, ["forget", "--keep-last", "1"]).ok();
    }
}

/// `unlock` keeps the lock of a running process; `--remove-all` removes it.
#[test]
fn unlock_keeps_the_lock_of_a_running_process() {
    for (living, cleaner) in [(Peer::Vsm, Peer::Restic019), (Peer::Restic019, Peer::Vsm)] {
        let repo = repository();
        let _running = slow_backup(&repo, living, "living");
        repo.run(cleaner, ["unlock"]).ok();
        assert_eq!(repo.lock_files().len(), 1, "{cleaner:?} took the lock of a living {living:?}");
        repo.run(cleaner, ["unlock", "--remove-all"]).ok();
        assert!(repo.lock_files().is_empty());
    }
}

/// With `--retry-lock` the command succeeds if the lock is removed in time.
#[test]
fn retry_lock_waits_for_the_lock() {
    let repo = repository();
    let holder = exclusive_restic(&repo);
    let mut command = repo.command(Peer::Vsm);
    command.args(["snapshots", "--retry-lock", "60s"]);
    let mut waiting = Running::start(command);
    waiting.wait_for_error("waiting up to 60 s");
    waiting.must_run();
    holder.signal(Signal::CONT);
    drop(holder);
    repo.run(Peer::Restic019, ["unlock", "--remove-all"]).ok();
    waiting.finish().ok();
}
