//! Which blob is where: the merged content of all index files, in memory.
//!
//! Loaded blobs are sorted arrays, one per type: 48 bytes a blob, whatever the repository's age. A blob that is in several packs has
//! several neighbouring entries. Blobs that this process adds or is about to add are in a small table beside them.

use super::{Error, Repository, Result};
use crate::format::BlobType;
use crate::format::index_file::{self, IndexedPack};
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::memory;
use crate::store::{File, FileType};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Mutex;

/// One copy of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub pack: Id,
    pub blob: PackedBlob,
}

#[derive(Clone, Copy)]
struct Entry {
    id: Id,
    pack: u32,
    offset: u32,
    length: u32,
    uncompressed: u32,
}

/// The merged index.
#[derive(Default)]
pub struct Index {
    /// The files that it was read from.
    files: Vec<Id>,
    packs: Vec<Id>,
    /// Data blobs, then tree blobs.
    entries: [Sorted; 2],
    /// Blobs that this process has added or is about to.
    added: Mutex<[HashSet<Id>; 2]>,
}

/// Entries by id, then pack and place in it. An id is a hash, so its first bits tell nearly where it is.
#[derive(Default)]
struct Sorted {
    entries: Vec<Entry>,
    /// For each value of the first bits, where its entries begin; and the end. As many bits as make about eight entries each.
    starts: Vec<u32>,
}

impl Sorted {
    fn new(mut entries: Vec<Entry>, packs: &[Id]) -> Sorted {
        // By the packs' ids, not their numbers: those depend on which index file was read first.
        let pack = |entry: &Entry| packs[entry.pack as usize];
        entries.par_sort_unstable_by(|a, b| {
            a.id.cmp(&b.id).then_with(|| {
                (pack(a), a.offset, a.length, a.uncompressed).cmp(&(pack(b), b.offset, b.length, b.uncompressed))
            })
        });
        entries.dedup_by_key(|entry| (entry.id, entry.pack, entry.offset, entry.length, entry.uncompressed));
        entries.shrink_to_fit();
        let count = (entries.len() / 8 + 1).next_power_of_two();
        let mut starts = Vec::with_capacity(count + 1);
        let mut sorted = Sorted { entries, starts: Vec::new() };
        for (at, entry) in sorted.entries.iter().enumerate() {
            let at = u32::try_from(at).expect("fewer than 2^32 blobs");
            starts.resize(place(entry.id, count) + 1, at);
        }
        starts.resize(count + 1, u32::try_from(sorted.entries.len()).expect("fewer than 2^32 blobs"));
        sorted.starts = starts;
        sorted
    }

    /// Where an id is, or would be.
    fn find(&self, id: Id) -> usize {
        let Some(places) = self.starts.len().checked_sub(1) else { return 0 };
        let place = place(id, places);
        let [start, end] = [self.starts[place], self.starts[place + 1]].map(|at| at as usize);
        start + self.entries[start..end].partition_point(|entry| entry.id < id)
    }
}

/// What the first bits of an id are, for as many as `count`, a power of two, has values.
fn place(id: Id, count: usize) -> usize {
    let first = id.0.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    ((u64::from(first) * count as u64) >> 32) as usize
}

/// An index that is being put together.
#[derive(Default)]
struct Building {
    packs: Vec<Id>,
    numbers: HashMap<Id, u32>,
    entries: [Vec<Entry>; 2],
}

impl Building {
    fn add(&mut self, IndexedPack { id, blobs }: IndexedPack) {
        let next = u32::try_from(self.packs.len()).expect("fewer than 2^32 packs");
        let pack = *self.numbers.entry(id).or_insert_with(|| {
            self.packs.push(id);
            next
        });
        for PackedBlob { ty, id, offset, length, uncompressed } in blobs {
            self.entries[slot(ty)].push(Entry { id, pack, offset, length, uncompressed });
        }
    }

    fn memory(&self) -> u64 {
        bytes(self.entries.iter().map(Vec::len).sum(), self.packs.len())
    }

