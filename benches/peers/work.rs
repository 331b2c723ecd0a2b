//! The works that are measured.

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Into an empty repository.
    Backup,
    /// The same once more.
    Unchanged,
    /// The same with a new time, so that it is read again.
    Touched,
    /// Over a backup of the image before its pages changed.
    Changed,
    Check,
    Restore,
    /// Without anything of the repository on this machine.
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

/// All of them, in the order of the tables.
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
