//! Simulates processes that share a repository, in an order that a seed draws.
//!
//! The processes are two backups, a forget, a prune, a check, and one with a wrong clock, which
//! takes all locks for stale and removes them. (A clock has no other effect on a repository.) Some
//! of them end or fail on the way.
//!
//! The model: a complete snapshot stays, unless a forget was about to remove it; a backup that
//! reports a snapshot has made it; all existing snapshots are whole, whichever process ended; and a
//! final prune changes none of that. restic judges some of the states, too.
//!
//! [`with_restic`] adds processes of restic, on a folder.
//!
//! `VSM_SEED=17 cargo test --test tests simulation` runs that seed alone, and `VSM_SEEDS=5000` runs
//! that number of them. The same seed makes the same draws, but it does not control a process
//! between two operations, so that a rare failure may not recur at once.

mod schedule;
mod with_restic;
mod world;

use super::acts;
use crate::common::peers::{PASSWORD, Peer, Repo};
use crate::common::{Random, files_below};
use schedule::Bed;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vsm::format::Version;
use vsm::repo::{Error, InitOptions, Password, Settings, init, key_owner};
use vsm::store::{File, FileType, layout};
use world::{Fate, Files, Process, World};

/// The default number of seeds.
const SEEDS: u64 = 250;
/// The default number of seeds for two inits, each of which derives keys.
const INITS: u64 = 10;
/// restic judges one in this number of states.
const JUDGED: u64 = 100;
/// One in this number of seeds has a process with a wrong clock.
const WRONG_CLOCK: u64 = 4;

/// A repository that restic made, and the world that begins with it.
struct Made {
    repo: Repo,
    bed: Bed,
}

impl Made {
    fn new() -> Made {
        let repo = Repo::empty(2);
        let write = |name: &str, seed: u64| {
            let dir = repo.beside(name).join("dir");
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join("same"), Random(1).bytes(40_000)).expect("a file");
            fs::write(dir.join("other"), Random(seed).bytes(50_000)).expect("a file");
        };
        for round in 0..2 {
            write("source", 10 + round);
            repo.backup(Peer::Restic019, &repo.beside(""), "source", &[]);
        }
        write("source", 12);
        write("another", 13);
        let ids = repo.snapshots(Peer::Restic019);
        let snapshots = ids.iter().map(|it| it["id"].as_str().expect("an id").parse().expect("an id")).collect();
        let sources = ["source", "another"].map(|name| repo.beside(name));
        Made { bed: Bed::new(read(repo.path()), snapshots, sources), repo }
    }
}

/// The files of a folder repository.
fn read(root: &Path) -> Files {
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root).expect("below").to_str().expect("UTF-8").to_owned();
        Some((layout::parse(&name)?, fs::read(&path).expect("a file").into()))
    };
    let mut files: Files = files_below(root).into_iter().filter_map(named).collect();
    files.insert(File::CONFIG, fs::read(root.join("config")).expect("a config").into());
    files
}

fn restics_verdict(repo: &Repo, files: &Files) -> Option<String> {
    let repo = repo.copy();
    fs::remove_dir_all(repo.path()).expect("a removal");
    for (file, bytes) in files {
        let path = repo.path().join(layout::path(*file));
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    let check = repo.run(Peer::Restic019, ["check", "--read-data"]);
    (!check.succeeded()).then(|| format!("restic: {check}"))
}

#[test]
fn nothing_is_lost_in_any_order() {
    let Made { repo, bed } = Made::new();
    try_seeds(SEEDS, |seed| {
        let random = Random(seed.wrapping_mul(0x9E37_79B9));
        let (files, mut wrong) = schedule::run(&bed, seed.is_multiple_of(WRONG_CLOCK), random);
        if seed % JUDGED == 1 {
            wrong.extend(restics_verdict(&repo, &files));
        }
        wrong
    });
}

/// Without conditional writes an `init` looks before it writes, and another process may write in
/// between: an `init` that reports success has made the existing repository, and there is at most
/// one.
#[test]
fn two_inits_make_one_repository() {
    let password = Password::new(PASSWORD);
    let make = |process: &Process| {
        let _ending = process.ending();
        let options = InitOptions { version: Version::V2, polynomial: None, owner: key_owner(None, None) };
        init(Arc::new(process.clone()), &password, options, Settings::default()).map(|repo| repo.config().id)
    };
    try_seeds(INITS, |seed| {
        let mut random = Random(seed);
        let world = World::with(Files::new(), random.fork(), seed.is_multiple_of(2));
        let processes = [(); 2].map(|()| world.join(Fate::Lives, 1 + random.below(4)));
        let made = std::thread::scope(|scope| {
            let running = processes.each_ref().map(|process| scope.spawn(|| make(process)));
            running.map(|process| process.join().expect("no panic"))
        });
        let opened = acts::open(Arc::new(World::alone(world.files())));
        let there = opened.map(|repo| repo.config().id);
        let said: Vec<_> = made.iter().filter_map(|made| made.as_ref().ok()).collect();
        let keys = world.files().keys().filter(|file| file.ty == FileType::Key).count();
        // Both may withdraw in favour of each other; another `init` then succeeds.
        let again = || make(&World::alone(world.files())).is_ok();
        match &there {
            Ok(id) if said.iter().all(|said| *said == id) && keys >= 1 => Vec::new(),
            Err(Error::NoRepository { .. }) if said.is_empty() && again() => Vec::new(),
            _ => vec![format!("{made:?}, but the store has {there:?} with {keys} keys")],
        }
    });
}

/// Runs this number of seeds, or those that the environment names, one on each core at a time.
fn try_seeds(seeds: u64, run: impl Fn(u64) -> Vec<String> + Sync) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("VSM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("VSM_SEEDS").unwrap_or(seeds),
    };
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let wrong = run(seed);
                    if !wrong.is_empty() {
                        println!("VSM_SEED={seed}: {wrong:#?}");
                        failed.lock().expect("no panic").insert(seed, wrong);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    println!("{} seeds", seeds.end - seeds.start);
    assert!(failed.is_empty(), "VSM_SEED={:?} cargo test --test tests simulation: {failed:#?}", failed.keys().next());
}
