//! Which blob is where: the merged content of all index files.
//!
//! Loaded blobs are sorted arrays, one per type: 48 bytes a blob, whatever the repository's age. They are in memory; where the budget does
//! not hold them, they are put aside in runs and merged into a temporary file, which lookups read ([`sorted`]). A blob that is in several
//! packs has several neighbouring entries. Blobs that this process adds or is about to add are in a set beside them ([`ids`]).

mod ids;
mod sorted;

use super::{Error, Repository, Result, StoredSnapshot};
use crate::format::BlobType;
use crate::format::index_file::{self, IndexedPack};
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::memory;
use crate::parallel::both;
use crate::store::{File, FileType};
use crate::sync::{into_inner, lock};
use ids::Ids;
use rayon::prelude::*;
use sorted::{Entry, Runs, Sorted};
use std::collections::{HashMap, HashSet};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One copy of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub pack: Id,
    pub blob: PackedBlob,
}

/// One copy of a blob as [`Index::walk`] comes by it, with its places in the index.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Where the first copy of the same blob stands.
    pub first: usize,
    pub position: usize,
    /// Where its pack stands in [`Index::packs`].
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
    /// Blobs that this process has added or is about to.
    added: Mutex<[Ids; 2]>,
    /// Where many of them are put aside.
    aside: Option<PathBuf>,
}

/// An index that is being put together.
#[derive(Default)]
struct Building {
    packs: Vec<Id>,
    numbers: HashMap<Id, u32>,
    entries: [Vec<Entry>; 2],
    /// What was put aside.
    runs: Option<[Runs; 2]>,
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

    /// Puts what is in memory aside, unless it is only a little.
    fn put_aside(&mut self, directory: &Path) -> std::io::Result<()> {
        if bytes(self.entries.iter().map(Vec::len).sum(), 0) < LEAST_RUN {
            return Ok(());
        }
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert([Runs::new(directory)?, Runs::new(directory)?]),
        };
        runs.iter_mut().zip(&mut self.entries).try_for_each(|(runs, entries)| runs.add(entries, &self.packs))
    }

    fn finish(self) -> Index {
        let Building { packs, entries, .. } = self;
        let entries = entries.map(|entries| Sorted::new(entries, &packs));
        Index { entries, packs, ..Index::default() }
    }

    /// The same where something was put aside: the rest follows it.
    fn finish_aside(mut self, mut runs: [Runs; 2], directory: &Path) -> std::io::Result<Index> {
        runs.iter_mut().zip(&mut self.entries).try_for_each(|(runs, entries)| runs.add(entries, &self.packs))?;
        let Building { packs, entries, numbers, .. } = self;
        drop((entries, numbers));
        let [data, trees] = runs;
        let entries = [data.merge(directory, &packs)?, trees.merge(directory, &packs)?];
        Ok(Index { entries, packs, ..Index::default() })
    }
}

/// Bytes of a loaded index that is in memory.
fn bytes(blobs: usize, packs: usize) -> u64 {
    (blobs * size_of::<Entry>() + packs * size_of::<Id>()) as u64
}

/// What it takes to load an index file of usual size: its JSON, what that was compressed and sealed as, and what is in it.
const LOADING: u64 = 24 << 20;

/// The same for a file of so many bytes. Small ones, of which there may be many, are read over all
/// connections.
fn loading(size: u64) -> u64 {
    // Ten times as much covers what the JSON of an index is compressed to.
    LOADING.min((1 << 20) + size.saturating_mul(10))
}

/// Less than this is not put aside: a run costs a buffer when runs are merged, so that not too many may be made.
const LEAST_RUN: u64 = 2 << 20;

/// The least and the most blobs of the packs of a [`Group`], unless one pack alone has more.
const GROUP: RangeInclusive<usize> = 1 << 18..=1 << 20;

