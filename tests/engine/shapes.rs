//! Tests that command lines make the same trees, leave out the same files, and restore the same
//! files as restic's with the same words.

use super::same_bytes::{EXACT, demand_same_newest_tree};
use crate::common::compare::{self, Options};
use crate::common::loops::LoopFs;
use crate::common::peers::{HOST, Peer, Repo, Run, Running};
use crate::common::{Random, scratch};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A small volume with names that repeat, a cache, and something for every exclude rule.
fn volume() -> LoopFs {
    let fs = LoopFs::new(64 << 20);
    let files = [
        ("a/same/one", 10),
        ("a/same/two.log", 20),
        ("b/same/one", 30),
        ("b/same/three.LOG", 40),
        ("b/other", 50),
        ("c/deep/er/file.txt", 60),
        ("c/deep/er/large.bin", 2 << 20),
        ("c/cache/CACHEDIR.TAG", 0),
        ("c/cache/cached.txt", 70),
        ("c/no backup/.nobackup", 0),
        ("c/no backup/inside", 80),
        ("lost+found/found", 90),
        ("single", 100),
        ("-dash", 110),
        ("[x]", 120),
        ("x", 130),
        ("sp ace/qu\"ote/n\\ew", 140),
    ];
    for (path, size) in files {
        let path = fs.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        let content = if path.ends_with("CACHEDIR.TAG") {
            b"Signature: 8a477f597d28d172789f06886806bc55\nsome more".to_vec()
        } else {
            Random(size as u64).bytes(size)
        };
        std::fs::write(path, content).expect("a file");
    }
    std::fs::create_dir(fs.path().join("empty")).expect("a directory");
    fs
}

/// Two repositories with the same chunk boundaries: one for restic, one for ours.
struct Pair {
    theirs: Repo,
    ours: Repo,
}

impl Pair {
    fn new() -> Pair {
        Pair { theirs: Repo::empty(2), ours: Repo::empty(2) }
    }

    /// Backs up with both tools from the same directory with the same words, without a parent, and
    /// returns the two runs.
    fn run(&self, from: &Path, words: &[&str]) -> (Run, Run) {
        let run = |repo: &Repo, peer: Peer, extra: &[&str]| {
            let mut command = repo.command(peer);
            command.current_dir(from).args(["backup", "--json", "--force", "--host", HOST]).args(extra).args(words);
            Run::of(&mut command)
        };
        (run(&self.theirs, Peer::Restic019, &[]), run(&self.ours, Peer::Vsm, &EXACT))
    }

    /// Asserts that the exit codes are the same, and, if there is a snapshot, tree, paths,
    /// excludes, tags and counts.
    fn demand_alike(&self, from: &Path, words: &[&str]) {
        let (expected, found) = self.run(from, words);
        let told = format!("{words:?}\nrestic:\n{expected}\nours:\n{found}");
        assert_eq!(found.code(), expected.code(), "{told}");
        let (old, new) = (self.theirs.snapshots(Peer::Restic019), self.ours.snapshots(Peer::Restic019));
        assert_eq!(new.len(), old.len(), "{told}");
        let (Some(old), Some(new), 0 | 3) = (old.last(), new.last(), expected.code()) else { return };
        if old["tree"] != new["tree"] {
            demand_same_newest_tree(&self.theirs, &self.ours, &told);
        }
        for field in ["paths", "excludes", "tags", "hostname", "username", "uid", "gid"] {
            assert_eq!(new[field], old[field], "{field}: {told}");
        }
        let (expected, found) = (expected.summary(), found.summary());
        for count in [
            "files_new",
            "files_changed",
            "files_unmodified",
            "dirs_new",
            "dirs_changed",
            "dirs_unmodified",
            "data_blobs",
            "tree_blobs",
            "data_added",
            "total_files_processed",
            "total_bytes_processed",
        ] {
            assert_eq!(found[count], expected[count], "{count}: {told}");
        }
    }
}

