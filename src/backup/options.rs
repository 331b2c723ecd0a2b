//! What a backup is asked for.

use crate::format::time::Time;
use crate::pattern::Patterns;
use crate::repo::StoredSnapshot;
use std::ffi::OsString;
use std::path::PathBuf;

/// What is backed up.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files and directories, stored under the paths they were given as, in restic's shapes.
    Paths(Vec<PathBuf>),
    /// One directory as a volume: stored as the directory `data` with its own owner, mode, times
    /// and xattrs.
    Volume(PathBuf),
    /// A stream as one file of this path from the root; directories on the way are invented.
    Stream { name: String, input: Input },
}

/// Where a stream comes from. A stream without a single byte is an error: a producer that failed
/// yields nothing.
#[derive(Clone, Debug)]
pub enum Input {
    Stdin,
    /// The standard output of a command: its program and arguments. If it fails, there is no
    /// snapshot.
    Command(Vec<OsString>),
}

/// Which `st_dev` numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceIds {
    /// Those of entries on other file systems than the source's root, and one fixed number for hard
    /// links on the root's own. A clone of a volume has another number each time it is mounted, and
    /// would make every tree new.
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
    /// This one, which the caller has read already.
    Known(Box<StoredSnapshot>),
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
    /// Large files read at the same time. Small ones are read by as many threads as the volume
    /// answers faster with.
    pub read_concurrency: usize,
    /// Count files and bytes ahead, so that progress has a total.
    pub scan: bool,
}

/// What is left out.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    pub patterns: Patterns,
    /// The `--exclude` values as given, which the snapshot records.
    pub recorded: Vec<String>,
    /// Directories with one of these files, whose content begins with the given header, keep only
    /// that file.
    pub if_present: Vec<(String, Vec<u8>)>,
    /// Files larger than this many bytes.
    pub larger_than: Option<u64>,
}
