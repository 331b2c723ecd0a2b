//! What a restore is asked for.

use crate::limits;
use crate::pattern::Patterns;
use std::path::PathBuf;

/// What becomes of files that exist already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// They are compared, and corrected where they differ.
    #[default]
    Always,
    /// As above, but size and modification time are trusted.
    IfChanged,
    /// They are kept unless the snapshot's are newer.
    IfNewer,
    /// They are kept.
    Never,
}

/// Whether metadata that the system refuses to a process without root's rights is a problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unprivileged {
    /// It is a warning: the user knows that an owner is not theirs to set.
    #[default]
    Excused,
    /// It is a problem, as it is for root.
    Counted,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// A directory, made if it is missing, or a block device.
    pub target: PathBuf,
    /// The snapshot is a volume's: the volume's root becomes the target, whichever shape the
    /// snapshot has.
    pub volume: bool,
    /// Which paths below the target are meant; all if empty.
    pub include: Patterns,
    /// Which of them are not.
    pub exclude: Patterns,
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have.
    pub delete: bool,
    /// Blocks of zeros in new files become holes.
    pub sparse: bool,
    /// Read everything that was written again.
    pub verify: bool,
    /// Decide and report, but change nothing.
    pub dry_run: bool,
    pub unprivileged: Unprivileged,
    /// Bytes that the plan may take.
    pub plan_memory: u64,
    /// Bytes of its files' tables that are in memory at a time; `None`: what the budget leaves for
    /// them.
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
