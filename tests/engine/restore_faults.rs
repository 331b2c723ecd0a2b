//! Tests restores into targets that fail: an error that the file system reports at `close` or at
//! write-back fails the restore.

use super::work::Pod;
use crate::common::faulty::{At, Faulty};
use crate::common::loops::{LoopFs, run};
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, scratch};
use rustix::io::Errno;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// A snapshot of `v` with files of no chunk, of one and of several.
fn repository() -> Repo {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    fs::create_dir(&volume).expect("a directory");
    fs::write(volume.join("empty"), "").expect("a file");
    fs::write(volume.join("small"), "small").expect("a file");
    fs::write(volume.join("large"), large()).expect("a file");
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    repo
}

fn large() -> Vec<u8> {
    Random(11).bytes(20 << 20)
}

fn restore(repo: &Repo, target: &Path) -> Run {
    repo.restore(Peer::Vsm, "latest", target)
}

#[test]
fn an_error_of_close_fails_the_file() {
    let repo = repository();
    for name in ["empty", "small", "large"] {
        let target = Faulty::new();
        target.fail(format!("v/{name}"), At::Close, Errno::IO);
        let before = SystemTime::now();
        let run = restore(&repo, &target.path()).exits(1);
        assert!(run.errors().contains(&format!("v/{name}: cannot close it")), "{run}");
        let failed = fs::metadata(target.content().join("v").join(name)).and_then(|found| found.modified());
        assert!(failed.expect("a time") > before, "`--overwrite if-changed` must not take it for complete");
        // The other files are complete.
        for (other, content) in [("small", b"small".to_vec()), ("large", large())] {
            assert!(other == name || fs::read(target.content().join("v").join(other)).expect("a file") == content);
        }
    }
}

#[test]
fn an_error_of_close_fails_a_file_that_was_corrected_or_cut() {
    let repo = repository();
    for (name, old) in [("large", vec![7; 20 << 20]), ("empty", b"longer".to_vec())] {
        let target = Faulty::new();
        fs::create_dir(target.path().join("v")).expect("a directory");
        fs::write(target.path().join("v").join(name), old).expect("a file");
        target.fail(format!("v/{name}"), At::Close, Errno::IO);
        let run = restore(&repo, &target.path()).exits(1);
        assert!(run.errors().contains(&format!("v/{name}: cannot")), "{run}");
    }
}

/// NFS reports these errors for a user over quota.
#[test]
fn a_full_disk_that_is_reported_at_close_ends_the_restore() {
    let repo = repository();
    for errno in [Errno::DQUOT, Errno::NOSPC, Errno::ROFS] {
        let target = Faulty::new();
        target.fail("v/large", At::Close, errno);
        let run = restore(&repo, &target.path()).exits(1);
        let said = run.errors();
        assert!(said.contains("Fatal: ") && said.contains("/v/large"), "{run}");
        assert!(!run.text().contains("Summary"), "{run}");
    }
}

/// An ext4 file system on a loop device whose backing file can fail.
struct Failing {
    backing: Faulty,
    mount: PathBuf,
}

impl Failing {
    fn new(mount: PathBuf) -> Failing {
        let backing = Faulty::new();
        let image = backing.path().join("image");
        fs::File::create(&image).and_then(|file| file.set_len(128 << 20)).expect("an image");
        let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", options]).arg(&image));
        fs::create_dir(&mount).expect("a mount point");
        run(Command::new("mount").args(["-o", "loop,errors=continue"]).arg(&image).arg(&mount));
        Failing { backing, mount }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.backing.heal();
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}

/// The kernel accepts the data, and loses it at write-back: on the target's own file system, and on
/// one below it.
#[test]
fn an_error_of_write_back_fails_the_restore() {
    let repo = repository();
    for below in [false, true] {
        let place = scratch();
        let failing = Failing::new(place.path().join("v"));
        let target = if below { place.path().to_owned() } else { failing.mount.join("target") };
        failing.backing.fail("image", At::Write(0), Errno::IO);
        let run = restore(&repo, &target).exits(1);
        let said = run.errors();
        let object = if below { failing.mount.clone() } else { target };
        assert!(said.contains(object.to_str().expect("a path")) && said.contains("may lack data"), "{run}");
    }
}

#[test]
fn a_target_that_cannot_be_written_ends_the_restore() {
    let repo = repository();
    let place = scratch();
    let target = Failing::new(place.path().join("mount"));
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(&target.mount));
    let run = restore(&repo, &target.mount).exits(1);
    assert!(run.errors().contains("Read-only"), "{run}");
}

