//! Processes that share a repository, in every order that a seed thinks of, some of which die or fail on the way: two backups, a forget, a
//! prune, a check, and somebody whose clock is wrong, so that he takes all locks for those of the dead and removes them. That is all
//! that a clock does to a repository.
//!
//! The model: a snapshot that was complete stays, unless a forget was about to remove it; a backup that says it made one has; what there is
//! of snapshots is whole, whoever died; and a prune at the end changes nothing of that. restic judges some of the states, too.
//!
//! [`with_restic`] has restic's processes among them, on a folder.
//!
//! `VSM_SEED=17 cargo test --test tests simulation` runs that seed alone, and `VSM_SEEDS=5000` so many of them. The same seed
//! makes the same draws; what a process does between two operations is its own, so that a rare one does not fail again at once.

mod with_restic;
mod world;

use super::acts;
use crate::common::peers::{PASSWORD, Peer, Repo};
use crate::common::{Random, files_below};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vsm::format::Version;
use vsm::id::Id;
use vsm::maintain::check::{Check, Subset};
use vsm::progress::Progress;
use vsm::repo::{
    Error, Index, InitOptions, LockMode, Password, Repository, Settings, StoredSnapshot, TreeReader, init, key_owner,
    unlock,
};
use vsm::store::{File, FileType, layout};
use world::{Fate, Files, Process, World};

/// Seeds that are tried unless somebody says otherwise.
const SEEDS: u64 = 250;
/// Of two inits, each of which derives keys.
const INITS: u64 = 10;
/// Of so many states one is judged by restic.
const JUDGED: u64 = 100;
/// Seeds of which one has somebody with a wrong clock.
const WRONG_CLOCK: u64 = 4;

/// Where every world begins: a repository of two snapshots, and what two backups find.
struct Bed {
    files: Files,
    snapshots: Vec<Id>,
    /// The trees that snapshots of them have.
    sources: [(PathBuf, Id); 2],
    repo: Repo,
}

impl Bed {
    fn new() -> Bed {
        let repo = Repo::made_by(Peer::Restic019, 2).quick();
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
        let files = read(repo.path());
        let sources = ["source", "another"].map(|name| {
            let path = repo.beside(name);
            let world = World::new(files.clone(), Random(0));
            let process = world.join(Fate::Lives, 1);
            let id = acts::back_up(Arc::new(process.clone()), &path).expect("a backup");
            let repo = acts::open(Arc::new(process)).expect("it opens");
            let tree = source_tree(&repo, &repo.load_snapshot(id).expect("a snapshot"), &path).expect("a tree");
            (path, tree)
        });
        Bed { files, snapshots, sources, repo }
    }
}

/// The tree of a source in a snapshot. (Of the directories above it, others change the times.)
fn source_tree(repo: &Repository, snapshot: &StoredSnapshot, source: &Path) -> Result<Id, Error> {
    let index = Index::load(repo)?;
    TreeReader::new(repo, &index).folder(snapshot.tree()?, source.as_os_str().as_bytes())
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    BackUp(usize),
    Forget,
    Prune,
    Check,
    Unlock,
}

/// What the processes of a world say that they have done.
#[derive(Default)]
struct Said {
    /// Snapshots that backups made, and of which source.
    made: BTreeMap<Id, usize>,
    /// Snapshots that a forget may have removed.
    forgotten: BTreeSet<Id>,
    wrong: Vec<String>,
}

/// Tries until nobody is in its way any more, as somebody would who waits.
fn patiently<T>(process: &Process, mut act: impl FnMut(Arc<Process>) -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..4 {
        match act(Arc::new(process.clone())) {
            Err(Error::Locked { .. }) => {}
            other => return other,
        }
    }
    act(Arc::new(process.clone()))
}

fn play(part: Part, fate: Fate, bed: &Bed, process: &Process, said: &Mutex<Said>) {
    let said = || said.lock().expect("no panic");
    match part {
        Part::BackUp(source) => {
            if let Ok(id) = patiently(process, |store| acts::back_up(store, &bed.sources[source].0)) {
                said().made.insert(id, source);
            }
        }
        Part::Forget => {
            // Whatever becomes of it, this one may be gone: it is the oldest, and nobody else forgets.
            said().forgotten.insert(bed.snapshots[0]);
            let _ = patiently(process, |store| acts::forget(store));
        }
        Part::Prune => drop(patiently(process, |store| acts::prune(store))),
        Part::Check => {
            let checked = patiently(process, |store| acts::locked(store, LockMode::Exclusive, |repo| problems(repo)));
            if let Ok(found) = checked
                && !found.is_empty()
                // What fails is told, too.
                && fate == Fate::Lives
            {
                said().wrong.push(format!("a check found {found:?}"));
            }
        }
        Part::Unlock => drop(acts::open(Arc::new(process.clone())).and_then(|repo| unlock(&repo, true))),
    }
}

/// What our check finds, every byte read.
fn problems(repo: &Repository) -> Result<Vec<String>, Error> {
    let progress = Progress::silent();
    let mut check = Check::start(repo, &progress)?;
    check.packs()?;
    check.trees()?;
    check.data(Subset::All)?;
    check.finish();
    Ok(progress.first_problems().into_iter().map(|it| format!("{}: {}", it.item, it.message)).collect())
}