    fn finish(self) -> Index {
        let Building { packs, entries, .. } = self;
        let entries = entries.map(|entries| Sorted::new(entries, &packs));
        Index { files: Vec::new(), entries, packs, added: Mutex::default() }
    }
}

/// Bytes of a loaded index.
fn bytes(blobs: usize, packs: usize) -> u64 {
    (blobs * size_of::<Entry>() + packs * size_of::<Id>()) as u64
}

/// What it takes to load an index file of usual size: its JSON, what that was compressed and sealed as, and what is in it.
const LOADING: u64 = 24 << 20;

fn slot(ty: BlobType) -> usize {
    match ty {
        BlobType::Data => 0,
        BlobType::Tree => 1,
    }
}

impl Index {
    /// Loads all index files. One that cannot be read ends it: without it, blobs would be taken for missing.
    pub fn load(repo: &Repository) -> Result<Index> {
        Index::load_each(repo, |_, content| content.map(|_| ()))
    }

    /// Loads the index files, several at a time, and shows each to `look`: what it says, or why it cannot be read. An error that `look`
    /// gives back ends it.
    pub fn load_each(
        repo: &Repository,
        look: impl Fn(Id, Result<&[IndexedPack]>) -> Result<()> + Sync,
    ) -> Result<Index> {
        let files = repo.store().list(FileType::Index)?;
        let budget = repo.settings().budget;
        let threads = memory::threads(budget.left(0, 0)?, LOADING, repo.store().connections());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
        let building = Mutex::new(Building::default());
        let inside = "no holder of this lock panics";
        let load = |&(id, _): &(Id, u64)| -> Result<()> {
            let packs = match load_file(repo, id) {
                Ok(packs) => packs,
                Err(error) => return look(id, Err(error)),
            };
            look(id, Ok(&packs))?;
            let mut building = building.lock().expect(inside);
            packs.into_iter().for_each(|pack| building.add(pack));
            budget.left(building.memory(), 0)?;
            Ok(())
        };
        pool.install(|| files.par_iter().try_for_each(load))?;
        let files = files.into_iter().map(|(id, _)| id).collect();
        Ok(Index { files, ..building.into_inner().expect(inside).finish() })
    }

    /// An index of these packs; a pack may come several times.
    pub fn from_packs(packs: Vec<IndexedPack>) -> Index {
        let mut building = Building::default();
        packs.into_iter().for_each(|pack| building.add(pack));
        building.finish()
    }

    /// The index files that it was read from.
    pub fn files(&self) -> &[Id] {
        &self.files
    }

    /// Bytes that the loaded blobs take.
    pub fn memory(&self) -> u64 {
        bytes(self.len(), self.packs.len())
    }

    /// All loaded copies of a blob.
    pub fn find(&self, ty: BlobType, id: Id) -> Vec<Location> {
        self.loaded(ty, id).iter().map(|entry| self.location(ty, entry)).collect()
    }

    /// One loaded copy of a blob.
    pub fn first(&self, ty: BlobType, id: Id) -> Option<Location> {
        self.loaded(ty, id).first().map(|entry| self.location(ty, entry))
    }

    /// Where the first loaded copy of a blob stands; [`Index::at`] gives its location without another search.
    pub fn position(&self, ty: BlobType, id: Id) -> Option<usize> {
        let sorted = &self.entries[slot(ty)];
        let first = sorted.find(id);
        sorted.entries.get(first).is_some_and(|entry| entry.id == id).then_some(first)
    }

    /// The location at a position.
    ///
    /// # Panics
    /// When the position is not below [`Index::loaded_len`].
    pub fn at(&self, ty: BlobType, position: usize) -> Location {
        self.location(ty, &self.entries[slot(ty)].entries[position])
    }

