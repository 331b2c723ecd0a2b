//! Tests with damaged and malicious snapshots.

use super::*;
use crate::store::{File, FileType};

/// Creates an entry in the target that no restore may delete while names cannot be trusted.
fn with_bystander(bed: &Bed) {
    fs::create_dir_all(bed.target()).unwrap();
    fs::write(bed.at("bystander"), "x").unwrap();
}

#[test]
fn invalid_names_are_skipped_and_prevent_deletion() {
    let bed = Bed::new();
    let absolute = bed.outside().join("new").display().to_string();
    for name in ["", ".", "..", "../outside/new", "a/b", "/", &absolute, "a\0b", "dir/../../outside/new"] {
        let root = bed.store(|blobs| {
            let below = blobs.tree(vec![blobs.file("file", &[b"x"])]);
            blobs.wild_tree(&[
                blobs.file(name, &[b"evil"]),
                link(name, "/etc/passwd"),
                dir(name, below),
                node(name, NodeType::Fifo, 0o777),
                blobs.file("good", &[b"good"]),
            ])
        });
        let _ = fs::remove_dir_all(bed.target());
        with_bystander(&bed);
        let report = bed.restore(root, |options| options.delete = true).lacking(&["is not a valid name"; 4]);
        assert_eq!((report.total_files, report.files_restored, report.files_deleted), (1, 1, 0), "{name:?}");
        assert_eq!(fs::read_dir(bed.target()).unwrap().count(), 2, "{name:?}");
        assert_eq!(fs::read(bed.at("good")).unwrap(), b"good");
        // An invalid name is refused even if it is the only requested entry.
        if !name.contains('/') && !name.is_empty() && name != "." {
            let told = bed.restore_path(root, name, |_| {});
            assert!(told.problems.iter().all(|problem| problem.contains("is not a valid name")), "{:?}", told.problems);
            assert!(matches!(told.outcome, Err(Error::NotRestored { .. })), "{name:?}");
        }
    }
}

#[test]
fn the_first_of_two_entries_with_one_name_is_restored() {
    let bed = Bed::new();
    let outside = bed.outside().display().to_string();
    let root = bed.store(|blobs| {
        let below = blobs.tree(vec![blobs.file("file", &[b"overwritten"]), blobs.file("new", &[b"x"])]);
        blobs.wild_tree(&[link("a", &outside), dir("a", below), dir("b", below), link("b", &outside)])
    });
    with_bystander(&bed);
    bed.restore(root, |options| options.delete = true).lacking(&["/a: the snapshot has this name twice", "/b: the"]);
    assert!(fs::symlink_metadata(bed.at("a")).unwrap().is_symlink());
    assert_eq!(fs::read(bed.at("b/new")).unwrap(), b"x");
    assert!(bed.at("bystander").exists());
}

#[test]
fn planted_symlinks_are_replaced_and_never_followed() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let below = blobs.tree(vec![blobs.file("file", &[b"inside"]), dir("sub", blobs.tree(vec![]))]);
        blobs.tree(vec![dir("dir", below), blobs.file("top", &[b"top"]), node("fifo", NodeType::Fifo, 0o600)])
    });
    fs::create_dir(bed.target()).unwrap();
    symlink(bed.outside(), bed.at("dir")).unwrap();
    symlink("../outside/file", bed.at("top")).unwrap();
    symlink("../outside/file", bed.at("fifo")).unwrap();
    symlink("../outside", bed.at("extra")).unwrap();
    bed.restore(root, |options| options.delete = true).whole();
    assert_eq!(fs::read(bed.at("dir/file")).unwrap(), b"inside");
    assert_eq!(fs::read_dir(bed.target()).unwrap().count(), 3);
}

#[test]
fn a_tree_that_doubles_at_each_level_is_refused_before_anything_is_created() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let mut tree = blobs.tree(vec![blobs.file("leaf", &[b"x"])]);
        for _ in 0..40 {
            tree = blobs.tree(vec![dir("a", tree), dir("b", tree)]);
        }
        tree
    });
    for include in [&[][..], &["leaf"]] {
        let error = bed.restore(root, |options| options.include = patterns(include)).outcome.unwrap_err();
        assert!(
            matches!(error, Error::TooManyEntries { entries, .. } if entries == (2 << 40) - 2 + (1 << 40)),
            "{error}"
        );
    }
    assert!(!bed.target().exists());
}

