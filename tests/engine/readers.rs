//! Tests that commands that read report each damaged object with its snapshot and path, continue
//! with the healthy rest, and end with exit code 3. The expected rest is that of restic in the
//! repository before the damage.

use crate::common::peers::{PASSWORD, Peer, Repo, Run};
use crate::common::{files_below, scratch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use vsm::format::BlobType;
use vsm::id::Id;
use vsm::repo::{Index, Password, Repository, Settings, TreeReader};

/// Two snapshots that share only the name of their root: `old` of `e`, and `new` of `d`, in which
/// `sub` is a directory.
struct Bed {
    repo: Repo,
    old: String,
    new: String,
}

/// The place of a sealed blob.
struct Sealed {
    pack: PathBuf,
    offset: u64,
    length: u64,
}

impl Bed {
    fn new() -> Bed {
        let repo = Repo::empty(2);
        let source = scratch();
        for (path, text) in [("e/x", "in e"), ("d/sub/x", "in sub"), ("d/a", "beside"), ("d/z/x", "in z")] {
            let path = source.path().join(path);
            fs::create_dir_all(path.parent().expect("above")).expect("directories");
            fs::write(path, text).expect("a file");
        }
        let backup = |name: &str, time: &str| -> String {
            let summary = repo.backup(Peer::Restic019, source.path(), name, &["--time", time]);
            summary["snapshot_id"].as_str().expect("an id").to_owned()
        };
        let old = backup("e", "2020-01-01 00:00:00");
        let new = backup("d", "2021-01-01 00:00:00");
        Bed { repo, old, new }
    }

    /// A copy of the repository with that directory of the newer snapshot damaged.
    fn damaged(&self, directory: &str, damage: fn(&Sealed)) -> Repo {
        let repo = self.repo.copy();
        damage(&sealed_tree(&repo, &self.new, directory));
        repo
    }
}

pub fn open(repo: &Repo) -> Arc<Repository> {
    let location = repo.path().to_str().expect("UTF-8").parse().expect("a folder");
    let store = vsm::store::open(&location, &vsm::store::Options::default()).expect("a store");
    Arc::new(Repository::open(store, &Password::new(PASSWORD), None, Settings::default()).expect("a repository"))
}

fn sealed(repo: &Repo, ty: BlobType, id: Id) -> Sealed {
    let index = Index::load(&open(repo)).expect("an index");
    let found = index.first(ty, id).expect("it is in the index");
    let pack = found.pack.to_string();
    let pack = repo.path().join("data").join(&pack[..2]).join(&pack);
    Sealed { pack, offset: found.blob.offset.into(), length: found.blob.length.into() }
}

fn sealed_tree(repo: &Repo, snapshot: &str, directory: &str) -> Sealed {
    let open = open(repo);
    let index = Index::load(&open).expect("an index");
    let root = open.load_snapshot(snapshot.parse().expect("an id")).expect("a snapshot").snapshot.tree.expect("a tree");
    let id = TreeReader::new(&open, &index).folder(root, directory.as_bytes()).expect("a directory");
    sealed(repo, BlobType::Tree, id)
}

fn flip(blob: &Sealed) {
    make_writable(blob);
    let file = fs::OpenOptions::new().read(true).write(true).open(&blob.pack).expect("a pack");
    let mut byte = [0];
    file.read_exact_at(&mut byte, blob.offset + blob.length / 2).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x40], blob.offset + blob.length / 2).expect("another byte");
}

fn cut(blob: &Sealed) {
    make_writable(blob);
    fs::OpenOptions::new().write(true).open(&blob.pack).expect("a pack").set_len(10).expect("the beginning of it");
}

fn remove(blob: &Sealed) {
    fs::remove_file(&blob.pack).expect("a removal");
}

fn overwrite(blob: &Sealed) {
    make_writable(blob);
    fs::write(&blob.pack, vec![b'{'; 5000]).expect("something else");
}

fn make_writable(blob: &Sealed) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&blob.pack, fs::Permissions::from_mode(0o600)).expect("rights");
}

/// Asserts that a run reports this snapshot and path, and ends with exit code 3.
fn incomplete(run: Run, snapshot: &str, path: &str) -> Run {
    let run = run.exits(3);
    let is_reported = |line: &str| line.contains(snapshot) && line.contains(path);
    assert!(run.errors().lines().any(is_reported), "{snapshot} and {path} are not reported\n{run}");
    run
}

