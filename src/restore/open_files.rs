//! Files that stay open between the pieces that are written to them: the most recently used ones.

use crate::limits;
use rustix::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// By the files' places in their table.
#[derive(Default)]
pub struct OpenFiles([Mutex<Recent>; SHARDS]);

/// The most recently used last.
type Recent = Vec<Numbered>;

/// An open file and its place.
pub type Numbered = (u32, Arc<Handle>);

/// The kernel lets one writer into a file at a time, and the others spin for it; a lock lets them
/// sleep. `None`: the first one that has the lock opens the file.
pub type Handle = Mutex<Option<OwnedFd>>;

impl OpenFiles {
    /// The lock of an open file; and the file that is evicted because of it.
    pub fn handle(&self, place: u32) -> (Arc<Handle>, Option<Numbered>) {
        let mut open = self.shard(place);
        if let Some(at) = open.iter().position(|(other, _)| *other == place) {
            let found = open.remove(at);
            let handle = found.1.clone();
            open.push(found);
            return (handle, None);
        }
        let handle = Arc::<Handle>::default();
        // One that is in use stays, so that no two threads open a file for themselves.
        let is_full = open.len() >= limits::RESTORE_OPEN_FILES / SHARDS;
        let idle = open.iter().position(|(_, handle)| is_full && Arc::strong_count(handle) == 1);
        let evicted = idle.map(|at| open.remove(at));
        open.push((place, handle.clone()));
        (handle, evicted)
    }

    /// Takes a file out of those that are kept open.
    pub fn forget(&self, place: u32) -> Option<Arc<Handle>> {
        let mut open = self.shard(place);
        let at = open.iter().position(|(other, _)| *other == place)?;
        Some(open.remove(at).1)
    }

    fn shard(&self, place: u32) -> MutexGuard<'_, Recent> {
        self.0[place as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
