//! Tests every row of `docs/reference/bad-input.md`: the fault, the error that names it, the exit
//! code, and what still works.
//!
//! Hostile contents are forged with the engine's own writer, as an attacker with the key would do
//! it. The expected results are here and in the document.

use crate::common::loops::LoopFs;
use crate::common::peers::{PASSWORD, Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vsm::format::node::{Node, NodeType};
use vsm::format::snapshot::Snapshot;
use vsm::format::tree::TreeWriter;
use vsm::id::Id;
use vsm::repo::Index;
use vsm::repo::writer::{WriteMode, Writer};
use vsm::store::FileType;

/// A repository with two snapshots: `first` has the file `old`, `second` has `old` and `new`, of 1
/// MiB each.
struct Bed {
    repo: Repo,
    source: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        let repo = Repo::empty(2);
        let source = scratch();
        let mut random = Random(7);
        fs::create_dir(source.path().join("v")).unwrap();
        fs::write(source.path().join("v/old"), random.bytes(1 << 20)).unwrap();
        repo.backup(Peer::Vsm, source.path(), "v", &["--tag", "first"]);
        fs::write(source.path().join("v/new"), random.bytes(1 << 20)).unwrap();
        repo.backup(Peer::Vsm, source.path(), "v", &["--tag", "second"]);
        Bed { repo, source }
    }

    fn vsm(&self, arguments: &[&str]) -> Run {
        self.repo.run(Peer::Vsm, arguments)
    }

    /// The files of a directory of the repository, sorted.
    fn files(&self, dir: &str) -> Vec<PathBuf> {
        files_below(&self.repo.path().join(dir))
    }

    /// The packs of more than 1 MiB, oldest first: one holds `old`, one holds `new`.
    fn data_packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<_> =
            self.files("data").into_iter().filter(|path| path.metadata().unwrap().len() > 1 << 20).collect();
        packs.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
        packs
    }

    fn restore(&self, snapshot: &str) -> (Run, PathBuf) {
        let target = self
            .repo
            .beside(&format!("restored-{}", Random(fs::read_dir(self.repo.beside("")).unwrap().count() as u64).next()));
        let run = self.repo.restore(Peer::Vsm, snapshot, &target);
        (run, target)
    }

    /// The id of the snapshot with a tag.
    fn snapshot(&self, tag: &str) -> String {
        let run = self.vsm(&["snapshots", "--json", "--tag", tag]).ok();
        run.json()[0]["id"].as_str().unwrap().to_owned()
    }

    /// Writes trees and a snapshot of the last of them, and returns its id. `make` gets a function
    /// that stores a tree's JSON.
    fn forge(&self, make: impl FnOnce(&dyn Fn(Vec<u8>) -> Id) -> Id) -> String {
        let repo = self.repo.opened();
        let index = Arc::new(Index::load(&repo).unwrap());
        let writer = Writer::new(repo.clone(), index, WriteMode::Upload).unwrap();
        let root = make(&|json| writer.store_tree(&json).unwrap());
        writer.finish().unwrap();
        let snapshot =
            format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{root}","paths":["/forged"],"hostname":"forger"}}"#);
        let snapshot = Snapshot::decode(snapshot.as_bytes()).unwrap();
        repo.save_file(FileType::Snapshot, snapshot.encode()).unwrap().to_string()
    }
}

fn dir(name: &str, subtree: Id) -> Node {
    Node { mode: 1 << 31 | 0o755, subtree: Some(subtree), ..Node::new(name, NodeType::Dir) }
}

fn empty_file(name: &str) -> Node {
    Node { mode: 0o644, content: Some(vec![].into()), ..Node::new(name, NodeType::File) }
}

fn tree(nodes: &[Node]) -> Vec<u8> {
    let mut writer = TreeWriter::new();
    nodes.iter().for_each(|node| writer.add(node).unwrap());
    writer.finish()
}

fn writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn flip(path: &Path, from_end: u64) {
    writable(path);
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 1 - usize::try_from(from_end).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    writable(path);
    let length = path.metadata().unwrap().len();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
}

