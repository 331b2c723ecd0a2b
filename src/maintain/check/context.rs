//! The state that the steps of a check share: the repository as it was listed, and the report.

use super::lost::Lost;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot};
use rayon::ThreadPool;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The findings of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub errors: u64,
    /// Packs that exist, but are truncated, damaged, or different from the index.
    pub broken_packs: Vec<Id>,
    pub broken_snapshots: Vec<Id>,
    /// The index does not match the packs; rebuilding it may help.
    pub suggest_repair_index: bool,
    /// Packs that the index lists, but that do not exist.
    pub missing_packs: u64,
    /// Packs that are in no index.
    pub unindexed: u64,
    /// A prune would remove unreferenced packs or repack mixed ones.
    pub suggest_prune: bool,
    /// Errors that are not damage: the store failed, and may succeed the next time.
    pub out_of_reach: u64,
    pub snapshots: u64,
    pub trees: u64,
    pub packs: u64,
    pub packs_read: u64,
}

/// A check in progress.
pub struct Check<'r> {
    pub(super) repo: &'r Repository,
    pub(super) progress: &'r Progress,
    pub(super) pool: ThreadPool,
    pub(super) index: Index,
    /// Ids and sizes of the pack files.
    pub(super) listed: HashMap<Id, u64>,
    /// The outcome of reading each snapshot.
    pub(super) read: Vec<(Id, Result<StoredSnapshot>)>,
    /// The snapshots that can be read, oldest first.
    pub(super) snapshots: Vec<StoredSnapshot>,
    pub(super) lost: Lost,
    pub(super) out_of_reach: AtomicU64,
    pub(super) report: Report,
}

impl Check<'_> {
    /// Ends the check and returns its report.
    pub fn finish(mut self) -> Report {
        self.report.errors = self.progress.problem_count();
        self.report.out_of_reach = self.out_of_reach();
        self.report.missing_packs = self.lost.packs.len() as u64;
        self.report.broken_packs.sort_unstable();
        self.report.broken_packs.dedup();
        self.report
    }

    /// The number of errors so far that are not damage.
    pub fn out_of_reach(&self) -> u64 {
        self.out_of_reach.load(Ordering::Relaxed)
    }

    /// Reports an object that could not be read because it is damaged or out of reach.
    pub(super) fn error(&self, item: impl Into<String>, error: &Error) {
        if !error.is_damage() {
            self.out_of_reach.fetch_add(1, Ordering::Relaxed);
        }
        self.problem(item, error);
    }

    pub(super) fn problem(&self, item: impl Into<String>, why: impl fmt::Display) {
        self.progress.problem(Phase::Check, item, why);
    }

    /// Reports an irregularity that means no loss of data.
    pub(super) fn hint(&self, text: String) {
        self.progress.warning(&text);
    }

    /// Resets the counters for a step.
    pub(super) fn count(&self, files: u64, bytes: u64) {
        for counter in [&self.progress.files_done, &self.progress.bytes_done] {
            counter.store(0, Ordering::Relaxed);
        }
        self.progress.files_total.store(files, Ordering::Relaxed);
        self.progress.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn check_interrupted(&self) -> Result<()> {
        if self.progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
