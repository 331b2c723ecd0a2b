//! Tests that `prune` and `forget --prune` do what restic's do: they report the same counts on a
//! copy of the same repository, and both programs then read all remaining data.

use crate::common::compare::{self, Options};
use crate::common::loops::LoopFs;
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory that changes from one backup to the next: large files, of which some are replaced,
/// and many small ones.
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

    /// Changes the directory between two backups.
    fn change(&self, round: u64) {
        self.write(&format!("large-{}", round % 6), 100 + round, 3 << 20);
        for number in (round..150).step_by(7) {
            self.write(&format!("dir-{}/small-{number}", number % 12), 5000 + 200 * round + number, 4000);
        }
        let _ = fs::remove_file(self.path().join(format!("dir-1/small-{}", 1 + 12 * round)));
    }
}

/// A repository with several backups, each after a change, and the source as of the last one.
fn repository(writer: Peer, format: u32, backups: u64) -> (Repo, Source) {
    let repo = Repo::empty(format);
    let source = Source::new();
    for round in 0..backups {
        if round > 0 {
            source.change(round);
        }
        repo.backup(writer, source.dir.path(), "data", &[]);
    }
    (repo, source)
}

fn ids(repo: &Repo) -> Vec<String> {
    let id = |snapshot: &Value| snapshot["id"].as_str().expect("an id").to_owned();
    repo.snapshots(Peer::Restic019).iter().map(id).collect()
}

/// Asserts that both programs find no fault, and that each snapshot is restored, the newest one as
/// it was saved.
fn demand_sound(repo: &Repo, newest: &Path) {
    for peer in [Peer::Restic019, Peer::Vsm] {
        let check = repo.check(peer).ok();
        // restic's words, and ours.
        let leftovers = ["not referenced", "in no index"];
        assert!(!leftovers.iter().any(|words| check.errors().contains(words)), "{check}");
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

/// The counts that restic prints: by label, the number of blobs or packs, and the size in restic's
/// notation.
fn counts(run: &Run) -> BTreeMap<String, (u64, String)> {
    let mut counts = BTreeMap::new();
    for line in run.text().lines() {
        let Some((label, rest)) = line.split_once(':') else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (number, size) = match words[..] {
            [number, "blobs", "/", size, unit] => (number, format!("{size} {unit}")),
            [number, "packs"] | [number] => (number, String::new()),
            [number, "unreferenced", "packs"] => {
                counts.insert("unreferenced packs".to_owned(), (number.parse().expect("a number"), String::new()));
                continue;
            }
            _ => continue,
        };
        let of_packs = matches!(words[..], [_, "packs"]);
        let label = if of_packs { format!("{label} packs") } else { label.to_owned() };
        counts.insert(label, (number.parse().expect("a number"), size));
    }
    counts
}

/// Our counts by the same labels.
fn our_counts(summary: &Value) -> BTreeMap<String, (u64, String)> {
    let number =
        |kind: &str, field: &str| summary[kind][field].as_u64().unwrap_or_else(|| panic!("{kind} {field}: {summary}"));
    let blobs = |field: &str, extra: u64| (number("blobs", field), restics_bytes(number("bytes", field) + extra));
    let packs = |field: &str| (number("packfiles", field), String::new());
    let unreferenced = number("bytes", "unreferenced");
    let mut counts = BTreeMap::from([
        ("used".to_owned(), blobs("used", 0)),
        ("unused".to_owned(), blobs("unused", 0)),
        ("total".to_owned(), blobs("total", 0)),
        ("to repack".to_owned(), blobs("repack", 0)),
        ("this removes".to_owned(), blobs("repack_remove", 0)),
        ("to delete".to_owned(), blobs("remove", unreferenced)),
        ("total prune".to_owned(), blobs("remove_total", 0)),
        ("remaining".to_owned(), blobs("remaining", 0)),
        ("totally used packs".to_owned(), packs("used")),
        ("partly used packs".to_owned(), packs("partly_used")),
        ("unused packs".to_owned(), packs("unused")),
        ("to keep packs".to_owned(), packs("keep")),
        ("to repack packs".to_owned(), packs("repack")),
        ("to delete packs".to_owned(), packs("remove")),
    ]);
    if number("blobs", "duplicate") > 0 {
        counts.insert("duplicates".to_owned(), blobs("duplicate", 0));
    }
    if unreferenced > 0 {
        counts.insert("unreferenced packs".to_owned(), packs("unreferenced"));
    }
    counts
}

/// `2.861 MiB`
fn restics_bytes(bytes: u64) -> String {
    match [(30, "GiB"), (20, "MiB"), (10, "KiB")].iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.3} {unit}", bytes as f64 / f64::from(1u32 << shift)),
        None => format!("{bytes} B"),
    }
}

/// The counts of a dry run of restic's prune.
fn restics_counts(repo: &Repo) -> BTreeMap<String, (u64, String)> {
    counts(&repo.run(Peer::Restic019, ["prune", "--dry-run", "-v"]).ok())
}

