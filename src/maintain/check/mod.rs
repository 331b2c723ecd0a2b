//! Is everything there, and is it what it says it is?
//!
//! In steps, each of which assumes no more than the one before has shown: [`Check::start`] reads the index, [`Check::packs`] compares it
//! with the files that are there, [`Check::trees`] (in [`trees`]) walks every snapshot, [`Check::data`] (in [`data`]) reads packs
//! whole, and [`Check::hits`] (in [`hits`]) says what all this damage hits. Nothing is believed and nothing is repaired: each error is told as a
//! problem and counted, and the check goes on.

mod data;
mod hits;
mod trees;

pub use data::Subset;
pub use hits::Hit;

use crate::format::BlobType;
use crate::format::index_file::IndexedPack;
use crate::format::pack::{self, PackedBlob};
use crate::id::Id;
use crate::parallel::both;
use crate::progress::{Phase, Progress};
use crate::repo::index::Location;
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, reading_pool};
use crate::store::FileType;
use crate::sync::{into_inner, lock};
use hits::Lost;
use rayon::ThreadPool;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub errors: u64,
    /// Packs that are there, and are cut short or do not hold what they should.
    pub broken_packs: Vec<Id>,
    pub broken_snapshots: Vec<Id>,
    /// The index does not say what is in the packs: rebuilding it may help.
    pub suggest_repair_index: bool,
    /// Packs that the index names, and that are not there.
    pub missing_packs: u64,
    /// Packs that are in no index.
    pub unindexed: u64,
    /// There is data that nothing needs: pruning removes it.
    pub suggest_prune: bool,
    /// Errors that are no damage: the store did not give what is asked of it, and may do so the next time.
    pub out_of_reach: u64,
    pub snapshots: u64,
    pub trees: u64,
    pub packs: u64,
    pub packs_read: u64,
}

/// A check under way.
pub struct Check<'r> {
    repo: &'r Repository,
    progress: &'r Progress,
    pool: ThreadPool,
    index: Index,
    /// Ids and sizes of the pack files.
    listed: HashMap<Id, u64>,
    /// The snapshots as they were read.
    read: Vec<(Id, Result<StoredSnapshot>)>,
    /// Those that can be read, the oldest first.
    snapshots: Vec<StoredSnapshot>,
    lost: Lost,
    out_of_reach: AtomicU64,
    report: Report,
}

/// What the index says of one pack, added up.
#[derive(Default)]
struct Indexed {
    bytes: u64,
    data: bool,
    tree: bool,
}