/// The standard output, which must be one JSON document.
fn document(run: &Run) -> Value {
    serde_json::from_slice(run.stdout()).unwrap_or_else(|error| panic!("{error}\n{run}"))
}

#[test]
fn find_searches_the_healthy_snapshots_beside_a_damaged_one() {
    let bed = Bed::new();
    let blob: Value = bed.repo.run(Peer::Restic019, ["ls", "--json", &bed.old]).ok().json_lines()[0].clone();
    let tree = blob["tree"].as_str().expect("a tree").to_owned();
    let pack = sealed_tree(&bed.repo, &bed.old, "").pack;
    let pack = pack.file_name().expect("a name").to_string_lossy().into_owned();
    for damage in [flip, cut, remove, overwrite] {
        let repo = bed.damaged("", damage);
        for words in [&["x"][..], &["--tree", &tree], &["--pack", &pack], &["-R", "x"]] {
            // restic's result for the healthy snapshot alone.
            let theirs = [&["find", "--json", "-s", &bed.old][..], words].concat();
            let expected = document(&bed.repo.run(Peer::Restic019, theirs).ok());
            assert!(!expected.as_array().expect("a list").is_empty(), "{words:?}");
            let run = incomplete(repo.run(Peer::Vsm, [&["find", "--json"][..], words].concat()), &bed.new, "/");
            assert_eq!(document(&run), expected, "{words:?}");
            let plain = incomplete(repo.run(Peer::Vsm, [&["find"][..], words].concat()), &bed.new, "/");
            assert!(plain.text().contains("/e") || words[0] == "--tree" || words[0] == "--pack", "{plain}");
        }
    }
}

#[test]
fn find_and_ls_continue_beside_a_damaged_directory() {
    let bed = Bed::new();
    let repo = bed.damaged("/d/sub", flip);
    let is_lost = |path: &Value| path.as_str().is_some_and(|path| path.starts_with("/d/sub/"));
    // All that restic finds in the undamaged repository, except in that directory.
    let mut expected = document(&bed.repo.run(Peer::Restic019, ["find", "--json", "*"]).ok());
    let mut lost = 0;
    for list in expected.as_array_mut().expect("lists") {
        let matches = list["matches"].as_array_mut().expect("matches");
        let before = matches.len();
        matches.retain(|entry| !is_lost(&entry["path"]));
        lost += before - matches.len();
        list["hits"] = matches.len().into();
    }
    assert_eq!(lost, 1, "/d/sub/x");
    let run = incomplete(repo.run(Peer::Vsm, ["find", "--json", "*"]), &bed.new, "/d/sub");
    assert_eq!(document(&run), expected);
    let mut listed = bed.repo.ls(Peer::Restic019, &bed.new);
    listed.retain(|line| !is_lost(&line["path"]));
    let run = incomplete(repo.run(Peer::Vsm, ["ls", "--json", &bed.new]), &bed.new, "/d/sub");
    let paths = |lines: &[Value]| lines.iter().filter_map(|line| line["path"].as_str().map(str::to_owned)).collect();
    let (ours, theirs): (Vec<String>, Vec<String>) = (paths(&run.json_lines()), paths(&listed));
    assert_eq!(ours, theirs);
    let sorted = incomplete(repo.run(Peer::Vsm, ["ls", "--sort", "size", &bed.new]), &bed.new, "/d/sub");
    assert!(sorted.text().contains("/d/z/x") && sorted.text().contains("/d/a"), "{sorted}");
    // The entry after the damaged directory is in the newer snapshot.
    let id = document(&bed.repo.run(Peer::Restic019, ["find", "--json", "/d/z/x"]).ok())[0]["snapshot"].clone();
    assert_eq!(id, *bed.new);
}

#[test]
fn a_damaged_directory_of_two_snapshots_is_reported_for_both() {
    let bed = Bed::new();
    bed.repo.run(Peer::Restic019, ["rewrite", "--exclude", "/d/z", &bed.new]).ok();
    let snapshots = bed.repo.snapshots(Peer::Restic019);
    let rewritten = snapshots.iter().find(|snapshot| snapshot["original"] == *bed.new).expect("a snapshot");
    let newest = rewritten["id"].as_str().expect("an id");
    let x = sealed_tree(&bed.repo, &bed.new, "/d/sub");
    let of_newest = sealed_tree(&bed.repo, newest, "/d/sub");
    assert_eq!((x.pack, x.offset), (of_newest.pack, of_newest.offset), "they share it");
    let repo = bed.damaged("/d/sub", flip);
    for words in [&["find", "x"][..], &["find", "--blob", "0123456789"], &["find", "--tree", "0123456789"]] {
        let run = incomplete(repo.run(Peer::Vsm, words), &bed.new, "/d/sub");
        incomplete(run, newest, "/d/sub");
    }
}