/// Asserts the exit code, that standard error contains each of these words, and that nothing
/// panicked.
fn fails(run: Run, code: i32, words: &[&str]) {
    let run = run.exits(code);
    let errors = run.errors();
    assert!(!errors.contains("panicked"), "{run}");
    for word in words {
        assert!(errors.contains(word), "no {word:?} in\n{run}");
    }
}

fn short(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap()[..8].to_owned()
}

/// Makes each row a separate test, so that one failure does not hide the others, and keeps the
/// names for the comparison with the document.
macro_rules! rows {
    ($($name:literal => $row:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$($name),*];
        mod rows { $( #[test] fn $row() { super::$row(); } )* }
    };
}

rows! {
    "wrong password" => wrong_password,
    "no repository" => no_repository,
    "config of zero bytes" => empty_config,
    "config truncated or damaged" => damaged_config,
    "key truncated or damaged" => damaged_key,
    "snapshot truncated or damaged" => damaged_snapshot,
    "index truncated or damaged" => damaged_index,
    "pack header damaged" => damaged_header,
    "blob damaged" => damaged_blob,
    "pack truncated" => truncated_pack,
    "index names a missing pack" => missing_pack,
    "pack of the wrong name" => misnamed_pack,
    "lock damaged" => damaged_lock,
    "hostile names" => hostile_names,
    "duplicate names" => duplicate_names,
    "10,000 levels of directories" => deep_tree,
    "tree that doubles 40 times" => bomb,
    "snapshot whose tree is missing" => missing_tree,
    "huge declared length" => huge_length,
    "full disk at restore" => full_disk,
    "unreadable file" => unreadable_file,
    "snapshot that is not JSON" => not_json,
    "too little memory" => too_little_memory,
}

fn wrong_password() {
    let bed = Bed::new();
    let mut command = bed.repo.command(Peer::Vsm);
    command.env("RESTIC_PASSWORD", "wrong").arg("snapshots");
    fails(Run::of(&mut command), 12, &["wrong password"]);
}

fn too_little_memory() {
    let bed = Bed::new();
    for command in [&["check"][..], &["restore", "latest", "--target", "/nowhere"], &["backup", "."]] {
        fails(bed.vsm(&[&["--memory", "20M"], command].concat()), 1, &["budget of 20 MiB", "at least", "--memory"]);
    }
}

fn no_repository() {
    let repo = Repo::new();
    for command in ["snapshots", "check", "ls"] {
        let arguments = if command == "ls" { vec!["ls", "latest"] } else { vec![command] };
        fails(repo.run(Peer::Vsm, arguments), 10, &["config"]);
    }
    assert!(!repo.path().exists(), "a read-only command created the repository");
}

fn empty_config() {
    let bed = Bed::new();
    let config = bed.repo.path().join("config");
    writable(&config);
    fs::write(&config, b"").unwrap();
    fails(bed.vsm(&["snapshots"]), 1, &["config", "empty"]);
    fails(bed.vsm(&["init"]), 1, &["already"]);
}

fn damaged_config() {
    for damage in [truncate, |path: &Path| flip(path, 40)] {
        let bed = Bed::new();
        damage(&bed.repo.path().join("config"));
        fails(bed.vsm(&["snapshots"]), 1, &["config", "authenticate"]);
    }
}

fn damaged_key() {
    for damage in [truncate, |path: &Path| flip(path, 40)] {
        let bed = Bed::new();
        let [key] = &bed.files("keys")[..] else { panic!("one key") };
        damage(key);
        fails(bed.vsm(&["snapshots"]), 1, &["key", &short(key), "damaged"]);
    }
    // A damaged first key does not hide a second one.
    let bed = Bed::new();
    let before = bed.files("keys");
    let file = bed.repo.beside("second");
    fs::write(&file, PASSWORD).unwrap();
    bed.vsm(&["key", "add", "--new-password-file", file.to_str().unwrap()]).ok();
    flip(&before[0], 40);
    bed.vsm(&["snapshots"]).ok();
}

fn damaged_snapshot() {
    for damage in [truncate, |path: &Path| flip(path, 40)] {
        let bed = Bed::new();
        let (first, second) = (bed.snapshot("first"), bed.snapshot("second"));
        let path = bed.repo.path().join("snapshots").join(&second);
        damage(&path);
        fails(bed.vsm(&["check"]), 1, &[&second[..8], "damaged"]);
        fails(bed.restore(&second).0, 1, &[&second[..8], "damaged"]);
        bed.restore(&first).0.ok();
        // The damaged snapshot may be the latest, so `latest` selects no other one.
        fails(bed.restore("latest").0, 1, &[&second[..8]]);
    }
}

fn damaged_index() {
    for damage in [truncate, |path: &Path| flip(path, 40)] {
        let bed = Bed::new();
        let index = bed.files("index").pop().unwrap();
        damage(&index);
        for run in
            [bed.vsm(&["check"]), bed.restore("latest").0, bed.repo.try_backup(Peer::Vsm, bed.source.path(), "v", &[])]
        {
            fails(run, 1, &[&short(&index), "damaged"]);
        }
        assert_eq!(bed.vsm(&["snapshots", "--json"]).ok().json().as_array().unwrap().len(), 2);
    }
}

fn damaged_header() {
    let bed = Bed::new();
    let pack = &bed.data_packs()[0];
    flip(pack, 10);
    fails(bed.vsm(&["check", "--read-data"]), 1, &[&short(pack)]);
    let (run, target) = bed.restore("latest");
    run.ok();
    assert_eq!(fs::read(target.join("v/old")).unwrap(), fs::read(bed.source.path().join("v/old")).unwrap());
}

fn damaged_blob() {
    let bed = Bed::new();
    let pack = &bed.data_packs()[0];
    flip(pack, 500_000);
    bed.vsm(&["check"]).ok();
    fails(bed.vsm(&["check", "--read-data"]), 1, &[&short(pack)]);
    let (run, target) = bed.restore("latest");
    fails(run, 1, &["v/old"]);
    assert_eq!(fs::read(target.join("v/new")).unwrap(), fs::read(bed.source.path().join("v/new")).unwrap());
}

fn truncated_pack() {
    let bed = Bed::new();
    let pack = &bed.data_packs()[0];
    truncate(pack);
    fails(bed.vsm(&["check"]), 1, &[&short(pack)]);
    let (run, target) = bed.restore("latest");
    fails(run, 1, &["v/old"]);
    assert!(target.join("v/new").exists());
}

fn missing_pack() {
    let bed = Bed::new();
    let pack = &bed.data_packs()[0];
    fs::remove_file(pack).unwrap();
    fails(bed.vsm(&["check"]), 1, &[&short(pack)]);
    let (run, target) = bed.restore("latest");
    fails(run, 1, &["v/old"]);
    assert!(target.join("v/new").exists());
}

fn misnamed_pack() {
    let bed = Bed::new();
    let pack = bed.data_packs().remove(0);
    let mut name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let digit = if name.ends_with('0') { "1" } else { "0" };
    name.replace_range(63.., digit);
    let renamed = pack.with_file_name(&name);
    fs::rename(&pack, &renamed).unwrap();
    fails(bed.vsm(&["check"]), 1, &[&short(&pack)]);
    // A pack with the content of another pack, so that its name is not the hash of its bytes.
    let bed = Bed::new();
    let packs = bed.data_packs();
    writable(&packs[0]);
    fs::copy(&packs[1], &packs[0]).unwrap();
    fails(bed.vsm(&["check", "--read-data"]), 1, &[&short(&packs[0])]);
    fails(bed.restore("latest").0, 1, &["v/old"]);
}

fn damaged_lock() {
    let bed = Bed::new();
    let name = "ab".repeat(32);
    fs::write(bed.repo.path().join("locks").join(&name), b"not a lock").unwrap();
    fails(bed.repo.try_backup(Peer::Vsm, bed.source.path(), "v", &[]), 11, &["unlock --remove-all"]);
    bed.vsm(&["snapshots", "--no-lock"]).ok();
    bed.vsm(&["unlock", "--remove-all"]).ok();
    bed.repo.backup(Peer::Vsm, bed.source.path(), "v", &[]);
    // An empty lock is an interrupted upload, which restic ignores, too.
    fs::write(bed.repo.path().join("locks").join(&name), b"").unwrap();
    bed.repo.backup(Peer::Vsm, bed.source.path(), "v", &[]);
}

fn hostile_names() {
    let bed = Bed::new();
    let outside = bed.repo.beside("outside");
    fs::write(&outside, b"untouched").unwrap();
    for name in ["..", ".", "", "../outside", "/etc/hostile", "a/b", "a\0b"] {
        let snapshot = bed.forge(|store| {
            let mut nodes = vec![empty_file(name), empty_file("good")];
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            store(tree(&nodes))
        });
        let (run, target) = bed.restore(&snapshot);
        fails(run, 1, &["name"]);
        let left: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["good"], "{name:?}");
        fails(bed.vsm(&["check"]), 1, &["name"]);
        fs::remove_file(bed.repo.path().join("snapshots").join(&snapshot)).unwrap();
    }
    // A symlink, and a directory of the same name that would be created behind it.
    let snapshot = bed.forge(|store| {
        let below = store(tree(&[empty_file("outside")]));
        let link = Node { mode: 1 << 27 | 0o777, link_target: b"..".to_vec(), ..Node::new("link", NodeType::Symlink) };
        let json = |node: &Node| {
            let mut out = Vec::new();
            node.write_json(&mut out);
            String::from_utf8(out).unwrap()
        };
        store(format!("{{\"nodes\":[{},{}]}}\n", json(&link), json(&dir("link", below))).into_bytes())
    });
    let (run, _) = bed.restore(&snapshot);
    fails(run, 1, &["link"]);
    assert_eq!(fs::read(&outside).unwrap(), b"untouched");
}

fn duplicate_names() {
    let bed = Bed::new();
    let snapshot = bed.forge(|store| {
        let mut json = Vec::new();
        empty_file("twice").write_json(&mut json);
        let json = String::from_utf8(json).unwrap();
        store(format!("{{\"nodes\":[{json},{json}]}}\n").into_bytes())
    });
    fails(bed.restore(&snapshot).0, 1, &["twice"]);
    fails(bed.vsm(&["check"]), 1, &["twice"]);
}

fn deep_tree() {
    let bed = Bed::new();
    let deep = |levels| {
        bed.forge(|store| {
            let mut id = store(tree(&[empty_file("bottom")]));
            for _ in 0..levels {
                id = store(tree(&[dir("d", id)]));
            }
            id
        })
    };
    deep(10_000);
    bed.vsm(&["check"]).ok();
    // A path of more than 6,000 bytes, which no system call accepts. Each level costs time in
    // proportion to its depth.
    let (run, target) = bed.restore(&deep(3_000));
    run.ok();
    let found =
        Run::of(std::process::Command::new("find").arg(&target).args(["-name", "bottom", "-printf", "%d"])).ok();
    assert_eq!(found.text(), "3001", "the depth that GNU find sees");
    // The directories are too deep for the usual removal of a scratch directory.
    Run::of(std::process::Command::new("rm").arg("-rf").arg(&target)).ok();
}

fn bomb() {
    let bed = Bed::new();
    let snapshot = bed.forge(|store| {
        let mut id = store(tree(&[empty_file("leaf")]));
        for _ in 0..40 {
            id = store(tree(&[dir("a", id), dir("b", id)]));
        }
        id
    });
    bed.vsm(&["check"]).ok();
    let (run, target) = bed.restore(&snapshot);
    fails(run, 1, &["entries"]);
    let untouched = !target.exists() || fs::read_dir(&target).unwrap().next().is_none();
    assert!(untouched, "refused before the first entry is made");
}

fn missing_tree() {
    let bed = Bed::new();
    let absent = Id::of(b"absent");
    let snapshot = bed.forge(|_| absent);
    fails(bed.restore(&snapshot).0, 1, &[&absent.to_string()]);
    fails(bed.vsm(&["check"]), 1, &[&absent.to_string()]);
    fails(bed.vsm(&["ls", &snapshot]), 1, &[&absent.to_string()]);
}

fn huge_length() {
    let bed = Bed::new();
    let repo = bed.repo.opened();
    let pack = bed.data_packs().remove(0);
    let pack: Id = pack.file_name().unwrap().to_str().unwrap().parse().unwrap();
    // An index that claims a blob of 4 GiB in a pack of 1 MiB, and a tree that refers to it.
    let id = Id::of(b"huge");
    let index = format!(
        r#"{{"packs":[{{"id":"{pack}","blobs":[{{"id":"{id}","type":"data","offset":0,"length":1000,"uncompressed_length":4294967295}}]}}]}}"#
    );
    repo.save_file(FileType::Index, index.into_bytes()).unwrap();
    let snapshot = bed.forge(|store| {
        let file =
            Node { mode: 0o644, size: 1 << 32, content: Some(vec![id].into()), ..Node::new("huge", NodeType::File) };
        store(tree(&[file]))
    });
    fails(bed.restore(&snapshot).0, 1, &["huge"]);
    fails(bed.vsm(&["check"]), 1, &[]);
}

fn full_disk() {
    let bed = Bed::new();
    let small = LoopFs::new(4 << 20);
    // The remaining space is smaller than the two files.
    fs::write(small.path().join("ballast"), Random(3).bytes(1 << 20)).unwrap();
    let target = small.path().join("target");
    let run = bed.repo.restore(Peer::Vsm, "latest", &target);
    fails(run, 1, &["space"]);
}

/// A dump fails if a file's content has another length than the snapshot records.
#[test]
fn dump_fails_if_a_file_has_another_length_than_recorded() {
    let bed = Bed::new();
    let forged = bed.forge(|store| {
        let lying = |name: &str, size| Node { size, ..empty_file(name) };
        store(tree(&[lying("a", 5), Node { content: None, ..lying("b", 7) }]))
    });
    for name in ["/a", "/b"] {
        fails(bed.vsm(&["dump", &forged, name]), 1, &[name, "bytes"]);
    }
}

fn unreadable_file() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let bed = Bed::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bed.source.path(), open.clone()).unwrap();
    let closed = bed.source.path().join("v/closed");
    fs::write(&closed, b"secret").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Root can read every file, so the user `nobody` runs the backup, with a repository and a copy
    // of the program in a directory that is open to all users.
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = place.path().join("vsm-mover");
    fs::copy(Peer::Vsm.program(), &program).unwrap();
    let copied = place.path().join("v");
    Run::of(std::process::Command::new("cp").arg("-a").arg(bed.source.path().join("v")).arg(&copied)).ok();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command
            .env_clear()
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_REPOSITORY", place.path().join("r"))
            .uid(65534)
            .gid(65534);
        Run::of(command.args(arguments))
    };
    run(&["init"]).ok();
    let backup = run(&["backup", "--json", copied.to_str().unwrap()]);
    fails(backup, 3, &["v/closed", "denied"]);
    assert_eq!(run(&["snapshots", "--json"]).ok().json().as_array().unwrap().len(), 1);
}

fn not_json() {
    let bed = Bed::new();
    let (repo, first) = (bed.repo.opened(), bed.snapshot("first"));
    let id = repo.save_file(FileType::Snapshot, b"[[[[[[".to_vec()).unwrap().to_string();
    fails(bed.vsm(&["check"]), 1, &[&id[..8], "damaged"]);
    fails(bed.vsm(&["snapshots"]), 3, &[&id[..8]]);
    bed.restore(&first).0.ok();
}

/// The first column of the document's table.
fn documented() -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/bad-input.md")).unwrap();
    let table = text.split("\n## ").next().unwrap();
    let rows = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.starts_with("| input"));
    rows.map(|line| line.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

#[test]
fn bad_input_document_lists_the_tested_faults() {
    let mut tested: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    // `tests/store` tests these faults with a server.
    tested.extend(
        ["S3 endpoint down", "S3 credentials refused", "S3 connection drops in mid-transfer"].map(str::to_owned),
    );
    assert_eq!(documented(), tested);
}
