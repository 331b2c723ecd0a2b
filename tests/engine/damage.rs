//! Tests every kind of file × every kind of damage × every operation: a wrong byte is never
//! restored without an error, a good snapshot is never lost, and the damaged object is named.
//!
//! A snapshot is good if restic restores it. docs/reference/damage.md has the table of the
//! verdicts, restic's beside ours, which must equal the results of this test.

use crate::common::compare::{self, Options};
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const DOCUMENT: &str = include_str!("../../docs/reference/damage.md");

/// A repository of two snapshots, the second with all files of the first and more, and the state of
/// the source at each.
struct Bed {
    repo: Repo,
    source: tempfile::TempDir,
    /// By snapshot id.
    states: BTreeMap<String, PathBuf>,
}

impl Bed {
    fn new() -> Bed {
        let repo = Repo::empty(2);
        let source = scratch();
        let mut bed = Bed { repo, source, states: BTreeMap::new() };
        for round in 0..2u64 {
            for name in ["first", "second"].iter().take(round as usize + 1) {
                let dir = bed.source.path().join("data").join(name);
                fs::create_dir_all(&dir).expect("a directory");
                for number in 0..6 {
                    let seed = name.len() as u64 * 100 + number;
                    fs::write(dir.join(format!("file-{number}")), Random(seed).bytes(30_000)).expect("a file");
                }
            }
            // Threads that store in parallel fill a pack each, so that packs differ from run to
            // run.
            let summary = bed.repo.backup(Peer::Vsm, bed.source.path(), "data", &["--threads", "1"]);
            let state = bed.source.path().join(format!("state-{round}"));
            Run::of(Command::new("cp").arg("-a").arg(bed.source.path().join("data")).arg(&state)).ok();
            bed.states.insert(summary["snapshot_id"].as_str().expect("an id").to_owned(), state);
        }
        bed
    }

    /// Restores a snapshot and returns the run and the paths that differ from the source.
    fn restore(&self, repo: &Repo, peer: Peer, id: &str) -> (Run, Vec<String>) {
        let out = scratch();
        let run = repo.restore_with(peer, id, &out.path().join("out"), &["--no-lock"]);
        let found = out.path().join("out/data");
        let differences = if found.is_dir() {
            let found = compare::trees(&self.states[id], &found, Options::default());
            found.iter().map(|difference| difference.path.to_string_lossy().into_owned()).collect()
        } else {
            vec!["all".to_owned()]
        };
        (run, differences)
    }

    /// The snapshots that restic restores whole.
    fn good(&self, repo: &Repo) -> Vec<String> {
        let whole = |id: &&String| {
            let (run, differences) = self.restore(repo, Peer::Restic019, id);
            run.succeeded() && differences.is_empty()
        };
        self.states.keys().filter(whole).cloned().collect()
    }
}

/// The files of a kind, those of the first backup first. A pack of trees is small.
fn targets(repo: &Repo, kind: &str) -> Vec<PathBuf> {
    let oldest_first = |dir: &str| {
        let mut files = files_below(&repo.path().join(dir));
        files.sort_by_key(|file| file.metadata().and_then(|file| file.modified()).expect("a time"));
        files
    };
    let packs = |is_wanted: fn(u64) -> bool| {
        let packs = oldest_first("data").into_iter();
        packs.filter(|pack| is_wanted(pack.metadata().expect("a pack").len())).collect()
    };
    match kind {
        "config" => vec![repo.path().join("config"), oldest_first("keys")[0].clone()],
        "key" => vec![oldest_first("keys")[0].clone(), repo.path().join("config")],
        "snapshot" => oldest_first("snapshots"),
        "index" => oldest_first("index"),
        "pack of data" => packs(|size| size > 20_000),
        _ => packs(|size| size < 20_000),
    }
}

fn damage(repo: &Repo, kind: &str, how: &str) -> PathBuf {
    let targets = targets(repo, kind);
    let target = targets[0].clone();
    let bytes = fs::read(&target).expect("a file");
    match how {
        "missing" => fs::remove_file(&target).expect("a removal"),
        "cut short" => fs::write(&target, &bytes[..bytes.len() / 2]).expect("half of it"),
        "a bit flipped" => {
            let mut bytes = bytes;
            let at = bytes.len() / 3;
            bytes[at] ^= 1;
            fs::write(&target, bytes).expect("another bit");
        }
        _ => {
            let other = fs::read(&targets[1]).expect("another one");
            fs::write(&target, other).expect("the other's content");
            fs::write(&targets[1], bytes).expect("this one's content");
        }
    }
    target
}