/// Prunes a copy with each program, and asserts that the counts are the same and the results sound.
fn demand_alike(repo: &Repo, source: &Source, words: &[&str]) -> Value {
    let run = |peer, how| {
        let repo = repo.copy();
        let run = repo.run(peer, [words, &[how]].concat());
        (repo, run)
    };
    let ((theirs, expected), (ours, found)) = (run(Peer::Restic019, "-v"), run(Peer::Vsm, "--json"));
    let case = format!("{words:?}\nrestic:\n{expected}\nours:\n{found}");
    assert_eq!(found.code(), expected.code(), "{case}");
    let last: Value = serde_json::from_str(found.text().lines().last().expect("a line")).expect("JSON");
    assert_eq!(our_counts(&last), counts(&expected), "{case}");
    assert_eq!(ids(&ours), ids(&theirs), "{case}");
    let packs = |repo: &Repo| files_below(&repo.path().join("data")).len();
    if !words.contains(&"--dry-run") {
        // Each program distributes blobs over new packs in its own way.
        assert!(packs(&ours) <= packs(&theirs) + 2, "{} packs, and restic's {}: {case}", packs(&ours), packs(&theirs));
        demand_sound(&ours, &source.path());
        // restic, too, finds no pack that could be removed without repacking.
        let again = restics_counts(&ours);
        assert!(again["unused packs"].0 == 0 && !again.contains_key("unreferenced packs"), "{again:?}");
    }
    last
}

#[test]
fn prune_does_the_same_as_restics_prune() {
    for (writer, format) in [(Peer::Restic019, 2), (Peer::Vsm, 2), (Peer::Restic014, 1), (Peer::Vsm, 1)] {
        let (repo, source) = repository(writer, format, 4);
        let nothing = demand_alike(&repo, &source, &["prune"]);
        assert_eq!(nothing["blobs"]["unused"], 0, "{nothing}");
        for id in &ids(&repo)[..3] {
            repo.run(Peer::Restic019, ["forget", id]).ok();
        }
        let all = [
            &["prune"][..],
            &["prune", "--dry-run"],
            &["prune", "--max-unused", "0"],
            &["prune", "--max-unused", "unlimited"],
            &["prune", "--max-unused", "30%"],
            &["prune", "--max-unused", "1M"],
            &["prune", "--max-unused", "0", "--max-repack-size", "1M"],
            &["prune", "--max-unused", "0", "--max-repack-size", "0"],
            &["prune", "--repack-cacheable-only"],
            &["prune", "--repack-smaller-than", "16M"],
        ];
        // The rules are the same for all writers and formats.
        for words in if writer == Peer::Restic019 { &all[..] } else { &all[..3] } {
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
    // If `forget` removes no snapshot, it does not prune.
    let run = repo.run(Peer::Vsm, ["forget", "--keep-last", "9", "--prune"]).ok();
    assert!(!run.text().contains("running prune"), "{run}");
}

#[test]
fn prune_compresses_a_repository_on_request() {
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

/// A backup without an index stores everything again; with the index restored, every blob exists
/// twice.
#[test]
fn prune_removes_one_of_two_copies() {
    let (repo, source) = repository(Peer::Restic019, 2, 1);
    let index = repo.path().join("index");
    let away = repo.beside("index");
    fs::rename(&index, &away).expect("a move");
    fs::create_dir(&index).expect("an empty one");
    repo.backup(Peer::Vsm, source.dir.path(), "data", &["--force"]);
    for file in fs::read_dir(&away).expect("the index").flatten() {
        fs::copy(file.path(), index.join(file.file_name())).expect("a copy");
    }
    let expected = restics_counts(&repo);
    assert_ne!(expected["duplicates"].0, 0, "{expected:?}");
    // Without this option some unused copies may stay, in restic's prune and in ours; their number
    // depends on the distribution of the blobs over packs.
    let summary: Value = repo.run(Peer::Vsm, ["prune", "--json", "--max-unused", "0"]).ok().summary();
    // The two copies of a blob may differ in size, and each program chooses for itself.
    let found = our_counts(&summary);
    for count in ["used", "duplicates", "unused", "total"] {
        assert_eq!(found[count].0, expected[count].0, "{count}: {summary} {expected:?}");
    }
    demand_sound(&repo, &source.path());
    let after = restics_counts(&repo);
    assert!(!after.contains_key("duplicates"), "{after:?} {summary}");
}

/// Packs that no index names are removed. A missing pack that no snapshot needs is dropped from the
/// index; if a snapshot needs it, prune changes nothing.
#[test]
fn prune_fails_on_a_missing_pack_only_if_a_snapshot_needs_it() {
    let (repo, source) = repository(Peer::Vsm, 2, 3);
    let all = ids(&repo);
    // Packs that are in no index.
    let foreign = repo.copy();
    fs::remove_dir_all(foreign.path().join("index")).expect("no index");
    fs::create_dir(foreign.path().join("index")).expect("an empty one");
    fs::remove_dir_all(foreign.path().join("snapshots")).expect("no snapshots");
    fs::create_dir(foreign.path().join("snapshots")).expect("an empty one");
    let summary: Value = foreign.run(Peer::Vsm, ["prune", "--json"]).ok().summary();
    assert_ne!(summary["packfiles"]["unreferenced"], 0, "{summary}");
    assert!(files_below(&foreign.path().join("data")).is_empty());

    // Each pack in turn is missing or cut: if a snapshot needs it, nothing changes.
    let broken = repo.copy();
    for snapshot in &all[..2] {
        broken.run(Peer::Vsm, ["forget", snapshot]).ok();
    }
    let packs = files_below(&broken.path().join("data"));
    let in_pack = blobs_by_pack(&broken);
    let (mut refused, mut pruned) = (0, 0);
    for pack in &packs {
        let name = pack.file_name().expect("a name").to_string_lossy().into_owned();
        for cut in [false, true] {
            let repo = broken.copy();
            let pack = repo.path().join("data").join(&name[..2]).join(&name);
            if cut {
                let bytes = fs::read(&pack).expect("a pack");
                fs::write(&pack, &bytes[..bytes.len() - 1]).expect("a shorter pack");
            } else {
                fs::remove_file(&pack).expect("a removal");
            }
            let before = files(&repo);
            let run = repo.run(Peer::Vsm, ["prune", "--max-unused", "0"]);
            if run.succeeded() {
                pruned += 1;
                demand_sound(&repo, &source.path());
            } else {
                refused += 1;
                // The error names the pack, or a blob in it.
                let errors = run.errors();
                let is_named = errors.contains(&name) || in_pack[&name].iter().any(|id| errors.contains(id));
                assert!(is_named, "{name}, {cut}: {run}");
                assert_eq!(files(&repo), before, "{run}");
            }
        }
    }
    // restic's prune removes the packs that no snapshot needs.
    let left = broken.copy();
    left.run(Peer::Restic019, ["prune", "--max-unused", "unlimited"]).ok();
    let needed = files_below(&left.path().join("data")).len();
    assert!(needed > 0 && needed < packs.len(), "{needed} of {}", packs.len());
    assert_eq!((refused, pruned), (2 * needed, 2 * (packs.len() - needed)));
}

/// The ids of the blobs of each pack, according to restic.
fn blobs_by_pack(repo: &Repo) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    let mut packs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for index in repo.list("index") {
        let index: Value = repo.run(Peer::Restic019, ["cat", "index", &index]).ok().json();
        for pack in index["packs"].as_array().into_iter().flatten() {
            let blobs = pack["blobs"].as_array().into_iter().flatten();
            packs.entry(text(&pack["id"])).or_default().extend(blobs.map(|blob| text(&blob["id"])));
        }
    }
    packs
}

/// All files except locks, with their sizes.
fn files(repo: &Repo) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = files_below(repo.path())
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains("/locks/"))
        .map(|path| (path.strip_prefix(repo.path()).expect("below").to_owned(), path.metadata().expect("a file").len()))
        .collect();
    files.sort();
    files
}

