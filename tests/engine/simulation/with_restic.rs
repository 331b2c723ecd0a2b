//! Runs processes of restic and of ours in one folder at the same time, each with a script and
//! pauses that a seed draws.

use super::try_seeds;
use crate::common::compare::{self, Options};
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, scratch};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// The default number of seeds, each of which takes seconds.
const SEEDS: u64 = 4;
/// Commands in a script.
const COMMANDS: u64 = 5;
/// The exit code if another process has locked the repository.
const LOCKED: i32 = 11;

/// A snapshot that a process reported, and the state of its source.
struct Made {
    by: Peer,
    id: String,
    state: PathBuf,
}

/// Runs a script, and returns the snapshots and the errors.
fn play(repo: &Repo, peer: Peer, mut random: Random, source: &Path) -> (Vec<Made>, Vec<String>) {
    let (mut made, mut wrong) = (Vec::new(), Vec::new());
    for number in 0..COMMANDS {
        std::thread::sleep(Duration::from_millis(random.below(300)));
        let words: &[&str] = match random.below(5) {
            0..2 => &["backup", "--json", "--host", "host", "data"],
            // Removes only snapshots from before the scripts, which have another host.
            2 => &["forget", "--host", "before", "--keep-last", "1", "--group-by", "host"],
            3 => &["prune", "--max-unused", "0"],
            _ => &["check", "--read-data"],
        };
        if words[0] == "backup" {
            fs::write(source.join("data/own"), random.bytes(60_000)).expect("a file");
            fs::write(source.join("data").join(number.to_string()), random.bytes(20_000)).expect("a file");
        }
        let run = loop {
            let run = Run::of(repo.command(peer).current_dir(source).args(words));
            if run.code() != LOCKED {
                break run;
            }
            std::thread::sleep(Duration::from_millis(20 + random.below(100)));
        };
        if !run.succeeded() {
            wrong.push(format!("{peer:?}: {run}"));
        } else if words[0] == "backup" {
            let state = source.join(format!("state-{number}"));
            Run::of(Command::new("cp").arg("-a").arg(source.join("data")).arg(&state)).ok();
            let id = run.summary()["snapshot_id"].as_str().expect("an id").to_owned();
            made.push(Made { by: peer, id, state });
        }
    }
    (made, wrong)
}

fn run(seed: u64) -> Vec<String> {
    let mut random = Random(seed);
    let repo = Repo::empty(2);
    let homes: Vec<_> = (0..3).map(|_| scratch()).collect();
    for home in &homes {
        fs::create_dir(home.path().join("data")).expect("a directory");
        fs::write(home.path().join("data/shared"), Random(1).bytes(60_000)).expect("a file");
    }
    for round in 0..3 {
        fs::write(homes[2].path().join("data/old"), Random(10 + round).bytes(60_000)).expect("a file");
        let before = ["backup", "--host", "before", "data"];
        Run::of(repo.command(Peer::Restic019).current_dir(homes[2].path()).args(before)).ok();
    }
    let said = Mutex::new((Vec::new(), Vec::new()));
    std::thread::scope(|scope| {
        for (peer, home) in [Peer::Vsm, Peer::Restic019].into_iter().zip(&homes) {
            let (own, repo, said) = (random.fork(), &repo, &said);
            scope.spawn(move || {
                let (made, wrong) = play(repo, peer, own, home.path());
                let mut said = said.lock().expect("no panic");
                said.0.extend(made);
                said.1.extend(wrong);
            });
        }
    });
    let (made, mut wrong) = said.into_inner().expect("no panic");
    for peer in [Peer::Vsm, Peer::Restic019] {
        let check = repo.check(peer);
        if !check.succeeded() {
            wrong.push(format!("{peer:?} in the end: {check}"));
        }
    }
    for Made { by, id, state } in made {
        let other = if by == Peer::Vsm { Peer::Restic019 } else { Peer::Vsm };
        let target = scratch();
        let restore = repo.restore(other, &id, &target.path().join("out"));
        let differences = compare::trees(&state, &target.path().join("out/data"), Options::default());
        if !restore.succeeded() || !differences.is_empty() {
            wrong.push(format!("{id} of {by:?}, restored by {other:?}: {differences:?} {restore}"));
        }
    }
    wrong
}

#[test]
fn nothing_is_lost_beside_restic() {
    try_seeds(SEEDS, run);
}
