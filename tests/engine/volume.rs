//! Tests volumes as the mover stores them: one directory `data` with the root's own metadata, which
//! restic restores, too.

use crate::common::compare::{self, Options};
use crate::common::corpus::Corpus;
use crate::common::loops::LoopFs;
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run};
use serde_json::Value;
use std::process::Command;

/// `interop` tests restic's restores of the corpus; here only the root counts.
#[test]
fn restic_restores_a_volumes_root() {
    let corpus = Corpus::shared();
    let repo = Repo::empty(2);
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

/// A repository of VolSync's mover: `restic backup --exclude=lost+found .` in the volume, which is
/// mounted at /data, with the contents at the root of the tree. Our first backup uses it as its
/// parent, one level up, and neither reads nor adds any file again.
#[test]
fn the_first_backup_over_a_root_level_parent_adds_no_data() {
    let corpus = Corpus::new();
    // A root directory in which the volume is /data, for restic alone, with this machine's
    // libraries.
    let root = corpus.parent();
    std::fs::rename(corpus.root(), root.join("data")).expect("renamed");
    std::fs::copy(Peer::Restic019.program(), root.join("restic")).expect("copied");
    std::fs::create_dir(root.join("tmp")).expect("a directory");
    let repo = Repo::at(root.join("repository"));
    repo.init(Peer::Restic019, 2).ok();
    let script = r#"for dir in usr lib lib64; do mkdir "$0/$dir" && mount --bind "/$dir" "$0/$dir" || exit; done
        exec unshare --root "$0" --wd /data /restic "$@""#;
    let mut command = Command::new("unshare");
    command.env_clear().env("RESTIC_REPOSITORY", "/repository").env("RESTIC_PASSWORD", PASSWORD).env("TZ", "UTC");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(root);
    command.args(["backup", "--json", "--no-cache", "--host", HOST, "--exclude=lost+found", "."]);
    let theirs = Run::of(&mut command).ok().summary();
    assert_eq!(repo.snapshots(Peer::Restic019)[0]["paths"][0], "/data");

    let count = |summary: &Value, name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no {name}: {summary}"));
    let files = count(&theirs, "files_new");
    assert!(files > 900, "{theirs}");
    let ours = repo.backup(Peer::Vsm, root, "data", &["--volume", "--exclude=lost+found"]);
    assert_eq!((count(&ours, "files_new"), count(&ours, "files_changed")), (0, 0), "{ours}");
    assert_eq!((count(&ours, "files_unmodified"), count(&ours, "data_blobs")), (files, 0), "{ours}");
    repo.check(Peer::Restic019).ok();
}
