//! Tests backups of volumes with latency: a backup keeps many operations in flight, and does no
//! more than it needs.
//!
//! The file system itself counts the operations, so that the tests measure no time.

use crate::common::peers::{HOST, Peer, Repo};
use crate::common::slow::Slow;
use crate::common::{Random, scratch};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough that the processor's share of an operation does not matter.
const DELAY: Duration = Duration::from_millis(4);

/// A directory with small files, and a mount point for it.
struct Bed {
    repo: Repo,
    dir: TempDir,
}

impl Bed {
    /// Creates `files` files in each of `dirs` directories.
    fn new(dirs: usize, files: usize) -> Bed {
        let dir = scratch();
        fs::create_dir(dir.path().join("mount")).expect("a mount point");
        let mut random = Random(7);
        for number in 0..dirs {
            let below = dir.path().join(format!("content/d{number}"));
            fs::create_dir_all(&below).expect("a directory");
            for file in 0..files {
                fs::write(below.join(format!("f{file}")), random.bytes(3000)).expect("a file");
            }
        }
        Bed { repo: Repo::empty(2), dir }
    }

    /// Backs up with cold caches, and returns the operations by kind, and the most in flight.
    fn back_up(&self, extra: &[&str]) -> (BTreeMap<&'static str, u64>, usize) {
        let slow = self.mount();
        let mut arguments = vec!["backup", "--json", "--host", HOST, "--volume", "--no-scan"];
        arguments.extend(extra);
        let mount = self.path("mount");
        self.repo.run(Peer::Vsm, arguments.iter().map(AsRef::as_ref).chain([mount.as_os_str()])).ok();
        let found = (slow.counts(), slow.most_in_flight());
        drop(slow);
        found
    }

    fn mount(&self) -> Slow {
        Slow::mount(&self.path("content"), &self.path("mount"), DELAY)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Operations that a caller waits for.
fn waited_for(counts: &BTreeMap<&'static str, u64>) -> u64 {
    let sent_only = ["release", "releasedir"];
    counts.iter().filter(|(kind, _)| !sent_only.contains(kind)).map(|(_, count)| count).sum()
}

#[test]
fn a_backup_keeps_many_operations_in_flight_on_a_volume_with_latency() {
    let bed = Bed::new(60, 30);
    let (_, first) = bed.back_up(&[]);
    assert!(first >= 12, "{first} operations at a time");
    let (_, unchanged) = bed.back_up(&[]);
    assert!(unchanged >= 12, "{unchanged} operations at a time where nothing has changed");
}

#[test]
fn the_entries_of_one_large_directory_are_read_in_parallel() {
    let bed = Bed::new(1, 1500);
    let (_, most) = bed.back_up(&[]);
    assert!(most >= 12, "{most} operations at a time");
}

/// lookup, open, listxattr, read, getattr: the last one detects a change during the read. No
/// operation is repeated.
#[test]
fn a_backup_needs_five_operations_per_file_and_two_if_it_is_unchanged() {
    let (dirs, files) = (20, 50);
    let bed = Bed::new(dirs, files);
    let per_dir = 8 * (dirs as u64 + 1);
    let (counts, _) = bed.back_up(&[]);
    let total = (dirs * files) as u64;
    assert!(waited_for(&counts) <= 5 * total + per_dir + 20, "{counts:?}");
    assert_eq!((counts["open"], counts["read"]), (total, total), "{counts:?}");
    assert!(counts["opendir"] <= dirs as u64 + 2, "{counts:?}");
    let (counts, _) = bed.back_up(&[]);
    assert!(waited_for(&counts) <= 2 * total + per_dir + 20, "{counts:?}");
    assert!(!counts.contains_key("open"), "{counts:?}");
}

/// Mounts `VSM_SLOW_CONTENT` at `VSM_SLOW_MOUNT` with `VSM_SLOW_DELAY` microseconds per operation
/// until it is unmounted, and prints the operations: for measurements by hand.
#[test]
#[ignore = "mounts a file system for measurements by hand, and waits until it is unmounted"]
fn mount_a_slow_file_system_until_it_is_unmounted() {
    let given = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let (content, mount) = (given("VSM_SLOW_CONTENT"), given("VSM_SLOW_MOUNT"));
    let delay = Duration::from_micros(given("VSM_SLOW_DELAY").parse().expect("microseconds"));
    let (counts, most) = Slow::mount(Path::new(&content), Path::new(&mount), delay).until_unmounted();
    println!("{} operations waited for, {most} in flight at most: {counts:?}", waited_for(&counts));
}
