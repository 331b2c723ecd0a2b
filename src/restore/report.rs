//! What a restore reports.

use std::collections::BTreeMap;

/// The result of a restore. Files are entries of all kinds, as restic counts them.
#[derive(Debug, Default)]
pub struct Report {
    pub files_restored: u64,
    pub bytes_restored: u64,
    /// Files that were right already, and entries that were not to be overwritten.
    pub files_skipped: u64,
    pub bytes_skipped: u64,
    pub files_deleted: u64,
    /// What was to be restored.
    pub total_files: u64,
    pub total_bytes: u64,
    /// Metadata, links and nodes that the system did not take, by kind.
    pub not_applied: BTreeMap<String, u64>,
    /// Everything that is missing or doubtful; each was reported as a problem.
    pub problems: u64,
    /// Entries that the snapshot itself lacks or that are doubtful in it, anywhere in it, by its
    /// summary.
    pub snapshot_problems: u64,
}

impl Report {
    /// Entries that the target has as the snapshot has them, or that were not to be overwritten.
    pub fn files_done(&self) -> u64 {
        self.files_restored + self.files_skipped
    }

    /// Bytes of file content that the target has now.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_restored + self.bytes_skipped
    }

    /// The problems, and at least one for each entry that was not restored: what is below a
    /// directory that could not be made is not reported one by one.
    pub fn problems_by_entry(&self) -> u64 {
        self.problems.max(self.total_files.saturating_sub(self.files_done()))
    }
}
