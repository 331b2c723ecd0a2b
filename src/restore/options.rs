//! The options of a restore.

use crate::limits;
use crate::pattern::Patterns;
use std::path::PathBuf;

/// How existing files are treated (`--overwrite`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Compare them, and correct the parts that differ.
    #[default]
    Always,
    /// Like `Always`, but trust a file whose size and modification time match.
    IfChanged,
    /// Keep them unless the snapshot's are newer.
    IfNewer,
    /// Keep them.
    Never,
}

/// Whether it is a problem if the system refuses metadata to a process without root privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unprivileged {
    /// It is a warning: users without root expect that they cannot set an owner.
    #[default]
    Excused,
    /// It is a problem, as it is for root.
    Counted,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// A directory, created if it is missing, or a block device.
    pub target: PathBuf,
    /// Restore the root of a volume into the target, whichever layout the snapshot has.
    pub volume: bool,
    /// Restore only paths below the target that match; all if empty.
    pub include: Patterns,
    /// Do not restore paths that match.
    pub exclude: Patterns,
    pub overwrite: Overwrite,
    /// Delete entries that the snapshot lacks.
    pub delete: bool,
    /// Blocks of zeros in new files become holes.
    pub sparse: bool,
    /// Read all written data again and compare it.
    pub verify: bool,
    /// Decide and report, but change nothing.
    pub dry_run: bool,
    pub unprivileged: Unprivileged,
    /// Maximum size of the plan in bytes.
    pub plan_memory: u64,
    /// Maximum size of the file tables in memory at a time, in bytes; `None`: a part of the memory
    /// budget.
    pub table_memory: Option<u64>,
}

impl Options {
    pub fn new(target: impl Into<PathBuf>) -> Options {
        Options {
            target: target.into(),
            volume: false,
            include: Patterns::default(),
            exclude: Patterns::default(),
            overwrite: Overwrite::default(),
            delete: false,
            sparse: true,
            verify: false,
            dry_run: false,
            unprivileged: Unprivileged::default(),
            plan_memory: limits::RESTORE_PLAN,
            table_memory: None,
        }
    }
}
