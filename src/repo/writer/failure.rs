//! Latches the first error of a tree or an upload: from then on nothing is stored, and every thread
//! stops.

use crate::repo::error::{Error, Result};
use crate::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(super) struct Failure {
    has_failed: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// An error if the run has failed.
    pub fn check(&self) -> Result<()> {
        if self.has_failed() { Err(Error::Stopped) } else { Ok(()) }
    }

    pub fn latch(&self, error: Error) {
        self.has_failed.store(true, Ordering::Relaxed);
        lock(&self.first).get_or_insert(error);
    }

    /// Ends the run on an error. The failed blob was reserved, so other threads consider it stored,
    /// and a pack with more blobs may be lost: nothing that references any of them may be written.
    pub fn latch_any<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.latch(Error::Stopped);
        }
        outcome
    }

    pub fn take(&self) -> Option<Error> {
        lock(&self.first).take()
    }
}
