//! Loads the index: reads all index files, several at a time, and merges them within the memory
//! budget.

use super::building::Building;
use super::merged::Index;
use crate::format::BlobType;
use crate::format::index_file::{self, IndexedPack};
use crate::id::Id;
use crate::memory;
use crate::parallel::both;
use crate::repo::error::{Error, Result};
use crate::repo::repository::Repository;
use crate::repo::snapshots::StoredSnapshot;
use crate::store::{File, FileType};
use crate::sync::{into_inner, lock};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;

/// Bytes that it takes to load an index file of usual size: its JSON, the compressed and sealed
/// forms of that, and the blobs in it.
const LOADING: u64 = 24 << 20;

/// Bytes that it takes to load an index file of this size. Small files, which may be many, are read
/// over all connections.
fn loading(size: u64) -> u64 {
    // Ten times the size covers the compression ratio of an index's JSON.
    LOADING.min((1 << 20) + size.saturating_mul(10))
}

impl Index {
    /// Loads all index files. Fails if one cannot be read: without it, its blobs would count as
    /// missing.
    pub fn load(repo: &Repository) -> Result<Index> {
        Index::load_each(repo, |_, content| content.map(|_| ()))
    }

    /// Loads the index files, several at a time, and passes each to `look`: its content, or why it
    /// cannot be read. Stops at an error that `look` returns.
    pub fn load_each(
        repo: &Repository,
        look: impl Fn(Id, Result<&[IndexedPack]>) -> Result<()> + Sync,
    ) -> Result<Index> {
        Index::load_each_listed(repo, repo.store().list(FileType::Index)?, look)
    }

    /// Finds snapshots, then loads the index that they need. The index files are listed during the
    /// search. If the search fails, nothing is loaded.
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

    /// Returns the index, or reloads it if it lacks the root of a snapshot and new index files
    /// exist. A concurrent backup writes its index before its snapshot, and may have written both
    /// since the index files were listed.
    pub fn with_roots_of(self, repo: &Repository, snapshots: &[StoredSnapshot]) -> Result<Index> {
        let lacks = |tree: Id| self.position(BlobType::Tree, tree).is_none();
        if !snapshots.iter().filter_map(|stored| stored.snapshot.tree).any(lacks) {
            return Ok(self);
        }
        let listed = repo.store().list(FileType::Index)?;
        let known: HashSet<Id> = self.files().iter().copied().collect();
        if listed.iter().all(|(id, _)| known.contains(id)) {
            return Ok(self);
        }
        drop(self);
        Index::load_listed(repo, listed)
    }

    /// [`Index::load`] with a given listing of all index files.
    pub fn load_listed(repo: &Repository, files: Vec<(Id, u64)>) -> Result<Index> {
        Index::load_each_listed(repo, files, |_, content| content.map(|_| ()))
    }

    /// [`Index::load`] for a run that holds two indexes: each may take half of the memory budget of
    /// one.
    pub fn load_one_of_two(repo: &Repository) -> Result<Index> {
        let room = repo.settings().budget.index().map(|room| room / 2);
        Index::load_within(repo, room, repo.store().list(FileType::Index)?, |_, content| content.map(|_| ()))
    }

    /// [`Index::load_each`] with a given listing of all index files.
    pub fn load_each_listed(
        repo: &Repository,
        files: Vec<(Id, u64)>,
        look: impl Fn(Id, Result<&[IndexedPack]>) -> Result<()> + Sync,
    ) -> Result<Index> {
        Index::load_within(repo, repo.settings().budget.index(), files, look)
    }

    /// `room` is the number of bytes that the index may take in memory before it is spilled to
    /// disk; `None` sets no limit.
    fn load_within(
        repo: &Repository,
        room: Option<u64>,
        files: Vec<(Id, u64)>,
        look: impl Fn(Id, Result<&[IndexedPack]>) -> Result<()> + Sync,
    ) -> Result<Index> {
        let settings = repo.settings();
        let budget = settings.budget;
        // The limit, and the directory to spill to beyond it.
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
                building.spill(directory).map_err(|source| refused(directory, source))?;
            }
            budget.left(building.memory(), 0)?;
            Ok(())
        };
        pool.install(|| files.par_iter().try_for_each(load))?;
        let files = files.into_iter().map(|(id, _)| id).collect();
        let mut building = into_inner(building);
        let index = match (building.runs.take(), aside) {
            (Some(runs), Some((_, directory))) => {
                building.finish_spilled(runs, directory).map_err(|source| refused(directory, source))?
            }
            _ => building.finish(),
        };
        Ok(index.loaded_from(files, settings.aside.clone()))
    }
}

/// The packs of one index file.
pub fn load_file(repo: &Repository, id: Id) -> Result<Vec<IndexedPack>> {
    let file = File::new(FileType::Index, id);
    let json = repo.load_file(file)?;
    index_file::decode(&json).map_err(|source| Error::Damaged { file, source })
}