/// Groups that an index is gone through in, if none has too few or too many blobs: each costs a walk
/// through the index, and memory while it is at hand.
const GROUPS: usize = 16;

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
        Index::load_each_listed(repo, repo.store().list(FileType::Index)?, look)
    }

    /// Finds snapshots, and then loads the index that they need; the index files are listed side by
    /// side with the search. If that fails, nothing is loaded.
    pub fn load_beside<T, E: From<Error>>(
        repo: &Repository,
        find: impl FnOnce() -> std::result::Result<T, E>,
        snapshots: impl FnOnce(&T) -> &[StoredSnapshot],
    ) -> std::result::Result<(T, Index), E> {
        let (files, found) = both(|| repo.store().list(FileType::Index), find);
        let found = found?;
        let index = Index::load_listed(repo, files.map_err(Error::from)?)?;
        let index = index.with_roots_of(repo, snapshots(&found))?;
        Ok((found, index))
    }

    /// The index itself; or one that is loaded again, if it lacks the root of a snapshot and there
    /// are more index files by now. A backup beside us writes its index before its snapshot, and may
    /// have written both since the index files were listed.
    pub fn with_roots_of(self, repo: &Repository, snapshots: &[StoredSnapshot]) -> Result<Index> {
        let lacks = |tree: Id| self.position(BlobType::Tree, tree).is_none();
        if !snapshots.iter().filter_map(|stored| stored.snapshot.tree).any(lacks) {
            return Ok(self);
        }
        let listed = repo.store().list(FileType::Index)?;
        let known: HashSet<Id> = self.files.iter().copied().collect();
        if listed.iter().all(|(id, _)| known.contains(id)) {
            return Ok(self);
        }
        drop(self);
        Index::load_listed(repo, listed)
    }

    /// [`Index::load`] by a listing of all index files.
    pub fn load_listed(repo: &Repository, files: Vec<(Id, u64)>) -> Result<Index> {
        Index::load_each_listed(repo, files, |_, content| content.map(|_| ()))
    }

    /// [`Index::load`] for a run that holds two indexes: each may take half of the memory that one may.
    pub fn load_one_of_two(repo: &Repository) -> Result<Index> {
        let room = repo.settings().budget.index().map(|room| room / 2);
        Index::load_within(repo, room, repo.store().list(FileType::Index)?, |_, content| content.map(|_| ()))
    }

    /// [`Index::load_each`] by a listing of all index files.
    pub fn load_each_listed(
        repo: &Repository,
        files: Vec<(Id, u64)>,
        look: impl Fn(Id, Result<&[IndexedPack]>) -> Result<()> + Sync,
    ) -> Result<Index> {
        Index::load_within(repo, repo.settings().budget.index(), files, look)
    }

    /// `room` is what it may take in memory, in bytes, before it is put aside; `None`: all that it needs.
    fn load_within(
        repo: &Repository,
        room: Option<u64>,
        files: Vec<(Id, u64)>,
        look: impl Fn(Id, Result<&[IndexedPack]>) -> Result<()> + Sync,
    ) -> Result<Index> {
        let settings = repo.settings();
        let budget = settings.budget;
        // Where it goes if it takes more.
        let aside = room.zip(settings.aside.as_deref());
        let left = budget.left(aside.map_or(0, |(room, _)| room), 0)?;
        let largest = files.iter().map(|(_, size)| *size).max().unwrap_or(0);
        let threads = memory::threads(left, loading(largest), repo.store().downloads());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
        let building = Mutex::new(Building::default());
        let refused = |directory: &Path, source| Error::Aside { directory: directory.to_owned(), source };
        let load = |&(id, _): &(Id, u64)| -> Result<()> {
            let packs = match load_file(repo, id) {
                Ok(packs) => packs,
                Err(error) => return look(id, Err(error)),
            };
            look(id, Ok(&packs))?;
            let mut building = lock(&building);
            packs.into_iter().for_each(|pack| building.add(pack));
            if let Some((_, directory)) = aside.filter(|(room, _)| building.memory() > *room) {
                building.put_aside(directory).map_err(|source| refused(directory, source))?;
            }
            budget.left(building.memory(), 0)?;
            Ok(())
        };
        pool.install(|| files.par_iter().try_for_each(load))?;
        let files = files.into_iter().map(|(id, _)| id).collect();
        let mut building = into_inner(building);
        let index = match (building.runs.take(), aside) {
            (Some(runs), Some((_, directory))) => {
                building.finish_aside(runs, directory).map_err(|source| refused(directory, source))?
            }
            _ => building.finish(),
        };
        Ok(Index { files, aside: settings.aside.clone(), ..index })
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

    /// Where the first loaded copy of a blob stands; [`Index::at`] gives its location without another search.
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

    /// Every loaded copy of every blob with its places, those of a blob one after the other.
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

    /// Where the pack of a copy stands in [`Index::packs`].
    ///
    /// # Panics
    /// When the position is not below [`Index::loaded_len`].
    pub fn pack_at(&self, ty: BlobType, position: usize) -> usize {
        self.entries[slot(ty)].get(position).pack as usize
    }

    /// How many copies of blobs of this type were loaded.
    pub fn loaded_len(&self, ty: BlobType) -> usize {
        self.entries[slot(ty)].len()
    }

    /// Whether the blob is in the repository or on its way into it.
    pub fn contains(&self, ty: BlobType, id: Id) -> bool {
        self.position(ty, id).is_some() || self.added()[slot(ty)].contains(id)
    }

    /// Reserves a blob for the caller to add. `false`: it is there already, or somebody else adds it.
    pub fn claim(&self, ty: BlobType, id: Id) -> bool {
        self.position(ty, id).is_none() && self.added()[slot(ty)].insert(id, self.aside.as_deref())
    }

    /// How many blobs were loaded, copies counted.
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

    /// What is in some packs, for as many of them at a time as make a group: a sixteenth of the index's
    /// blobs, and 262,144 to 1,048,576 of them. Each group costs a walk through the index.
    pub fn groups<'s>(&'s self, packs: &'s [Id]) -> impl Iterator<Item = Group<'s>> + 's {
        let numbers: HashMap<Id, usize> = self.packs.iter().copied().zip(0..).collect();
        let mut counts = vec![0usize; self.packs.len()];
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
            // To grow step by step would take twice as much.
            let copies = Vec::with_capacity(numbers.iter().map(|&number| counts[number]).sum());
            Some(self.group(packs, &numbers, copies))
        })
    }

    /// `numbers` are those of the packs, and `copies` has room for all that is in them.
    fn group<'s>(&'s self, packs: &'s [Id], numbers: &[usize], mut copies: Vec<InPack>) -> Group<'s> {
        let mut meant = vec![false; self.packs.len()];
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
            ranges.insert(self.packs[same[0].pack as usize], std::mem::replace(&mut start, end)..end);
        }
        Group { index: self, packs, copies, ranges }
    }

    /// The most blobs of a [`Group`].
    fn most_of_group(&self) -> usize {
        (self.len() / GROUPS).clamp(*GROUP.start(), *GROUP.end())
    }

    /// Bytes that a [`Group`] takes, and what tells groups apart.
    pub fn group_memory(&self) -> u64 {
        let pack = size_of::<(Id, Range<usize>)>() + size_of::<(Id, usize)>() + size_of::<usize>();
        (self.len().min(self.most_of_group()) * size_of::<InPack>() + self.packs.len() * pack) as u64
    }

    /// The packs that some loaded index names, each once.
    pub fn packs(&self) -> &[Id] {
        &self.packs
    }

    fn location(&self, ty: BlobType, entry: &Entry) -> Location {
        Location { pack: self.packs[entry.pack as usize], blob: blob(ty, entry) }
    }

    fn added(&self) -> std::sync::MutexGuard<'_, [Ids; 2]> {
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