/// All files except locks, with their content.
fn content(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = files_below(repo.path()).into_iter().filter(|path| !path.to_string_lossy().contains("/locks/"));
    all.map(|path| (path.strip_prefix(repo.path()).expect("below").to_owned(), fs::read(&path).expect("a file")))
        .collect()
}

/// The verdicts on restores of both snapshots.
fn restores(bed: &Bed, repo: &Repo, peer: Peer, case: &str) -> String {
    let mut verdicts = Vec::new();
    for id in bed.states.keys() {
        let (run, differences) = bed.restore(repo, peer, id);
        verdicts.push(match (run.succeeded(), differences.is_empty()) {
            (true, true) => "whole",
            (false, true) => "whole, reported",
            (false, false) => "reported",
            (true, false) => "silent",
        });
        if peer == Peer::Vsm {
            assert!(
                !run.succeeded() || differences.is_empty(),
                "{case}: differences without an error: {differences:?}\n{run}"
            );
            // The errors name each damaged file or its directory, unless nothing could be restored.
            let names = |path: &String| {
                let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
                run.errors().contains(file) || run.errors().contains(&format!("/data/{directory}"))
            };
            let all = differences.iter().any(|path| path == "all");
            assert!(
                all || differences.iter().filter(|path| path.contains("file-")).all(names),
                "{case}: {differences:?}\n{run}"
            );
        }
    }
    verdicts.sort_unstable();
    verdicts.dedup();
    verdicts.join("; ")
}

/// Asserts that `check` reports exactly the files that a restore does not restore. (The restore is
/// ours, because restic gives up a whole snapshot if a part of the index is missing.)
fn assert_hits(bed: &Bed, repo: &Repo, case: &str) {
    let check = repo.run(Peer::Vsm, ["check", "--read-data", "--no-lock", "--json"]);
    if check.text().is_empty() {
        // The check could not start.
        return;
    }
    let messages: Vec<Value> = check.errors().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for id in bed.states.keys() {
        let there = repo.path().join("snapshots").join(id);
        if !fs::read(there).is_ok_and(|file| vsm::id::Id::of(&file).to_string() == *id) {
            continue;
        }
        let hit = messages.iter().find(|line| line["message_type"] == "damaged_snapshot" && line["id"] == **id);
        let paths = hit.map_or(&[][..], |hit| hit["paths"].as_array().expect("paths"));
        let paths: Vec<&str> = paths.iter().map(|path| path.as_str().expect("a path")).collect();
        let (_, differences) = bed.restore(repo, Peer::Vsm, id);
        if differences.iter().any(|path| path == "all") {
            assert!(!paths.is_empty(), "{case}: check reports no damage of {id}\n{check}");
            continue;
        }
        let state = &bed.states[id];
        for file in files_below(state) {
            let path = file.strip_prefix(state).expect("below").to_str().expect("UTF-8").to_owned();
            let own = format!("/data/{path}");
            let is_hit = paths.iter().any(|hit| *hit == own || (hit.ends_with('/') && own.starts_with(*hit)));
            assert_eq!(
                is_hit,
                differences.contains(&path),
                "{case}: {path} of {id}: {paths:?} and {differences:?}\n{check}"
            );
        }
    }
}

/// Runs the repairs that `check` recommends until it recommends none.
fn repair(repo: &Repo, case: &str) -> String {
    let dir = scratch();
    let run = |words: &[&str]| Run::of(repo.command(Peer::Vsm).current_dir(dir.path()).args(words));
    for _ in 0..4 {
        let check = run(&["check", "--read-data", "--json"]);
        let last = check.text().lines().last().and_then(|line| serde_json::from_str(line).ok());
        let Some(summary): Option<Value> = last else { return "not by a repair".to_owned() };
        for command in summary["repair"].as_array().into_iter().flatten() {
            let run = run(&command.as_str().expect("a command").split(' ').collect::<Vec<_>>());
            // 3: the command reports lost data.
            assert!(matches!(run.code(), 0 | 3), "{case}: {run}");
        }
        if check.succeeded() {
            break;
        }
    }
    for peer in [Peer::Restic019, Peer::Vsm] {
        let check = repo.check(peer);
        assert!(check.succeeded(), "{case}: {check}");
    }
    "sound".to_owned()
}

