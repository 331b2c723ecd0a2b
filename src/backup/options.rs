//! The options of a backup.

use crate::format::time::Time;
use crate::pattern::Patterns;
use crate::repo::StoredSnapshot;
use std::ffi::OsString;
use std::path::PathBuf;

/// The source of a backup.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files and directories, stored under the paths as given, in restic's layout.
    Paths(Vec<PathBuf>),
    /// One directory as a volume: stored as the directory `data` with its own owner, mode, times
    /// and xattrs.
    Volume(PathBuf),
    /// A stream, stored as one file with this path from the root; its directories are made up.
    Stream { name: String, input: Input },
}

/// The origin of a stream. A stream without a single byte is an error, because a producer that
/// failed yields nothing.
#[derive(Clone, Debug)]
pub enum Input {
    Stdin,
    /// The standard output of a command: its program and arguments. If the command fails, no
    /// snapshot is made.
    Command(Vec<OsString>),
}

/// Which `st_dev` numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceIds {
    /// The numbers of entries on other file systems than the source's root, and one fixed number
    /// for hard links on the root's own. A clone of a volume has another number each time it is
    /// mounted, which would change every tree.
    #[default]
    Foreign,
    /// All numbers, as restic does.
    All,
}

/// How the parent snapshot is chosen.
#[derive(Clone, Debug)]
pub enum ParentChoice {
    /// The latest snapshot of the same group (restic's `--group-by`: host and paths by default).
    Group { host: bool, paths: bool, tags: bool },
    /// The snapshot with this id, or with this prefix of an id.
    Named(String),
    /// This snapshot, which the caller has already read.
    Known(Box<StoredSnapshot>),
    /// No parent: every file is read.
    Force,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    pub hostname: String,
    pub tags: Vec<String>,
    /// The snapshot's time; also the upper limit for the time of a parent.
    pub time: Time,
    pub parent: ParentChoice,
    pub exclude: Exclude,
    pub one_file_system: bool,
    /// Ignore ctime, or ctime and inode, in change detection.
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    pub with_atime: bool,
    pub device_ids: DeviceIds,
    /// Write times in the machine's zone as restic does, instead of UTC.
    pub local_time: bool,
    /// Read named block devices as files; otherwise they are stored as device nodes.
    pub read_special: bool,
    /// Make no snapshot if its tree equals the parent's.
    pub skip_if_unchanged: bool,
    pub dry_run: bool,
    /// The number of large files that are read at the same time. Small files are read by the
    /// walkers, whose number adapts to the volume.
    pub read_concurrency: usize,
    /// Count files and bytes ahead, so that progress has a total.
    pub scan: bool,
}

/// The exclusions of a backup.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    pub patterns: Patterns,
    /// The `--exclude` values as given, which the snapshot records.
    pub recorded: Vec<String>,
    /// Of a directory with one of these files, whose content begins with the given header, only
    /// that file is stored.
    pub if_present: Vec<(String, Vec<u8>)>,
    /// Files with more bytes than this are excluded.
    pub larger_than: Option<u64>,
}