    /// Every loaded blob of a type once: the positions of its copies.
    pub fn blobs(&self, ty: BlobType) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        self.entries[slot(ty)].entries.chunk_by(|a, b| a.id == b.id).map(move |copies| {
            let end = start + copies.len();
            std::mem::replace(&mut start, end)..end
        })
    }

    /// The positions of all loaded copies of a blob.
    pub fn copies(&self, ty: BlobType, id: Id) -> Range<usize> {
        let start = self.entries[slot(ty)].find(id);
        start..start + self.loaded(ty, id).len()
    }

    /// Where the pack of a copy stands in [`Index::packs`].
    ///
    /// # Panics
    /// When the position is not below [`Index::loaded_len`].
    pub fn pack_at(&self, ty: BlobType, position: usize) -> usize {
        self.entries[slot(ty)].entries[position].pack as usize
    }

    /// How many copies of blobs of this type were loaded.
    pub fn loaded_len(&self, ty: BlobType) -> usize {
        self.entries[slot(ty)].entries.len()
    }

    /// Whether the blob is in the repository or on its way into it.
    pub fn contains(&self, ty: BlobType, id: Id) -> bool {
        !self.loaded(ty, id).is_empty() || self.added()[slot(ty)].contains(&id)
    }

    /// Reserves a blob for the caller to add. `false`: it is there already, or somebody else adds it.
    pub fn claim(&self, ty: BlobType, id: Id) -> bool {
        self.loaded(ty, id).is_empty() && self.added()[slot(ty)].insert(id)
    }

    /// How many blobs were loaded, copies counted.
    pub fn len(&self) -> usize {
        self.entries.iter().map(|sorted| sorted.entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every loaded copy of every blob.
    pub fn iter(&self) -> impl Iterator<Item = Location> + '_ {
        [BlobType::Data, BlobType::Tree]
            .into_iter()
            .flat_map(move |ty| self.entries[slot(ty)].entries.iter().map(move |entry| self.location(ty, entry)))
    }

    /// The loaded blobs in the order of packs and of places in them, for four bytes a blob.
    pub fn by_pack(&self) -> ByPack<'_> {
        let pack = |&number: &u32| self.numbered(number).1.pack;
        let mut order: Vec<u32> = (0..u32::try_from(self.len()).expect("fewer than 2^32 blobs")).collect();
        order.par_sort_unstable_by_key(|number| (pack(number), self.numbered(*number).1.offset, *number));
        let mut ranges: HashMap<Id, Range<usize>> = self.packs.iter().map(|&id| (id, 0..0)).collect();
        let mut start = 0;
        for same in order.chunk_by(|a, b| pack(a) == pack(b)) {
            let end = start + same.len();
            ranges.insert(self.packs[pack(&same[0]) as usize], start..end);
            start = end;
        }
        ByPack { index: self, order, ranges }
    }

    /// The packs that some loaded index names, each once.
    pub fn packs(&self) -> &[Id] {
        &self.packs
    }

    /// Every copy has a number: first those of data blobs, then those of trees.
    fn numbered(&self, number: u32) -> (BlobType, &Entry) {
        let [data, trees] = &self.entries;
        match (number as usize).checked_sub(data.entries.len()) {
            None => (BlobType::Data, &data.entries[number as usize]),
            Some(number) => (BlobType::Tree, &trees.entries[number]),
        }
    }

    fn loaded(&self, ty: BlobType, id: Id) -> &[Entry] {
        let sorted = &self.entries[slot(ty)];
        let from_here = &sorted.entries[sorted.find(id)..];
        &from_here[..from_here.iter().take_while(|entry| entry.id == id).count()]
    }

    fn location(&self, ty: BlobType, entry: &Entry) -> Location {
        let Entry { id, pack, offset, length, uncompressed } = *entry;
        Location { pack: self.packs[pack as usize], blob: PackedBlob { ty, id, offset, length, uncompressed } }
    }

    fn added(&self) -> std::sync::MutexGuard<'_, [HashSet<Id>; 2]> {
        self.added.lock().expect("no holder of this lock panics")
    }
}

/// The loaded blobs in the order of packs and of places in them.
pub struct ByPack<'i> {
    index: &'i Index,
    order: Vec<u32>,
    ranges: HashMap<Id, Range<usize>>,
}