#[test]
fn stats_count_the_healthy_snapshots() {
    let bed = Bed::new();
    for damage in [flip, remove] {
        let repo = bed.damaged("", damage);
        for mode in ["restore-size", "files-by-contents", "blobs-per-file"] {
            let words = ["stats", "--json", "--mode", mode];
            let healthy = [&words[..], &[&bed.old]].concat();
            let expected = document(&bed.repo.run(Peer::Restic019, healthy).ok());
            let found = document(&incomplete(repo.run(Peer::Vsm, words), &bed.new, "/"));
            for field in ["total_size", "total_file_count", "total_blob_count"] {
                assert_eq!(found[field], expected[field], "{mode}, {field}");
            }
        }
        let raw = incomplete(repo.run(Peer::Vsm, ["stats", "--json", "--mode", "raw-data"]), &bed.new, "/");
        assert!(document(&raw)["total_size"].as_u64().is_some_and(|size| size > 0), "{raw}");
    }
}

#[test]
fn diff_compares_all_but_the_damaged_directory() {
    let bed = Bed::new();
    let changed = scratch();
    bed.repo.restore(Peer::Restic019, &bed.new, changed.path()).ok();
    fs::write(changed.path().join("d/a"), "changed").expect("a file");
    fs::write(changed.path().join("d/sub/y"), "new").expect("a file");
    fs::write(changed.path().join("d/z/y"), "new").expect("a file");
    let summary = bed.repo.backup(Peer::Restic019, changed.path(), "d", &[]);
    let after = summary["snapshot_id"].as_str().expect("an id");
    let changes = |run: &Run| -> BTreeSet<String> {
        let lines = run.json_lines();
        let of_change = lines.iter().filter(|line| line["message_type"] == "change");
        of_change.map(|line| format!("{} {}", line["modifier"], line["path"])).collect()
    };
    let words = |before: &str, after: &str| ["diff", "--json", before, after].map(str::to_owned);
    // The damaged snapshot is the first of the compared ones, and then the second.
    let repo = bed.damaged("/d/sub", flip);
    for (from, to) in [(&*bed.new, after), (after, &*bed.new)] {
        let mut expected = changes(&bed.repo.run(Peer::Restic019, words(from, to)).ok());
        expected.retain(|line| !line.contains("/d/sub/y"));
        let run = incomplete(repo.run(Peer::Vsm, words(from, to)), &bed.new, "/d/sub");
        assert_eq!(changes(&run), expected, "{run}");
        assert_eq!(run.json_lines().last().expect("a line")["message_type"], "statistics", "{run}");
    }
    // Without a root tree nothing can be compared.
    let run = bed.damaged("", flip).run(Peer::Vsm, words(&bed.new, after)).exits(1);
    assert!(run.text().is_empty(), "{run}");
}

