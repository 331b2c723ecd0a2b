//! Tests that completed operations survive a power loss, on a file system that keeps unsynced data
//! in memory only.

use crate::common::compare::{self, Options};
use crate::common::corpus::Corpus;
use crate::common::loops::LoopFs;
use crate::common::peers::{Peer, Repo};
use crate::common::scratch;
use std::fs;
use std::path::Path;

/// The disk after a power loss at this moment. Asserts that an unsynced file is not on it.
fn after_power_loss(fs: &LoopFs) -> LoopFs {
    let unsynced = fs.path().join("unsynced");
    fs::write(&unsynced, [7; 100_000]).expect("a file");
    let after = fs.after_power_loss();
    let kept = fs::read(after.path().join("unsynced")).is_ok_and(|kept| kept == [7; 100_000]);
    assert!(!kept, "the file system wrote an unsynced file, so this test proves nothing");
    fs::remove_file(unsynced).expect("a removal");
    after
}

fn demand_sound(repository: &Path, snapshots: usize) {
    let repo = Repo::at(repository);
    // Orphans may reappear after the power loss: the lock of a process that has ended, and packs
    // that a prune removed.
    repo.run(Peer::Restic019, ["unlock", "--remove-all"]).ok();
    repo.run(Peer::Restic019, ["check", "--read-data", "--no-lock"]).ok();
    assert_eq!(repo.snapshots(Peer::Restic019).len(), snapshots);
}

#[test]
fn completed_commands_on_a_folder_survive_a_power_loss() {
    let corpus = Corpus::shared();
    let name = corpus.root().file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    let fs = LoopFs::new(2 << 30);
    let repo = Repo::at(fs.path().join("repo"));
    let kept = |snapshots| demand_sound(&after_power_loss(&fs).path().join("repo"), snapshots);
    repo.init(Peer::Vsm, 2).ok();
    kept(0);
    repo.backup(Peer::Vsm, corpus.parent(), &name, &[]);
    kept(1);
    repo.backup(Peer::Vsm, corpus.parent(), &name, &["--exclude", "*.bin", "--force"]);
    repo.run(Peer::Vsm, ["forget", "latest"]).ok();
    kept(1);
    repo.run(Peer::Vsm, ["prune", "--max-unused", "0"]).ok();
    kept(1);
}

#[test]
fn a_completed_restore_survives_a_power_loss() {
    let corpus = Corpus::shared();
    let repo = Repo::empty(2);
    repo.backup(Peer::Vsm, &corpus.root(), ".", &[]);
    let fs = LoopFs::new(2 << 30);
    let target = fs.path().join("target");
    repo.restore(Peer::Vsm, "latest", &target).ok();
    let after = after_power_loss(&fs);
    compare::assert_only_the_socket_is_missing(&corpus.root(), &after.path().join("target"), Options::default());
}

#[test]
fn a_restore_onto_a_file_system_below_the_target_survives_a_power_loss() {
    let repo = Repo::empty(2);
    let source = scratch();
    fs::create_dir(source.path().join("mount")).expect("a directory");
    fs::write(source.path().join("mount/file"), [9; 100_000]).expect("a file");
    repo.backup(Peer::Vsm, source.path(), ".", &[]);
    let fs = LoopFs::new(64 << 20);
    assert_eq!(fs.path().file_name().expect("a name"), "mount");
    repo.restore(Peer::Vsm, "latest", fs.path().parent().expect("the target")).ok();
    let after = after_power_loss(&fs);
    assert!(std::fs::read(after.path().join("file")).is_ok_and(|content| content == [9; 100_000]));
}
