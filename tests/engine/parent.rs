//! Tests backups over a damaged parent snapshot: the damage is reported, the exit code is 3 as in
//! restic, and the new snapshot is whole.

use crate::common::peers::{HOST, Peer, Repo};
use crate::common::{Random, files_below, scratch};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Two directories with a file each, backed up once by restic.
struct Bed {
    repo: Repo,
    source: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        let (repo, source) = (Repo::empty(2), scratch());
        for name in ["a", "b"] {
            fs::create_dir(source.path().join(name)).expect("a directory");
            fs::write(source.path().join(name).join("file"), Random(u64::from(name.as_bytes()[0])).bytes(300_000))
                .expect("a file");
        }
        repo.backup(Peer::Restic019, source.path(), ".", &[]);
        Bed { repo, source }
    }

    /// The packs that hold blobs of this type, according to restic.
    fn packs(&self, ty: &str) -> Vec<PathBuf> {
        let holds = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a pack's id");
            let found = self.repo.run(Peer::Restic019, ["find", "--json", "--pack", name]);
            let found: Value = serde_json::from_slice(found.stdout()).unwrap_or_default();
            found.as_array().is_some_and(|found| found.iter().any(|object| object["object_type"] == ty))
        };
        files_below(&self.repo.path().join("data")).into_iter().filter(holds).collect()
    }

    fn remove(&self, paths: &[PathBuf]) {
        assert!(!paths.is_empty(), "nothing to remove");
        paths.iter().for_each(|path| fs::remove_file(path).expect("it can be removed"));
    }

    /// Runs the next backup with both programs, each on a copy of the repository, and returns our
    /// copy.
    fn compare(&self) -> Repo {
        let theirs = self.repo.copy();
        theirs.try_backup(Peer::Restic019, self.source.path(), ".", &["--no-cache"]).exits(3);
        let ours = self.repo.copy();
        let run = ours.try_backup(Peer::Vsm, self.source.path(), ".", &[]).exits(3);
        assert!(run.errors().contains("parent"), "{run}");
        ours
    }

    fn restores_whole(&self, repo: &Repo, peer: Peer) {
        let target = repo.beside(&format!("by-{peer:?}"));
        repo.restore(peer, "latest", &target).ok();
        for name in ["a/file", "b/file"] {
            let same = |root: &Path| fs::read(root.join(name)).expect("a file");
            assert!(same(&target) == same(self.source.path()), "{name}");
        }
    }
}

#[test]
fn missing_content_is_reported_and_stored_again() {
    let bed = Bed::new();
    bed.remove(&bed.packs("blob"));
    bed.repo.run(Peer::Restic019, ["repair", "index"]).ok();
    let ours = bed.compare();
    for peer in [Peer::Restic019, Peer::Vsm] {
        bed.restores_whole(&ours, peer);
        ours.check(peer).ok();
    }
    // The new snapshot is complete, so the next backup has nothing to report.
    let snapshot = ours.snapshots(Peer::Restic019).pop().expect("a snapshot");
    assert!(snapshot["summary"]["problems"].is_null(), "{snapshot}");
    ours.try_backup(Peer::Vsm, bed.source.path(), ".", &[]).ok();
}

#[test]
fn a_missing_tree_is_reported_and_stored_again() {
    for reindexed in [true, false] {
        let bed = Bed::new();
        bed.remove(&bed.packs("tree"));
        if reindexed {
            bed.repo.run(Peer::Restic019, ["repair", "index"]).ok();
        }
        let ours = bed.repo.copy();
        let run = ours.try_backup(Peer::Vsm, bed.source.path(), ".", &[]).exits(3);
        assert!(run.errors().contains("parent"), "{run}");
        for peer in [Peer::Vsm, Peer::Restic019] {
            bed.restores_whole(&ours, peer);
        }
        ours.try_backup(Peer::Vsm, bed.source.path(), ".", &[]).ok();
    }
}

/// A mover reports a damaged parent, too, because an earlier backup of the volume has lost data.
#[test]
fn a_mover_reports_a_damaged_parent() {
    let bed = Bed::new();
    let pod = super::work::Pod::new(&bed.repo);
    pod.run(&pod.backup(bed.source.path(), "vsb:1"), 0);
    bed.remove(&bed.packs("blob"));
    bed.repo.run(Peer::Restic019, ["repair", "index"]).ok();
    let report = pod.run(&pod.backup(bed.source.path(), "vsb:2"), 3);
    let saved = super::work::saved(&report);
    assert_eq!(saved["problems"], 2, "{report}");
    assert!(report["firstProblems"][0].as_str().is_some_and(|text| text.contains("parent")), "{report}");
    assert_eq!(bed.repo.snapshots(Peer::Restic019).last().expect("a snapshot")["hostname"], HOST);
}

/// A repaired snapshot lacks the lost data, and its restore reports that.
#[test]
fn a_repaired_snapshot_is_incomplete_when_it_is_restored() {
    let bed = Bed::new();
    bed.repo.run(Peer::Vsm, ["forget", "latest"]).ok();
    bed.repo.backup(Peer::Vsm, bed.source.path(), ".", &[]);
    bed.remove(&bed.packs("blob"));
    bed.repo.run(Peer::Restic019, ["repair", "index"]).ok();
    bed.repo.run(Peer::Vsm, ["repair", "snapshots", "--forget"]).ok();
    let run = bed.repo.restore(Peer::Vsm, "latest", &bed.repo.beside("repaired")).exits(3);
    assert!(run.errors().contains('2'), "the number is missing\n{run}");
}
