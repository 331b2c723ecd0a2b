use super::*;
use crate::format::BlobType;
use crate::format::index_file;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::maintain::testing::Fixture;
use crate::progress::{Event, Progress};
use crate::repo::Error;
use crate::store::FileType;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Checks everything. Returns the report, and the problems and hints that were reported.
fn check(fixture: &Fixture) -> (Report, Vec<String>) {
    let repo = fixture.repo();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let progress = Progress::new(move |event| match event {
        Event::Problem(problem) => sink.lock().unwrap().push(format!("{}: {}", problem.item, problem.message)),
        Event::Warning(text) => sink.lock().unwrap().push(format!("hint: {text}")),
        _ => {}
    });
    let mut check = Check::start(&repo, &progress).unwrap();
    check.packs().unwrap();
    check.trees().unwrap();
    check.data(Subset::All).unwrap();
    let report = check.finish();
    let told = told.lock().unwrap().clone();
    (report, told)
}

/// Files below a directory of the repository, the largest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

/// A snapshot with files and directories in a pack of data and a pack of trees.
fn sample() -> Fixture {
    let fixture = Fixture::new();
    let noise: String = (0..20_000u32).map(|n| Id::of(&n.to_le_bytes()).short()).collect();
    let dir = fixture.dir("dir", &[fixture.file("empty", &[]), fixture.file("big", &[&noise, "small"])]);
    let root = fixture.tree(&[dir, Node::new("fifo", NodeType::Fifo)]);
    fixture.snapshot(root);
    fixture.begin();
    fixture
}

fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_repository_has_no_errors() {
    let (report, told) = check(&sample());
    let expected = Report { snapshots: 1, trees: 2, packs: 2, packs_read: 2, ..Report::default() };
    assert_eq!((report, told), (expected, vec![]));
}

#[test]
fn every_flipped_byte_of_a_pack_is_found() {
    let fixture = sample();
    for pack in files(&fixture.path().join("data")) {
        let sound = fs::read(&pack).unwrap();
        let length = sound.len();
        for at in [0, 17, length / 2, length - 60, length - 5, length - 4, length - 1] {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            overwrite(&pack, &damaged);
            let (report, told) = check(&fixture);
            assert!(report.errors > 0 && report.broken_packs.len() == 1, "{at} of {length}: {report:?} {told:?}");
        }
        overwrite(&pack, &sound);
    }
    assert_eq!(check(&fixture).0.errors, 0);
}

#[test]
fn missing_and_short_packs_are_found() {
    let fixture = sample();
    let pack = files(&fixture.path().join("data")).remove(0);
    let sound = fs::read(&pack).unwrap();
    overwrite(&pack, &sound[..sound.len() - 1]);
    let (report, _) = check(&fixture);
    assert!(report.errors > 0 && report.broken_packs.len() == 1);
    fs::remove_file(&pack).unwrap();
    let (report, told) = check(&fixture);
    assert_eq!((report.errors, report.broken_packs.len()), (1, 0), "{told:?}");
}

#[test]
fn without_an_index_blobs_are_missing_and_packs_are_unindexed() {
    let fixture = sample();
    let index = files(&fixture.path().join("index")).remove(0);
    let sound = fs::read(&index).unwrap();
    overwrite(&index, b"not an index");
    let (report, told) = check(&fixture);
    assert!(report.suggest_repair_index && report.suggest_prune && report.errors >= 2, "{told:?}");
    fs::remove_file(&index).unwrap();
    let (report, told) = check(&fixture);
    assert!(!report.suggest_repair_index && report.suggest_prune && report.errors == 1, "{told:?}");
    fs::write(&index, sound).unwrap();
    assert_eq!(check(&fixture).0.errors, 0);
}