#[test]
fn a_plan_that_exceeds_its_memory_is_refused_before_anything_is_created() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let many = (0..1000).map(|number| blobs.file(&format!("{number:04}"), &[b"x", b"x", b"x"])).collect();
        blobs.tree(vec![dir("many", blobs.tree(many))])
    });
    let error = bed.restore(root, |options| options.plan_memory = 50_000).outcome.unwrap_err();
    assert!(matches!(error, Error::PlanTooLarge { max: 50_000 }), "{error}");
    assert!(!bed.target().exists());
    bed.restore(root, |options| options.plan_memory = 500_000).whole();
}

#[test]
fn a_tree_deeper_than_the_path_limit_of_system_calls_is_restored() {
    const LEVELS: usize = 40;
    let bed = Bed::new();
    let name = "d".repeat(250);
    let root = bed.store(|blobs| {
        let mut tree = blobs.tree(vec![blobs.file("leaf", &[b"right"]), link("link", "leaf")]);
        for _ in 0..LEVELS {
            tree = blobs.tree(vec![dir(&name, tree), blobs.file("f", &[b"x"])]);
        }
        tree
    });
    bed.restore(root, |options| options.verify = true).whole();
    // The result is read one level at a time, without the code under test.
    let mut below = fs::File::open(bed.target()).unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let open = |at: &fs::File, name: &str| {
        fs::File::from(rustix::fs::openat(at, name, flags, rustix::fs::Mode::empty()).unwrap())
    };
    for _ in 0..LEVELS {
        assert_eq!(std::io::read_to_string(open(&below, "f")).unwrap(), "x");
        below = open(&below, &name);
    }
    let found = below.metadata().unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec()), STAMP);
    assert_eq!(std::io::read_to_string(open(&below, "link")).unwrap(), "right");
    // Deep entries are compared, corrected and deleted, too.
    fs::write(format!("/proc/self/fd/{}/leaf", std::os::fd::AsRawFd::as_raw_fd(&below)), "wrong").unwrap();
    fs::write(format!("/proc/self/fd/{}/extra", std::os::fd::AsRawFd::as_raw_fd(&below)), "").unwrap();
    let report = bed.restore(root, |options| options.delete = true).whole();
    assert_eq!((report.files_deleted, report.bytes_restored), (1, 5));
    assert_eq!(std::io::read_to_string(open(&below, "leaf")).unwrap(), "right");
    // The tree is too deep to be removed by path.
    let removed = std::process::Command::new("rm").arg("-rf").arg(bed.target()).status().unwrap();
    assert!(removed.success());
}

#[test]
fn a_size_that_differs_from_the_content_is_reported_and_ignored() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let sized = |name: &str, size| Node { size, ..blobs.file(name, &[b"content"]) };
        blobs.tree(vec![sized("huge", u64::MAX), sized("small", 1), sized("right", 7)])
    });
    let report =
        bed.restore(root, |options| options.verify = true).lacking(&["/huge: the snapshot records", "/small: the"]);
    assert_eq!(report.bytes_restored, 21);
    for path in ["huge", "small", "right"] {
        assert_eq!(fs::read(bed.at(path)).unwrap(), b"content");
    }
}

#[test]
fn each_incomplete_node_is_a_problem_of_its_own() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        blobs.tree(vec![
            Node { content: None, ..blobs.file("contentless", &[]) },
            Node { content: Some(vec![Id::of(b"nowhere")].into()), size: 9, ..blobs.file("missing", &[]) },
            node("treeless", NodeType::Dir, 0o755),
            dir("unreadable", Id::of(b"no tree")),
            node("newer", NodeType::Unknown, 0o644),
            link("nul\0", "a\0b"),
            link("empty link", ""),
            blobs.file(&"n".repeat(300), &[b"x"]),
            blobs.file("zero", &[b"last"]),
        ])
    });
    fs::create_dir_all(bed.at("unreadable/kept")).unwrap();
    let report = bed.restore(root, |options| options.delete = true).lacking(&[
        "/contentless: the snapshot lists no content",
        "/missing: data blob",
        "/treeless: the snapshot names no tree",
        "/unreadable: tree blob",
        "/newer: entries of type unknown",
        "is not a valid name",
        "/empty link: cannot create it",
        "nnn: cannot look at it",
    ]);
    assert_eq!(fs::read(bed.at("zero")).unwrap(), b"last");
    assert_eq!(mtime(&bed.at("zero")), STAMP, "the numbers of both walks agree");
    assert!(bed.at("unreadable/kept").exists(), "the content of an unreadable directory is unknown");
    assert!(!bed.at("missing").exists());
    assert_eq!(report.files_restored, 2);
}