#[test]
fn copy_and_rewrite_process_the_healthy_snapshots() {
    let bed = Bed::new();
    let data = document(&bed.repo.run(Peer::Restic019, ["cat", "tree", &format!("{}:d/sub", bed.new)]).ok());
    let data: Id = data["nodes"][0]["content"][0].as_str().expect("an id").parse().expect("an id");
    let without_data = bed.repo.copy();
    flip(&sealed(&without_data, BlobType::Data, data));
    let damaged = [("", flip as fn(&Sealed)), ("", remove), ("/d/sub", flip)].map(|(path, how)| bed.damaged(path, how));
    for (from, has_trees) in damaged.iter().map(|repo| (repo, false)).chain([(&without_data, true)]) {
        let to = Repo::empty(2);
        let mut command = to.command(Peer::Vsm);
        command.args(["copy"]).env("RESTIC_FROM_REPOSITORY", &from.url).env("RESTIC_FROM_PASSWORD", PASSWORD);
        let run = Run::of(&mut command).exits(3);
        assert!(run.errors().contains(&bed.new[..8]), "{run}");
        let copied = to.snapshots(Peer::Restic019);
        assert_eq!(copied.len(), 1, "{run}");
        assert_eq!(copied[0]["original"], *bed.old, "{run}");
        to.run(Peer::Restic019, ["check", "--read-data"]).ok();
        // The next run copies the rest, from the undamaged repository.
        command = to.command(Peer::Vsm);
        command.args(["copy"]).env("RESTIC_FROM_REPOSITORY", &bed.repo.url).env("RESTIC_FROM_PASSWORD", PASSWORD);
        Run::of(&mut command).ok();
        assert_eq!(to.snapshots(Peer::Restic019).len(), 2);
        to.run(Peer::Restic019, ["check", "--read-data"]).ok();

        let rewritten = from.copy();
        let run = rewritten.run(Peer::Vsm, ["rewrite", "--exclude", "x"]).exits(if has_trees { 0 } else { 3 });
        assert!(has_trees || run.errors().contains(&bed.new), "{run}");
        let snapshots = rewritten.snapshots(Peer::Restic019);
        let new = snapshots.iter().filter(|snapshot| snapshot["original"].is_string());
        let of: BTreeSet<&str> = new.map(|snapshot| snapshot["original"].as_str().expect("an id")).collect();
        let expected: &[&str] = if has_trees { &[&bed.old, &bed.new] } else { &[&bed.old] };
        assert_eq!(of, expected.iter().copied().collect(), "{run}");
    }
}

#[test]
fn a_damaged_snapshot_file_is_reported_by_every_command_on_all_snapshots() {
    let bed = Bed::new();
    let repo = bed.repo.copy();
    let file = repo.path().join("snapshots").join(&bed.new);
    flip(&Sealed { pack: file.clone(), offset: 0, length: file.metadata().expect("a file").len() });
    let healthy = |run: &Run, pointer: &str| {
        let found = document(run).pointer(pointer).cloned();
        assert_eq!(found, Some(bed.old.clone().into()), "{run}");
    };
    for (words, pointer) in [
        (&["snapshots", "--json"][..], Some("/0/id")),
        (&["snapshots", "--json", "--group-by", "host"], Some("/0/snapshots/0/id")),
        (&["find", "--json", "x"], Some("/0/snapshot")),
        (&["find", "--json", "--blob", "0123456789"], None),
        (&["stats", "--json"], None),
        (&["forget", "--json", "--dry-run", "--keep-last", "1"], Some("/0/keep/0/id")),
        (&["snapshots"], None),
        (&["tag", "--add", "t"], None),
        (&["forget", "--keep-last", "1"], None),
    ] {
        let run = incomplete(repo.run(Peer::Vsm, words), &bed.new, "damaged");
        match pointer {
            Some(pointer) => healthy(&run, pointer),
            None if words.contains(&"--json") => drop(document(&run)),
            None => {}
        }
    }
    assert!(files_below(&repo.path().join("snapshots")).contains(&file), "an unreadable file was removed");
    let tagged = repo.run(Peer::Vsm, ["snapshots", "--json", "--tag", "t"]).exits(3);
    assert_eq!(document(&tagged).as_array().expect("a list").len(), 1, "{tagged}");
}

#[test]
fn dump_leaves_out_a_damaged_directory() {
    let bed = Bed::new();
    let repo = bed.damaged("/d/sub", flip);
    for (format, program, arguments) in [("tar", "tar", "-tf"), ("zip", "unzip", "-Z1")] {
        let file = repo.beside(format);
        let target = file.to_str().expect("UTF-8");
        incomplete(repo.run(Peer::Vsm, ["dump", "-a", format, "-t", target, &bed.new, "/"]), &bed.new, "/d/sub");
        let listed = Run::of(std::process::Command::new(program).args([arguments, target])).ok().text();
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["d/", "d/a", "d/sub/", "d/z/", "d/z/x"], "{format}");
        // The damaged root is the whole request.
        bed.damaged("", flip).run(Peer::Vsm, ["dump", "-a", format, &bed.new, "/"]).exits(1);
    }
}

/// As in restic, `find` does not search for a pack that does not exist.
#[test]
fn a_pack_that_no_index_names_is_an_error_of_find() {
    let repo = Repo::empty(2);
    for peer in [Peer::Restic019, Peer::Vsm] {
        let run = repo.run(peer, ["find", "--pack", "abcd1234"]).exits(1);
        assert!(run.errors().contains("pack"), "{run}");
    }
}
