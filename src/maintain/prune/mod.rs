//! Removing what no snapshot needs.
//!
//! [`Prune::plan`] reads everything and changes nothing: the index, what the snapshots need
//! ([`reach`]), and which files there are become a [`Plan`] ([`plan`]). [`Prune::carry_out`] keeps
//! restic's order, in which nothing is removed that is not replaced: files that the index does not
//! name go; what is needed of packs that waste goes into new packs ([`transfer`]), and an index
//! file names those; new index files without the old packs take the places of the old ones
//! ([`reindex`]); the old packs go. Interrupted anywhere, nothing is lost, and the next prune
//! continues.
//!
//! The caller holds an exclusive lock, and if that is lost, nothing more is removed. Programs that
//! take none are found out: if there is a snapshot or an index file that was not there when the
//! plan was made, nothing more is removed either.

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

/// What a prune is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    ReadIndex,
    FindNeeded { snapshots: u64 },
    RemoveUnindexed { packs: u64 },
    Repack { packs: u64 },
    Reindex,
    RemovePacks { packs: u64 },
}

/// Through which a prune reports to the user.
pub struct Observer<'o> {
    pub progress: &'o Progress,
    /// Is called when a stage begins.
    pub stage: &'o dyn Fn(Stage),
}

/// What there is of a repository, and what is to be done about it.
pub struct Prune<'i> {
    index: &'i Index,
    plan: Plan,
    packs: Vec<Pack>,
    kept: BlobSet<'i>,
    /// Snapshots and index files when the plan was made.
    seen: Seen,
}

/// The outcome of a prune.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Packs that could not be removed, each reported as a problem: nothing names them any more,
    /// and the next prune tries again.
    pub left_behind: u64,
}

impl<'i> Prune<'i> {
    /// Finds out what is to be done; the index has been read under the same lock. The snapshots
    /// that are `gone` need nothing, whether they exist or not.
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

    /// Packs of a fate.
    pub fn packs(&self, fate: Fate) -> Vec<Id> {
        let same = self.packs.iter().zip(&self.plan.fates).filter(|(_, one)| **one == fate);
        same.map(|(pack, _)| pack.id).collect()
    }

    /// Files that the index does not name.
    pub fn unindexed(&self) -> &[Id] {
        &self.plan.unindexed
    }

    /// Does it.
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

    /// Brings what is kept of some packs into new ones, and sees to it that nothing is missing
    /// there.
    fn repack(&mut self, repo: &Arc<Repository>, packs: &[Id], progress: &Progress) -> Result<()> {
        // An index of its own: of what the repository has already, there is to be another copy.
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
        // Also after an error: what is uploaded is found by the next prune.
        let written = writer.finish();
        outcome?;
        let written = written?;
        self.seen.index.extend(written.indexes);
        Ok(())
    }

    /// What of a pack has to be in a new one: its copies that are kept, unless a pack that stays
    /// has another.
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
            Fault::Missing(_) => "a snapshot needs what the index says is in it, and there is no such file".to_owned(),
            Fault::Size { size, expected, .. } => {
                format!(
                    "it has {size} bytes, and not the {expected} that the index makes; `repair index` reads it again"
                )
            }
        }
    }
}

/// What an uninvited writer would add to.
struct Seen {
    snapshots: HashSet<Id>,
    index: HashSet<Id>,
}

impl Seen {
    /// The index files that there are; an error if something was added since, or may be.
    fn is_all(&self, repo: &Repository) -> Result<Vec<Id>> {
        let lists = || both(|| list(repo, FileType::Snapshot), || list(repo, FileType::Index));
        // A process that begins after this does not know the packs that the index has lost by then.
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

/// Removes packs; those that cannot be removed are reported, and their number is returned.
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
