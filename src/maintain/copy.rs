//! Copies snapshots, with all the data that they need, to another repository.
//!
//! Each blob is opened, compared with its id, and sealed with the key of the destination. A blob
//! that the destination already has is not sent again. Trees are copied byte for byte. Snapshots
//! are written last, when all the data that they reference is durable. A snapshot that needs
//! unreadable data is left out, and the other snapshots are copied.

use super::blobs::BlobSet;
use super::reach::Reach;
use super::transfer::Transfer;
use crate::format::BlobType;
use crate::format::snapshot::Snapshot;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::writer::{SealedForm, WriteMode, Writer};
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader, reading_pool};
use crate::store::FileType;
use crate::sync::{into_inner, lock};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// The outcome for one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// The snapshot was copied and has this id in the destination.
    Copied(Id),
    /// An earlier run copied the snapshot; it has this id in the destination.
    There(Id),
    /// The snapshot was not copied: data that it needs cannot be read, which has been reported.
    LeftOut,
}

/// A callback that receives the outcome for each snapshot.
type Tell<'t> = dyn FnMut(&StoredSnapshot, Became) + 't;

/// Copies snapshots and reports the outcome for each. The caller holds a lock on both repositories.
pub fn copy(
    from: &Arc<Repository>,
    to: &Arc<Repository>,
    snapshots: Vec<StoredSnapshot>,
    progress: &Progress,
    tell: &mut Tell<'_>,
) -> Result<()> {
    let new = without_copied(to, snapshots, progress, tell)?;
    if new.is_empty() {
        return Ok(());
    }
    let index = Index::load_one_of_two(from)?;
    let source = Source { repo: from, index: &index, progress };
    let Some((mut new, needed)) = source.find_needed(new, tell)? else { return Ok(()) };
    let lost = source.transfer(&needed, to)?;
    if !lost.is_empty() {
        new = source.keep_whole(new, &lost, tell)?;
    }
    for stored in new {
        let mut snapshot = stored.snapshot.clone();
        // The parent is a snapshot of the source and does not exist in the destination.
        snapshot.parent = None;
        snapshot.original.get_or_insert(stored.id);
        let id = to.save_file(FileType::Snapshot, snapshot.encode())?;
        tell(&stored, Became::Copied(id));
    }
    Ok(())
}

/// The snapshots that have not been copied before.
fn without_copied(
    to: &Repository,
    mut snapshots: Vec<StoredSnapshot>,
    progress: &Progress,
    tell: &mut Tell<'_>,
) -> Result<Vec<StoredSnapshot>> {
    let (existing, errors) = to.snapshots()?;
    errors.iter().for_each(|error| progress.warning(&format!("ignoring a snapshot of the destination: {error}")));
    snapshots.retain(|stored| match existing.iter().find(|other| is_copy(other, stored)) {
        Some(other) => {
            tell(stored, Became::There(other.id));
            false
        }
        None => true,
    });
    Ok(snapshots)
}

/// The repository from which snapshots are copied.
struct Source<'s> {
    repo: &'s Repository,
    index: &'s Index,
    progress: &'s Progress,
}

impl<'s> Source<'s> {
    /// The snapshots whose trees can be read and whose blobs are all in the index, and the blobs
    /// that they need; `None` if no snapshot qualifies.
    fn find_needed(
        &self,
        mut snapshots: Vec<StoredSnapshot>,
        tell: &mut Tell<'_>,
    ) -> Result<Option<(Vec<StoredSnapshot>, BlobSet<'s>)>> {
        let &Source { repo, index, progress } = self;
        // The threads of the pool keep buffers for trees, so the pool ends before blobs are
        // transferred.
        let pool = reading_pool(repo, index)?;
        let reach = Reach { repo, index, pool: &pool, during: Phase::Copy, progress };
        let (mut needed, problems) = reach.readable(&snapshots)?;
        if problems > 0 {
            snapshots = self.keep_whole(snapshots, &HashSet::new(), tell)?;
            if snapshots.is_empty() {
                return Ok(None);
            }
            needed = reach.blobs(&snapshots)?;
        }
        Ok(Some((snapshots, needed)))
    }

