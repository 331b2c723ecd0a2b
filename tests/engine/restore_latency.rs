//! Tests restores onto a file system with latency: many operations are in flight, each file needs
//! few, and the tree is as correct as on a local disk.

use crate::common::compare::{self, Options};
use crate::common::peers::{Peer, Repo};
use crate::common::scratch;
use crate::common::slow::Slow;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough that operations of several threads overlap, even on a busy machine.
const LATENCY: Duration = Duration::from_millis(5);

/// No caller waits for the answers to these operations.
const IN_THE_BACKGROUND: [&str; 3] = ["release", "releasedir", "forget"];

struct Target {
    slow: Slow,
    dir: TempDir,
}

impl Target {
    fn new() -> Target {
        let dir = scratch();
        let (content, mount) = (dir.path().join("content"), dir.path().join("mount"));
        fs::create_dir(&content).expect("a directory");
        fs::create_dir(&mount).expect("a mount point");
        Target { slow: Slow::mount(&content, &mount, LATENCY), dir }
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn content(&self) -> PathBuf {
        self.dir.path().join("content")
    }

    /// The number of operations so far that a caller waited for.
    fn operations(&self) -> u64 {
        let waited_for = |kind: &&str| !IN_THE_BACKGROUND.contains(kind);
        self.slow.counts().iter().filter(|(kind, _)| waited_for(kind)).map(|(_, count)| count).sum()
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("its times can be set");
}

/// Directories of 25 files each.
fn small_files(volume: &Path, directories: usize) -> u64 {
    for directory in 0..directories {
        let directory = volume.join(format!("directory {directory:03}"));
        fs::create_dir_all(&directory).expect("a directory");
        for file in 0..25 {
            let file = directory.join(format!("file {file:02}"));
            fs::write(&file, file.as_os_str().as_encoded_bytes()).expect("a file");
        }
    }
    directories as u64 * 26
}

#[test]
fn many_operations_are_in_flight_and_few_are_needed() {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    let entries = small_files(&volume, 40);
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    for threads in ["1", "4"] {
        let target = Target::new();
        repo.restore_with(Peer::Vsm, "latest", &target.mount().join("t"), &["--threads", threads]).ok();
        compare::assert_same(&volume, &target.content().join("t/v"), Options { root: true, ..Options::default() });
        let most = target.slow.most_in_flight();
        assert!(most >= 8, "{most} were in flight with {threads} threads");
        // A file needs lookup, create, a read of its capabilities at the first write, write, and
        // the times. The kernel's cache expires after 1 s, so that some entries are looked up
        // again.
        let operations = target.operations();
        assert!(operations <= entries * 8, "{operations} for {entries} entries: {:?}", target.slow.counts());
    }
}

/// A wide tree and a deep one with read-only directories, with hard links and symlinks across them,
/// other owners, set-id bits, and files of no chunk and of several.
fn intricate(volume: &Path) {
    let mut directories = vec![volume.to_owned()];
    let mut deep = volume.join("deep");
    for level in 0..40 {
        directories.push(deep.clone());
        deep = deep.join(format!("level {level}"));
    }
    directories.extend((0..40).map(|number| volume.join(format!("wide/{number}/below"))));
    directories.extend((0..40).map(|number| volume.join(format!("wide/{number}"))));
    directories.push(volume.join("wide"));
    let mut first: Option<PathBuf> = None;
    for (number, directory) in directories.iter().enumerate() {
        fs::create_dir_all(directory).expect("a directory");
        fs::write(directory.join("plain"), format!("plain {number}")).expect("a file");
        fs::write(directory.join("empty"), "").expect("a file");
        fs::write(directory.join("hole"), [0; 10_000]).expect("a file");
        symlink("plain", directory.join("symlink")).expect("a symlink");
        match first.as_ref().filter(|_| number % 7 > 0) {
            Some(first) => fs::hard_link(first, directory.join("linked")).expect("a hard link"),
            None => {
                let path = directory.join("linked");
                fs::write(&path, format!("linked {number}")).expect("a file");
                first = Some(path);
            }
        }
        let own = directory.join("own");
        fs::write(&own, "another owner's").expect("a file");
        chown(&own, Some(1000 + number as u32 % 3), Some(2000)).expect("it can be given away");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o6555)).expect("a mode");
        xattr::set(directory.join("plain"), "user.number", number.to_string().as_bytes()).expect("an attribute");
    }
    fs::write(volume.join("wide/large"), crate::common::Random(5).bytes(9 << 20)).expect("a file");
    for (number, directory) in directories.iter().enumerate().rev() {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o555)).expect("a mode");
        for name in ["plain", "empty", "hole", "symlink", "own"] {
            set_time(&directory.join(name), 1_000_000_000 + number as i64);
        }
    }
    // Children before parents, or else the parents' times would change.
    directories.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
    for (number, directory) in directories.iter().enumerate() {
        set_time(directory, 1_100_000_000 + number as i64);
    }
}

#[test]
fn metadata_and_links_are_right_whatever_the_order_of_completion() {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    intricate(&volume);
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    let target = Target::new();
    let into = target.mount().join("t");
    let whole = Options { root: true, ..Options::default() };
    repo.restore(Peer::Vsm, "latest:/v", &into).ok();
    compare::assert_same(&volume, &target.content().join("t"), whole);
    // Restores again over the existing tree, a part of which has changed.
    let content = target.content().join("t");
    fs::write(content.join("wide/3/plain"), "changed").expect("it is written");
    fs::remove_file(content.join("wide/4/symlink")).expect("it is removed");
    fs::write(content.join("wide/5/extra"), "extra").expect("it is written");
    set_time(&content.join("wide/6"), 7);
    for options in [&["--delete"][..], &["--delete", "--verify"], &["--overwrite", "if-changed"]] {
        repo.restore_with(Peer::Vsm, "latest:/v", &into, options).ok();
        compare::assert_same(&volume, &content, whole);
    }
    assert!(target.slow.most_in_flight() >= 16, "{}", target.slow.most_in_flight());
}

/// A default ACL of the target applies to new entries of other programs, not to restored ones.
#[test]
fn an_inherited_acl_does_not_stay_on_restored_entries() {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    small_files(&volume, 2);
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    let target = scratch();
    let into = target.path().join("t");
    fs::create_dir(&into).expect("a directory");
    // Version 2; the owner, user 1000, the group, the mask and all others, as tag, permissions and
    // id.
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    xattr::set(&into, "system.posix_acl_default", &acl).expect("the file system has ACLs");
    repo.restore(Peer::Vsm, "latest", &into).ok();
    compare::assert_same(&volume, &into.join("v"), Options { root: true, ..Options::default() });
    let file = into.join("v/directory 000/file 00");
    assert_eq!(xattr::list(&file).expect("a list").count(), 0);
    assert_eq!(fs::metadata(&file).expect("a file").mode() & 0o777, 0o644);
}
