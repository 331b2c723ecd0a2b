//! Reports damage that a reading command meets, with the snapshot and the path, so that the command
//! can continue with the rest.

use crate::format::text::lossy;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Result};
use std::fmt::Display;

/// Reports the parts of one snapshot that cannot be read.
pub struct Gaps<'p> {
    snapshot: Id,
    progress: &'p Progress,
}

impl<'p> Gaps<'p> {
    pub fn new(snapshot: Id, progress: &'p Progress) -> Gaps<'p> {
        Gaps { snapshot, progress }
    }

    /// Passes on the outcome of a read at a path (empty for the root). If only this object cannot
    /// be read, that is reported, and the result is `None`. Any other error is returned.
    pub fn or_report<T>(&self, path: &[u8], outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) if error.spares_others() => {
                self.problem(path, error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reports that data of the entry at a path is missing.
    pub fn problem(&self, path: &[u8], why: impl Display) {
        self.progress.problem(Phase::Read, self.item(path), why);
    }

    /// Reports a fact about a path that means no loss of data.
    pub fn warning(&self, path: &[u8], what: &str) {
        self.progress.warning(&format!("{}: {what}", self.item(path)));
    }

    fn item(&self, path: &[u8]) -> String {
        let path = if path.is_empty() { "/".to_owned() } else { lossy(path) };
        format!("snapshot {}: {path}", self.snapshot)
    }

    /// The number of problems reported so far, of all snapshots.
    pub fn reported(&self) -> u64 {
        self.progress.problem_count()
    }

    pub fn check_interrupted(&self) -> Result<()> {
        if self.progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
