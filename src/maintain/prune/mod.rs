//! Removes the data that no snapshot needs.
//!
//! [`Prune::plan`] makes a [`Plan`] ([`plan`]) from the index, the blobs that the snapshots need
//! ([`super::reach`]) and the listed packs. It changes nothing. [`Prune::carry_out`] keeps restic's
//! order, in which nothing is removed before its replacement exists:
//!
//! 1. Remove the packs that the index does not list.
//! 2. Write the needed blobs of wasteful packs to new packs, and index these ([`super::transfer`]).
//! 3. Replace the index files by new ones without the old packs ([`super::reindex`]).
//! 4. Remove the old packs.
//!
//! A prune that is interrupted at any point loses nothing, and the next one continues.
//!
//! The caller holds an exclusive lock; if it is lost, nothing more is removed. Programs that ignore
//! locks are detected: if a snapshot or an index file has appeared since the plan was made, nothing
//! more is removed either.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Amount, Blobs, Bytes, Fate, Fault, Limit, Options, Pack, Packs, Plan, Stats};

use super::blobs::BlobSet;
use super::reach::Reach;
use super::reindex::Reindex;
use super::transfer::Transfer;
use crate::format::Version;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::parallel::{both, side_by_side};
use crate::progress::{Phase, Progress};
use crate::repo::index::Group;
use crate::repo::writer::{SealedForm, WriteMode, Writer};
use crate::repo::{Error, Index, Repository, Result, reading_pool};
use crate::store::{File, FileType};
use plan::Weighed;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The stages of a prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    ReadIndex,
    FindNeeded { snapshots: u64 },
    RemoveUnindexed { packs: u64 },
    Repack { packs: u64 },
    Reindex,
    RemovePacks { packs: u64 },
}

/// Receives the reports of a prune.
pub struct Observer<'o> {
    pub progress: &'o Progress,
    /// Called when a stage begins.
    pub stage: &'o dyn Fn(Stage),
}

/// A planned prune of a repository.
pub struct Prune<'i> {
    index: &'i Index,
    plan: Plan,
    packs: Vec<Pack>,
    kept: BlobSet<'i>,
    /// The snapshots and index files that existed when the plan was made.
    seen: Seen,
}

/// The outcome of a prune.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Packs that could not be removed; each was reported as a problem. No index file lists them
    /// any more, and the next prune tries again.
    pub left_behind: u64,
}

impl<'i> Prune<'i> {
    /// Plans a prune. The index has been read under the same lock. The snapshots in `gone` do not
    /// count, whether they exist or not.
    pub fn plan(
        repo: &Repository,
        index: &'i Index,
        options: &Options,
        gone: &[Id],
        observer: &Observer<'_>,
    ) -> Result<Prune<'i>> {
        let progress = observer.progress;
        let (listed, snapshots) = both(|| repo.store().list(FileType::Pack), || repo.snapshots());
        let (mut snapshots, errors) = snapshots?;
        let seen = Seen {
            snapshots: snapshots.iter().map(|stored| stored.id).collect(),
            index: index.files().iter().copied().collect(),
        };
        snapshots.retain(|stored| !gone.contains(&stored.id));
        let damaged = errors.len() as u64;
        errors.into_iter().for_each(|error| progress.problem(Phase::Prune, "snapshot", error));
        if damaged > 0 {
            return Err(Error::Unreachable { problems: damaged });
        }
        (observer.stage)(Stage::FindNeeded { snapshots: snapshots.len() as u64 });
        let pool = reading_pool(repo, index)?;
        let reach = Reach { repo, index, pool: &pool, during: Phase::Prune, progress };
        let needed = reach.blobs(&snapshots)?;
        let mut listed: HashMap<Id, u64> = listed?.into_iter().collect();
        let Weighed { packs, kept, duplicate } = plan::weigh(index, &needed, &listed);
        for pack in &packs {
            listed.remove(&pack.id);
        }
        let mut unindexed: Vec<(Id, u64)> = listed.into_iter().collect();
        unindexed.sort_unstable();
        match plan::decide(&packs, duplicate, &unindexed, options, repo.config().version) {
            Ok(plan) => Ok(Prune { index, plan, packs, kept, seen }),
            Err(faults) => {
                faults.iter().for_each(|fault| progress.problem(Phase::Prune, fault.item(), fault.why()));
                Err(Error::Unreachable { problems: faults.len() as u64 })
            }
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.plan.stats
    }

    /// The packs with this fate.
    pub fn packs(&self, fate: Fate) -> Vec<Id> {
        let same = self.packs.iter().zip(&self.plan.fates).filter(|(_, one)| **one == fate);
        same.map(|(pack, _)| pack.id).collect()
    }

    /// The pack files that the index does not list.
    pub fn unindexed(&self) -> &[Id] {
        &self.plan.unindexed
    }

