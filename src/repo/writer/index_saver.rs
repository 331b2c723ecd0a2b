//! Saves index files of durable packs during a run, by restic's rules.

use crate::clock::Moment;
use crate::format::index_file::{self, IndexedPack};
use crate::id::Id;
use crate::limits;
use crate::repo::error::Result;
use crate::repo::repository::Repository;
use crate::store::FileType;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) struct IndexSaver {
    repo: Arc<Repository>,
    unsaved: Mutex<Unsaved>,
    saved: Mutex<Vec<Id>>,
    /// No more blobs will come. The unsaved packs go into one index file, so that no other process
    /// sees the root of a snapshot in an index that lacks the blobs below it.
    finishing: AtomicBool,
}

/// Durable packs that no index file names yet.
struct Unsaved {
    packs: Vec<IndexedPack>,
    blobs: usize,
    since: Moment,
}

impl Unsaved {
    fn none(since: Moment) -> Unsaved {
        Unsaved { packs: Vec::new(), blobs: 0, since }
    }

    fn put_back(&mut self, taken: Unsaved) {
        self.packs.extend(taken.packs);
        self.blobs += taken.blobs;
        self.since = self.since.min(taken.since);
    }
}

impl IndexSaver {
    pub fn new(repo: Arc<Repository>) -> IndexSaver {
        let unsaved = Mutex::new(Unsaved::none(repo.settings().clock.moment()));
        IndexSaver { repo, unsaved, saved: Mutex::default(), finishing: AtomicBool::new(false) }
    }

    /// Adds a durable pack, and saves an index file if one is due.
    pub fn add(&self, pack: IndexedPack) -> Result<()> {
        let mut unsaved = lock(&self.unsaved);
        unsaved.blobs += pack.blobs.len();
        unsaved.packs.push(pack);
        drop(unsaved);
        let old = Duration::from_secs(limits::INDEX_AGE_SECONDS);
        let now = self.repo.settings().clock.moment();
        let is_due = |unsaved: &Unsaved| unsaved.blobs >= limits::INDEX_BLOBS || now.since(unsaved.since) >= old;
        self.save(|unsaved| !self.finishing.load(Ordering::Relaxed) && is_due(unsaved))
    }

    /// From now on no index file is due before [`IndexSaver::save_rest`].
    pub fn begin_to_finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }

    /// Saves an index file of all packs that no index file names yet.
    pub fn save_rest(&self) -> Result<()> {
        self.save(|unsaved| unsaved.blobs > 0)
    }

    /// The index files that were saved.
    pub fn take_saved(&self) -> Vec<Id> {
        std::mem::take(&mut *lock(&self.saved))
    }

    /// Saves an index file of all unsaved packs if `due`. If that fails, the next index file names
    /// them.
    fn save(&self, due: impl Fn(&Unsaved) -> bool) -> Result<()> {
        let taken = {
            let mut unsaved = lock(&self.unsaved);
            if !due(&unsaved) {
                return Ok(());
            }
            let since = self.repo.settings().clock.moment();
            std::mem::replace(&mut *unsaved, Unsaved::none(since))
        };
        match self.repo.save_written(FileType::Index, |out| index_file::encode(&taken.packs, out)) {
            Ok(id) => {
                lock(&self.saved).push(id);
                Ok(())
            }
            Err(error) => {
                lock(&self.unsaved).put_back(taken);
                Err(error)
            }
        }
    }
}
