//! The index made to say what the packs hold.
//!
//! Index files that cannot be read go; packs that are in no index, or of which the index says what does not fit their size, are asked
//! what they hold; packs that are not there are forgotten. What the index says of a pack that is right stays, and so it does where the pack's
//! own header cannot be read but the sizes agree: the blobs may be sound.

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

/// What was found, and what was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Index files that could not be read.
    pub unreadable: u64,
    /// Packs that the index named and that are not there.
    pub forgotten: u64,
    /// Packs that were asked what they hold.
    pub read: u64,
    /// Those of them that could not say; each was told as a problem.
    pub silent: u64,
    /// Index files that were written, and removed.
    pub written: u64,
    pub removed: u64,
}

/// Headers that are read before they are put into the index.
const WINDOW: usize = 256;

/// Repairs the index; `read_all`: every pack is asked, whatever the index says. The caller holds an exclusive lock.
pub fn repair(repo: &Repository, read_all: bool, progress: &Progress) -> Result<Repaired> {
    let mut repaired = Repaired::default();
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
    repaired.unreadable = unreadable.len() as u64;
    let listed: HashMap<Id, u64> = repo.store().list(FileType::Pack)?.into_iter().collect();
    let empty = file_size(&[]);
    let mut sizes = vec![empty; index.packs().len()];
    for copy in index.walk() {
        sizes[copy.pack] += file_size(&[copy.blob]) - empty;
    }
    let mut sound = HashSet::new();
    for (&pack, expected) in index.packs().iter().zip(sizes) {
        match listed.get(&pack) {
            Some(&size) if size == expected => {
                sound.insert(pack);
            }
            Some(size) => {
                progress.warning(&format!("pack {pack} has {size} bytes, and not the {expected} that the index makes"))
            }
            None => {
                repaired.forgotten += 1;
                progress.warning(&format!("pack {pack} is not there, and goes from the index"));
            }
        }
    }
    let mut ask: Vec<(Id, u64)> = listed.into_iter().filter(|(pack, _)| read_all || !sound.contains(pack)).collect();
    ask.sort_unstable();
    repaired.read = ask.len() as u64;
    progress.files_total.store(repaired.read, Ordering::Relaxed);
    progress.files_done.store(0, Ordering::Relaxed);

    let mut reindex = Reindex::new(repo);
    let asked: HashSet<Id> = ask.iter().map(|(pack, _)| *pack).collect();
    reindex.take_over(
        reindex.files()?,
        |pack| sound.contains(&pack.id) && !asked.contains(&pack.id),
        |file, error| {
            let known = unreadable.binary_search_by_key(&file, |(file, _)| *file).is_ok();
            if known { Ok(()) } else { Err(error) }
        },
    )?;
    for part in ask.chunks(WINDOW) {
        let headers = side_by_side(repo.store().connections(), part, |&(pack, size)| {
            let blobs = header(repo, pack, size);
            progress.files_done.fetch_add(1, Ordering::Relaxed);
            blobs
        });
        let ids: Vec<Id> = part.iter().map(|(pack, _)| *pack).collect();
        let said = LazyCell::new(|| index.groups(&ids).collect::<Vec<_>>());
        for (&pack, blobs) in ids.iter().zip(headers) {
            let blobs = match blobs {
                Ok(blobs) => blobs,
                Err(error) if !error.is_damage() => return Err(error),
                Err(error) => {
                    repaired.silent += 1;
                    progress.problem(Phase::Repair, format!("pack {pack}"), error);
                    match sound.contains(&pack) {
                        true => said.iter().flat_map(|group| group.blobs(pack)).collect(),
                        false => continue,
                    }
                }
            };
            reindex.add(IndexedPack { id: pack, blobs })?;
        }
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
    }
    let (written, removed) = reindex.finish()?;
    (repaired.written, repaired.removed) = (written.len() as u64, removed.len() as u64);
    Ok(repaired)
}

/// What a pack says that it holds, if that is all that there is in it.
fn header(repo: &Repository, pack: Id, size: u64) -> Result<Vec<PackedBlob>> {
    let blobs = repo.load_pack_header(pack, size)?;
    let expected = file_size(&blobs);
    if expected == size { Ok(blobs) } else { Err(Error::PackSize { pack, size, expected }) }
}
