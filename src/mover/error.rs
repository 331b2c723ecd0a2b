//! The errors of a mover, each with a reason for programs and a sentence for people.

use crate::repo;
use crate::restore;
use crate::store::{FileType, StoreError};
use crate::volume_mode::VolumeMode;
use crate::work::Reason;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0}")]
    Repo(#[from] repo::Error),

    #[error("{0}")]
    Restore(#[from] restore::Error),

    #[error("{path} is neither a directory nor a block device: the volume is not where the work description says")]
    NoVolume { path: String },

    #[error(
        "no snapshot in {repository} has the tags {tags}: the backup was removed, or it is in another repository; \
         `restic snapshots` lists the snapshots"
    )]
    NoSuchBackup { repository: String, tags: String },

    #[error(
        "{count} snapshots in {repository} have the tags {tags}, but one was expected; name one of them by its id: {ids}"
    )]
    SeveralBackups { repository: String, tags: String, count: usize, ids: String },

    #[error("snapshot {snapshot} is of a {has} volume and the target is a {wants} volume; restore it into a {has} one")]
    OtherMode { snapshot: String, has: VolumeMode, wants: VolumeMode },

    #[error(
        "snapshot {snapshot} has no entries to restore, but is not recorded as one of an empty volume; examine it \
         with `restic ls`"
    )]
    NothingRestored { snapshot: String },

    #[error(
        "{repository} has files of a repository, but no config: it is damaged, and is not treated as that of an \
         empty volume"
    )]
    NotAbsent { repository: String },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The reason in the report, which also determines the exit code.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Repo(error) => of_repository(error),
            Error::Restore(error) => of_restore(error),
            Error::NoVolume { .. } => Reason::VolumeMissing,
            Error::NoSuchBackup { .. } => Reason::SnapshotMissing,
            Error::SeveralBackups { .. } => Reason::SnapshotAmbiguous,
            Error::OtherMode { .. } => Reason::OtherVolumeMode,
            Error::NothingRestored { .. } => Reason::NothingRestored,
            Error::NotAbsent { .. } => Reason::RepositoryDamaged,
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn of_restore(error: &restore::Error) -> Reason {
    use restore::Error as E;
    match error {
        E::Repo(error) => of_repository(error),
        E::Full { .. } => Reason::TargetFull,
        E::NotOnDisk { source, .. } if is_full(source) => Reason::TargetFull,
        E::Target { .. }
        | E::NothingTaken { .. }
        | E::NotOnDisk { .. }
        | E::NotAsWritten { .. }
        | E::NotForDevice { .. } => Reason::TargetFailed,
        E::TooManyEntries { .. } | E::PlanTooLarge { .. } => Reason::TooLittleMemory,
        // The repository was complete when the restore was planned, so the store has failed since.
        E::Changed { .. } | E::Unreached { .. } | E::ImageIncomplete { damaged: false, .. } => Reason::StoreFailed,
        E::ImageIncomplete { damaged: true, .. }
        | E::ImageUnusable { .. }
        | E::RootDamaged { .. }
        | E::NothingUsable { .. } => Reason::RepositoryDamaged,
        E::NotRestored { .. } => Reason::NothingRestored,
        // A mover never deletes entries that the snapshot lacks.
        E::DeleteEverything | E::Panicked { .. } => Reason::InternalError,
        E::DeviceTooSmall { .. } => Reason::TargetTooSmall,
        E::NotAnImage { .. } => Reason::OtherVolumeMode,
        E::NoTarget { .. } => Reason::VolumeMissing,
    }
}

/// The reason of a repository's error, also outside of a [`Mover`](super::Mover).
pub fn of_repository(error: &repo::Error) -> Reason {
    use repo::Error as E;
    match error {
        E::Store(error) => of_store(error),
        E::Memory(_) | E::Aside { .. } | E::TreeAside { .. } => Reason::TooLittleMemory,
        E::NoRepository { .. } => Reason::RepositoryMissing,
        E::WrongPassword { .. } => Reason::WrongPassword,
        E::NoKeys { .. } | E::Key { .. } => Reason::NoUsableKey,
        E::Refused { .. } | E::InitialisedTwice { .. } => Reason::RepositoryRefused,
        E::Locked { .. } => Reason::RepositoryLocked,
        E::LockLost { .. } => Reason::LockLost,
        E::EmptyConfig { .. }
        | E::WrongHash { .. }
        | E::Damaged { .. }
        | E::Unauthentic { .. }
        | E::BlobMissing { .. }
        | E::BlobDamaged { .. }
        | E::PackSize { .. }
        | E::Tree { .. }
        | E::Inconsistent { .. } => Reason::RepositoryDamaged,
        // The limit is a constant, so more memory for the mover does not help.
        E::BlobTooLarge { .. } => Reason::RepositoryUnsupported,
        E::VerifyFailed { .. } => Reason::MachineFaulty,
        E::NoSuchSnapshot(_) => Reason::SnapshotMissing,
        E::NoSuchPath { .. } => Reason::NothingRestored,
        E::Source(_) | E::EmptySnapshot => Reason::VolumeUnreadable,
        // A thread panicked or could not be started, or a temporary file cannot be read. A retry on
        // another node may succeed.
        E::Stopped | E::Panicked | E::Thread { .. } | E::TreeLost { .. } => Reason::InternalError,
        E::Interrupted => Reason::Interrupted,
        // Only maintenance commands return these errors, and a mover runs none.
        E::Unreachable { .. } | E::Uninvited { .. } | E::NotRepacked { .. } => Reason::InternalError,
    }
}

/// The reason of a store's error, also outside of a [`Mover`](super::Mover).
pub fn of_store(error: &StoreError) -> Reason {
    match error {
        StoreError::NotFound { file, .. } => match file.ty {
            FileType::Snapshot => Reason::SnapshotMissing,
            FileType::Lock => Reason::LockLost,
            // The repository refers to the file.
            FileType::Config | FileType::Key | FileType::Index | FileType::Pack => Reason::RepositoryDamaged,
        },
        // Only configs and keys are created exclusively, so another process is creating this
        // repository.
        StoreError::AlreadyExists { .. } => Reason::RepositoryRefused,
        StoreError::Short { .. } | StoreError::TooLarge { .. } => Reason::RepositoryDamaged,
        StoreError::Location { .. } | StoreError::Option { .. } => Reason::BadConfiguration,
        StoreError::NoBucket { .. } => Reason::BucketMissing,
        StoreError::Aside { .. } => Reason::InternalError,
        StoreError::Interrupted { .. } => Reason::Interrupted,
        StoreError::Denied { .. } | StoreError::Failed { .. } => Reason::StoreFailed,
    }
}

#[cfg(test)]
mod tests;
