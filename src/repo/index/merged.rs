//! The merged index: where the copies of a blob are, and which blobs this process adds.

use super::ids::Ids;
use super::sorted::{Entry, Sorted};
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::sync::lock;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// One copy of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub pack: Id,
    pub blob: PackedBlob,
}

/// One copy of a blob as [`Index::walk`] returns it, with its positions in the index.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The position of the first copy of the same blob.
    pub first: usize,
    pub position: usize,
    /// The position of its pack in [`Index::packs`].
    pub pack: usize,
    pub blob: PackedBlob,
}

/// The merged index.
#[derive(Default)]
pub struct Index {
    /// The files that it was read from.
    files: Vec<Id>,
    packs: Vec<Id>,
    /// Data blobs, then tree blobs.
    entries: [Sorted; 2],
    /// Blobs that this process has added or is about to add.
    added: Mutex<[Ids; 2]>,
    /// The directory to which the ids of added blobs are spilled if they are many.
    aside: Option<PathBuf>,
}

impl Index {
    /// An index of packs and their entries: data blobs, then tree blobs.
    pub(super) fn new(packs: Vec<Id>, entries: [Sorted; 2]) -> Index {
        Index { entries, packs, ..Index::default() }
    }

    /// The index as it was loaded from `files`; ids of new blobs are spilled to `aside`.
    pub(super) fn loaded_from(self, files: Vec<Id>, aside: Option<PathBuf>) -> Index {
        Index { files, aside, ..self }
    }

    /// The index files that it was read from.
    pub fn files(&self) -> &[Id] {
        &self.files
    }

    /// Bytes of memory that the loaded blobs take.
    pub fn memory(&self) -> u64 {
        bytes(0, self.packs.len()) + self.entries.iter().map(Sorted::memory).sum::<u64>()
    }

    /// All loaded copies of a blob.
    pub fn find(&self, ty: BlobType, id: Id) -> Vec<Location> {
        self.copies(ty, id).map(|position| self.at(ty, position)).collect()
    }

    /// One loaded copy of a blob.
    pub fn first(&self, ty: BlobType, id: Id) -> Option<Location> {
        let sorted = &self.entries[slot(ty)];
        sorted.of(id, sorted.find(id)).map(|entry| self.location(ty, &entry))
    }

    /// The position of the first loaded copy of a blob; [`Index::at`] returns its location without
    /// another search.
    pub fn position(&self, ty: BlobType, id: Id) -> Option<usize> {
        let sorted = &self.entries[slot(ty)];
        let first = sorted.find(id);
        sorted.of(id, first).is_some().then_some(first)
    }

    /// The location at a position.
    ///
    /// # Panics
    /// When the position is not below [`Index::loaded_len`].
    pub fn at(&self, ty: BlobType, position: usize) -> Location {
        self.location(ty, &self.entries[slot(ty)].get(position))
    }

    /// Every loaded copy of every blob, with its positions. The copies of a blob are adjacent.
    pub fn walk(&self) -> impl Iterator<Item = Placed> + '_ {
        types().flat_map(move |ty| {
            let mut last: Option<(Id, usize)> = None;
            self.entries[slot(ty)].iter().map(move |(position, entry)| {
                let (_, first) = *last.insert(last.filter(|(id, _)| *id == entry.id).unwrap_or((entry.id, position)));
                Placed { first, position, pack: entry.pack as usize, blob: blob(ty, &entry) }
            })
        })
    }

    /// The positions of all loaded copies of a blob.
    pub fn copies(&self, ty: BlobType, id: Id) -> Range<usize> {
        let sorted = &self.entries[slot(ty)];
        let start = sorted.find(id);
        start..start + (start..).take_while(|&at| sorted.of(id, at).is_some()).count()
    }

    /// The position of a copy's pack in [`Index::packs`].
    ///
    /// # Panics
    /// When the position is not below [`Index::loaded_len`].
    pub fn pack_at(&self, ty: BlobType, position: usize) -> usize {
        self.entries[slot(ty)].get(position).pack as usize
    }

    /// The number of loaded copies of blobs of this type.
    pub fn loaded_len(&self, ty: BlobType) -> usize {
        self.entries[slot(ty)].len()
    }

    /// Whether the repository has the blob, or this process is adding it.
    pub fn contains(&self, ty: BlobType, id: Id) -> bool {
        self.position(ty, id).is_some() || self.added()[slot(ty)].contains(id)
    }

    /// Reserves a blob for the caller to add. `false` if the repository has it, or another thread
    /// adds it.
    pub fn claim(&self, ty: BlobType, id: Id) -> bool {
        self.position(ty, id).is_none() && self.added()[slot(ty)].insert(id, self.aside.as_deref())
    }

    /// The number of loaded blobs; every copy counts.
    pub fn len(&self) -> usize {
        self.entries.iter().map(Sorted::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every loaded copy of every blob.
    pub fn iter(&self) -> impl Iterator<Item = Location> + '_ {
        types().flat_map(move |ty| self.entries[slot(ty)].iter().map(move |(_, entry)| self.location(ty, &entry)))
    }

    /// The packs that the loaded index files name, each once.
    pub fn packs(&self) -> &[Id] {
        &self.packs
    }

    fn location(&self, ty: BlobType, entry: &Entry) -> Location {
        Location { pack: self.packs[entry.pack as usize], blob: blob(ty, entry) }
    }

    fn added(&self) -> MutexGuard<'_, [Ids; 2]> {
        lock(&self.added)
    }
}

fn blob(ty: BlobType, entry: &Entry) -> PackedBlob {
    let Entry { id, offset, length, uncompressed, .. } = *entry;
    PackedBlob { ty, id, offset, length, uncompressed }
}

fn types() -> impl Iterator<Item = BlobType> {
    [BlobType::Data, BlobType::Tree].into_iter()
}

/// Bytes of a loaded index that was not spilled.
pub(super) fn bytes(blobs: usize, packs: usize) -> u64 {
    (blobs * size_of::<Entry>() + packs * size_of::<Id>()) as u64
}

pub(super) fn slot(ty: BlobType) -> usize {
    match ty {
        BlobType::Data => 0,
        BlobType::Tree => 1,
    }
}
