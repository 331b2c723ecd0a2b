//! Keeps the most recently used files open between the pieces that are written to them (LRU).

use crate::limits;
use rustix::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// The open files, in shards by their places in the table.
#[derive(Default)]
pub struct OpenFiles([Mutex<Recent>; SHARDS]);

/// The most recently used last.
type Recent = Vec<Numbered>;

/// An open file and its place.
pub type Numbered = (u32, Arc<Handle>);

/// The lock of an open file. The kernel admits one writer per file at a time, and the others would
/// spin; with the lock they sleep. `None`: the first thread that takes the lock opens the file.
pub type Handle = Mutex<Option<OwnedFd>>;

impl OpenFiles {
    /// Returns the lock of a file, and the file that is evicted for it.
    pub fn handle(&self, place: u32) -> (Arc<Handle>, Option<Numbered>) {
        let mut open = self.shard(place);
        if let Some(at) = open.iter().position(|(other, _)| *other == place) {
            let found = open.remove(at);
            let handle = found.1.clone();
            open.push(found);
            return (handle, None);
        }
        let handle = Arc::<Handle>::default();
        // A file in use is not evicted, so that two threads never open the same file separately.
        let is_full = open.len() >= limits::RESTORE_OPEN_FILES / SHARDS;
        let idle = open.iter().position(|(_, handle)| is_full && Arc::strong_count(handle) == 1);
        let evicted = idle.map(|at| open.remove(at));
        open.push((place, handle.clone()));
        (handle, evicted)
    }

    /// Removes a file from the open files.
    pub fn forget(&self, place: u32) -> Option<Arc<Handle>> {
        let mut open = self.shard(place);
        let at = open.iter().position(|(other, _)| *other == place)?;
        Some(open.remove(at).1)
    }

    fn shard(&self, place: u32) -> MutexGuard<'_, Recent> {
        self.0[place as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
