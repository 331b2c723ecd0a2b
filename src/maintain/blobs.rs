//! A set of blobs of the repository: one bit each, by their place in the index, so that the blobs of a large snapshot take a few
//! kilobytes.

use crate::format::BlobType;
use crate::id::Id;
use crate::repo::index::Location;
use crate::repo::{Error, Index, Result};

pub struct BlobSet<'i> {
    index: &'i Index,
    data: Vec<u64>,
    tree: Vec<u64>,
}

impl<'i> BlobSet<'i> {
    pub fn new(index: &'i Index) -> BlobSet<'i> {
        let words = |ty| vec![0; index.loaded_len(ty).div_ceil(64)];
        BlobSet { index, data: words(BlobType::Data), tree: words(BlobType::Tree) }
    }

    /// Adds a blob; says whether it is new. A blob that is in no index is an error.
    pub fn insert(&mut self, ty: BlobType, id: Id) -> Result<bool> {
        let position = self.index.position(ty, id).ok_or(Error::BlobMissing { ty, id })?;
        let word = &mut self.words_mut(ty)[position / 64];
        let bit = 1 << (position % 64);
        let new = *word & bit == 0;
        *word |= bit;
        Ok(new)
    }

    pub fn contains(&self, ty: BlobType, id: Id) -> bool {
        self.index.position(ty, id).is_some_and(|position| self.has(ty, position))
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
            let words = self.words(ty).iter().enumerate().filter(|(_, word)| **word != 0);
            words.flat_map(move |(number, word)| {
                (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| (ty, number * 64 + bit))
            })
        })
    }

    fn has(&self, ty: BlobType, position: usize) -> bool {
        self.words(ty)[position / 64] & (1 << (position % 64)) != 0
    }

    fn words(&self, ty: BlobType) -> &[u64] {
        match ty {
            BlobType::Data => &self.data,
            BlobType::Tree => &self.tree,
        }
    }

    fn words_mut(&mut self, ty: BlobType) -> &mut [u64] {
        match ty {
            BlobType::Data => &mut self.data,
            BlobType::Tree => &mut self.tree,
        }
    }
}
