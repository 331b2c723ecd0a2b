//! The blobs of each pack according to the index, for groups of packs of bounded memory size.

use super::merged::{Index, Placed, slot};
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

/// The least and the most blobs in a [`Group`], unless one pack alone has more.
const GROUP: RangeInclusive<usize> = 1 << 18..=1 << 20;

/// The number of groups of an index, within the bounds of [`GROUP`]: each group costs a walk
/// through the index, and memory while it is in use.
const GROUPS: usize = 16;

/// Some packs, and their blobs according to the index.
pub struct Group<'i> {
    index: &'i Index,
    packs: &'i [Id],
    /// The copies of blobs, sorted by pack and offset.
    copies: Vec<InPack>,
    ranges: HashMap<Id, Range<usize>>,
}

struct InPack {
    pack: u32,
    offset: u32,
    position: u32,
    ty: BlobType,
}

impl<'i> Group<'i> {
    pub fn packs(&self) -> &'i [Id] {
        self.packs
    }

    /// The blobs of a pack of the group according to the index, front to back.
    pub fn blobs(&self, pack: Id) -> Vec<PackedBlob> {
        self.positions(pack).map(|(ty, position)| self.index.at(ty, position).blob).collect()
    }

    /// The positions of [`Group::blobs`] in the index, with their types.
    pub fn positions(&self, pack: Id) -> impl Iterator<Item = (BlobType, usize)> + '_ {
        let copies = &self.copies[self.ranges.get(&pack).cloned().unwrap_or_default()];
        copies.iter().map(|copy| (copy.ty, copy.position as usize))
    }
}

impl Index {
    /// Divides packs into groups with at most a sixteenth of the index's blobs. That limit is at
    /// least 262,144 and at most 1,048,576. Each group costs a walk through the index.
    pub fn groups<'s>(&'s self, packs: &'s [Id]) -> impl Iterator<Item = Group<'s>> + 's {
        let numbers: HashMap<Id, usize> = self.packs().iter().copied().zip(0..).collect();
        let mut counts = vec![0usize; self.packs().len()];
        self.walk().for_each(|copy| counts[copy.pack] += 1);
        let (mut left, most) = (packs, self.most_of_group());
        std::iter::from_fn(move || {
            let mut blobs = 0;
            let fits = left.iter().take_while(|pack| {
                blobs += numbers.get(pack).map_or(0, |&number| counts[number]);
                blobs <= most
            });
            let fits = fits.count().max(1);
            let (packs, later) = left.split_at_checked(fits)?;
            left = later;
            let numbers: Vec<usize> = packs.iter().filter_map(|pack| numbers.get(pack).copied()).collect();
            // Allocated at once: growing step by step would take twice the memory.
            let copies = Vec::with_capacity(numbers.iter().map(|&number| counts[number]).sum());
            Some(self.group(packs, &numbers, copies))
        })
    }

    /// `numbers` are those of the packs, and `copies` has capacity for all their blobs.
    fn group<'s>(&'s self, packs: &'s [Id], numbers: &[usize], mut copies: Vec<InPack>) -> Group<'s> {
        let mut meant = vec![false; self.packs().len()];
        numbers.iter().for_each(|&number| meant[number] = true);
        for Placed { position, pack, blob, .. } in self.walk().filter(|copy| meant[copy.pack]) {
            let small = |number: usize| u32::try_from(number).expect("fewer than 2^32 blobs");
            copies.push(InPack { pack: small(pack), offset: blob.offset, ty: blob.ty, position: small(position) });
        }
        copies.par_sort_unstable_by_key(|copy| (copy.pack, copy.offset, slot(copy.ty), copy.position));
        let mut ranges = HashMap::with_capacity(packs.len());
        let mut start = 0;
        for same in copies.chunk_by(|a, b| a.pack == b.pack) {
            let end = start + same.len();
            ranges.insert(self.packs()[same[0].pack as usize], std::mem::replace(&mut start, end)..end);
        }
        Group { index: self, packs, copies, ranges }
    }

    /// The most blobs in a [`Group`].
    fn most_of_group(&self) -> usize {
        (self.len() / GROUPS).clamp(*GROUP.start(), *GROUP.end())
    }

    /// Bytes that a [`Group`] takes, with the maps of its packs.
    pub fn group_memory(&self) -> u64 {
        let pack = size_of::<(Id, Range<usize>)>() + size_of::<(Id, usize)>() + size_of::<usize>();
        (self.len().min(self.most_of_group()) * size_of::<InPack>() + self.packs().len() * pack) as u64
    }
}
