//! Tests a directory with very many entries, and a file with very many blobs, in less memory than
//! their trees take.

use crate::common::compare::{self, Options};
use crate::common::memory::MemoryLimit;
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run};
use crate::common::{Random, scratch};
use crate::engine::same_bytes::{EXACT, demand_same_newest_tree};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use vsm::format::node::{Node, NodeType, mode};
use vsm::format::snapshot::Snapshot;
use vsm::id::Id;
use vsm::repo::Index;
use vsm::repo::writer::{NewTree, WriteMode, Writer};
use vsm::store::FileType;

/// Files with names and content of a usual length, in no order.
fn fill(dir: &Path, count: u64) {
    fs::create_dir_all(dir).expect("a directory");
    let mut random = Random(32);
    for number in 0..count {
        let name = format!("{:016x} a name of a usual length {number}", random.next());
        fs::write(dir.join(name), number.to_string()).expect("space");
    }
}

/// Our program within a memory limit of the kernel and within its own `--memory`.
struct Limited<'r> {
    repo: &'r Repo,
    limit: MemoryLimit,
    memory: &'static str,
}

impl Limited<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.repo.command(Peer::Vsm);
        command.args(["--memory", self.memory]).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Run {
        Run::of(&mut self.limit.command(&self.command(words))).ok()
    }

    fn backup(&self, from: &Path, target: &str) {
        let mut command = self.command(&["backup", "--json", "--host", HOST]);
        command.args(EXACT).arg(target).current_dir(from);
        Run::of(&mut self.limit.command(&command)).ok();
    }
}

/// Runs every command that reads or writes trees on a directory of `count` files.
fn go_through_all_commands(count: u64, memory: &'static str, mib: u64) {
    let source = scratch();
    let volume = source.path().join("v");
    fill(&volume.join("spool"), count);
    fs::write(volume.join("beside"), "beside").expect("space");
    let (repo, theirs) = (Repo::empty(2), Repo::empty(2));
    let ours = Limited { repo: &repo, limit: MemoryLimit::of_mib(mib), memory };

    ours.backup(source.path(), "v");
    theirs.backup(Peer::Restic019, source.path(), "v", &[]);
    demand_same_newest_tree(&theirs, &repo, "a large directory");
    let first = repo.newest_tree();
    ours.backup(source.path(), "v");
    assert_eq!(repo.newest_tree(), first, "nothing has changed");
    let changed = fs::read_dir(volume.join("spool")).expect("a list").next().expect("a file").expect("a file").path();
    fs::write(&changed, "changed").expect("space");
    ours.backup(source.path(), "v");
    theirs.backup(Peer::Restic019, source.path(), "v", &[]);
    demand_same_newest_tree(&theirs, &repo, "one file of a large directory has changed");
    repo.check(Peer::Restic019).ok();

    let lines = |run: &Run| run.text().lines().count() as u64;
    assert!(lines(&ours.run(&["ls", "latest"])) >= count + 3);
    let name = changed.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(ours.run(&["find", name]).text().contains(name));
    let snapshots = repo.list("snapshots");
    let [first, .., last] = [&repo.snapshots(Peer::Vsm)[0], &repo.snapshots(Peer::Vsm)[2]]
        .map(|snapshot| snapshot["id"].as_str().expect("an id").to_owned());
    assert_eq!(snapshots.len(), 3);
    let diff = ours.run(&["diff", &first, &last]).text();
    assert!(diff.contains(name) && diff.lines().all(|line| !line.starts_with("+  ")), "{diff}");
    ours.run(&["check", "--read-data"]);
    ours.run(&["stats"]);
    ours.run(&["stats", "--mode", "raw-data"]);
    let archive = repo.beside("archive.tar");
    ours.run(&["dump", "latest", "/v/spool", "--target", archive.to_str().expect("UTF-8")]);
    assert!(fs::metadata(&archive).expect("an archive").len() > count * 512);
    let target = scratch();
    let into = target.path().join("t");
    ours.run(&["restore", "latest", "--target", into.to_str().expect("UTF-8")]);
    compare::assert_same(&volume, &into.join("v"), Options::default());
    // The second restore compares the existing files; one of them has another content.
    fs::write(into.join("v/spool").join(name), "other").expect("space");
    let again = ours.run(&["restore", "latest", "--json", "--verify", "--target", into.to_str().expect("UTF-8")]);
    assert_eq!(again.summary()["files_skipped"], count, "{}", again.text());
    compare::assert_same(&volume, &into.join("v"), Options::default());

    let other = Repo::empty(2);
    let mut command = other.command(Peer::Vsm);
    command.args(["--memory", memory, "copy"]).env("RESTIC_FROM_REPOSITORY", &repo.url);
    command.env("RESTIC_FROM_PASSWORD", PASSWORD);
    Run::of(&mut ours.limit.command(&command)).ok();
    other.check(Peer::Restic019).ok();

    ours.run(&["rewrite", "--exclude", name, "--forget"]);
    ours.run(&["forget", "--keep-last", "1"]);
    ours.run(&["prune", "--max-unused", "0"]);
    repo.check(Peer::Restic019).ok();
}

