//! A volume as the mover stores it: one directory `data` with the root's own metadata, which restic restores too.

use crate::common::compare::{self, Options};
use crate::common::corpus::Corpus;
use crate::common::loops::LoopFs;
use crate::common::peers::{Peer, Repo};
use serde_json::Value;

/// What a restore by restic leaves of the corpus is known from `interop`: its root is what counts here.
#[test]
fn restic_restores_a_volumes_root() {
    let corpus = Corpus::shared();
    let repo = Repo::made_by(Peer::Vsm, 2);
    repo.backup(Peer::Vsm, corpus.root().as_path(), ".", &["--volume"]);
    let nodes = repo.tree(&repo.newest_tree());
    assert_eq!(nodes.iter().map(|node| node["name"].clone()).collect::<Vec<_>>(), ["data"], "{nodes:?}");
    for reader in [Peer::Restic019, Peer::Restic014, Peer::Vsm] {
        let fs = LoopFs::new(512 << 20);
        repo.restore(reader, "latest", fs.path()).ok();
        let found = compare::trees(&corpus.root(), &fs.path().join("data"), Options { root: true, holes: false });
        let (root, _): (Vec<_>, Vec<_>) = found.iter().cloned().partition(|one| one.path.as_os_str() == ".");
        assert!(root.is_empty(), "{reader:?} restored\n{}", compare::listed(&root));
        let names: Vec<_> =
            found.iter().filter(|one| one.what == compare::What::Missing).map(|one| &one.path).collect();
        assert_eq!(names, [std::path::Path::new("special/socket")], "{reader:?}");
    }
}

/// A repository that VolSync's mover made: `restic backup --host … .` in the volume, with the contents at the root of the
/// tree. Our first backup takes it as its parent, one level up, and reads and adds no file again.
#[test]
fn the_first_backup_over_a_root_level_parent_adds_no_data() {
    let corpus = Corpus::shared();
    let repo = Repo::made_by(Peer::Restic019, 2);
    let theirs = repo.backup(Peer::Restic019, &corpus.root(), ".", &["--exclude=lost+found"]);
    let count = |summary: &Value, name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no {name}: {summary}"));
    let files = count(&theirs, "files_new");
    assert!(files > 900, "{theirs}");
    // VolSync mounts a volume at /data, so that both record the same path; here the parent has the test's own.
    let ours = repo.backup(Peer::Vsm, &corpus.root(), ".", &["--volume", "--exclude=lost+found", "--group-by=host"]);
    assert_eq!((count(&ours, "files_new"), count(&ours, "files_changed")), (0, 0), "{ours}");
    assert_eq!((count(&ours, "files_unmodified"), count(&ours, "data_blobs")), (files, 0), "{ours}");
    repo.check(Peer::Restic019).ok();
}