/// What of it hits a snapshot.
fn hits(repo: &Repository) -> Result<Vec<String>, Error> {
    let progress = Progress::silent();
    let mut check = Check::start(repo, &progress)?;
    check.packs()?;
    check.trees()?;
    check.data(Subset::All)?;
    let mut hits = Vec::new();
    check.hits(&mut |stored, hit| hits.push(format!("snapshot {}: {hit:?}", stored.id)))?;
    Ok(hits)
}

/// One world; what is wrong with it in the end.
fn run(bed: &Bed, seed: u64) -> Vec<String> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9));
    let mut parts = vec![Part::BackUp(0), Part::BackUp(1), Part::Forget, Part::Prune];
    if random.below(2) == 0 {
        parts.push(Part::Check);
    }
    let wrong_clock = seed.is_multiple_of(WRONG_CLOCK);
    if wrong_clock {
        parts.push(Part::Unlock);
    }
    let world = World::new(bed.files.clone(), Random(random.next()));
    let cast: Vec<(Part, Fate, Process)> = parts
        .into_iter()
        .map(|part| {
            let at = random.below(60);
            let fate = match random.below(8) {
                0 => Fate::DiesBefore(at),
                1 => Fate::DiesAfter(at),
                2 => Fate::Fails(at),
                _ => Fate::Lives,
            };
            (part, fate, world.join(fate, 1 + random.below(8)))
        })
        .collect();
    let said = Mutex::new(Said::default());
    std::thread::scope(|scope| {
        for (part, fate, process) in &cast {
            let said = &said;
            scope.spawn(move || {
                let _ending = process.ending();
                play(*part, *fate, bed, process, said);
            });
        }
    });
    let Said { made, forgotten, mut wrong } = said.into_inner().expect("no panic");
    // A check beside somebody who takes its lock away may see anything.
    if wrong_clock {
        wrong.clear();
    }
    let world = World::new(world.files(), Random(0));
    let process = world.join(Fate::Lives, 1);
    let judge = |when: &str, found: fn(&Repository) -> Result<Vec<String>, Error>, wrong: &mut Vec<String>| {
        let repo = acts::open(Arc::new(process.clone())).expect("it opens");
        unlock(&repo, true).expect("locks go");
        wrong.extend(found(&repo).expect("a check").into_iter().map(|problem| format!("{when}: {problem}")));
        let there = repo.store().list(FileType::Snapshot).expect("snapshots");
        let there: BTreeSet<Id> = there.into_iter().map(|(id, _)| id).collect();
        for id in bed.snapshots.iter().filter(|id| !forgotten.contains(id) && !there.contains(id)) {
            wrong.push(format!("{when}: snapshot {id} is gone"));
        }
        for (id, source) in &made {
            let (path, tree) = &bed.sources[*source];
            let found = repo.load_snapshot(*id).and_then(|snapshot| source_tree(&repo, &snapshot, path));
            if found.as_ref().ok() != Some(tree) {
                wrong.push(format!("{when}: the snapshot {id} that was made is {found:?}"));
            }
        }
    };
    // Whoever wrote without a lock may have left an index that names what is not there; no snapshot needs it, and a prune removes it.
    judge("in the end", if wrong_clock { hits } else { problems }, &mut wrong);
    if let Err(error) = acts::prune(Arc::new(process.clone())) {
        wrong.push(format!("a prune in the end: {error}"));
    }
    judge("after a prune", problems, &mut wrong);
    if seed % JUDGED == 1 {
        wrong.extend(restics_verdict(bed, &world.files()));
    }
    wrong
}

fn restics_verdict(bed: &Bed, files: &Files) -> Option<String> {
    let repo = bed.repo.copy();
    fs::remove_dir_all(repo.path()).expect("the copy goes");
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
    let bed = Bed::new();
    try_seeds(SEEDS, |seed| run(&bed, seed));
}

/// Where nothing can be created conditionally, one looks first, and another may come in between: who says that he made a repository finds
/// the one that there is, and there is one at the most.
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
        let world = World::with(Files::new(), Random(random.next()), seed.is_multiple_of(2));
        let processes = [(); 2].map(|()| world.join(Fate::Lives, 1 + random.below(4)));
        let made = std::thread::scope(|scope| {
            let running = processes.each_ref().map(|process| scope.spawn(|| make(process)));
            running.map(|process| process.join().expect("no panic"))
        });
        let opened = acts::open(Arc::new(World::new(world.files(), Random(0)).join(Fate::Lives, 1)));
        let there = opened.map(|repo| repo.config().id);
        let said: Vec<_> = made.iter().filter_map(|made| made.as_ref().ok()).collect();
        let keys = world.files().keys().filter(|file| file.ty == FileType::Key).count();
        // Both may give way to each other; then somebody tries again.
        let again = || make(&World::new(world.files(), Random(0)).join(Fate::Lives, 1)).is_ok();
        match &there {
            Ok(id) if said.iter().all(|said| *said == id) && keys >= 1 => Vec::new(),
            Err(Error::NoRepository { .. }) if said.is_empty() && again() => Vec::new(),
            _ => vec![format!("{made:?}, and what is there is {there:?} with {keys} keys")],
        }
    });
}

/// Tries so many seeds, or those that the environment asks for, one on each core at a time.
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