#[test]
fn prune_spills_an_index_that_exceeds_the_memory_budget() {
    let (repo, source) = repository(Peer::Restic019, 2, 4);
    super::sizes::add_packs(&repo, 4000);
    repo.run(Peer::Restic019, ["forget", "--keep-last", "1", "--quiet"]).ok();
    let with_memory = repo.copy();
    let prune = |repo: &Repo, arguments: &[&str], directory: &Path| {
        let mut command = repo.command(Peer::Vsm);
        command.args(["prune", "--max-unused", "0", "--json"]).args(arguments).env("TMPDIR", directory);
        Run::of(&mut command)
    };
    let nowhere = Path::new("/nowhere");
    let before = repo.list("packs").len();
    let small = LoopFs::new(8 << 20);
    for (directory, why) in [(nowhere, "No such file"), (small.path(), "No space left")] {
        let refused = prune(&repo, &["--memory", "90M"], directory).exits(1).errors();
        let words = [why, directory.to_str().expect("UTF-8"), "TMPDIR", "--memory"];
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    }
    assert_eq!(repo.list("packs").len(), before, "nothing was changed");
    assert!(repo.lock_files().is_empty());
    // The outcome is the same with unlimited memory, which needs no directory for spill files.
    let directory = scratch();
    let stats = prune(&repo, &["--memory", "90M"], directory.path()).ok().json();
    assert_eq!(stats, prune(&with_memory, &[], nowhere).ok().json());
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "a spill file is left");
    for repo in [&repo, &with_memory] {
        assert!(repo.list("packs").len() < 100);
        repo.run(Peer::Restic019, ["check", "--read-data"]).ok();
        let target = scratch();
        repo.restore(Peer::Restic019, "latest", target.path()).ok();
        compare::assert_same(&source.path(), &target.path().join("data"), Options { root: true, ..Options::default() });
    }
}
