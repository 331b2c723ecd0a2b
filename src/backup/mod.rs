//! A backup, from the source to a snapshot. The stages, each a module:
//!
//! 1. [`source`]: what was asked for becomes the top of a tree.
//! 2. [`walk`]: directories are listed and their entries looked at ([`stat`]), side by side with the parent's ([`parent`]).
//! 3. [`read`]: changed files are read into slabs and cut into chunks.
//! 4. [`chunk jobs`](read): chunks are hashed and, if new, compressed, sealed and packed; on all cores.
//! 5. [`assemble`]: finished entries complete their directory, which becomes a tree blob and completes its own parent.
//! 6. the snapshot, once everything it names is durable.
//!
//! Every queue between them is bounded, and so is memory: see `docs/ARCHITECTURE.md`.

use crate::format::snapshot::Summary;
use crate::format::time::Time;
use crate::id::Id;
use crate::pattern::Patterns;
use std::path::PathBuf;

/// What is backed up.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files and directories, stored under the paths they were given as, in restic's shapes.
    Paths(Vec<PathBuf>),
    /// One directory as a volume: stored as the directory `data` with its own owner, mode, times and xattrs.
    Volume(PathBuf),
    /// Standard input as one file of this name.
    Stdin { name: String },
}

/// Which `st_dev` numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceIds {
    /// Those of entries on other file systems than the source's root. A clone of a volume has another number each time it is
    /// mounted, and would make every tree new.
    #[default]
    Foreign,
    /// All, as restic does.
    All,
}

/// How the parent snapshot is chosen.
#[derive(Clone, Debug)]
pub enum ParentChoice {
    /// The latest of the same group (restic's `--group-by`: host and paths by default).
    Group { host: bool, paths: bool, tags: bool },
    /// This one: an id or the beginning of one.
    Named(String),
    /// None: every file is read.
    Force,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    pub hostname: String,
    pub tags: Vec<String>,
    /// The snapshot's time; also the upper limit for a parent's.
    pub time: Time,
    pub parent: ParentChoice,
    pub exclude: Exclude,
    pub one_file_system: bool,
    /// Change detection leaves out ctime, or ctime and inode.
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    pub with_atime: bool,
    pub device_ids: DeviceIds,
    /// Write times in the machine's zone as restic does, instead of UTC.
    pub local_time: bool,
    /// Block devices are read as files; otherwise stored as device nodes.
    pub read_special: bool,
    /// No snapshot if its tree equals the parent's.
    pub skip_if_unchanged: bool,
    pub dry_run: bool,
    /// Files read at the same time.
    pub read_concurrency: usize,
    /// Count files and bytes ahead, so that progress has a total.
    pub scan: bool,
}

/// What is left out.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    pub patterns: Patterns,
    /// The `--exclude` and `--iexclude` values as given; recorded in the snapshot.
    pub recorded: Vec<String>,
    /// Directories with one of these files, whose content begins with the given header, keep only that file.
    pub if_present: Vec<(String, Vec<u8>)>,
    /// Files larger than this many bytes.
    pub larger_than: Option<u64>,
}

/// What a backup did.
#[derive(Debug)]
pub struct Report {
    /// `None` for a dry run, or when nothing changed and that was to be skipped.
    pub snapshot: Option<Id>,
    pub tree: Id,
    pub parent: Option<Id>,
    pub summary: Summary,
    /// Entries that are missing or doubtful; each was told as a problem.
    pub problems: u64,
}
