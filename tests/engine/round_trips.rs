//! Tests that commands make few sequential round trips to an object store, and no more than
//! restic's. The same proxy counts those of both tools.

use crate::common::peers::{HOST, Peer};
use crate::common::round_trips::{RoundTrips, Trips};
use crate::common::s3::S3;
use crate::common::{Random, scratch};
use std::fs;
use std::path::Path;

/// A command, and the maximum number of sequential round trips of ours, if it has a goal.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    goal: Option<usize>,
}

const fn step(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, arguments, goal: None }
}

const fn with_goal(name: &'static str, arguments: &'static [&'static str], goal: usize) -> Step {
    Step { name, arguments, goal: Some(goal) }
}

/// A backup after a change of the source.
const CHANGED: &str = "changed backup";
const BACKUP: &[&str] = &["backup", "--host", HOST, "source"];

/// The steps run in this order. Those with a cache come first, and find each snapshot in it.
const STEPS: [Step; 13] = [
    with_goal("init", &["init"], 10),
    step("first backup", BACKUP),
    with_goal("unchanged backup", BACKUP, 10),
    with_goal("snapshots", &["snapshots"], 6),
    step("ls", &["ls", "latest"]),
    step("restore", &["restore", "latest", "--target", "target"]),
    step("check", &["check"]),
    step("snapshots, no cache", &["snapshots", "--no-cache"]),
    step("restore, no cache", &["restore", "latest", "--target", "target-uncached", "--no-cache"]),
    step("unchanged backup, no cache", &["backup", "--host", HOST, "source", "--no-cache"]),
    step(CHANGED, BACKUP),
    step("forget", &["forget", "--keep-last", "1"]),
    step("prune", &["prune", "--max-unused", "0"]),
];

/// Ten small files in two directories.
fn fill(source: &Path) {
    for number in 0..10 {
        let dir = source.join(format!("dir{}", number % 2)).join("below");
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("file{number}")), Random(number).bytes(20_000)).expect("a file");
    }
}

fn counted(s3: &S3, peer: Peer) -> Vec<Trips> {
    let proxy = RoundTrips::to(s3.port());
    let (repo, work) = (s3.repo_by(proxy.port(), &format!("{peer:?}")), scratch());
    let source = work.path().join("source");
    fill(&source);
    let count = |Step { name, arguments, .. }: &Step| {
        if *name == CHANGED {
            fs::remove_dir_all(source.join("dir0")).expect("a directory");
            fs::write(source.join("new"), Random(99).bytes(20_000)).expect("a file");
        }
        let mut command = repo.command(peer);
        command.current_dir(work.path()).args(*arguments);
        let (run, trips) = proxy.count(&mut command);
        run.ok();
        for (level, line) in &trips.requests {
            println!("{} {name}: {level:>2} {line}", peer.name());
        }
        trips
    };
    STEPS.iter().map(count).collect()
}

#[test]
fn commands_make_few_round_trips_in_a_row_and_no_more_than_restic() {
    let s3 = S3::with(&["--keep-alive"]);
    let [restic, ours] = std::thread::scope(|scope| {
        let s3 = &s3;
        let runs = [Peer::Restic019, Peer::Vsm].map(|peer| scope.spawn(move || counted(s3, peer)));
        runs.map(|run| run.join().expect("no panic"))
    });
    println!("| command | ours | restic | with connects: ours | restic | requests: ours | restic |");
    let mut faults = Vec::new();
    for ((Step { name, goal, .. }, ours), restic) in STEPS.iter().zip(&ours).zip(&restic) {
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} |",
            ours.sequential,
            restic.sequential,
            ours.with_connects,
            restic.with_connects,
            ours.requests.len(),
            restic.requests.len()
        );
        if ours.sequential > goal.unwrap_or(usize::MAX).min(restic.sequential)
            || ours.with_connects > restic.with_connects
        {
            faults.push(format!("{name}: {} and {} with connects", ours.sequential, ours.with_connects));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