impl ByPack<'_> {
    /// What the index says is in a pack, front to back.
    pub fn blobs(&self, pack: Id) -> Vec<PackedBlob> {
        self.positions(pack).map(|(ty, position)| self.index.at(ty, position).blob).collect()
    }

    /// The same blobs by their positions in the index.
    pub fn positions(&self, pack: Id) -> impl Iterator<Item = (BlobType, usize)> + '_ {
        let numbers = &self.order[self.ranges.get(&pack).cloned().unwrap_or_default()];
        let data = self.index.loaded_len(BlobType::Data);
        numbers.iter().map(move |&number| match (number as usize).checked_sub(data) {
            None => (BlobType::Data, number as usize),
            Some(position) => (BlobType::Tree, position),
        })
    }

    /// Bytes that the order takes.
    pub fn memory(&self) -> u64 {
        (self.order.len() * size_of::<u32>() + self.ranges.len() * size_of::<(Id, Range<usize>)>()) as u64
    }

    /// Whether an index file names a pack.
    pub fn names(&self, pack: Id) -> bool {
        self.ranges.contains_key(&pack)
    }
}

/// The packs of one index file.
pub fn load_file(repo: &Repository, id: Id) -> Result<Vec<IndexedPack>> {
    let file = File::new(FileType::Index, id);
    let json = repo.load_file(file)?;
    index_file::decode(&json).map_err(|source| Error::Damaged { file, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(ty: BlobType, text: &str, offset: u32) -> PackedBlob {
        PackedBlob { ty, id: Id::of(text.as_bytes()), offset, length: 40, uncompressed: 0 }
    }

    #[test]
    fn finds_every_copy_and_keeps_types_apart() {
        let pack = |name: &str, blobs| IndexedPack { id: Id::of(name.as_bytes()), blobs };
        let a = pack("p", vec![blob(BlobType::Data, "x", 0), blob(BlobType::Data, "y", 40)]);
        let b = pack("q", vec![blob(BlobType::Data, "x", 0)]);
        let index = Index::from_packs(vec![a.clone(), b.clone(), a.clone()]);
        let found = index.find(BlobType::Data, Id::of(b"x"));
        assert_eq!(found.len(), 2);
        assert_eq!(index.find(BlobType::Data, Id::of(b"y")).len(), 1, "the same copy listed twice is one");
        assert_eq!(index.first(BlobType::Tree, Id::of(b"x")), None);
        assert_eq!((index.len(), index.packs().len()), (3, 2));
        let read_otherwise = Index::from_packs(vec![b, a]).find(BlobType::Data, Id::of(b"x"));
        assert_eq!(read_otherwise, found, "whichever file is read first");
    }

    #[test]
    fn every_id_is_found_and_no_other() {
        let ids: Vec<Id> = (0..3000u32).map(|n| Id::of(&n.to_le_bytes())).chain([Id([0; 32]), Id([255; 32])]).collect();
        let blobs = ids.iter().map(|&id| PackedBlob { id, ..blob(BlobType::Tree, "", 0) }).collect();
        let index = Index::from_packs(vec![IndexedPack { id: Id::of(b"p"), blobs }]);
        assert!(ids.iter().all(|&id| index.first(BlobType::Tree, id).is_some_and(|found| found.blob.id == id)));
        let near = ids.iter().flat_map(|id| [0, 31].map(|at| Id(std::array::from_fn(|n| id.0[n] ^ u8::from(n == at)))));
        assert!(near.into_iter().all(|other| !index.contains(BlobType::Tree, other)));
    }

    #[test]
    fn a_blob_is_claimed_once() {
        let index = Index::from_packs(vec![]);
        let id = Id::of(b"new");
        assert!(index.claim(BlobType::Data, id));
        assert!(!index.claim(BlobType::Data, id));
        assert!(index.contains(BlobType::Data, id) && index.first(BlobType::Data, id).is_none());
        assert!(index.claim(BlobType::Tree, id));
    }
}