#[test]
fn relative_targets_become_restics_trees() {
    let (fs, pair) = (volume(), Pair::new());
    for words in [
        &["."][..],
        &["c/deep/er"],
        &["./c//deep/../deep"],
        &["single"],
        &["a", "b"],
        &["b", "a"],
        &["a/same", "b/same"],
        &["a/same", "b/same", "c/deep", "single", "x"],
        &["a", "a/same"],
        &["a/same", "a"],
        &["a", "a", "./a/"],
        &["empty"],
        &["--", "-dash"],
        &["[x]"],
        &["sp ace/qu\"ote"],
        &["a", "missing"],
        &["missing"],
    ] {
        pair.demand_alike(fs.path(), words);
    }
    pair.demand_alike(&fs.path().join("c/deep"), &["../../a", "er"]);
    pair.demand_alike(&fs.path().join("c/deep"), &[".."]);
    pair.demand_alike(&fs.path().join("empty"), &["."]);
}

/// An absolute path stores its parents, too, with their own metadata. Other tests change these
/// directories of the machine at the same time, so only their stable fields are compared.
#[test]
fn absolute_targets_become_restics_trees() {
    let (fs, pair) = (volume(), Pair::new());
    let inside = fs.path().to_str().expect("a path");
    for words in [
        &[format!("{inside}/c/deep")][..],
        &[format!("{inside}/a"), format!("{inside}/b/same")],
        &[format!("{inside}/single")],
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (expected, found) = pair.run(Path::new("/"), &words);
        expected.ok();
        found.ok();
        let (old, new) = (outline(&pair.theirs, fs.path()), outline(&pair.ours, fs.path()));
        assert!(old.len() > 3, "{old:?}");
        assert_eq!(old, new, "{words:?}");
        let paths = |repo: &Repo| repo.snapshots(Peer::Restic019).pop().expect("a snapshot")["paths"].take();
        assert_eq!(paths(&pair.ours), paths(&pair.theirs));
    }
}

/// All nodes of the newest snapshot with their paths; those above `volume` without the fields that
/// depend on its entries.
fn outline(repo: &Repo, volume: &Path) -> Vec<(PathBuf, Value)> {
    let (mut nodes, mut open) = (Vec::new(), vec![(PathBuf::from("/"), repo.newest_tree())]);
    while let Some((path, tree)) = open.pop() {
        for mut node in repo.tree(&tree) {
            let below = path.join(node["name"].as_str().expect("a name"));
            if let Some(subtree) = node["subtree"].as_str() {
                open.push((below.clone(), subtree.to_owned()));
            }
            if volume.starts_with(&below) && volume != below {
                for field in ["mtime", "atime", "ctime", "subtree"] {
                    assert!(node[field].take().is_string(), "{below:?}: no {field}");
                }
            } else if volume == below {
                node["subtree"].take();
            }
            nodes.push((below, node));
        }
    }
    nodes
}

#[test]
fn excludes_leave_out_the_same_files_as_restics() {
    let (fs, pair) = (volume(), Pair::new());
    let list = fs.path().join("single");
    std::fs::write(&list, "# comment\n*.bin\n\n  c/cache  \n!c/cache/cached.txt\n").expect("a list");
    let list = list.to_str().expect("a path");
    let absolute = format!("{}/c/deep", fs.path().display());
    for words in [
        &["--exclude", "*.log", "."][..],
        &["--iexclude", "*.log", "."],
        &["--exclude", "same", "a", "b"],
        &["--exclude", "same/one", "."],
        &["--exclude", "/a", "."],
        &["--exclude", &absolute, "."],
        &["--exclude", "c/**/*.txt", "."],
        &["--exclude", "c/*", "--exclude", "!c/deep", "."],
        &["--exclude", "**/er/*", "."],
        &["--exclude", "[ab]", "."],
        &["--exclude", "\\[x\\]", "."],
        &["--exclude", "?", "."],
        &["--exclude", "lost+found", "."],
        &["--exclude-file", list, "."],
        &["--iexclude-file", list, "."],
        &["--exclude-caches", "."],
        &["--exclude-if-present", ".nobackup", "."],
        &["--exclude-if-present", "CACHEDIR.TAG:Signature: 8a47", "c"],
        &["--exclude-if-present", "CACHEDIR.TAG:another signature", "c"],
        &["--exclude-larger-than", "1M", "."],
        &["--exclude-larger-than", "100", "."],
        &["--exclude", "*", "."],
        &["--exclude", "single", "single"],
        &["--tag", "one,two", "--tag", "three", "a"],
        &["--one-file-system", "."],
    ] {
        pair.demand_alike(fs.path(), words);
    }
}

