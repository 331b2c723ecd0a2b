//! Errors that prevent or end a restore. A failure of one entry only is a problem in the report
//! instead.

use crate::repo;
use rustix::io::Errno;
use std::io;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0}")]
    Repo(#[from] repo::Error),

    #[error("cannot {action} {path}: {source}")]
    Target { action: &'static str, path: String, source: io::Error },

    #[error(
        "no space left for {path}: {source}; free space and restore again with `--overwrite if-changed`, which keeps complete files"
    )]
    Full { path: String, source: io::Error },

    #[error(
        "the plan of this restore would exceed its limit of {max} bytes: the snapshot has {entries} entries, counting repeated directories each time; restore one part of the snapshot at a time. The snapshot may have been crafted to exhaust memory"
    )]
    TooManyEntries { entries: u64, max: u64 },

    #[error("the plan of this restore exceeds its limit of {max} bytes; restore one part of the snapshot at a time")]
    PlanTooLarge { max: u64 },

    #[error("{path} was readable when the restore was planned and cannot be read any more: {why}; restore again")]
    Changed { path: String, why: String },

    #[error(
        "refusing to delete everything in / that the snapshot lacks; limit the deletion with --include or --exclude"
    )]
    DeleteEverything,

    #[error(
        "the image has {needs} bytes and does not fit on {device}, which has {has}; use a larger device. Nothing was written"
    )]
    DeviceTooSmall { device: String, has: u64, needs: u64 },

    #[error("{device} is a block device and takes one regular file: name it as `snapshot:path`")]
    NotAnImage { device: String },

    #[error(
        "{option} cannot be used with the block device {device}, which takes one whole file; remove the option. Nothing was written"
    )]
    NotForDevice { option: &'static str, device: String },

    /// `damaged`: the repository is damaged; otherwise the store could not be reached.
    #[error(
        "{device} does not hold the image: {lost} of its {size} bytes are missing, in {pieces} pieces, the first because {why}. The readable data was written. Do not use the device: restore another snapshot, or repair the repository from a copy and restore again; `check --read-data` lists the damage"
    )]
    ImageIncomplete { device: String, lost: u64, size: u64, pieces: u64, why: String, damaged: bool },

    #[error("{path}: {why}. Nothing was written to {device}; restore another snapshot")]
    ImageUnusable { path: String, why: String, device: String },

    #[error("{device} does not read back as it was written: {why}; replace the device, and restore again")]
    NotAsWritten { device: String, why: String },

    #[error(
        "the requested directory is damaged: {why}. The entries before the damage were restored. `check` lists the damage; restore another snapshot, or repair the repository from a copy"
    )]
    RootDamaged { why: String },

    #[error("{path} is the only requested entry, and it was not restored; the reason is reported above")]
    NotRestored { path: String },

    #[error(
        "the restore is incomplete, because the store did not answer requests for some of the data: {why}. The files that lack it are reported above; restore again"
    )]
    Unreached { why: String },

    #[error(
        "none of the {entries} entries was restored, because {target} refused them: {why}. Check the permissions, the mount and the content of the target, then restore again, or into another directory"
    )]
    NothingTaken { target: String, entries: u64, why: String },

    #[error(
        "none of the {entries} entries could be restored from the snapshot; the reasons are reported above. Restore another snapshot, or repair the repository from a copy; `check --read-data` lists the damage"
    )]
    NothingUsable { entries: u64 },

    #[error(
        "{path} may lack data that was restored, because it could not be written to the disk: {source}. Check the disk, its free space and quotas, then restore again into an empty target: a second restore into this one may compare with data that is only in memory"
    )]
    NotOnDisk { path: String, source: io::Error },

    #[error("a panic ended the restore while {during}: {message}; this is a bug in vsm, report it")]
    Panicked { during: &'static str, message: String },

    #[error("{path} is neither a directory nor a block device")]
    NoTarget { path: String },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The error of an interrupted run.
    pub(super) fn interrupted() -> Error {
        Error::Repo(repo::Error::Interrupted)
    }

    /// A call on the target itself has failed.
    pub(super) fn target(action: &'static str, path: &Path, errno: Errno) -> Error {
        Error::Target { action, path: path.display().to_string(), source: errno.into() }
    }

    /// The error that ends the whole restore after a failed call on `path`, if every other file
    /// would fail in the same way.
    pub(super) fn of_target(action: &'static str, path: String, errno: Errno) -> Option<Error> {
        match errno {
            Errno::NOSPC | Errno::DQUOT => Some(Error::Full { path, source: errno.into() }),
            // A read-only file system, and one whose server is disconnected or has lost the handle.
            Errno::ROFS | Errno::NOTCONN | Errno::STALE => Some(Error::Target { action, path, source: errno.into() }),
            _ => None,
        }
    }

    /// restic's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Repo(error) => error.exit_code(),
            Error::Target { .. }
            | Error::Full { .. }
            | Error::TooManyEntries { .. }
            | Error::PlanTooLarge { .. }
            | Error::Changed { .. }
            | Error::DeleteEverything
            | Error::DeviceTooSmall { .. }
            | Error::NotAnImage { .. }
            | Error::NotForDevice { .. }
            | Error::ImageIncomplete { .. }
            | Error::ImageUnusable { .. }
            | Error::NotAsWritten { .. }
            | Error::RootDamaged { .. }
            | Error::NotRestored { .. }
            | Error::Unreached { .. }
            | Error::NothingTaken { .. }
            | Error::NothingUsable { .. }
            | Error::NotOnDisk { .. }
            | Error::Panicked { .. }
            | Error::NoTarget { .. } => 1,
        }
    }
}

/// Whether this blob cannot be read, now or later, while others still can: it is missing, damaged,
/// or too large for this program. [`repo::Error::is_damage`] excludes blobs that are too large,
/// because its callers may remove damaged data. Any other error comes from the store, and another
/// run may succeed.
pub(super) fn is_lost(error: &repo::Error) -> bool {
    error.is_damage() || matches!(error, repo::Error::BlobTooLarge { .. })
}
