//! The result of a restore: counts of entries, bytes and problems.

use std::collections::BTreeMap;

/// The result of a restore. Files are entries of all kinds, as restic counts them.
#[derive(Debug, Default)]
pub struct Report {
    pub files_restored: u64,
    pub bytes_restored: u64,
    /// Files that were already correct, and entries that `--overwrite` kept.
    pub files_skipped: u64,
    pub bytes_skipped: u64,
    pub files_deleted: u64,
    /// The selected entries and their bytes.
    pub total_files: u64,
    pub total_bytes: u64,
    /// Metadata and sockets that the system refused, by kind.
    pub not_applied: BTreeMap<String, u64>,
    /// The number of missing or doubtful entries; each was reported as a problem.
    pub problems: u64,
    /// Entries that are missing or doubtful anywhere in the snapshot itself, according to its
    /// summary.
    pub snapshot_problems: u64,
}

impl Report {
    /// Entries that the target has as the snapshot has them, or that `--overwrite` kept.
    pub fn files_done(&self) -> u64 {
        self.files_restored + self.files_skipped
    }

    /// Bytes of file content that the target has now.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_restored + self.bytes_skipped
    }

    /// The problems, but at least one for each entry that was not restored: the entries below a
    /// directory that could not be created are not reported one by one.
    pub fn problems_by_entry(&self) -> u64 {
        self.problems.max(self.total_files.saturating_sub(self.files_done()))
    }
}
