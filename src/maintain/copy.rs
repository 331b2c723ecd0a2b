//! Snapshots of one repository in another one, with all that they need.
//!
//! Blobs are opened, compared with their ids, and sealed with the other repository's key; what it has already is not sent again. Trees go as
//! they are, to the byte. The snapshots come last, when everything they name is there. One of which
//! something cannot be read is left out, and the others are copied.

use super::reach;
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

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It is there now, under this id.
    Copied(Id),
    /// It had been copied before: this is it.
    There(Id),
    /// Something that it needs cannot be read, which has been reported: it was not copied.
    LeftOut,
}

/// Copies snapshots, and hands over what became of each. The caller holds a lock on both repositories.
pub fn copy(
    from: &Arc<Repository>,
    to: &Arc<Repository>,
    snapshots: Vec<StoredSnapshot>,
    progress: &Progress,
    tell: &mut dyn FnMut(&StoredSnapshot, Became),
) -> Result<()> {
    let (there, errors) = to.snapshots()?;
    errors.iter().for_each(|error| progress.warning(&format!("Ignoring a snapshot: {error}")));
    let mut new = Vec::new();
    for stored in snapshots {
        match there.iter().find(|other| is_copy(other, &stored)) {
            Some(other) => tell(&stored, Became::There(other.id)),
            None => new.push(stored),
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    let index = Index::load_one_of_two(from)?;
    let pool = reading_pool(from, &index)?;
    let (mut needed, problems) = reach::readable(from, &index, &new, &pool, Phase::Copy, progress)?;
    if problems > 0 {
        new = whole(from, &index, new, &HashSet::new(), progress, tell)?;
        if new.is_empty() {
            return Ok(());
        }
        needed = reach::blobs(from, &index, &new, &pool, Phase::Copy, progress)?;
    }
    // Its threads keep what they read trees with.
    drop(pool);
    let to_index = Arc::new(Index::load_one_of_two(to)?);
    let held = index.memory() + index.group_memory();
    let writer = Writer::beside(to.clone(), to_index.clone(), held, WriteMode::Upload)?;
    // Of a blob its first copy stands for all; the others serve if that one cannot be read.
    let is_wanted = |ty, position, id| needed.has(ty, position) && to_index.first(ty, id).is_none();
    let mut has_wanted = vec![false; index.packs().len()];
    for copy in index.walk() {
        has_wanted[copy.pack] |= is_wanted(copy.blob.ty, copy.position, copy.blob.id);
    }
    let packs: Vec<Id> = index.packs().iter().zip(has_wanted).filter(|(_, has)| *has).map(|(&pack, _)| pack).collect();
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
    let transfer = Transfer {
        from,
        index: &index,
        writer: &writer,
        form: &|_| SealedForm::Renew,
        unreadable: &unreadable,
        progress,
    };
    let outcome = index.groups(&packs).try_for_each(|group| {
        let wanted = |pack| {
            let blobs = group.positions(pack).map(|(ty, position)| (position, index.at(ty, position).blob));
            blobs.filter(|(position, blob)| is_wanted(blob.ty, *position, blob.id)).map(|(_, blob)| blob)
        };
        transfer.packs(group.packs(), wanted, index.group_memory() + to_index.memory())
    });
    // Also after an error: what was sent needs not be sent again.
    let written = writer.finish();
    outcome?;
    written?;
    let lost = into_inner(lost);
    if !lost.is_empty() {
        new = whole(from, &index, new, &lost, progress, tell)?;
    }
    for stored in new {
        let mut snapshot = stored.snapshot.clone();
        // It names a snapshot that is not here.
        snapshot.parent = None;
        snapshot.original.get_or_insert(stored.id);
        let id = to.save_file(FileType::Snapshot, snapshot.encode())?;
        tell(&stored, Became::Copied(id));
    }
    Ok(())
}

/// The snapshots of which everything can be read and none of `lost` is needed; of the others it is
/// told that they are left out.
fn whole(
    from: &Repository,
    index: &Index,
    snapshots: Vec<StoredSnapshot>,
    lost: &HashSet<(BlobType, Id)>,
    progress: &Progress,
    tell: &mut dyn FnMut(&StoredSnapshot, Became),
) -> Result<Vec<StoredSnapshot>> {
    let trees = TreeReader::new(from, index);
    let mut whole = Vec::with_capacity(snapshots.len());
    // Trees that have all that is in them and below.
    let mut known = HashSet::new();
    let is_there = |ty, id| index.position(ty, id).is_some() && !lost.contains(&(ty, id));
    for stored in snapshots {
        match stored.tree().and_then(|root| is_whole(&trees, root, &is_there, &mut known, progress)) {
            Ok(true) => whole.push(stored),
            Ok(false) => tell(&stored, Became::LeftOut),
            Err(error) if error.spares_others() => tell(&stored, Became::LeftOut),
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// Whether everything below a tree is there. Only of whole trees something is learned.
fn is_whole(
    trees: &TreeReader<'_>,
    root: Id,
    is_there: &impl Fn(BlobType, Id) -> bool,
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
        let mut whole = is_there(BlobType::Tree, id);
        for node in trees.open(id)? {
            let node = node?;
            stack.extend(node.subtree);
            whole &= node.content.iter().flatten().all(|id| is_there(BlobType::Data, id));
        }
        if !whole {
            return Ok(false);
        }
    }
    known.extend(seen);
    Ok(true)
}

/// Whether one snapshot is a copy of the other: made from it, and the same in all that a copy keeps.
fn is_copy(there: &StoredSnapshot, stored: &StoredSnapshot) -> bool {
    let first = |stored: &StoredSnapshot| stored.snapshot.original.unwrap_or(stored.id);
    let content = |snapshot: &Snapshot| Snapshot { parent: None, original: None, ..snapshot.clone() };
    first(there) == first(stored) && content(&there.snapshot) == content(&stored.snapshot)
}