#[test]
fn a_large_directory_takes_no_more_memory_than_it_is_given() {
    go_through_all_commands(60_000, "64M", 96);
}

#[test]
#[ignore = "takes a quarter of an hour: a million files, each command within 160 MiB"]
fn a_million_files_in_one_directory() {
    go_through_all_commands(1_000_000, "128M", 160);
}

/// A file with more blobs than the process keeps in memory, most of them holes.
#[test]
fn a_huge_file_has_the_same_blobs_as_in_restic() {
    let source = scratch();
    let volume = source.path().join("v");
    fs::create_dir(&volume).expect("a directory");
    let image = fs::File::create(volume.join("image")).expect("a file");
    image.set_len(9 << 30).expect("a hole");
    std::os::unix::fs::FileExt::write_all_at(&image, &Random(5).bytes(3 << 20), 5 << 30).expect("space");
    let (repo, theirs) = (Repo::empty(2), Repo::empty(2));
    let ours = Limited { repo: &repo, limit: MemoryLimit::of_mib(96), memory: "64M" };
    ours.backup(source.path(), "v");
    theirs.backup(Peer::Restic019, source.path(), "v", &[]);
    demand_same_newest_tree(&theirs, &repo, "a huge file");
    let first = repo.newest_tree();
    fs::write(volume.join("beside"), "beside").expect("space");
    ours.backup(source.path(), "v");
    assert_ne!(repo.newest_tree(), first);
    let target = scratch();
    let into = target.path().join("t");
    for _ in 0..2 {
        ours.run(&["restore", "latest", "--target", into.to_str().expect("UTF-8")]);
        compare::assert_same(&volume, &into.join("v"), Options::default());
    }
    repo.check(Peer::Restic019).ok();
}