/// Some packs, and what the index says is in them.
pub struct Group<'i> {
    index: &'i Index,
    packs: &'i [Id],
    /// By pack and place in it.
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

    /// What the index says is in a pack of the group, front to back.
    pub fn blobs(&self, pack: Id) -> Vec<PackedBlob> {
        self.positions(pack).map(|(ty, position)| self.index.at(ty, position).blob).collect()
    }

    /// The same blobs by their positions in the index.
    pub fn positions(&self, pack: Id) -> impl Iterator<Item = (BlobType, usize)> + '_ {
        let copies = &self.copies[self.ranges.get(&pack).cloned().unwrap_or_default()];
        copies.iter().map(|copy| (copy.ty, copy.position as usize))
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
    use crate::format::snapshot::Snapshot;
    use crate::repo::{Settings, tests::new_repository};

    fn named(ty: BlobType, text: &str, offset: u32) -> PackedBlob {
        PackedBlob { ty, id: Id::of(text.as_bytes()), offset, length: 40, uncompressed: 0 }
    }

    #[test]
    fn finds_every_copy_and_keeps_types_apart() {
        let pack = |name: &str, blobs| IndexedPack { id: Id::of(name.as_bytes()), blobs };
        let a = pack("p", vec![named(BlobType::Data, "x", 0), named(BlobType::Data, "y", 40)]);
        let b = pack("q", vec![named(BlobType::Data, "x", 0)]);
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
    fn an_index_that_was_listed_before_a_backup_ended_is_loaded_again() {
        let (_dir, repo) = new_repository(Settings::default());
        let root = |name: &str| {
            let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{}","paths":[]}}"#, Id::of(name.as_bytes()));
            [StoredSnapshot { id: Id::of(b"s"), snapshot: Snapshot::decode(json.as_bytes()).unwrap() }]
        };
        let save = |name: &str| {
            let packs = [IndexedPack { id: Id::of(name.as_bytes()), blobs: vec![named(BlobType::Tree, name, 0)] }];
            repo.save_written(FileType::Index, |out| index_file::encode(&packs, out)).unwrap()
        };
        let list = || repo.store().list(FileType::Index).unwrap();
        let first = save("first");
        let listed = list();
        let second = save("second");
        let load = || Index::load_listed(&repo, listed.clone()).unwrap();
        assert_eq!(load().with_roots_of(&repo, &root("first")).unwrap().files(), [first]);
        let mut newer = load().with_roots_of(&repo, &root("second")).unwrap().files().to_vec();
        newer.sort();
        let mut both = vec![first, second];
        both.sort();
        assert_eq!(newer, both);
        // What no index has is lost, and not looked for for ever.
        let lost = Index::load(&repo).unwrap().with_roots_of(&repo, &root("lost")).unwrap();
        assert_eq!(lost.files().len(), 2);
    }

    #[test]
    fn every_id_is_found_and_no_other() {
        let ids: Vec<Id> = (0..3000u32).map(|n| Id::of(&n.to_le_bytes())).chain([Id([0; 32]), Id([255; 32])]).collect();
        let blobs = ids.iter().map(|&id| PackedBlob { id, ..named(BlobType::Tree, "", 0) }).collect();
        let index = Index::from_packs(vec![IndexedPack { id: Id::of(b"p"), blobs }]);
        assert!(ids.iter().all(|&id| index.first(BlobType::Tree, id).is_some_and(|found| found.blob.id == id)));
        let near = ids.iter().flat_map(|id| [0, 31].map(|at| Id(std::array::from_fn(|n| id.0[n] ^ u8::from(n == at)))));
        assert!(near.into_iter().all(|other| !index.contains(BlobType::Tree, other)));
    }

    #[test]
    fn what_is_put_aside_is_found_as_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        // Ids that are hashes, ids that somebody chose to begin alike, and copies of both.
        let hashes = (0..20_000u32).map(|n| Id::of(&n.to_le_bytes()));
        let chosen = (0..2_000u32).map(|n| {
            Id(std::array::from_fn(|at| if at < 4 { n.to_be_bytes()[at] * u8::from(at > 1) } else { at as u8 }))
        });
        let ids: Vec<Id> = hashes.chain(chosen).collect();
        let blobs = |pack: u32| {
            let mine = ids
                .iter()
                .enumerate()
                .filter(move |(at, _)| *at as u32 % 7 == pack % 7 || *at as u32 % 11 == pack % 11);
            mine.map(move |(at, &id)| {
                let ty = if at % 3 == 0 { BlobType::Tree } else { BlobType::Data };
                PackedBlob { ty, id, offset: at as u32, length: pack + 40, uncompressed: at as u32 / 2 }
            })
        };
        let packs: Vec<IndexedPack> = (0..40)
            .map(|n: u32| IndexedPack { id: Id::of(&(n % 37).to_be_bytes()), blobs: blobs(n % 37).collect() })
            .collect();
        let mut building = Building::default();
        let mut runs = [Runs::new(directory.path()).unwrap(), Runs::new(directory.path()).unwrap()];
        for (at, pack) in packs.iter().enumerate() {
            building.add(pack.clone());
            if at % 6 == 5 {
                let both = runs.iter_mut().zip(&mut building.entries);
                both.for_each(|(runs, entries)| runs.add(entries, &building.packs).unwrap());
            }
        }
        let aside = building.finish_aside(runs, directory.path()).unwrap();
        let index = Index::from_packs(packs);
        assert!(aside.memory() * 10 < index.memory());
        assert!(aside.iter().eq(index.iter()) && aside.len() == index.len() && index.len() > ids.len());
        for id in ids.iter().flat_map(|&id| [id, Id(std::array::from_fn(|n| id.0[n] ^ u8::from(n == 31)))]) {
            for ty in types() {
                assert_eq!(aside.find(ty, id), index.find(ty, id));
                assert_eq!(
                    (aside.position(ty, id), aside.copies(ty, id)),
                    (index.position(ty, id), index.copies(ty, id))
                );
            }
        }
        let groups: [Vec<_>; 2] = [&aside, &index].map(|index| {
            let groups = index.groups(index.packs());
            groups
                .flat_map(|group| group.packs().iter().map(|&pack| (pack, group.blobs(pack))).collect::<Vec<_>>())
                .collect()
        });
        assert_eq!(groups[0], groups[1]);
        assert!(groups[0].iter().all(|(_, blobs)| !blobs.is_empty() && blobs.is_sorted_by_key(|blob| blob.offset)));
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "nobody else sees the file");
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
