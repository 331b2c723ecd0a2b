//! A directory whose entries are being finished, until nothing is left to do in it.

use crate::restore::inodes::Inodes;
use crate::restore::meta::Meta;
use crate::restore::names::Names;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A directory on the way down, or one with tasks that have not ended.
pub struct Open {
    pub number: u32,
    /// The number that the plan gave to the first file in it.
    pub first_file: u32,
    pub meta: OnceLock<Meta>,
    /// It could not be opened, which is reported once.
    pub unopened: OnceLock<()>,
    up: Option<Arc<Open>>,
    /// Tasks and directories in it that are left, and one until the walk has left it.
    left: AtomicUsize,
    entries: Mutex<Entries>,
    made: Mutex<Made>,
}

/// Until all entries that are no directories have been dealt with, nothing is deleted beside them.
struct Entries {
    /// One until the directory is listed.
    left: usize,
    names: Option<Names>,
}

/// What this run has put into a directory that existed before.
#[derive(Default)]
pub struct Made {
    pub specials: Inodes,
    /// Looked up when something asks for them.
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

    /// Something is left to do, until [`Open::end`].
    pub fn begin(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry is left to be dealt with.
    pub fn begin_entry(&self) {
        self.begin();
        self.entries().left += 1;
    }

    /// An entry has been dealt with. Returns the names that alone may stay, once that was the last
    /// entry.
    pub fn end_entry(&self) -> Option<Names> {
        let mut entries = self.entries();
        entries.left -= 1;
        if entries.left == 0 { entries.names.take() } else { None }
    }

    /// No more entries come, and these names alone may stay.
    pub fn list(&self, names: Names) -> Option<Names> {
        self.entries().names = Some(names);
        self.end_entry()
    }

    /// Something in it has been dealt with. If that was the last, calls `finish` for it, and for
    /// each directory above of which it was the last: a loop, because trees can be deep.
    pub fn end(self: Arc<Open>, finish: impl Fn(&Open)) {
        let mut at = self;
        while at.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            finish(&at);
            let Some(up) = at.up.clone() else { return };
            at = up;
        }
    }

    /// Entries that could replace each other go one after another.
    pub fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    /// A loop, for the same reason.
    fn drop(&mut self) {
        let mut up = self.up.take();
        while let Some(mut open) = up.and_then(Arc::into_inner) {
            up = open.up.take();
        }
    }
}
