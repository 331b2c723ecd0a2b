//! The errors of repository operations. Every variant names the object; [`Error::exit_code`]
//! returns restic's exit code.

use crate::crypto::kdf::KdfError;
use crate::format::{BlobType, FormatError};
use crate::id::Id;
use crate::memory::TooLittle;
use crate::store::{File, StoreError};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),

    #[error(transparent)]
    Memory(#[from] TooLittle),

    #[error(
        "the index exceeds the memory budget and cannot be spilled to {}: {source}; raise --memory, or set TMPDIR to a directory with free space",
        directory.display()
    )]
    Aside { directory: PathBuf, source: std::io::Error },

    /// The second line is one that scripts look for.
    #[error(
        "repository does not exist: {location} has no config file; check the location, or create a repository with `init`\nIs there a repository at the following location?\n{location}"
    )]
    NoRepository { location: String },

    #[error(
        "the config of {location} is empty (0 bytes): an upload was cut short or the disk was full; restore it from a copy of the bucket"
    )]
    EmptyConfig { location: String },

    #[error("wrong password or no key found: {tried} keys of {location} tried")]
    WrongPassword { location: String, tried: usize },

    #[error(
        "{location} has a config but no key at all; without a key file nothing in it can be read, restore keys/ from a copy"
    )]
    NoKeys { location: String },

    #[error("{file} cannot be used: {source}")]
    Key { file: File, source: KdfError },

    #[error("refused: {location} {reason}; nothing was changed")]
    Refused { location: String, reason: String },

    #[error(
        "another process initialised {location} at the same time; this process withdrew its key, run the command again to use that repository"
    )]
    InitialisedTwice { location: String },

    #[error("unable to create lock in backend: {reason}")]
    Locked { reason: String },

    #[error("the lock is lost: {reason}")]
    LockLost { reason: String },

    #[error(
        "{file} is damaged: its content hashes to {actual}; restore the file from a copy, or remove it and run `check`"
    )]
    WrongHash { file: File, actual: Id },

    #[error("{file}: {source}")]
    Damaged { file: File, source: FormatError },

    #[error("{file} does not authenticate: it was damaged or written with another master key")]
    Unauthentic { file: File },

    #[error("{ty} blob {id} is in no index; the repository is incomplete, run `check`")]
    BlobMissing { ty: BlobType, id: Id },

    #[error("{ty} blob {id} in {pack} cannot be read: {why}")]
    BlobDamaged { ty: BlobType, id: Id, pack: File, why: String },

    #[error("{ty} blob {id} has {size} bytes, more than the {max} this program holds in memory")]
    BlobTooLarge { ty: BlobType, id: Id, size: u64, max: u64 },

    #[error(
        "{what} did not read back as it was written, and was not uploaded: the memory or processor of this machine is faulty"
    )]
    VerifyFailed { what: String },

    #[error(
        "cannot determine which data is still referenced: {problems} errors, listed above; nothing was changed, run `check`"
    )]
    Unreachable { problems: u64 },

    #[error(
        "{file} was written while this process held the exclusive lock, by a program that takes no lock; nothing that the file may reference was removed; run this again when that program has ended"
    )]
    Uninvited { file: File },

    #[error(
        "{ty} blob {id} was not written to a new pack; nothing was removed; this is a bug in this program, report it"
    )]
    NotRepacked { ty: BlobType, id: Id },

    #[error("pack {pack} is damaged: it has {size} bytes, but its header accounts for {expected}")]
    PackSize { pack: Id, size: u64, expected: u64 },

    #[error("tree {id}: {source}")]
    Tree { id: Id, source: FormatError },

    #[error(
        "{what} is too large for memory and cannot be spilled to {}: {source}; set TMPDIR to a directory with free space",
        directory.display()
    )]
    TreeAside { what: String, directory: PathBuf, source: std::io::Error },

    #[error("the spill file of {what} cannot be read: {source}")]
    TreeLost { what: String, source: std::io::Error },

    #[error("{0}")]
    NoSuchSnapshot(String),

    #[error("path {path}: not found in the snapshot, or not a directory")]
    NoSuchPath { path: String },

    /// Parts of a snapshot that contradict each other.
    #[error("{path}: {why}")]
    Inconsistent { path: String, why: String },

    #[error("the source cannot be read: {0}")]
    Source(std::io::Error),

    #[error("snapshot is empty: there is nothing to back up, or all of it is excluded")]
    EmptySnapshot,

    #[error("the operation was stopped by an earlier error")]
    Stopped,

    #[error("a worker thread panicked, see the message above; this is an error of the program, report it")]
    Panicked,

    #[error("the thread that {purpose} cannot be started: {source}; raise the limit on processes")]
    Thread { purpose: &'static str, source: std::io::Error },

    #[error("interrupted")]
    Interrupted,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `what`, a large tree or a part of one, cannot be spilled to a directory.
    pub(crate) fn aside(what: impl Into<String>, directory: Option<&Path>, source: std::io::Error) -> Error {
        Error::TreeAside { what: what.into(), directory: directory.map(Path::to_owned).unwrap_or_default(), source }
    }

    /// The spill file of `what` cannot be read again.
    pub(crate) fn aside_lost(what: impl Into<String>, source: std::io::Error) -> Error {
        Error::TreeLost { what: what.into(), source }
    }

    /// Whether the requested object is missing or damaged. Any other error may be temporary, or
    /// concern this machine only.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Store(error) => {
                matches!(error, StoreError::NotFound { .. } | StoreError::Short { .. } | StoreError::TooLarge { .. })
            }
            Error::WrongHash { .. }
            | Error::Damaged { .. }
            | Error::Unauthentic { .. }
            | Error::BlobMissing { .. }
            | Error::BlobDamaged { .. }
            | Error::PackSize { .. }
            | Error::Tree { .. } => true,
            _ => false,
        }
    }

    /// Whether the error concerns the object that was asked for, so that other objects may well be
    /// readable: a reader reports it and continues with the rest. A store whose retries are
    /// exhausted fails for all objects.
    pub fn spares_others(&self) -> bool {
        match self {
            Error::Store(error) => !error.is_given_up(),
            Error::WrongHash { .. }
            | Error::Damaged { .. }
            | Error::Unauthentic { .. }
            | Error::BlobMissing { .. }
            | Error::BlobDamaged { .. }
            | Error::BlobTooLarge { .. }
            | Error::PackSize { .. }
            | Error::Tree { .. }
            | Error::TreeAside { .. }
            | Error::TreeLost { .. }
            | Error::NoSuchPath { .. }
            | Error::Inconsistent { .. } => true,
            Error::Memory(_)
            | Error::Aside { .. }
            | Error::NoRepository { .. }
            | Error::EmptyConfig { .. }
            | Error::WrongPassword { .. }
            | Error::NoKeys { .. }
            | Error::Key { .. }
            | Error::Refused { .. }
            | Error::InitialisedTwice { .. }
            | Error::Locked { .. }
            | Error::LockLost { .. }
            | Error::VerifyFailed { .. }
            | Error::Unreachable { .. }
            | Error::Uninvited { .. }
            | Error::NotRepacked { .. }
            | Error::NoSuchSnapshot(_)
            | Error::Source(_)
            | Error::EmptySnapshot
            | Error::Stopped
            | Error::Panicked
            | Error::Thread { .. }
            | Error::Interrupted => false,
        }
    }

    /// Whether something is too large for the memory or the room there is, and another thing may
    /// not be.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Error::Memory(_) | Error::TreeAside { .. } | Error::BlobTooLarge { .. })
    }

    /// Whether the retries of a store are exhausted: the next call may wait as long, in vain.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self, Error::Store(error) if error.is_given_up())
    }

    /// Combines the errors of two copies of a blob: prefers an error other than damage, which may
    /// pass.
    pub(super) fn or_hope(self, other: Error) -> Error {
        if self.is_damage() { other } else { self }
    }

    /// restic's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NoRepository { .. } => 10,
            Error::Locked { .. } => 11,
            Error::WrongPassword { .. } | Error::NoKeys { .. } => 12,
            Error::Interrupted | Error::Store(StoreError::Interrupted { .. }) => 130,
            Error::Store(_)
            | Error::Memory(_)
            | Error::Aside { .. }
            | Error::EmptyConfig { .. }
            | Error::Key { .. }
            | Error::Refused { .. }
            | Error::InitialisedTwice { .. }
            | Error::LockLost { .. }
            | Error::WrongHash { .. }
            | Error::Damaged { .. }
            | Error::Unauthentic { .. }
            | Error::BlobMissing { .. }
            | Error::BlobDamaged { .. }
            | Error::BlobTooLarge { .. }
            | Error::VerifyFailed { .. }
            | Error::Unreachable { .. }
            | Error::Uninvited { .. }
            | Error::NotRepacked { .. }
            | Error::PackSize { .. }
            | Error::Tree { .. }
            | Error::TreeAside { .. }
            | Error::TreeLost { .. }
            | Error::NoSuchSnapshot(_)
            | Error::NoSuchPath { .. }
            | Error::Inconsistent { .. }
            | Error::Source(_)
            | Error::EmptySnapshot
            | Error::Stopped
            | Error::Panicked
            | Error::Thread { .. } => 1,
        }
    }
}
