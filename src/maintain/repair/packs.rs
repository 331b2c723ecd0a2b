//! Salvages the intact blobs of damaged packs.
//!
//! Each blob that still matches its id is written to a new pack. Then the damaged pack is removed
//! from the index and deleted. A blob that is lost may have another copy, or the next backup of the
//! same files stores it again.

use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::maintain::reindex::Reindex;
use crate::progress::{Phase, Progress};
use crate::repo::index::{Group, Location};
use crate::repo::writer::{Known, WriteMode, Writer};
use crate::repo::{Error, Index, Repository, Result, check_size};
use crate::store::{File, FileType};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The outcome of a repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    pub saved: u64,
    /// Blobs that could not be read, and that the index lists in no other pack; each was reported
    /// as a problem.
    pub lost: u64,
    /// Packs that could not be removed; no index file lists them any more.
    pub left_behind: u64,
}

/// Salvages packs. The caller holds an exclusive lock.
pub fn repair(repo: &Arc<Repository>, packs: &[Id], progress: &Progress) -> Result<Salvaged> {
    let index = Index::load(repo)?;
    let held = index.memory() + index.group_memory();
    let writer = Writer::beside(repo.clone(), Arc::new(Index::default()), held, WriteMode::Upload)?;
    progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
    let mut failed = BTreeMap::new();
    let outcome = index.groups(packs).try_for_each(|group| save_all(repo, &group, &writer, &mut failed, progress));
    let condemned: HashSet<Id> = packs.iter().copied().collect();
    let is_elsewhere = |ty, id| index.find(ty, id).iter().any(|location| !condemned.contains(&location.pack));
    let is_saved = |ty, id| writer.index().contains(ty, id) || is_elsewhere(ty, id);
    let lost = outcome.map(|()| failed.into_iter().filter(|((ty, id), _)| !is_saved(*ty, *id)).collect::<Vec<_>>());
    // Finish also after an error, so that the saved blobs are indexed.
    let written = writer.finish();
    let (lost, written) = (lost?, written?);
    let saved = written.data_blobs.into_inner() + written.tree_blobs.into_inner();
    let mut salvaged = Salvaged { saved, lost: lost.len() as u64, left_behind: 0 };
    for ((ty, id), error) in lost {
        progress.problem(Phase::Repair, format!("{ty} blob {id}"), error);
    }
    let mut reindex = Reindex::new(repo);
    reindex.take_over(reindex.files()?, |pack| !condemned.contains(&pack.id), |_, error| Err(error))?;
    reindex.finish()?;
    repo.confirm_lock()?;
    for &pack in packs {
        let file = File::new(FileType::Pack, pack);
        if let Err(error) = repo.store().remove(file) {
            salvaged.left_behind += 1;
            progress.problem(Phase::Repair, file.to_string(), error);
        }
    }
    Ok(salvaged)
}

/// Saves the readable blobs of some packs; the others are added to `failed` with their errors.
fn save_all(
    repo: &Repository,
    group: &Group<'_>,
    writer: &Writer,
    failed: &mut BTreeMap<(BlobType, Id), Error>,
    progress: &Progress,
) -> Result<()> {
    for &pack in group.packs() {
        // Both the list in the index and the list in the header are tried, because either may be
        // wrong.
        let said = group.blobs(pack);
        let mut blobs = said.clone();
        let size = repo.store().size(File::new(FileType::Pack, pack)).map_err(Error::from);
        match size.and_then(|size| repo.load_pack_header(pack, size)) {
            Ok(own) => blobs.extend(own.into_iter().filter(|blob| !said.contains(blob))),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        if blobs.is_empty() {
            progress.warning(&format!("neither the index nor its header lists blobs of pack {pack}"));
        }
        for blob in blobs {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            match save(repo, writer, Location { pack, blob }) {
                Ok(()) => {}
                Err(error) if error.is_damage() => drop(failed.insert((blob.ty, blob.id), error)),
                Err(error) => return Err(error),
            }
        }
        progress.files_done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Saves one blob.
fn save(repo: &Repository, writer: &Writer, location: Location) -> Result<()> {
    let PackedBlob { ty, id, offset, length, uncompressed } = location.blob;
    let file = File::new(FileType::Pack, location.pack);
    let mut plaintext = Vec::new();
    check_size(&location.blob)?;
    let mut read = || {
        let sealed = repo.store().read_at(file, u64::from(offset), length as usize)?;
        repo.open_blob(&location, &sealed, &mut plaintext).map(|()| sealed)
    };
    // Retry once, because the data may have been damaged in transit.
    let sealed = read().or_else(|_| read())?;
    writer.store_known(&[Known { ty, id, plaintext: &plaintext, sealed: Some((&sealed, uncompressed)) }])
}
