//! `prune` and `forget --prune` do what restic's do: the same counts on a copy of the same repository, and afterwards both programs find
//! everything that is left, to the last byte.

use crate::common::compare::{self, Options};
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that changes from one backup to the next: large files that stay, are cut off, and grow, and many small ones.
struct Source {
    dir: tempfile::TempDir,
}

impl Source {
    fn new() -> Source {
        let source = Source { dir: scratch() };
        fs::create_dir(source.path()).expect("a directory");
        for number in 0..6 {
            source.write(&format!("large-{number}"), number, 3 << 20);
        }
        for number in 0..150 {
            source.write(&format!("dir-{}/small-{number}", number % 12), 1000 + number, 2000 + 37 * number as usize);
        }
        source
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn write(&self, name: &str, seed: u64, size: usize) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, Random(seed).bytes(size)).expect("a file");
    }

    /// What happens to it between two backups.
    fn change(&self, round: u64) {
        self.write(&format!("large-{}", round % 6), 100 + round, 3 << 20);
        for number in (round..150).step_by(7) {
            self.write(&format!("dir-{}/small-{number}", number % 12), 5000 + 200 * round + number, 4000);
        }
        let _ = fs::remove_file(self.path().join(format!("dir-1/small-{}", 1 + 12 * round)));
    }
}

/// A repository of several backups, of which each took place after a change; and the source as it was for the last of them.
fn repository(maker: Peer, format: u32, backups: u64) -> (Repo, Source) {
    let repo = Repo::made_by(maker, format).quick();
    let source = Source::new();
    for round in 0..backups {
        if round > 0 {
            source.change(round);
        }
        repo.backup(maker, source.dir.path(), "data", &[]);
    }
    (repo, source)
}

/// The same files under another address, for another program to work on.
fn copy(repo: &Repo) -> Repo {
    let other = Repo::new();
    Run::of(Command::new("cp").arg("-a").arg(repo.path()).arg(other.path())).ok();
    other
}

fn ids(repo: &Repo) -> Vec<String> {
    let id = |snapshot: &Value| snapshot["id"].as_str().expect("an id").to_owned();
    repo.snapshots(Peer::Restic019).iter().map(id).collect()
}

/// Everything is there, says each program, and what a snapshot holds is what was saved.
fn demand_sound(repo: &Repo, newest: &Path) {
    for peer in [Peer::Restic019, Peer::Vsm] {
        let check = repo.check(peer).ok();
        assert!(!check.errors().contains("not referenced"), "{check}");
    }
    let target = scratch();
    for (peer, name) in [(Peer::Vsm, "ours"), (Peer::Restic019, "theirs")] {
        let out = target.path().join(name);
        repo.restore(peer, "latest", &out).ok();
        compare::assert_same(newest, &out.join("data"), Options::default());
    }
    for snapshot in ids(repo) {
        repo.restore(Peer::Vsm, &snapshot, &target.path().join(&snapshot)).ok();
    }
}

/// Both programs prune a copy each: the counts must be the same, and the results sound.
fn demand_alike(repo: &Repo, source: &Source, words: &[&str]) -> Value {
    let run = |peer| {
        let repo = copy(repo);
        let run = repo.run(peer, [&["--json"], words].concat());
        (repo, run)
    };
    let ((theirs, expected), (ours, found)) = (run(Peer::Restic019), run(Peer::Vsm));
    let told = format!("{words:?}\nrestic:\n{expected}\nours:\n{found}");
    assert_eq!(found.code(), expected.code(), "{told}");
    let summary = |run: &Run| run.summary();
    let (expected, found) = (summary(&expected), summary(&found));
    assert_eq!(found, expected, "{told}");
    assert_eq!(ids(&ours), ids(&theirs), "{told}");
    let packs = |repo: &Repo| files_below(&repo.path().join("data")).len();
    if !words.contains(&"--dry-run") {
        // How blobs are distributed over new packs is each program's own affair.
        assert!(packs(&ours) <= packs(&theirs) + 2, "{} packs, and restic's {}: {told}", packs(&ours), packs(&theirs));
        demand_sound(&ours, &source.path());
        // There is nothing more to do, says restic too.
        let again: Value = ours.run(Peer::Restic019, [&["--json", "--dry-run"], words].concat()).ok().summary();
        assert_eq!(again["packfiles"]["unreferenced"], 0, "{again}");
        assert_eq!(again["packfiles"]["unused"], 0, "{again}");
    }
    found
}