#[test]
fn index_files_that_disagree_are_found_and_copies_are_not_errors() {
    let fixture = sample();
    let repo = fixture.repo();
    let (id, _) = repo.store().list(FileType::Index).unwrap()[0];
    let mut packs = crate::repo::index::load_file(&repo, id).unwrap();
    repo.save_written(FileType::Index, |out| index_file::encode(&packs, out)).unwrap();
    let (report, told) = check(&fixture);
    assert!(report.errors == 0 && report.suggest_repair_index && told.len() == 2, "{told:?}");
    packs[0].blobs[0].length += 1;
    repo.save_written(FileType::Index, |out| index_file::encode(&packs, out)).unwrap();
    let (report, told) = check(&fixture);
    assert!(report.errors > 0 && told.iter().any(|text| text.contains("disagree")), "{told:?}");
}

#[test]
fn every_fault_of_a_tree_is_reported() {
    let fixture = Fixture::new();
    let file = |name: &str| Node { content: Some(vec![].into()), ..Node::new(name, NodeType::File) };
    let json = |nodes: &[Node]| {
        let mut json = b"{\"nodes\":[".to_vec();
        for (number, node) in nodes.iter().enumerate() {
            json.extend_from_slice(if number > 0 { b"," } else { b"" });
            node.write_json(&mut json);
        }
        json.extend_from_slice(b"]}\n");
        json
    };
    let missing = Id::of(b"missing");
    for (nodes, expected) in [
        (vec![file("a"), file("a")], "occurs twice"),
        (vec![file("b"), file("a")], "out of order"),
        (vec![file("..")], "not a valid name"),
        (vec![file("a/b")], "not a valid name"),
        (vec![Node::new("d", NodeType::Dir)], "a directory without a tree"),
        (vec![Node { subtree: Some(Id::NULL), ..Node::new("d", NodeType::Dir) }], "a directory without a tree"),
        (vec![Node { subtree: Some(missing), ..Node::new("d", NodeType::Dir) }], "in no index"),
        (vec![Node::new("f", NodeType::File)], "without a list of contents"),
        (vec![Node { content: Some(vec![missing].into()), ..file("f") }], "in no index"),
        (vec![Node::new("u", NodeType::Unknown)], "of an unknown type"),
    ] {
        let root = fixture.blob(BlobType::Tree, &json(&nodes));
        let snapshot = fixture.snapshot(root);
        let (report, told) = check(&fixture);
        assert!(report.errors == 1 && told[0].contains(expected), "{expected}: {told:?}");
        fixture.repo().remove_snapshot(snapshot).unwrap();
    }
    fixture.snapshot(fixture.blob(BlobType::Tree, &json(&[Node { size: 5, ..file("f") }])));
    let (report, told) = check(&fixture);
    assert!(report.errors == 0 && told[0].contains("its contents have 0"), "{told:?}");
    fixture.snapshot(fixture.blob(BlobType::Tree, b"{\"nodes\":[{]}"));
    assert_eq!(check(&fixture).0.errors, 1);
    fixture.snapshot(missing);
    assert_eq!(check(&fixture).0.errors, 2);
}

#[test]
fn each_distinct_tree_is_read_once() {
    let fixture = Fixture::new();
    let node = |name: &str, id| Node { subtree: Some(id), ..Node::new(name, NodeType::Dir) };
    let mut bomb = fixture.tree(&[]);
    for _ in 0..40 {
        bomb = fixture.tree(&[node("a", bomb), node("b", bomb)]);
    }
    fixture.snapshot(bomb);
    assert_eq!(check(&fixture).0, Report { snapshots: 1, trees: 41, packs: 1, packs_read: 1, ..Report::default() });
    let mut deep = fixture.tree(&[]);
    for _ in 0..10_000 {
        deep = fixture.tree(&[node("d", deep)]);
    }
    fixture.snapshot(deep);
    let (report, told) = check(&fixture);
    assert_eq!((report.errors, report.trees), (0, 10_041), "{told:?}");
}

#[test]
fn a_check_can_be_interrupted() {
    let fixture = sample();
    let repo = fixture.repo();
    let progress = Progress::silent();
    let mut check = Check::start(&repo, &progress).unwrap();
    check.packs().unwrap();
    progress.interrupt();
    assert!(matches!(check.trees(), Err(Error::Interrupted)));
    assert!(matches!(check.data(Subset::All), Err(Error::Interrupted)));
}