/// restic waits for ever for a writer of the FIFO.
#[test]
fn a_fifo_with_the_name_of_a_tag_file_does_not_block_the_backup() {
    let source = scratch();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, source.path().join("TAG"), fifo, 0o600.into(), 0).expect("a FIFO");
    std::fs::write(source.path().join("file"), b"file").expect("a file");
    let repo = Repo::empty(2);
    let summary = repo.backup(Peer::Vsm, source.path(), ".", &["--exclude-if-present", "TAG:signature"]);
    assert_eq!(summary["total_files_processed"], 1, "{summary}");
}

/// A file system below the source is walked without the option; with it, an empty directory stays
/// in its place.
#[test]
fn one_file_system_stops_where_restic_stops() {
    let (outer, inner, pair) = (volume(), LoopFs::new(16 << 20), Pair::new());
    std::fs::write(inner.path().join("inside"), b"inside").expect("a file");
    let place = outer.path().join("empty");
    crate::common::loops::run(std::process::Command::new("mount").arg("--bind").arg(inner.path()).arg(&place));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for words in [
            &["."][..],
            &["--one-file-system", "."],
            &["--one-file-system", "empty"],
            &["--one-file-system", "a", "empty/inside"],
        ] {
            pair.demand_alike(outer.path(), words);
        }
    }));
    crate::common::loops::run(std::process::Command::new("umount").arg(&place));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn standard_input_becomes_restics_file() {
    demand_alike_from_stdin(&["dump.sql", "/absolute"]);
}

#[test]
fn standard_input_in_directories_becomes_restics_tree() {
    demand_alike_from_stdin(&["sub/dir/dump.sql", "/absolute/dir/dump.sql"]);
}

