//! The first step of a check: the index files can be read and agree with each other.

use super::context::Check;
use crate::format::BlobType;
use crate::format::index_file::IndexedPack;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::parallel::both;
use crate::progress::Progress;
use crate::repo::{Error, Index, Repository, Result, reading_pool};
use crate::store::FileType;
use crate::sync::{into_inner, lock};
use std::sync::Mutex;

impl<'r> Check<'r> {
    /// Reads the index and the snapshots and lists the packs.
    pub fn start(repo: &'r Repository, progress: &'r Progress) -> Result<Check<'r>> {
        let said = Mutex::new(Said::default());
        let look = |file, content: Result<&[IndexedPack]>| {
            lock(&said).add(file, content);
            Ok(())
        };
        // The packs are listed after the index files. Otherwise, without a lock, the packs of a
        // concurrent backup would look lost.
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

    /// Compares the content of the index files; the outcome does not depend on the order of
    /// reading.
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
                self.problem(format!("pack {pack}"), format!("these index files disagree about its content: {files}"));
            }
        }
    }
}

/// The content of the index files.
#[derive(Default)]
struct Said {
    unreadable: Vec<(Id, Error)>,
    packs: Vec<PackSaid>,
}

/// The entry of a pack in an index file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PackSaid {
    pack: Id,
    file: Id,
    /// The [`fingerprint`] of its list of blobs.
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

/// A hash of the blobs that an index file lists in a pack, independent of their order.
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
