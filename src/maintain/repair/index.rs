//! Repairs the index, so that it lists what the packs contain.
//!
//! Index files that cannot be read are removed. The headers of packs are read if the packs are in
//! no index or if the index does not match their size. Missing packs are removed from the index. An
//! index entry that matches the size of its pack stays even if the header of the pack cannot be
//! read: the blobs may be intact.

use crate::format::index_file::IndexedPack;
use crate::format::pack::{PackedBlob, file_size};
use crate::id::Id;
use crate::maintain::reindex::Reindex;
use crate::parallel::side_by_side;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Index, Repository, Result};
use crate::store::FileType;
use crate::sync::{into_inner, lock};
use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// The outcome of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Index files that could not be read.
    pub unreadable: u64,
    /// Packs that the index listed, but that do not exist.
    pub forgotten: u64,
    /// Packs whose headers were read.
    pub read: u64,
    /// Packs whose headers could not be read; each was reported as a problem.
    pub silent: u64,
    /// Index files that were written, and removed.
    pub written: u64,
    pub removed: u64,
}

/// The number of headers that are read before they are added to the index.
const WINDOW: usize = 256;

/// The packs whose headers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacksToRead {
    /// Packs that are in no index, or whose size does not match the index.
    Doubtful,
    All,
}

/// Repairs the index. The caller holds an exclusive lock.
pub fn repair(repo: &Repository, which: PacksToRead, progress: &Progress) -> Result<Repaired> {
    let (index, unreadable) = load(repo, progress)?;
    let listed: HashMap<Id, u64> = repo.store().list(FileType::Pack)?.into_iter().collect();
    let Compared { sound, forgotten } = compare(&index, &listed, progress);
    let is_read = |pack: &Id| which == PacksToRead::All || !sound.contains(pack);
    let mut ask: Vec<(Id, u64)> = listed.into_iter().filter(|(pack, _)| is_read(pack)).collect();
    ask.sort_unstable();
    let read = ask.len() as u64;
    progress.files_total.store(read, Ordering::Relaxed);
    progress.files_done.store(0, Ordering::Relaxed);
    let mut reindex = Reindex::new(repo);
    take_over(&mut reindex, &unreadable, |pack| sound.contains(pack) && !is_read(pack))?;
    let silent = Asking { repo, index: &index, sound: &sound, progress }.read(&ask, &mut reindex)?;
    let (written, removed) = reindex.finish()?;
    Ok(Repaired {
        unreadable: unreadable.len() as u64,
        forgotten,
        read,
        silent,
        written: written.len() as u64,
        removed: removed.len() as u64,
    })
}

/// The index as far as it can be read, and the unreadable index files with their errors, sorted.
fn load(repo: &Repository, progress: &Progress) -> Result<(Index, Vec<(Id, String)>)> {
    let unreadable = Mutex::new(Vec::new());
    let index = Index::load_each(repo, |file, content| match content {
        Ok(_) => Ok(()),
        Err(error) if !error.is_damage() => Err(error),
        Err(error) => {
            lock(&unreadable).push((file, error.to_string()));
            Ok(())
        }
    })?;
    let mut unreadable = into_inner(unreadable);
    unreadable.sort_unstable();
    for (file, why) in &unreadable {
        progress.warning(&format!("removing index {file}: {why}"));
    }
    Ok((index, unreadable))
}

/// The index compared with the pack files.
struct Compared {
    /// Packs whose size matches the index.
    sound: HashSet<Id>,
    /// The number of packs that the index lists, but that do not exist.
    forgotten: u64,
}

fn compare(index: &Index, listed: &HashMap<Id, u64>, progress: &Progress) -> Compared {
    let empty = file_size(&[]);
    let mut sizes = vec![empty; index.packs().len()];
    for copy in index.walk() {
        sizes[copy.pack] += file_size(&[copy.blob]) - empty;
    }
    let mut compared = Compared { sound: HashSet::new(), forgotten: 0 };
    for (&pack, expected) in index.packs().iter().zip(sizes) {
        match listed.get(&pack) {
            Some(&size) if size == expected => {
                compared.sound.insert(pack);
            }
            Some(size) => progress.warning(&format!("pack {pack} has {size} bytes, but the index implies {expected}")),
            None => {
                compared.forgotten += 1;
                progress.warning(&format!("pack {pack} does not exist; removing it from the index"));
            }
        }
    }
    compared
}

/// Takes over the index entries of the packs that `keeps` accepts.
fn take_over(reindex: &mut Reindex<'_>, unreadable: &[(Id, String)], keeps: impl Fn(&Id) -> bool) -> Result<()> {
    let files = reindex.files()?;
    reindex.take_over(
        files,
        |pack| keeps(&pack.id),
        |file, error| {
            let known = unreadable.binary_search_by_key(&file, |(file, _)| *file).is_ok();
            if known { Ok(()) } else { Err(error) }
        },
    )
}

/// The inputs for reading the headers of packs.
struct Asking<'a> {
    repo: &'a Repository,
    index: &'a Index,
    sound: &'a HashSet<Id>,
    progress: &'a Progress,
}

impl Asking<'_> {
    /// Reads the headers of packs and adds their blobs to the index. Returns the number of headers
    /// that cannot be read.
    fn read(&self, packs: &[(Id, u64)], reindex: &mut Reindex<'_>) -> Result<u64> {
        let mut silent = 0;
        for part in packs.chunks(WINDOW) {
            let headers = side_by_side(self.repo.store().connections(), part, |&(pack, size)| {
                let blobs = header(self.repo, pack, size);
                self.progress.files_done.fetch_add(1, Ordering::Relaxed);
                blobs
            });
            let ids: Vec<Id> = part.iter().map(|(pack, _)| *pack).collect();
            let said = LazyCell::new(|| self.index.groups(&ids).collect::<Vec<_>>());
            for (&pack, blobs) in ids.iter().zip(headers) {
                let blobs = match blobs {
                    Ok(blobs) => blobs,
                    Err(error) if !error.is_damage() => return Err(error),
                    Err(error) => {
                        silent += 1;
                        self.progress.problem(Phase::Repair, format!("pack {pack}"), error);
                        match self.sound.contains(&pack) {
                            true => said.iter().flat_map(|group| group.blobs(pack)).collect(),
                            false => continue,
                        }
                    }
                };
                reindex.add(IndexedPack { id: pack, blobs })?;
            }
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
        }
        Ok(silent)
    }
}

/// The blobs that the header of a pack lists. Fails if they do not add up to the size of the file.
fn header(repo: &Repository, pack: Id, size: u64) -> Result<Vec<PackedBlob>> {
    let blobs = repo.load_pack_header(pack, size)?;
    let expected = file_size(&blobs);
    if expected == size { Ok(blobs) } else { Err(Error::PackSize { pack, size, expected }) }
}
