//! One simulated world: its processes, their fates, and the final checks, all drawn from a seed.

use super::world::{Fate, Files, Process, World};
use crate::common::Random;
use crate::engine::acts;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use vsm::id::Id;
use vsm::maintain::check::{Check, Subset};
use vsm::progress::Progress;
use vsm::repo::{Error, Index, LockMode, LocksToRemove, Repository, StoredSnapshot, TreeReader, unlock};
use vsm::store::FileType;

/// The start of every world: a repository of two snapshots, and the sources of two backups.
pub struct Bed {
    pub files: Files,
    pub snapshots: Vec<Id>,
    /// The sources, each with the tree of its snapshots.
    pub sources: [(PathBuf, Id); 2],
}

impl Bed {
    /// Takes the files of a repository, its snapshots, oldest first, and the sources of the
    /// backups.
    pub fn new(files: Files, snapshots: Vec<Id>, sources: [PathBuf; 2]) -> Bed {
        let sources = sources.map(|path| {
            let process = World::alone(files.clone());
            let id = acts::back_up(Arc::new(process.clone()), &path).expect("a backup");
            let repo = acts::open(Arc::new(process)).expect("it opens");
            let tree = source_tree(&repo, &repo.load_snapshot(id).expect("a snapshot"), &path).expect("a tree");
            (path, tree)
        });
        Bed { files, snapshots, sources }
    }
}

/// The tree of a source in a snapshot, without the directories above it, whose times may change.
fn source_tree(repo: &Repository, snapshot: &StoredSnapshot, source: &Path) -> Result<Id, Error> {
    let index = Index::load(repo)?;
    TreeReader::new(repo, &index).folder(snapshot.tree()?, source.as_os_str().as_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    BackUp(usize),
    Forget,
    Prune,
    Check,
    Unlock,
}

/// The results that the processes of a world report.
#[derive(Default)]
struct Said {
    /// The snapshots that backups made, and their source.
    made: BTreeMap<Id, usize>,
    /// Snapshots that a forget may have removed.
    forgotten: BTreeSet<Id>,
    wrong: Vec<String>,
}

/// Retries while the repository is locked, a few times.
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
            // Even a forget that fails may have removed the oldest snapshot; no other process
            // forgets.
            said().forgotten.insert(bed.snapshots[0]);
            let _ = patiently(process, |store| acts::forget(store));
        }
        Part::Prune => drop(patiently(process, |store| acts::prune(store))),
        Part::Check => {
            let checked = patiently(process, |store| acts::locked(store, LockMode::Exclusive, |repo| problems(repo)));
            if let Ok(found) = checked
                && !found.is_empty()
                // A check reports failed operations as problems, too.
                && fate == Fate::Lives
            {
                said().wrong.push(format!("a check found {found:?}"));
            }
        }
        Part::Unlock => drop(acts::open(Arc::new(process.clone())).and_then(|repo| unlock(&repo, LocksToRemove::All))),
    }
}

/// The problems that our check finds, with every byte read.
fn problems(repo: &Repository) -> Result<Vec<String>, Error> {
    let progress = Progress::silent();
    let mut check = Check::start(repo, &progress)?;
    check.packs()?;
    check.trees()?;
    check.data(Subset::All)?;
    check.finish();
    Ok(progress.first_problems().into_iter().map(|it| format!("{}: {}", it.item, it.message)).collect())
}

/// The damage of snapshots that our check finds.
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

/// Runs one world, with or without a process whose clock is wrong, and returns its final files and
/// the violations of the model.
pub fn run(bed: &Bed, wrong_clock: bool, mut random: Random) -> (Files, Vec<String>) {
    let mut parts = vec![Part::BackUp(0), Part::BackUp(1), Part::Forget, Part::Prune];
    if random.below(2) == 0 {
        parts.push(Part::Check);
    }
    if wrong_clock {
        parts.push(Part::Unlock);
    }
    let world = World::new(bed.files.clone(), random.fork());
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
    // A check that runs while its lock is removed may find anything.
    if wrong_clock {
        wrong.clear();
    }
    let process = World::alone(world.files());
    let judge = |when: &str, found: fn(&Repository) -> Result<Vec<String>, Error>, wrong: &mut Vec<String>| {
        let repo = acts::open(Arc::new(process.clone())).expect("it opens");
        unlock(&repo, LocksToRemove::All).expect("unlock");
        wrong.extend(found(&repo).expect("a check").into_iter().map(|problem| format!("{when}: {problem}")));
        let there = repo.store().list(FileType::Snapshot).expect("snapshots");
        let there: BTreeSet<Id> = there.into_iter().map(|(id, _)| id).collect();
        for id in bed.snapshots.iter().filter(|id| !forgotten.contains(id) && !there.contains(id)) {
            wrong.push(format!("{when}: snapshot {id} is missing"));
        }
        for (id, source) in &made {
            let (path, tree) = &bed.sources[*source];
            let found = repo.load_snapshot(*id).and_then(|snapshot| source_tree(&repo, &snapshot, path));
            if found.as_ref().ok() != Some(tree) {
                wrong.push(format!("{when}: the snapshot {id} that was made is {found:?}"));
            }
        }
    };
    // A process that wrote without a lock may have left an index that names missing packs; no
    // snapshot needs it, and a prune removes it.
    judge("in the end", if wrong_clock { hits } else { problems }, &mut wrong);
    if let Err(error) = acts::prune(Arc::new(process.clone())) {
        wrong.push(format!("a prune in the end: {error}"));
    }
    judge("after a prune", problems, &mut wrong);
    (process.files(), wrong)
}