#[test]
fn what_restic_would_do_is_done() {
    for (maker, format) in [(Peer::Restic019, 2), (Peer::Vsm, 2), (Peer::Restic014, 1), (Peer::Vsm, 1)] {
        let (repo, source) = repository(maker, format, 4);
        let nothing = demand_alike(&repo, &source, &["prune"]);
        assert_eq!(nothing["blobs"]["unused"], 0, "{nothing}");
        for id in &ids(&repo)[..3] {
            repo.run(Peer::Restic019, ["forget", id]).ok();
        }
        for words in [
            &["prune", "--dry-run"][..],
            &["prune"],
            &["prune", "--max-unused", "0"],
            &["prune", "--max-unused", "unlimited"],
            &["prune", "--max-unused", "30%"],
            &["prune", "--max-unused", "1M"],
            &["prune", "--max-unused", "0", "--max-repack-size", "1M"],
            &["prune", "--max-unused", "0", "--max-repack-size", "0"],
            &["prune", "--repack-cacheable-only"],
            &["prune", "--repack-smaller-than", "16M"],
        ] {
            let summary = demand_alike(&repo, &source, words);
            assert_ne!(summary["blobs"]["unused"], 0, "{summary}");
        }
    }
}

#[test]
fn forget_prunes_on_request() {
    let (repo, source) = repository(Peer::Vsm, 2, 4);
    let summary = demand_alike(&repo, &source, &["forget", "--keep-last", "2", "--prune", "--max-unused", "0"]);
    assert_eq!(summary["bytes"]["remaining_unused"], 0, "{summary}");
    demand_alike(&repo, &source, &["forget", "--keep-last", "1", "--prune", "--dry-run"]);
    // Without anything to forget there is no prune.
    let run = repo.run(Peer::Vsm, ["forget", "--keep-last", "9", "--prune"]).ok();
    assert!(!run.text().contains("prune"), "{run}");
}

#[test]
fn a_repository_is_compressed_afterwards_on_request() {
    let (repo, source) = repository(Peer::Vsm, 2, 1);
    source.write("zeros", 0, 0);
    fs::write(source.path().join("text"), "much the same line\n".repeat(200_000)).expect("a file");
    repo.backup(Peer::Vsm, source.dir.path(), "data", &["--compression", "off"]);
    let before = size(&repo);
    let summary = demand_alike(&repo, &source, &["prune", "--repack-uncompressed"]);
    assert_ne!(summary["packfiles"]["repack"], 0, "{summary}");
    repo.run(Peer::Vsm, ["prune", "--repack-uncompressed"]).ok();
    assert!(size(&repo) + 1_000_000 < before, "{} of {before} bytes", size(&repo));
    let refused = repo.run(Peer::Vsm, ["prune", "--repack-uncompressed", "--compression", "off"]).exits(1);
    assert!(refused.errors().contains("exclude each other"), "{refused}");
    let (old, _) = repository(Peer::Vsm, 1, 1);
    let refused = old.run(Peer::Vsm, ["prune", "--repack-uncompressed"]).exits(1);
    assert!(refused.errors().contains("version 1"), "{refused}");
}

fn size(repo: &Repo) -> u64 {
    files_below(repo.path()).iter().map(|file| file.metadata().map_or(0, |file| file.len())).sum()
}

