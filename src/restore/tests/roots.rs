//! Tests that a failure of the requested root is an error, never one problem among others.

use super::*;

/// A tree whose list of entries is truncated after the one entry `good`.
fn broken_off(bed: &Bed) -> Id {
    bed.store(|blobs| {
        let mut json = b"{\"nodes\":[".to_vec();
        blobs.file("good", &[b"good"]).write_json(&mut json);
        json.extend_from_slice(b",{\"name\":\"cut off");
        blobs.json(&json)
    })
}

#[test]
fn a_truncated_root_is_an_error_after_its_readable_entries_are_restored() {
    let bed = Bed::new();
    let tree = broken_off(&bed);
    let volume = bed.store(|blobs| blobs.tree(vec![dir("data", tree)]));
    for (root, path) in [(tree, ""), (volume, "volume"), (volume, "data")] {
        let told = bed.restore_path(root, path, |options| options.volume = path == "volume");
        let error = told.outcome.unwrap_err();
        assert!(matches!(&error, Error::RootDamaged { why } if why.contains(&tree.to_string())), "{path}: {error}");
        assert_eq!(fs::read(bed.at("good")).unwrap(), b"good", "{path}");
        assert_eq!(mtime(&bed.at("good")), STAMP, "{path}");
        fs::remove_dir_all(bed.target()).unwrap();
    }
}

#[test]
fn a_volume_whose_directory_has_no_tree_is_an_error() {
    let bed = Bed::new();
    let absent = Id::of(b"absent");
    let (treeless, missing) = bed.store(|blobs| {
        let treeless = blobs.tree(vec![node("data", NodeType::Dir, 0o755)]);
        (treeless, blobs.tree(vec![dir("data", absent)]))
    });
    for (root, word) in [(treeless, "names no tree".to_owned()), (missing, absent.to_string())] {
        let told = bed.restore_path(root, "volume", |options| options.volume = true);
        let error = told.outcome.unwrap_err().to_string();
        assert!(error.contains(&word), "{error}");
        assert!(!bed.target().exists());
    }
}

#[test]
fn the_restore_fails_if_the_only_requested_entry_is_not_restored() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let missing = Node { content: Some(vec![Id::of(b"nowhere")].into()), size: 9, ..blobs.file("missing", &[]) };
        blobs.tree(vec![missing, node("socket", NodeType::Socket, 0o600), blobs.file("good", &[b"x"])])
    });
    for path in ["missing", "socket"] {
        let error = bed.restore_path(root, path, |_| {}).outcome.unwrap_err();
        assert!(matches!(&error, Error::NotRestored { path: named } if named.contains(path)), "{error}");
    }
    bed.restore_path(root, "good", |_| {}).whole();
    // The entry exists in the target, or it is not selected.
    bed.restore_path(root, "good", |options| options.overwrite = Overwrite::Never).whole();
    bed.restore_path(root, "good", |options| options.exclude = patterns(&["good"])).whole();
}

#[test]
fn a_pattern_that_matches_nothing_is_reported() {
    let bed = Bed::new();
    let root = sample(&bed);
    let told = bed.restore(root, |options| options.include = patterns(&["nowhere"]));
    assert!(told.warnings.iter().any(|text| text.contains("include")), "{:?}", told.warnings);
    assert_eq!(told.whole().total_files, 0);
}

/// A directory that no file system of Linux accepts: its name has more than 255 bytes. It contains
/// a directory and two files.
fn unmakeable(blobs: &Blobs) -> Node {
    let below = blobs.tree(vec![blobs.file("deep", &[b"deep"])]);
    dir(&"d".repeat(300), blobs.tree(vec![dir("below", below), blobs.file("file", &[b"x"])]))
}

#[test]
fn a_target_that_refuses_every_entry_is_an_error() {
    let bed = Bed::new();
    let root = bed.store(|blobs| blobs.tree(vec![unmakeable(blobs)]));
    let told = bed.restore(root, |_| {});
    let error = told.outcome.unwrap_err();
    assert!(
        matches!(&error, Error::NothingTaken { entries: 4, why, .. } if why.contains("cannot create the directory")),
        "{error}"
    );
    assert_eq!(told.problems.len(), 1, "{:?}", told.problems);
}

#[test]
fn entries_below_a_directory_that_cannot_be_created_are_counted() {
    let bed = Bed::new();
    let root = bed.store(|blobs| blobs.tree(vec![unmakeable(blobs), blobs.file("good", &[b"x"])]));
    let report = bed.restore(root, |_| {}).lacking(&["cannot create the directory"]);
    assert_eq!((report.total_files, report.files_done(), report.problems_by_entry()), (5, 1, 4));
}

#[test]
fn a_snapshot_without_readable_entries_is_an_error() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let missing = Node { content: Some(vec![Id::of(b"nowhere")].into()), size: 9, ..blobs.file("missing", &[]) };
        blobs.tree(vec![missing])
    });
    let error = bed.restore(root, |_| {}).outcome.unwrap_err();
    assert!(matches!(error, Error::NothingUsable { entries: 1 }), "{error}");
}

#[test]
fn an_error_that_affects_every_entry_ends_the_restore() {
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::NOTCONN, Errno::STALE] {
        assert!(Error::of_target("create", "/x".into(), errno).is_some(), "{errno}");
    }
    for errno in [Errno::ACCESS, Errno::PERM, Errno::NAMETOOLONG, Errno::IO] {
        assert!(Error::of_target("create", "/x".into(), errno).is_none(), "{errno}");
    }
}

#[test]
fn an_image_whose_size_differs_from_its_content_is_refused() {
    let bed = Bed::new();
    let node = bed.store(|blobs| blobs.file("image", &[b"first ", b"second"]));
    let index = Index::load(&bed.repo).unwrap();
    let plan = |node: &Node| Image::plan(&index, node, ALL).unwrap();
    assert!(plan(&node).is_ok());
    for (size, content) in [(10 << 30, Some(vec![].into())), (11, node.content.clone()), (13, node.content.clone())] {
        let why = plan(&Node { size, content, ..node.clone() }).err().unwrap();
        assert!(why.contains(&format!("{size} bytes")), "{why}");
    }
    // No name is too long, because the device has its own.
    assert!(plan(&Node { name: vec![b'n'; 1 << 17], ..node.clone() }).is_ok());
    // The size determines the offsets of the content behind a lost blob.
    let content = node.content.as_ref().map(|content| {
        let ids = content.range(0..2);
        vec![ids[0], Id::of(b"nowhere"), ids[1]].into()
    });
    let image = plan(&Node { size: 20, content, ..node }).unwrap();
    assert_eq!((image.lost, image.pieces), (8, 1));
}
