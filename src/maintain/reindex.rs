//! Replaces index files by new ones.
//!
//! All new files are written before the first old file is removed, so the index is complete at
//! every moment. A full file stays if all its entries are still wanted and none is listed
//! elsewhere. One old file and one new file are in memory at a time.

use crate::format::index_file::{self, IndexedPack};
use crate::id::Id;
use crate::limits;
use crate::parallel::side_by_side;
use crate::repo::index::load_file;
use crate::repo::{Error, Repository, Result};
use crate::store::{self, File, FileType};
use std::collections::HashSet;

/// A file with at least this number of blobs is full and may stay as it is.
const FULL: usize = limits::INDEX_BLOBS;
/// A file with at least this number is replaced, because restic reports it as oversized.
const OVERSIZED: usize = FULL + crate::format::pack::BLOBS_MAX;

/// An index that is being rewritten.
pub struct Reindex<'r> {
    repo: &'r Repository,
    /// Packs that are listed in a file that stays or in a new file.
    known: HashSet<Id>,
    building: Vec<IndexedPack>,
    blobs: usize,
    saved: Vec<Id>,
    old: Vec<Id>,
}

impl<'r> Reindex<'r> {
    pub fn new(repo: &'r Repository) -> Reindex<'r> {
        Reindex { repo, known: HashSet::new(), building: Vec::new(), blobs: 0, saved: Vec::new(), old: Vec::new() }
    }

    /// The index files that exist now.
    pub fn files(&self) -> Result<Vec<Id>> {
        Ok(self.repo.store().list(FileType::Index)?.into_iter().map(|(id, _)| id).collect())
    }

    /// Reads index files and takes over the packs that `keeps` accepts. A file that cannot be read
    /// is passed to `unreadable`: if that returns an error, it ends the call; otherwise the file is
    /// removed.
    pub fn take_over(
        &mut self,
        mut files: Vec<Id>,
        keeps: impl Fn(&IndexedPack) -> bool,
        mut unreadable: impl FnMut(Id, Error) -> Result<()>,
    ) -> Result<()> {
        files.sort_unstable();
        for file in files {
            let packs = match load_file(self.repo, file) {
                Ok(packs) => packs,
                Err(error) => {
                    unreadable(file, error)?;
                    self.old.push(file);
                    continue;
                }
            };
            let blobs: usize = packs.iter().map(|pack| pack.blobs.len()).sum();
            let mut own = HashSet::new();
            let right = |pack: &IndexedPack| keeps(pack) && !self.known.contains(&pack.id) && own.insert(pack.id);
            if (FULL..OVERSIZED).contains(&blobs) && packs.iter().all(right) {
                self.known.extend(packs.iter().map(|pack| pack.id));
                continue;
            }
            self.old.push(file);
            packs.into_iter().filter(&keeps).try_for_each(|pack| self.add(pack))?;
        }
        Ok(())
    }

    /// Adds a pack, unless the new index already has it.
    pub fn add(&mut self, pack: IndexedPack) -> Result<()> {
        if !self.known.insert(pack.id) {
            return Ok(());
        }
        self.blobs += pack.blobs.len();
        self.building.push(pack);
        if self.blobs >= FULL { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<()> {
        if !self.building.is_empty() {
            let id = self.repo.save_written(FileType::Index, |out| index_file::encode(&self.building, out))?;
            self.saved.push(id);
            self.building.clear();
            self.blobs = 0;
        }
        Ok(())
    }

    /// Writes the remaining packs, and only then removes the replaced files. Returns the files
    /// written and the files removed.
    pub fn finish(mut self) -> Result<(Vec<Id>, Vec<Id>)> {
        self.save()?;
        self.repo.confirm_lock()?;
        let store = self.repo.store();
        let remove = |&file: &Id| store.remove(File::new(FileType::Index, file));
        side_by_side(store.connections(), &self.old, remove).into_iter().collect::<store::Result<()>>()?;
        Ok((self.saved, self.old))
    }
}