/// Asserts that standard input becomes one file, which is the same as restic's except for its
/// times.
fn demand_alike_from_stdin(names: &[&'static str]) {
    let content = Random(8).bytes(3_000_000);
    let Pair { theirs, ours } = Pair::new();
    let mut nodes = Vec::new();
    for (repo, peer) in [(&theirs, Peer::Restic019), (&ours, Peer::Vsm)] {
        for name in names {
            let mut command = repo.command(peer);
            command.args(["backup", "--host", HOST, "--stdin", "--stdin-filename", name]);
            let mut running = Running::start(command);
            running.write(&content);
            running.finish().ok();
            let mut stored = outline(repo, Path::new("/nowhere"));
            for (_, node) in &mut stored {
                for field in ["mtime", "atime", "ctime", "subtree"] {
                    node[field].take();
                }
            }
            nodes.push((
                peer,
                name,
                stored,
                repo.snapshots(Peer::Restic019).pop().expect("a snapshot")["paths"].take(),
            ));
        }
    }
    let (expected, found) = nodes.split_at(names.len());
    for (old, new) in expected.iter().zip(found) {
        assert_eq!((&old.2, &old.3), (&new.2, &new.3), "{}", old.1);
    }
}

/// `latest:path`, filters and overwriting: our restore leaves the same tree as restic's, also over
/// an existing one.
#[test]
fn restores_leave_the_same_tree_as_restics() {
    let fs = volume();
    let repo = Repo::empty(2);
    repo.backup(Peer::Restic019, fs.path(), ".", &[]);
    let cases: [(&str, &[&str]); 16] = [
        ("latest", &[]),
        ("latest:/c", &[]),
        ("latest:c/deep/er", &[]),
        ("latest", &["--include", "*.txt"]),
        ("latest", &["--include", "/c/deep"]),
        ("latest", &["--iinclude", "*.LOG"]),
        ("latest", &["--include", "same", "--include", "x"]),
        ("latest", &["--exclude", "same"]),
        ("latest", &["--iexclude", "*.log", "--exclude", "/c/cache"]),
        ("latest", &["--delete"]),
        ("latest", &["--delete", "--include", "/a"]),
        ("latest", &["--delete", "--exclude", "/mine"]),
        ("latest", &["--overwrite", "never"]),
        ("latest", &["--overwrite", "if-newer"]),
        ("latest", &["--overwrite", "if-changed"]),
        ("latest", &["--dry-run", "--delete"]),
    ];
    let start = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let mut wrong = String::new();
    for populated in [false, true] {
        for (snapshot, options) in cases {
            let target = LoopFs::new(64 << 20);
            let (theirs, ours) = (target.path().join("theirs"), target.path().join("ours"));
            for (peer, place) in [(Peer::Restic019, &theirs), (Peer::Vsm, &ours)] {
                std::fs::create_dir(place).expect("a target");
                if populated {
                    populate(place);
                }
                repo.restore_with(peer, snapshot, place, options).ok();
            }
            let context = format!("{snapshot} {options:?}, populated: {populated}");
            let mut found = compare::trees(&theirs, &ours, Options::default());
            // Entries whose time neither tool has set have the current time.
            let recent = |time: &str| time.split('.').next().and_then(|seconds| seconds.parse().ok()) >= Some(start);
            found.retain(|one| one.what != compare::What::Mtime || !recent(&one.source) || !recent(&one.restored));
            if !found.is_empty() {
                wrong.push_str(&format!("{context}\n{}", compare::listed(&found)));
            }
        }
    }
    assert!(wrong.is_empty(), "our restores differ from restic's\n{wrong}");
}

/// A file in the way of a directory is replaced. A directory with entries is not removed for a
/// file, unless an option asks for it: both tools report it, restore the rest, and fail.
#[test]
fn entries_in_the_way_are_replaced_or_reported_as_by_restic() {
    let fs = volume();
    let repo = Repo::empty(2);
    repo.backup(Peer::Restic019, fs.path(), ".", &[]);
    for peer in [Peer::Restic019, Peer::Vsm] {
        let target = repo.beside(peer.name());
        std::fs::create_dir_all(target.join("x/mine")).expect("directories");
        std::fs::write(target.join("b"), b"a file where a directory belongs").expect("a file");
        let run = repo.restore(peer, "latest", &target).exits(1);
        assert!(run.errors().contains("/x"), "{peer:?} does not say where\n{run}");
        let mut found = compare::trees(fs.path(), &target, Options::default());
        found.retain(|one| !one.path.starts_with("x") && one.what != compare::What::Mtime);
        assert!(found.is_empty(), "{peer:?}\n{}", compare::listed(&found));
        assert!(target.join("x/mine").is_dir());
    }
}

/// A target with entries in the way of all others: older, newer, longer, of another type, and files
/// of its own.
fn populate(place: &Path) {
    for dir in ["a/same/one", "mine/deep", "c/deep", "x"] {
        std::fs::create_dir_all(place.join(dir)).expect("directories");
    }
    std::fs::write(place.join("single"), vec![b's'; 5000]).expect("a file");
    std::fs::write(place.join("mine/deep/file"), b"mine").expect("a file");
    std::fs::write(place.join("-dash"), vec![b'd'; 110]).expect("a file");
    std::os::unix::fs::symlink("/nowhere", place.join("[x]")).expect("a link");
    let mut open = vec![place.to_owned()];
    while let Some(path) = open.pop() {
        // Older than anything in the snapshot; "-dash" is newer.
        let seconds = if path.ends_with("-dash") { 4_000_000_000 } else { 1_000_000_000 };
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
    }
}