/// An index that was lost makes the next backup store everything once more; with the index back, there are two copies of all.
#[test]
fn of_two_copies_one_goes() {
    let (repo, source) = repository(Peer::Restic019, 2, 1);
    let index = repo.path().join("index");
    let away = repo.beside("index");
    fs::rename(&index, &away).expect("the index goes");
    fs::create_dir(&index).expect("an empty one");
    repo.backup(Peer::Vsm, source.dir.path(), "data", &["--force"]);
    for file in fs::read_dir(&away).expect("the index").flatten() {
        fs::copy(file.path(), index.join(file.file_name())).expect("the index comes back");
    }
    let dry: Value = copy(&repo).run(Peer::Restic019, ["prune", "--json", "--dry-run"]).ok().summary();
    assert_ne!(dry["blobs"]["duplicate"], 0, "{dry}");
    let found: Value = repo.run(Peer::Vsm, ["prune", "--json"]).ok().summary();
    for count in ["used", "duplicate", "unused", "total"] {
        assert_eq!(found["blobs"][count], dry["blobs"][count], "{count}: {found} {dry}");
    }
    demand_sound(&repo, &source.path());
    let again: Value = repo.run(Peer::Restic019, ["prune", "--json", "--dry-run"]).ok().summary();
    assert_eq!(again["blobs"]["duplicate"], 0, "{again}");
}

/// Files that do not belong there, and files that are missing: what nothing needs is put in order, and where something is needed,
/// nothing is touched.
#[test]
fn what_is_missing_ends_it_only_if_it_is_needed() {
    let (repo, source) = repository(Peer::Vsm, 2, 3);
    let all = ids(&repo);
    // Packs that are in no index.
    let foreign = copy(&repo);
    fs::remove_dir_all(foreign.path().join("index")).expect("no index");
    fs::create_dir(foreign.path().join("index")).expect("an empty one");
    fs::remove_dir_all(foreign.path().join("snapshots")).expect("no snapshots");
    fs::create_dir(foreign.path().join("snapshots")).expect("an empty one");
    let summary: Value = foreign.run(Peer::Vsm, ["prune", "--json"]).ok().summary();
    assert_ne!(summary["packfiles"]["unreferenced"], 0, "{summary}");
    assert!(files_below(&foreign.path().join("data")).is_empty());

    // Needed: nothing changes, whichever pack it is.
    let broken = copy(&repo);
    for snapshot in &all[..2] {
        broken.run(Peer::Vsm, ["forget", snapshot]).ok();
    }
    let packs = files_below(&broken.path().join("data"));
    let (mut refused, mut pruned) = (0, 0);
    for pack in &packs {
        let name = pack.file_name().expect("a name").to_string_lossy().into_owned();
        for cut in [false, true] {
            let repo = copy(&broken);
            let pack = repo.path().join("data").join(&name[..2]).join(&name);
            if cut {
                let bytes = fs::read(&pack).expect("a pack");
                fs::write(&pack, &bytes[..bytes.len() - 1]).expect("a byte less");
            } else {
                fs::remove_file(&pack).expect("a pack less");
            }
            let before = files(&repo);
            let run = repo.run(Peer::Vsm, ["prune", "--max-unused", "0"]);
            if run.succeeded() {
                pruned += 1;
                demand_sound(&repo, &source.path());
            } else {
                refused += 1;
                assert!(run.errors().contains(&name) || run.errors().contains("snapshot"), "{run}");
                assert_eq!(files(&repo), before, "{run}");
            }
        }
    }
    assert!(refused > 0, "no pack was needed");
    assert!(pruned + refused == 2 * packs.len(), "{pruned} {refused}");
}

/// All files and their sizes, but for locks.
fn files(repo: &Repo) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = files_below(repo.path())
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains("/locks/"))
        .map(|path| (path.strip_prefix(repo.path()).expect("below").to_owned(), path.metadata().expect("a file").len()))
        .collect();
    files.sort();
    files
}