    /// Transfers the blobs that the destination lacks. Returns the blobs of which no copy can be
    /// read; each of them has been reported.
    fn transfer(&self, needed: &BlobSet<'_>, to: &Arc<Repository>) -> Result<HashSet<(BlobType, Id)>> {
        let &Source { repo: from, index, progress } = self;
        let to_index = Arc::new(Index::load_one_of_two(to)?);
        let held = index.memory() + index.group_memory();
        let writer = Writer::beside(to.clone(), to_index.clone(), held, WriteMode::Upload)?;
        // Only the first copy of a blob is requested; the transfer falls back to the other copies.
        let is_wanted = |ty, position, id| needed.has(ty, position) && to_index.first(ty, id).is_none();
        let mut has_wanted = vec![false; index.packs().len()];
        for copy in index.walk() {
            has_wanted[copy.pack] |= is_wanted(copy.blob.ty, copy.position, copy.blob.id);
        }
        let packs = index.packs().iter().zip(has_wanted).filter(|(_, has)| *has).map(|(&pack, _)| pack);
        let packs: Vec<Id> = packs.collect();
        progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
        progress.files_done.store(0, Ordering::Relaxed);
        let lost = Mutex::new(HashSet::new());
        let unreadable = |ty, id, error: Error| {
            if !error.spares_others() {
                return Err(error);
            }
            progress.problem(Phase::Copy, format!("{ty} blob {id}"), error);
            lock(&lost).insert((ty, id));
            Ok(())
        };
        let transfer =
            Transfer { from, index, writer: &writer, form: &|_| SealedForm::Renew, unreadable: &unreadable, progress };
        let outcome = index.groups(&packs).try_for_each(|group| {
            let wanted = |pack| {
                let blobs = group.positions(pack).map(|(ty, position)| (position, index.at(ty, position).blob));
                blobs.filter(|(position, blob)| is_wanted(blob.ty, *position, blob.id)).map(|(_, blob)| blob)
            };
            transfer.packs(group.packs(), wanted, index.group_memory() + to_index.memory())
        });
        // Finish also after an error, so that the next run need not send these blobs again.
        let written = writer.finish();
        outcome?;
        written?;
        Ok(into_inner(lost))
    }

    /// The snapshots whose trees can be read and whose blobs are all in the index, and not in
    /// `lost`. The others are reported as left out.
    fn keep_whole(
        &self,
        snapshots: Vec<StoredSnapshot>,
        lost: &HashSet<(BlobType, Id)>,
        tell: &mut Tell<'_>,
    ) -> Result<Vec<StoredSnapshot>> {
        let trees = TreeReader::new(self.repo, self.index);
        let mut whole = Vec::with_capacity(snapshots.len());
        // Trees below which nothing is missing.
        let mut known = HashSet::new();
        let exists = |ty, id| self.index.position(ty, id).is_some() && !lost.contains(&(ty, id));
        for stored in snapshots {
            match stored.tree().and_then(|root| is_whole(&trees, root, &exists, &mut known, self.progress)) {
                Ok(true) => whole.push(stored),
                Ok(false) => tell(&stored, Became::LeftOut),
                Err(error) if error.spares_others() => {
                    self.progress.warning(&format!("snapshot {}: {error}", stored.id.short()));
                    tell(&stored, Became::LeftOut);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(whole)
    }
}

/// Whether all blobs below a tree exist. Only complete trees are added to `known`.
fn is_whole(
    trees: &TreeReader<'_>,
    root: Id,
    exists: &impl Fn(BlobType, Id) -> bool,
    known: &mut HashSet<Id>,
    progress: &Progress,
) -> Result<bool> {
    let (mut seen, mut stack) = (HashSet::new(), vec![root]);
    while let Some(id) = stack.pop() {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if known.contains(&id) || !seen.insert(id) {
            continue;
        }
        let mut whole = exists(BlobType::Tree, id);
        for node in trees.open(id)? {
            let node = node?;
            stack.extend(node.subtree);
            whole &= node.content.iter().flatten().all(|id| exists(BlobType::Data, id));
        }
        if !whole {
            return Ok(false);
        }
    }
    known.extend(seen);
    Ok(true)
}

/// Whether one snapshot is a copy of the other: made from it, and equal in everything that a copy
/// keeps.
fn is_copy(copy: &StoredSnapshot, stored: &StoredSnapshot) -> bool {
    let first = |stored: &StoredSnapshot| stored.snapshot.original.unwrap_or(stored.id);
    let content = |snapshot: &Snapshot| Snapshot { parent: None, original: None, ..snapshot.clone() };
    first(copy) == first(stored) && content(&copy.snapshot) == content(&stored.snapshot)
}
