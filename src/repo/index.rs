//! Which blob is where: the merged content of all index files, in memory.
//!
//! Loaded blobs are sorted arrays, one per type: 48 bytes a blob, whatever the repository's age. A blob that is in several packs has
//! several neighbouring entries. Blobs that this process adds or is about to add are in a small table beside them.

use super::{Error, Repository, Result};
use crate::format::BlobType;
use crate::format::index_file::{self, IndexedPack};
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::store::{File, FileType};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
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
    packs: Vec<Id>,
    /// Sorted by id, then pack and offset; data blobs, then tree blobs.
    entries: [Vec<Entry>; 2],
    added: Mutex<Added>,
}

/// Blobs of this process.
#[derive(Default)]
struct Added {
    packs: Vec<Id>,
    /// `None` while on their way into a pack.
    blobs: [HashMap<Id, Option<Place>>; 2],
}

/// Where an added blob is: the number of its pack, and the rest.
#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    offset: u32,
    length: u32,
    uncompressed: u32,
}

fn slot(ty: BlobType) -> usize {
    match ty {
        BlobType::Data => 0,
        BlobType::Tree => 1,
    }
}

impl Index {
    /// Loads all index files. One that cannot be read ends it: without it, blobs would be taken for missing.
    pub fn load(repo: &Repository) -> Result<Index> {
        let (index, errors) = Index::load_readable(repo)?;
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(index),
        }
    }

    /// Loads what can be loaded, with the errors of what cannot.
    pub fn load_readable(repo: &Repository) -> Result<(Index, Vec<Error>)> {
        let files = repo.store().list(FileType::Index)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(repo.store().connections().clamp(1, 8)).build();
        let loaded: Vec<Result<Vec<IndexedPack>>> = pool
            .expect("threads can be started")
            .install(|| files.par_iter().map(|&(id, _)| load_file(repo, id)).collect());
        let mut errors = Vec::new();
        let mut packs = Vec::new();
        for file in loaded {
            match file {
                Ok(list) => packs.extend(list),
                Err(error) => errors.push(error),
            }
        }
        Ok((Index::from_packs(packs), errors))
    }

    /// An index of these packs; a pack may come several times.
    pub fn from_packs(packs: Vec<IndexedPack>) -> Index {
        let mut index = Index::default();
        let mut numbers: HashMap<Id, u32> = HashMap::new();
        for IndexedPack { id, blobs } in packs {
            let next = u32::try_from(index.packs.len()).expect("fewer than 2^32 packs");
            let pack = *numbers.entry(id).or_insert_with(|| {
                index.packs.push(id);
                next
            });
            for PackedBlob { ty, id, offset, length, uncompressed } in blobs {
                index.entries[slot(ty)].push(Entry { id, pack, offset, length, uncompressed });
            }
        }
        for entries in &mut index.entries {
            entries.par_sort_unstable_by_key(|entry| (entry.id, entry.pack, entry.offset));
            entries.dedup_by_key(|entry| (entry.id, entry.pack, entry.offset, entry.length, entry.uncompressed));
            entries.shrink_to_fit();
        }
        index
    }

    /// All known copies of a blob that are in packs, those of this process last.
    pub fn find(&self, ty: BlobType, id: Id) -> Vec<Location> {
        let mut found: Vec<Location> = self.loaded(ty, id).iter().map(|entry| self.location(ty, entry)).collect();
        found.extend(self.added_location(ty, id));
        found
    }

    /// One copy of a blob.
    pub fn first(&self, ty: BlobType, id: Id) -> Option<Location> {
        match self.loaded(ty, id).first() {
            Some(entry) => Some(self.location(ty, entry)),
            None => self.added_location(ty, id),
        }
    }

    /// Where the first loaded copy of a blob stands; [`Index::at`] gives its location without another search.
    pub fn position(&self, ty: BlobType, id: Id) -> Option<usize> {
        let entries = &self.entries[slot(ty)];
        let first = entries.partition_point(|entry| entry.id < id);
        entries.get(first).is_some_and(|entry| entry.id == id).then_some(first)
    }

    /// The location at a position.
    ///
    /// # Panics
    /// When the position is not below [`Index::loaded_len`].
    pub fn at(&self, ty: BlobType, position: usize) -> Location {
        self.location(ty, &self.entries[slot(ty)][position])
    }

    /// How many copies of blobs of this type were loaded.
    pub fn loaded_len(&self, ty: BlobType) -> usize {
        self.entries[slot(ty)].len()
    }

    /// Whether the blob is in the repository or on its way into it.
    pub fn contains(&self, ty: BlobType, id: Id) -> bool {
        !self.loaded(ty, id).is_empty() || self.added().blobs[slot(ty)].contains_key(&id)
    }

    /// Reserves a blob for the caller to add. `false`: it is there already, or somebody else adds it.
    pub fn claim(&self, ty: BlobType, id: Id) -> bool {
        self.loaded(ty, id).is_empty() && {
            let mut added = self.added();
            let blobs = &mut added.blobs[slot(ty)];
            let new = !blobs.contains_key(&id);
            if new {
                blobs.insert(id, None);
            }
            new
        }
    }

    /// Makes the blobs of a pack that is durable now known.
    pub fn add_pack(&self, pack: &IndexedPack) {
        let mut added = self.added();
        let number = u32::try_from(added.packs.len()).expect("fewer than 2^32 packs");
        added.packs.push(pack.id);
        for &PackedBlob { ty, id, offset, length, uncompressed } in &pack.blobs {
            added.blobs[slot(ty)].insert(id, Some(Place { pack: number, offset, length, uncompressed }));
        }
    }

    /// How many blobs were loaded, copies counted.
    pub fn len(&self) -> usize {
        self.entries.iter().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every loaded copy of every blob.
    pub fn iter(&self) -> impl Iterator<Item = Location> + '_ {
        [BlobType::Data, BlobType::Tree]
            .into_iter()
            .flat_map(move |ty| self.entries[slot(ty)].iter().map(move |entry| self.location(ty, entry)))
    }

    /// The loaded blobs by pack, each list in order of offset.
    pub fn by_pack(&self) -> HashMap<Id, Vec<PackedBlob>> {
        let mut packs: HashMap<Id, Vec<PackedBlob>> = self.packs.iter().map(|&id| (id, Vec::new())).collect();
        for location in self.iter() {
            packs.entry(location.pack).or_default().push(location.blob);
        }
        packs.values_mut().for_each(|blobs| blobs.sort_unstable_by_key(|blob| blob.offset));
        packs
    }

    /// The packs that some loaded index names.
    pub fn packs(&self) -> HashSet<Id> {
        self.packs.iter().copied().collect()
    }

    fn loaded(&self, ty: BlobType, id: Id) -> &[Entry] {
        let entries = &self.entries[slot(ty)];
        let first = entries.partition_point(|entry| entry.id < id);
        let count = entries[first..].iter().take_while(|entry| entry.id == id).count();
        &entries[first..first + count]
    }

    fn location(&self, ty: BlobType, entry: &Entry) -> Location {
        let Entry { id, pack, offset, length, uncompressed } = *entry;
        Location { pack: self.packs[pack as usize], blob: PackedBlob { ty, id, offset, length, uncompressed } }
    }

    fn added_location(&self, ty: BlobType, id: Id) -> Option<Location> {
        let added = self.added();
        let Place { pack, offset, length, uncompressed } = added.blobs[slot(ty)].get(&id).copied().flatten()?;
        Some(Location { pack: added.packs[pack as usize], blob: PackedBlob { ty, id, offset, length, uncompressed } })
    }

    fn added(&self) -> std::sync::MutexGuard<'_, Added> {
        self.added.lock().expect("no holder of this lock panics")
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
        let index = Index::from_packs(vec![a.clone(), b, a]);
        assert_eq!(index.find(BlobType::Data, Id::of(b"x")).len(), 2);
        assert_eq!(index.find(BlobType::Data, Id::of(b"y")).len(), 1, "the same copy listed twice is one");
        assert_eq!(index.first(BlobType::Tree, Id::of(b"x")), None);
        assert_eq!((index.len(), index.packs().len()), (3, 2));
    }

    #[test]
    fn a_blob_is_claimed_once() {
        let index = Index::from_packs(vec![]);
        let id = Id::of(b"new");
        assert!(index.claim(BlobType::Data, id));
        assert!(!index.claim(BlobType::Data, id));
        assert!(index.contains(BlobType::Data, id) && index.first(BlobType::Data, id).is_none());
        index.add_pack(&IndexedPack { id: Id::of(b"p"), blobs: vec![blob(BlobType::Data, "new", 0)] });
        assert_eq!(index.first(BlobType::Data, id).unwrap().pack, Id::of(b"p"));
    }
}
