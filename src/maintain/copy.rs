//! Snapshots of one repository in another one, with all that they need.
//!
//! Blobs are opened, compared with their ids, and sealed with the other repository's key; what it has already is not sent again. Trees go as
//! they are, to the byte. The snapshots come last, when everything they name is there.

use super::reach;
use super::transfer::Transfer;
use crate::format::snapshot::Snapshot;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::index::Group;
use crate::repo::writer::Writer;
use crate::repo::{Index, Repository, Result, StoredSnapshot, reading_pool};
use crate::store::FileType;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It is there now, under this id.
    Copied(Id),
    /// It had been copied before: this is it.
    There(Id),
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
    let index = Index::load(from)?;
    let needed = reach::blobs(from, &index, &new, &reading_pool(from, &index)?, Phase::Copy, progress)?;
    let to_index = Arc::new(Index::load(to)?);
    let held = index.memory() + index.group_memory();
    let writer = Writer::beside(to.clone(), to_index.clone(), held, false)?;
    // Of a blob its first copy stands for all; the others serve if that one cannot be read.
    let is_wanted = |ty, position, id| needed.has(ty, position) && to_index.first(ty, id).is_none();
    let wanted = |group: &Group<'_>, pack| {
        let blobs = group.positions(pack).map(|(ty, position)| (position, index.at(ty, position).blob));
        blobs.filter(|(position, blob)| is_wanted(blob.ty, *position, blob.id)).map(|(_, blob)| blob).collect()
    };
    let mut has_wanted = vec![false; index.packs().len()];
    for copy in index.walk() {
        has_wanted[copy.pack] |= is_wanted(copy.blob.ty, copy.position, copy.blob.id);
    }
    let packs: Vec<Id> = index.packs().iter().zip(has_wanted).filter(|(_, has)| *has).map(|(&pack, _)| pack).collect();
    progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
    progress.files_done.store(0, Ordering::Relaxed);
    let transfer = Transfer { from, index: &index, writer: &writer, stays_sealed: &|_| false, progress };
    let outcome = index.groups(&packs).try_for_each(|group| {
        transfer.packs(group.packs(), |pack| wanted(&group, pack), index.group_memory() + to_index.memory())
    });
    // Also after an error: what was sent needs not be sent again.
    let written = writer.finish();
    outcome?;
    written?;
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

/// Whether one snapshot is a copy of the other: made from it, and the same in all that a copy keeps.
fn is_copy(there: &StoredSnapshot, stored: &StoredSnapshot) -> bool {
    let first = |stored: &StoredSnapshot| stored.snapshot.original.unwrap_or(stored.id);
    let content = |snapshot: &Snapshot| Snapshot { parent: None, original: None, ..snapshot.clone() };
    first(there) == first(stored) && content(&there.snapshot) == content(&stored.snapshot)
}