/// Writes two snapshots that never were in a file system: a directory of `files` files, with one
/// more in the second snapshot, and a file of `blobs` blobs. Returns the snapshots, and the content
/// of that file.
fn generate(repo: &Repo, files: u64, blobs: u64) -> ([String; 2], Vec<u8>) {
    let repo = repo.opened();
    let writer = Writer::new(repo.clone(), Arc::new(Index::load(&repo).expect("an index")), WriteMode::Upload)
        .expect("a writer");
    let pieces: Vec<String> = (0..1000).map(|number| format!("{number:03}\n")).collect();
    let plaintexts: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    let ids = writer.store_chunks(&plaintexts).expect("blobs");
    let order = |number: u64| (number * 7919 % 1000) as usize;
    let file = |name: String, content: Vec<Id>| {
        let size = content.len() as u64 * 4;
        Node { mode: 0o644, size, links: 1, content: Some(content.into()), ..Node::new(name, NodeType::File) }
    };
    let dir = |name: &str, subtree| Node {
        mode: mode::DIR | 0o755,
        subtree: Some(subtree),
        ..Node::new(name, NodeType::Dir)
    };
    let huge = file("huge".into(), (0..blobs).map(|number| ids[order(number)]).collect());
    let add = |tree: &mut NewTree, node: &Node| tree.add(&writer, node).expect("space").expect("an order");
    let roots = [files, files + 1].map(|files| {
        let (mut many, mut root) = (NewTree::default(), NewTree::default());
        let name = |number: u64| format!("{number:09} a name of a usual length");
        (0..files).for_each(|number| add(&mut many, &file(name(number), vec![ids[order(number)]])));
        add(&mut root, &huge);
        add(&mut root, &dir("many", many.finish(&writer).expect("a tree")));
        root.finish(&writer).expect("a tree")
    });
    writer.finish().expect("a repository");
    let snapshots = roots.map(|root| {
        // The first snapshot is the older one.
        let day = 1 + u8::from(root != roots[0]);
        let json =
            format!(r#"{{"time":"2026-01-0{day}T00:00:00Z","tree":"{root}","paths":["/generated"],"hostname":"h"}}"#);
        let snapshot = Snapshot::decode(json.as_bytes()).expect("a snapshot");
        repo.save_file(FileType::Snapshot, snapshot.encode()).expect("space").to_string()
    });
    (snapshots, (0..blobs).flat_map(|number| pieces[order(number)].bytes()).collect())
}

/// Runs every command that reads trees on generated trees.
fn read_generated(files: u64, blobs: u64, memory: &'static str, mib: u64) {
    let repo = Repo::empty(2);
    let ([first, second], content) = generate(&repo, files, blobs);
    let ours = Limited { repo: &repo, limit: MemoryLimit::of_mib(mib), memory };
    let lines = |run: &Run| run.text().lines().count() as u64;
    assert!(lines(&ours.run(&["ls", &first])) >= files + 2);
    assert!(ours.run(&["find", "huge"]).text().contains("/huge"));
    let diff = ours.run(&["diff", &first, &second]).text();
    let added: Vec<_> = diff.lines().filter(|line| line.starts_with("+  ")).collect();
    assert!(added.len() == 1 && added[0].contains(&format!("/many/{files:09} ")), "{diff}");
    ours.run(&["check", "--read-data"]);
    for mode in ["restore-size", "raw-data", "files-by-contents"] {
        ours.run(&["stats", "--mode", mode, &second]);
    }
    let path = repo.beside("huge");
    let dumped = path.to_str().expect("UTF-8");
    ours.run(&["dump", &first, "/huge", "--target", dumped]);
    assert!(fs::read(&path).expect("a file") == content);
    let target = scratch();
    let into = target.path().join("t");
    ours.run(&["restore", &first, "--verify", "--include", "/huge", "--target", into.to_str().expect("UTF-8")]);
    assert!(fs::read(into.join("huge")).expect("a file") == content);

    let other = Repo::empty(2);
    let mut command = other.command(Peer::Vsm);
    command.args(["--memory", memory, "copy", &first]).env("RESTIC_FROM_REPOSITORY", &repo.url);
    Run::of(&mut ours.limit.command(command.env("RESTIC_FROM_PASSWORD", PASSWORD))).ok();
    assert_eq!(other.newest_tree(), repo.snapshots(Peer::Vsm)[0]["tree"]);
    ours.run(&["rewrite", &second, "--exclude", "*000000007 a name*", "--forget"]);
    ours.run(&["forget", &first, "--prune"]);
    ours.run(&["check"]);
}

#[test]
fn generated_trees_are_read_in_little_memory() {
    read_generated(30_000, 200_000, "64M", 96);
}

#[test]
#[ignore = "takes minutes: five million entries in a directory, ten million blobs in a file"]
fn five_million_entries_and_ten_million_blobs() {
    read_generated(5_000_000, 10_000_000, "128M", 160);
}
