//! Tracks a directory whose entries are being finished, until nothing is left to do in it.

use crate::restore::inodes::Inodes;
use crate::restore::meta::Meta;
use crate::restore::names::Names;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A directory that the walk has not left, or with unfinished tasks.
pub struct Open {
    pub number: u32,
    /// The number in the plan of the first file in it.
    pub first_file: u32,
    pub meta: OnceLock<Meta>,
    /// Set if the directory cannot be opened, so that this is reported once.
    pub unopened: OnceLock<()>,
    up: Option<Arc<Open>>,
    /// Unfinished tasks and subdirectories, and one until the walk has left it.
    left: AtomicUsize,
    entries: Mutex<Entries>,
    made: Mutex<Made>,
}

/// Delays deletion in a directory until all its entries that are not directories are finished.
struct Entries {
    /// Unfinished entries, and one until the directory is listed.
    left: usize,
    names: Option<Names>,
}

/// Entries that this run created in a directory that existed before.
#[derive(Default)]
pub struct Made {
    pub specials: Inodes,
    /// Looked up on first use.
    pub files: Option<Inodes>,
}

impl Open {
    pub fn new(number: u32, first_file: u32, up: Option<&Arc<Open>>) -> Arc<Open> {
        if let Some(up) = up {
            up.begin();
        }
        Arc::new(Open {
            number,
            first_file,
            meta: OnceLock::new(),
            unopened: OnceLock::new(),
            up: up.cloned(),
            left: AtomicUsize::new(1),
            entries: Mutex::new(Entries { left: 1, names: None }),
            made: Mutex::default(),
        })
    }

    /// Counts a task or subdirectory as unfinished, until [`Open::end`].
    pub fn begin(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an entry as unfinished, until [`Open::end_entry`].
    pub fn begin_entry(&self) {
        self.begin();
        self.entries().left += 1;
    }

    /// Counts an entry as finished. After the last entry, returns the names that are not to be
    /// deleted.
    pub fn end_entry(&self) -> Option<Names> {
        let mut entries = self.entries();
        entries.left -= 1;
        if entries.left == 0 { entries.names.take() } else { None }
    }

    /// Sets the complete list of names; entries with other names are to be deleted. Returns the
    /// list if all entries are finished.
    pub fn list(&self, names: Names) -> Option<Names> {
        self.entries().names = Some(names);
        self.end_entry()
    }

    /// Counts a task or subdirectory as finished. After the last one, calls `finish` for the
    /// directory, and then for each ancestor that has nothing else left: in a loop, because trees
    /// can be deep.
    pub fn end(self: Arc<Open>, finish: impl Fn(&Open)) {
        let mut at = self;
        while at.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            finish(&at);
            let Some(up) = at.up.clone() else { return };
            at = up;
        }
    }

    /// Locks the new entries: entries that could replace each other are created one after another.
    pub fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    /// Drops ancestors in a loop, because trees can be deep.
    fn drop(&mut self) {
        let mut up = self.up.take();
        while let Some(mut open) = up.and_then(Arc::into_inner) {
            up = open.up.take();
        }
    }
}