impl<'r> Check<'r> {
    /// Reads the index and the snapshots and lists the packs.
    pub fn start(repo: &'r Repository, progress: &'r Progress) -> Result<Check<'r>> {
        let said = Mutex::new(Said::default());
        let look = |file, content: Result<&[IndexedPack]>| {
            lock(&said).add(file, content);
            Ok(())
        };
        // The packs are listed after the index files, so that without a lock a backup that goes on
        // meanwhile makes no pack look lost.
        let load = || -> Result<_> {
            let files = repo.store().list(FileType::Index)?;
            let list = || repo.store().list(FileType::Pack);
            let (packs, index) = both(list, || Index::load_each_listed(repo, files, look));
            Ok((index?, packs?))
        };
        let (read, loaded) = both(|| repo.read_snapshots(), load);
        let ((index, packs), read) = (loaded?, read?);
        let pool = reading_pool(repo, &index)?;
        let listed = packs.into_iter().collect();
        let (snapshots, lost, out_of_reach, report) = Default::default();
        let mut check = Check { repo, progress, pool, index, listed, read, snapshots, lost, out_of_reach, report };
        check.compare(into_inner(said));
        Ok(check)
    }

    /// Compares what the index files say; the outcome does not depend on which was read first.
    fn compare(&mut self, Said { mut unreadable, mut packs }: Said) {
        unreadable.sort_unstable_by_key(|(file, _)| *file);
        self.report.suggest_repair_index |= !unreadable.is_empty();
        unreadable.into_iter().for_each(|(file, why)| self.error(format!("index {file}"), &why));
        packs.sort_unstable();
        for (one, other) in packs.iter().zip(&packs[packs.len().min(1)..]).filter(|(one, other)| one.pack == other.pack)
        {
            self.report.suggest_repair_index = true;
            let (pack, files) = (one.pack, format!("{}, {}", one.file, other.file));
            if one.blobs == other.blobs {
                self.hint(format!("pack {pack} is in several index files: {files}"));
            } else {
                self.problem(
                    format!("pack {pack}"),
                    format!("these index files disagree about what is in it: {files}"),
                );
            }
        }
    }

    /// Compares the index with the pack files that are there.
    pub fn packs(&mut self) -> Result<()> {
        self.report.packs = self.listed.len() as u64;
        let empty = pack::header_size([]);
        let mut indexed: HashMap<Id, Indexed> = self.index.packs().iter().map(|&id| (id, Indexed::default())).collect();
        for location in self.index.iter() {
            let pack = indexed.entry(location.pack).or_default();
            pack.bytes += u64::from(location.blob.length) + pack::header_size([&location.blob]) - empty;
            pack.data |= location.blob.ty == BlobType::Data;
            pack.tree |= location.blob.ty == BlobType::Tree;
        }
        let mut ids: Vec<&Id> = indexed.keys().collect();
        ids.sort_unstable();
        for &id in ids {
            let Indexed { bytes, data, tree } = indexed[&id];
            let expected = bytes + empty;
            match self.listed.get(&id).copied() {
                None => {
                    self.lost.packs.insert(id);
                    self.problem(
                        format!("pack {id}"),
                        "the index lists it, but there is no such file; what is in it is lost",
                    );
                }
                Some(size) if size != expected => {
                    self.report.broken_packs.push(id);
                    let why = format!("it has {size} bytes, but what the index lists makes {expected}");
                    self.problem(format!("pack {id}"), why);
                }
                Some(_) => {}
            }
            if data && tree {
                self.report.suggest_prune = true;
                self.hint(format!("pack {id} holds both data and trees, as old versions of restic wrote it"));
            }
        }
        if !self.report.broken_packs.is_empty() {
            let broken: HashSet<Id> = self.report.broken_packs.iter().copied().collect();
            let is_cut = |location: &Location| {
                let end = u64::from(location.blob.offset) + u64::from(location.blob.length);
                broken.contains(&location.pack) && self.listed.get(&location.pack).is_none_or(|size| end > *size)
            };
            self.lost.blobs.extend(self.index.iter().filter(is_cut).map(|cut| (cut.pack, cut.blob.id)));
        }
        let unindexed = self.listed.keys().filter(|id| !indexed.contains_key(id)).count();
        self.report.unindexed = unindexed as u64;
        if unindexed > 0 {
            self.report.suggest_prune = true;
            self.hint(format!(
                "{unindexed} packs are in no index: left by interrupted backups, harmless, removed by a prune"
            ));
        }
        Ok(())
    }

    /// The end.
    pub fn finish(mut self) -> Report {
        self.report.errors = self.progress.problem_count();
        self.report.out_of_reach = self.out_of_reach();
        self.report.missing_packs = self.lost.packs.len() as u64;
        self.report.broken_packs.sort_unstable();
        self.report.broken_packs.dedup();
        self.report
    }

    /// How many pack files there are.
    pub fn pack_count(&self) -> usize {
        self.listed.len()
    }

    /// How many errors so far are no damage.
    pub fn out_of_reach(&self) -> u64 {
        self.out_of_reach.load(Ordering::Relaxed)
    }

    /// What could not be read: because it is damaged, or out of reach.
    fn error(&self, item: impl Into<String>, error: &Error) {
        if !error.is_damage() {
            self.out_of_reach.fetch_add(1, Ordering::Relaxed);
        }
        self.problem(item, error);
    }

    fn problem(&self, item: impl Into<String>, why: impl fmt::Display) {
        self.progress.problem(Phase::Check, item, why);
    }

    /// Something that is not as it should be, and of which nothing is lost.
    fn hint(&self, text: String) {
        self.progress.warning(&text);
    }

    /// Starts the counters of a step.
    fn count(&self, files: u64, bytes: u64) {
        for counter in [&self.progress.files_done, &self.progress.bytes_done] {
            counter.store(0, Ordering::Relaxed);
        }
        self.progress.files_total.store(files, Ordering::Relaxed);
        self.progress.bytes_total.store(bytes, Ordering::Relaxed);
    }

    fn check_interrupted(&self) -> Result<()> {
        if self.progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// What the index files say.
#[derive(Default)]
struct Said {
    unreadable: Vec<(Id, Error)>,
    packs: Vec<PackSaid>,
}

/// What an index file says of a pack.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PackSaid {
    pack: Id,
    file: Id,
    /// A hash of the list.
    blobs: Id,
}

impl Said {
    fn add(&mut self, file: Id, content: Result<&[IndexedPack]>) {
        match content {
            Ok(packs) => self.packs.extend(packs.iter().map(|pack| PackSaid {
                pack: pack.id,
                file,
                blobs: fingerprint(&pack.blobs),
            })),
            Err(error) => self.unreadable.push((file, error)),
        }
    }
}

/// A hash of what an index says of a pack, whatever the order.
fn fingerprint(blobs: &[PackedBlob]) -> Id {
    let mut blobs: Vec<&PackedBlob> = blobs.iter().collect();
    blobs.sort_unstable_by_key(|blob| (blob.offset, blob.id));
    let mut bytes = Vec::with_capacity(blobs.len() * 45);
    for PackedBlob { ty, id, offset, length, uncompressed } in blobs {
        bytes.push(u8::from(*ty == BlobType::Tree));
        bytes.extend_from_slice(&id.0);
        [offset, length, uncompressed].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    }
    Id::of(&bytes)
}

/// Ids that were seen, shared by threads.
#[derive(Default)]
struct Seen(Mutex<HashSet<Id>>);

impl Seen {
    /// Whether the id is new.
    fn insert(&self, id: Id) -> bool {
        lock(&self.0).insert(id)
    }

    fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests;
