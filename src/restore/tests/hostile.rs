//! Snapshots that are damaged, or made to do harm.

use super::*;
use crate::store::{File, FileType};

/// An entry of the target that no restore may delete while names cannot be trusted.
fn with_bystander(bed: &Bed) {
    fs::create_dir_all(bed.target()).unwrap();
    fs::write(bed.at("bystander"), "x").unwrap();
}

#[test]
fn names_that_are_no_names_are_skipped_and_stop_deletion() {
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
        let report = bed.restore(root, |options| options.delete = true).lacking(&["is no name"; 4]);
        assert_eq!((report.total_files, report.files_restored, report.files_deleted), (1, 1, 0), "{name:?}");
        assert_eq!(fs::read_dir(bed.target()).unwrap().count(), 2, "{name:?}");
        assert_eq!(fs::read(bed.at("good")).unwrap(), b"good");
        // The one entry that was asked for is no better.
        if !name.contains('/') && !name.is_empty() && name != "." {
            let told = bed.restore_path(root, name, |_| {});
            assert!(told.problems.iter().all(|problem| problem.contains("is no name")), "{:?}", told.problems);
            assert!(matches!(told.outcome, Err(Error::NotRestored { .. })), "{name:?}");
        }
    }
}

#[test]
fn of_two_entries_with_one_name_the_first_is_restored() {
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
fn a_tree_that_doubles_without_end_is_refused_before_anything_is_made() {
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
fn a_plan_that_outgrows_its_memory_is_refused_before_anything_is_made() {
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
fn a_tree_deeper_than_paths_of_one_call_comes_back() {
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
    // The file system's own word, one level at a time.
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
    // What is deep is compared, corrected and deleted, too.
    fs::write(format!("/proc/self/fd/{}/leaf", std::os::fd::AsRawFd::as_raw_fd(&below)), "wrong").unwrap();
    fs::write(format!("/proc/self/fd/{}/extra", std::os::fd::AsRawFd::as_raw_fd(&below)), "").unwrap();
    let report = bed.restore(root, |options| options.delete = true).whole();
    assert_eq!((report.files_deleted, report.bytes_restored), (1, 5));
    assert_eq!(std::io::read_to_string(open(&below, "leaf")).unwrap(), "right");
    // Too deep for the ways of removing it that go by path.
    let removed = std::process::Command::new("rm").arg("-rf").arg(bed.target()).status().unwrap();
    assert!(removed.success());
}

#[test]
fn a_size_that_is_not_that_of_the_content_is_told_and_not_believed() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let sized = |name: &str, size| Node { size, ..blobs.file(name, &[b"content"]) };
        blobs.tree(vec![sized("huge", u64::MAX), sized("small", 1), sized("right", 7)])
    });
    let report =
        bed.restore(root, |options| options.verify = true).lacking(&["/huge: the snapshot gives it", "/small: the"]);
    assert_eq!(report.bytes_restored, 21);
    for path in ["huge", "small", "right"] {
        assert_eq!(fs::read(bed.at(path)).unwrap(), b"content");
    }
}

#[test]
fn nodes_that_lack_something_are_problems_of_their_own() {
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
        "is no name",
        "/empty link: cannot create it",
        "nnn: cannot look at it",
    ]);
    assert_eq!(fs::read(bed.at("zero")).unwrap(), b"last");
    assert_eq!(mtime(&bed.at("zero")), STAMP, "the numbers of both walks agree");
    assert!(bed.at("unreadable/kept").exists(), "nobody knows what is in it");
    assert!(!bed.at("missing").exists());
    assert_eq!(report.files_restored, 2);
}

#[test]
fn a_damaged_tree_gives_what_comes_before_the_damage() {
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
fn a_damaged_blob_costs_only_the_files_that_have_it() {
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
    assert_ne!(mtime(&bed.at("part")), STAMP, "nothing will take it for whole");
    assert_eq!(&fs::read(bed.at("part")).unwrap()[7..], b"more");
}

#[test]
fn another_copy_stands_in_for_a_damaged_or_missing_one() {
    let bed = Bed::new();
    let root = bed.store(|blobs| blobs.tree(vec![blobs.file("file", &[b"kept twice"])]));
    // A second writer that does not know of the first: as when two backups run at once.
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
fn without_the_root_s_tree_there_is_no_restore() {
    let bed = Bed::new();
    let absent = Id::of(b"absent");
    let error = bed.restore(absent, |_| {}).outcome.unwrap_err();
    assert!(error.to_string().contains(&absent.to_string()), "{error}");
    assert!(!bed.target().exists());
}
