//! A set of blobs of the repository: one bit for each copy, by its position in the index, so that
//! the blobs of a large snapshot take a few kilobytes. Threads may add to it concurrently.

use crate::format::BlobType;
use crate::id::Id;
use crate::repo::index::Location;
use crate::repo::{Error, Index, Result};
use std::sync::atomic::{AtomicU64, Ordering};

pub struct BlobSet<'i> {
    index: &'i Index,
    data: Vec<AtomicU64>,
    tree: Vec<AtomicU64>,
}

impl<'i> BlobSet<'i> {
    pub fn new(index: &'i Index) -> BlobSet<'i> {
        let words = |ty| std::iter::repeat_with(AtomicU64::default).take(index.loaded_len(ty).div_ceil(64)).collect();
        BlobSet { index, data: words(BlobType::Data), tree: words(BlobType::Tree) }
    }

    /// Adds a blob, represented by its first copy. Returns whether it is new. A blob that is
    /// missing from the index is an error.
    pub fn insert(&self, ty: BlobType, id: Id) -> Result<bool> {
        let position = self.index.position(ty, id).ok_or(Error::BlobMissing { ty, id })?;
        Ok(self.insert_at(ty, position))
    }

    /// Adds one copy of a blob. Returns whether it is new.
    pub fn insert_at(&self, ty: BlobType, position: usize) -> bool {
        let bit = 1 << (position % 64);
        self.words(ty)[position / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub fn contains(&self, ty: BlobType, id: Id) -> bool {
        self.index.position(ty, id).is_some_and(|position| self.has(ty, position))
    }

    /// Whether a copy is in the set.
    pub fn has(&self, ty: BlobType, position: usize) -> bool {
        self.words(ty)[position / 64].load(Ordering::Relaxed) & (1 << (position % 64)) != 0
    }

    /// The blobs that are in this set and not in the other.
    pub fn without<'s>(&'s self, other: &'s BlobSet<'i>) -> impl Iterator<Item = Location> + 's {
        self.iter_positions().filter(|&(ty, position)| !other.has(ty, position)).map(|(ty, at)| self.index.at(ty, at))
    }

    pub fn iter(&self) -> impl Iterator<Item = Location> + '_ {
        self.iter_positions().map(|(ty, position)| self.index.at(ty, position))
    }

    fn iter_positions(&self) -> impl Iterator<Item = (BlobType, usize)> + '_ {
        [BlobType::Data, BlobType::Tree].into_iter().flat_map(move |ty| {
            let words = self.words(ty).iter().map(|word| word.load(Ordering::Relaxed)).enumerate();
            words.filter(|(_, word)| *word != 0).flat_map(move |(number, word)| {
                (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| (ty, number * 64 + bit))
            })
        })
    }

    fn words(&self, ty: BlobType) -> &[AtomicU64] {
        match ty {
            BlobType::Data => &self.data,
            BlobType::Tree => &self.tree,
        }
    }
}
