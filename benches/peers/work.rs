//! The kinds of work that are measured.

/// A kind of work, such as a first backup or a restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Into an empty repository.
    Backup,
    /// Of the same source again.
    Unchanged,
    /// Of the same content with a new modification time, so that it is read again.
    Touched,
    /// Of the changed image, after a backup of the image before the change.
    Changed,
    Check,
    Restore,
    /// Without a local cache.
    ColdRestore,
    Prune,
    Snapshots,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Work::Backup => "backup",
            Work::Unchanged => "backup, unchanged",
            Work::Touched => "backup, touched",
            Work::Changed => "backup, 1 % of pages changed",
            Work::Check => "check --read-data",
            Work::Restore => "restore",
            Work::ColdRestore => "restore without a cache",
            Work::Prune => "prune",
            Work::Snapshots => "snapshots",
        }
    }
}

/// All kinds of work, in the order of the tables.
pub const WORKS: [Work; 9] = [
    Work::Backup,
    Work::Unchanged,
    Work::Touched,
    Work::Changed,
    Work::Check,
    Work::Restore,
    Work::ColdRestore,
    Work::Prune,
    Work::Snapshots,
];