fn row(bed: &Bed, kind: &str, how: &str) -> String {
    let broken = bed.repo.copy();
    let target = damage(&broken, kind, how);
    let case = format!("{kind} {how}");
    let name = target.file_name().expect("a name").to_string_lossy().into_owned();
    let good = bed.good(&broken);
    let code = |peer: Peer, words: &[&str]| {
        let repo = broken.copy();
        let run = repo.run(peer, words);
        (repo, run)
    };
    let (_, ours) = code(Peer::Vsm, &["check", "--read-data"]);
    let (_, theirs) = code(Peer::Restic019, &["check", "--read-data"]);
    assert_hits(bed, &broken, &case);
    // The output names the damaged file, or the data that is missing without it.
    let says = ours.errors() + &ours.text();
    let id = &name[..8.min(name.len())];
    let expected = match (kind, how) {
        ("config", "missing") => "has no config file".to_owned(),
        // The program reads keys first, and one of the two swapped files is a key.
        ("config", "swapped") => "key ".to_owned(),
        ("config", _) => "config does not authenticate".to_owned(),
        ("key", "missing") => "has a config but no key at all".to_owned(),
        ("key", _) => format!("key {id}"),
        ("index", "missing") => "is in no index".to_owned(),
        _ => id.to_owned(),
    };
    assert!(ours.succeeded() || says.contains(&expected), "{case}: {expected:?} is not in\n{ours}");
    assert!(!ours.succeeded() || theirs.succeeded(), "{case}: restic finds damage that we do not\n{theirs}");
    let check = format!("{} ({})", ours.code(), theirs.code());
    let restore =
        format!("{} ({})", restores(bed, &broken, Peer::Vsm, &case), restores(bed, &broken, Peer::Restic019, &case));
    let mut codes = Vec::new();
    for words in [&["prune", "--max-unused", "0"][..], &["backup", "--host", "tests", "data"]] {
        let run = |peer| {
            let repo = broken.copy();
            let run = Run::of(repo.command(peer).current_dir(bed.source.path()).args(words));
            (repo, run)
        };
        let ((repo, ours), (_, theirs)) = (run(Peer::Vsm), run(Peer::Restic019));
        for id in &good {
            let (run, differences) = bed.restore(&repo, Peer::Restic019, id);
            assert!(run.succeeded() && differences.is_empty(), "{case}, {words:?}: {id} was good\n{ours}\n{run}");
        }
        if words[0] == "prune" && !ours.succeeded() {
            assert!(content(&repo) == content(&broken), "{case}: a prune that failed changed something\n{ours}");
        }
        codes.push(format!("{} ({})", ours.code(), theirs.code()));
    }
    let repaired = broken.copy();
    let after = repair(&repaired, &case);
    if after == "sound" {
        for id in &good {
            let (run, differences) = bed.restore(&repaired, Peer::Restic019, id);
            assert!(run.succeeded() && differences.is_empty(), "{case}: {id} was good before the repair\n{run}");
        }
    }
    let [prune, backup] = &codes[..] else { panic!("two commands") };
    format!("| {kind} | {how} | {} of 2 | {check} | {restore} | {prune} | {backup} | {after} |", good.len())
}

#[test]
fn no_damage_is_silent_and_none_spreads() {
    let bed = Bed::new();
    let kinds = ["config", "key", "snapshot", "index", "pack of data", "pack of trees"];
    let cases: Vec<(&str, &str)> = kinds
        .iter()
        .flat_map(|kind| ["missing", "cut short", "a bit flipped", "swapped"].map(|how| (*kind, how)))
        .collect();
    let mut table = String::new();
    let half = cases.len().div_ceil(2);
    let rows: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .chunks(half)
            .map(|cases| scope.spawn(|| cases.iter().map(|(kind, how)| row(&bed, kind, how)).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    for row in rows {
        writeln!(table, "{row}").expect("a string");
    }
    assert!(DOCUMENT.contains(&table), "docs/reference/damage.md must have these rows:\n{table}");
}