/// The device fails when the restore writes to it.
#[test]
fn a_device_that_fails_is_named() {
    let repo = Repo::empty(2);
    let source = scratch();
    fs::write(source.path().join("image"), Random(3).bytes(8 << 20)).expect("a file");
    repo.backup(Peer::Restic019, source.path(), "image", &[]);
    let backing = Faulty::new();
    let image = backing.path().join("image");
    fs::File::create(&image).and_then(|file| file.set_len(8 << 20)).expect("an image");
    let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
    let device = device.trim();
    backing.fail("image", At::Write(4 << 20), Errno::IO);
    let run = repo.run(Peer::Vsm, ["restore", "latest:/image", "--target", device]);
    let _ = Command::new("losetup").args(["-d", device]).output();
    let run = run.exits(1);
    assert!(run.errors().contains(device), "{run}");
}

/// Asserts that a mover's restore of `v` into `target` fails for this reason, and reports no
/// restore.
fn mover_fails(repo: &Repo, target: &Path, reason: &str, exit: i32) {
    let pod = Pod::new(repo);
    let report = pod.run(&pod.restore(target, json!("newest")), exit);
    assert_eq!(report["outcome"]["failed"]["reason"], reason, "{report}");
}

/// The faults are those of the command line's tests. Exit code 13: a retry would fail again.
#[test]
fn a_mover_reports_no_restore_into_a_target_that_fails() {
    let repo = repository();
    for (fault, errno, reason, exit) in [
        (At::Write(1 << 20), Errno::DQUOT, "TargetFull", 13),
        (At::Close, Errno::DQUOT, "TargetFull", 13),
        (At::Close, Errno::NOSPC, "TargetFull", 13),
        (At::Write(0), Errno::ROFS, "TargetFailed", 1),
    ] {
        let target = Faulty::new();
        target.fail("v/large", fault, errno);
        mover_fails(&repo, &target.path(), reason, exit);
    }
    // A target that is too small for the files, a disk that fails on writes, and a read-only mount.
    let small = LoopFs::new(12 << 20);
    mover_fails(&repo, small.path(), "TargetFull", 13);
    let place = scratch();
    let failing = Failing::new(place.path().join("failing"));
    failing.backing.fail("image", At::Write(0), Errno::IO);
    mover_fails(&repo, &failing.mount, "TargetFailed", 1);
    let unwritable = Failing::new(place.path().join("unwritable"));
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(&unwritable.mount));
    mover_fails(&repo, &unwritable.mount, "TargetFailed", 1);
}

/// A mover counts the bytes that are in the target, not the planned ones.
#[test]
fn a_mover_does_not_count_the_bytes_of_a_file_that_failed() {
    let repo = repository();
    let target = Faulty::new();
    target.fail("v/large", At::Close, Errno::IO);
    let pod = Pod::new(&repo);
    let report = pod.run(&pod.restore(&target.path(), json!("newest")), 3);
    let restored = &report["outcome"]["restored"];
    // The directory, the empty file and the small one.
    assert_eq!((&restored["files"], &restored["problems"]), (&3.into(), &1.into()), "{report}");
    assert_eq!(restored["bytes"], "small".len(), "{report}");
}