    /// Carries out the plan.
    pub fn carry_out(mut self, repo: &Arc<Repository>, observer: &Observer<'_>) -> Result<Done> {
        let &Observer { progress, stage } = observer;
        let mut done = Done::default();
        if !self.plan.unindexed.is_empty() {
            stage(Stage::RemoveUnindexed { packs: self.plan.unindexed.len() as u64 });
            self.seen.is_all(repo)?;
            done.left_behind += remove(repo, &self.plan.unindexed, progress)?;
        }
        let repacked = self.packs(Fate::Repack);
        if !repacked.is_empty() {
            stage(Stage::Repack { packs: repacked.len() as u64 });
            self.repack(repo, &repacked, progress)?;
        }
        let mut removed = self.packs(Fate::Remove);
        removed.extend(repacked);
        let gone: HashSet<Id> = removed.iter().copied().chain(self.packs(Fate::Forget)).collect();
        if gone.is_empty() {
            return Ok(done);
        }
        stage(Stage::Reindex);
        let files = self.seen.is_all(repo)?;
        interruptible(progress)?;
        let mut reindex = Reindex::new(repo);
        reindex.take_over(files, |pack| !gone.contains(&pack.id), |_, error| Err(error))?;
        let (written, _) = reindex.finish()?;
        self.seen.index.extend(written);
        stage(Stage::RemovePacks { packs: removed.len() as u64 });
        self.seen.is_all(repo)?;
        done.left_behind += remove(repo, &removed, progress)?;
        Ok(done)
    }

    /// Writes the kept blobs of some packs to new packs, and verifies that none is missing there.
    fn repack(&mut self, repo: &Arc<Repository>, packs: &[Id], progress: &Progress) -> Result<()> {
        // The writer gets an empty index, so that it writes another copy of blobs that the
        // repository has.
        let group_memory = self.index.group_memory();
        let held = self.index.memory() + group_memory;
        let writer = Writer::beside(repo.clone(), Arc::new(Index::default()), held, WriteMode::Upload)?;
        let recompress = repo.config().version == Version::V2;
        progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
        progress.files_done.store(0, Ordering::Relaxed);
        let transfer = Transfer {
            from: repo,
            index: self.index,
            writer: &writer,
            form: &|blob| if recompress && blob.uncompressed == 0 { SealedForm::Renew } else { SealedForm::Keep },
            unreadable: &|_, _, error| Err(error),
            progress,
        };
        let outcome = self.index.groups(packs).try_for_each(|group| {
            transfer.packs(group.packs(), |pack| self.wanted(&group, pack), group_memory)?;
            let mut wanted = group.packs().iter().flat_map(|&pack| self.wanted(&group, pack));
            match wanted.find(|blob| !writer.index().contains(blob.ty, blob.id)) {
                Some(PackedBlob { ty, id, .. }) => Err(Error::NotRepacked { ty, id }),
                None => Ok(()),
            }
        });
        // Finish also after an error, so that the next prune finds the uploaded packs.
        let written = writer.finish();
        outcome?;
        let written = written?;
        self.seen.index.extend(written.indexes);
        Ok(())
    }

    /// The blobs of a pack that a new pack must contain: the copies that are kept, unless a pack
    /// that stays has another copy.
    fn wanted<'g>(&'g self, group: &'g Group<'_>, pack: Id) -> impl Iterator<Item = PackedBlob> + 'g {
        let stays = |ty, position| self.plan.fates[self.index.pack_at(ty, position)] == Fate::Keep;
        let wanted = group.positions(pack).filter(move |&(ty, position)| {
            self.kept.has(ty, position) && {
                let id = self.index.at(ty, position).blob.id;
                !self.index.copies(ty, id).any(|copy| stays(ty, copy))
            }
        });
        wanted.map(|(ty, position)| self.index.at(ty, position).blob)
    }
}

impl Fault {
    fn item(&self) -> String {
        let (Fault::Missing(pack) | Fault::Size { pack, .. }) = self;
        format!("pack {pack}")
    }

    fn why(&self) -> String {
        match self {
            Fault::Missing(_) => "a snapshot needs its blobs, but the file does not exist".to_owned(),
            Fault::Size { size, expected, .. } => {
                format!("it has {size} bytes, but the index implies {expected}; run `repair index` to read it again")
            }
        }
    }
}

/// The files that existed when the plan was made, to detect writers that ignore the lock.
struct Seen {
    snapshots: HashSet<Id>,
    index: HashSet<Id>,
}

impl Seen {
    /// Returns the current index files. Fails if a file was added since the plan was made, or if
    /// the lock is lost.
    fn is_all(&self, repo: &Repository) -> Result<Vec<Id>> {
        let lists = || both(|| list(repo, FileType::Snapshot), || list(repo, FileType::Index));
        // A process that starts after this check cannot find the packs that the index no longer
        // lists.
        let ((snapshots, index), held) = both(lists, || repo.confirm_lock());
        held?;
        let (snapshots, index) = (snapshots?, index?);
        for (ty, there, seen) in
            [(FileType::Snapshot, &snapshots, &self.snapshots), (FileType::Index, &index, &self.index)]
        {
            if let Some(&new) = there.difference(seen).next() {
                return Err(Error::Uninvited { file: File::new(ty, new) });
            }
        }
        Ok(index.into_iter().collect())
    }
}

fn list(repo: &Repository, ty: FileType) -> Result<HashSet<Id>> {
    Ok(repo.store().list(ty)?.into_iter().map(|(id, _)| id).collect())
}

fn interruptible(progress: &Progress) -> Result<()> {
    if progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Removes packs. Reports those that cannot be removed, and returns their number.
fn remove(repo: &Repository, packs: &[Id], progress: &Progress) -> Result<u64> {
    progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
    progress.files_done.store(0, Ordering::Relaxed);
    let failed = side_by_side(repo.store().connections(), packs, |&id| {
        if progress.is_interrupted() {
            return false;
        }
        let file = File::new(FileType::Pack, id);
        let outcome = repo.store().remove(file);
        progress.files_done.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(|error| progress.problem(Phase::Prune, file.to_string(), error)).is_err()
    });
    interruptible(progress)?;
    Ok(failed.into_iter().filter(|failed| *failed).count() as u64)
}