#[test]
fn entries_before_the_damage_of_a_tree_are_restored() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let good = blobs.file("good", &[b"good"]);
        let mut json = b"{\"nodes\":[".to_vec();
        good.write_json(&mut json);
        json.extend_from_slice(b",{\"name\":\"cut off");
        blobs.tree(vec![dir("dir", blobs.json(&json)), blobs.file("z", &[b"z"])])
    });
    fs::create_dir_all(bed.at("dir/kept")).unwrap();
    bed.restore(root, |options| options.delete = true).lacking(&["/dir: the end of tree"]);
    assert_eq!(fs::read(bed.at("dir/good")).unwrap(), b"good");
    assert!(bed.at("dir/kept").exists());
    assert_eq!(mtime(&bed.at("z")), STAMP);
}

/// Flips a bit in the middle of a blob's sealed bytes.
fn damage(bed: &Bed, id: Id) {
    let index = Index::load(&bed.repo).unwrap();
    let location = index.first(BlobType::Data, id).unwrap();
    let pack = location.pack.to_string();
    let path = bed.temp.path().join("repo/data").join(&pack[..2]).join(&pack);
    let mut bytes = fs::read(&path).unwrap();
    bytes[location.blob.offset as usize + 20] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_blob_affects_only_the_files_that_contain_it() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let linked = |name: &str| Node { links: 2, inode: 5, ..blobs.file(name, &[b"bad"]) };
        blobs.tree(vec![
            blobs.file("whole", &[b"good"]),
            blobs.file("part", &[b"good", b"bad", b"more"]),
            linked("name"),
            linked("other name"),
            blobs.file("last", &[b"more"]),
        ])
    });
    damage(&bed, Id::of(b"bad"));
    let expected = ["/part: data blob", "/name: data blob", "/other name: it is a hard link to /name"];
    let report = bed.restore(root, |options| options.verify = true).lacking(&expected);
    assert_eq!((report.files_restored, report.bytes_restored), (2, 8));
    assert_eq!(fs::read(bed.at("whole")).unwrap(), b"good");
    assert_eq!(mtime(&bed.at("last")), STAMP);
    assert_ne!(mtime(&bed.at("part")), STAMP, "an incomplete file must not look complete");
    assert_eq!(&fs::read(bed.at("part")).unwrap()[7..], b"more");
}

#[test]
fn another_copy_replaces_a_damaged_or_missing_one() {
    let bed = Bed::new();
    let root = bed.store(|blobs| blobs.tree(vec![blobs.file("file", &[b"kept twice"])]));
    // A second writer that does not know of the first stores the blob again, as in two concurrent
    // backups.
    let blind = Blobs(Writer::new(bed.repo.clone(), Arc::new(Index::from_packs(vec![])), WriteMode::Upload).unwrap());
    blind.data(b"kept twice");
    blind.0.finish().unwrap();
    let id = Id::of(b"kept twice");
    assert_eq!(Index::load(&bed.repo).unwrap().find(BlobType::Data, id).len(), 2);
    damage(&bed, id);
    bed.restore(root, |_| {}).whole();
    assert_eq!(fs::read(bed.at("file")).unwrap(), b"kept twice");
    fs::remove_dir_all(bed.target()).unwrap();
    let pack = Index::load(&bed.repo).unwrap().first(BlobType::Data, id).unwrap().pack;
    bed.repo.store().remove(File::new(FileType::Pack, pack)).unwrap();
    bed.restore(root, |_| {}).whole();
}

#[test]
fn a_missing_root_tree_is_an_error_and_nothing_is_created() {
    let bed = Bed::new();
    let absent = Id::of(b"absent");
    let error = bed.restore(absent, |_| {}).outcome.unwrap_err();
    assert!(error.to_string().contains(&absent.to_string()), "{error}");
    assert!(!bed.target().exists());
}
