//! Why a mover's work could not be done, in a word for programs and a sentence for people.

use crate::repo;
use crate::restore;
use crate::store::{FileType, StoreError};

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
        "no snapshot in {repository} has the tags {tags}: the backup was forgotten, or it is in another repository; `restic snapshots` lists what there is"
    )]
    NoSuchBackup { repository: String, tags: String },

    #[error(
        "{count} snapshots in {repository} have the tags {tags}, and none is preferred; name one of them by its id: {ids}"
    )]
    SeveralBackups { repository: String, tags: String, count: usize, ids: String },

    #[error("snapshot {snapshot} is of a {has} volume and the target is a {wants} volume; restore it into a {has} one")]
    OtherMode { snapshot: String, has: &'static str, wants: &'static str },

    #[error(
        "snapshot {snapshot} has nothing to restore and does not say that the volume was empty; look at it with `restic ls`"
    )]
    NothingRestored { snapshot: String },

    #[error(
        "{repository} has no config, yet there are files of a repository: it is damaged, and is not taken for that of an empty volume"
    )]
    NotAbsent { repository: String },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether another try would end the same: what is wanted is not there, or does not fit.
    pub fn is_final(&self) -> bool {
        let fits = ["OtherVolumeMode", "TargetFull", "TargetTooSmall", "TooLittleMemory", "VolumeMissing"];
        let there = ["SnapshotMissing", "SnapshotAmbiguous", "NothingRestored", "BucketMissing", "RepositoryDamaged"];
        fits.contains(&self.reason()) || there.contains(&self.reason())
    }

    /// One word in CamelCase; `docs/MOVER.md` says what each means and what to do.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Repo(error) => of_repository(error),
            Error::Restore(error) => match error {
                restore::Error::Repo(error) => of_repository(error),
                restore::Error::Full { .. } => "TargetFull",
                restore::Error::DeviceTooSmall { .. } => "TargetTooSmall",
                restore::Error::NotAnImage { .. } => "OtherVolumeMode",
                restore::Error::TooManyEntries { .. } | restore::Error::PlanTooLarge { .. } => "TooLittleMemory",
                _ => "TargetFailed",
            },
            Error::NoVolume { .. } => "VolumeMissing",
            Error::NoSuchBackup { .. } => "SnapshotMissing",
            Error::SeveralBackups { .. } => "SnapshotAmbiguous",
            Error::OtherMode { .. } => "OtherVolumeMode",
            Error::NothingRestored { .. } => "NothingRestored",
            Error::NotAbsent { .. } => "RepositoryDamaged",
        }
    }
}

fn of_repository(error: &repo::Error) -> &'static str {
    use repo::Error as E;
    match error {
        E::Store(error) => of_store(error),
        E::Memory(_) | E::Aside { .. } => "TooLittleMemory",
        E::NoRepository { .. } => "RepositoryMissing",
        E::WrongPassword { .. } => "WrongPassword",
        E::Locked { .. } | E::LockLost { .. } => "RepositoryLocked",
        E::Refused { .. } | E::InitialisedTwice { .. } => "RepositoryRefused",
        E::NoSuchSnapshot(_) => "SnapshotMissing",
        E::Source(_) | E::EmptySnapshot => "VolumeUnreadable",
        E::Interrupted => "Interrupted",
        E::VerifyFailed { .. } => "MachineFaulty",
        _ => "RepositoryDamaged",
    }
}

fn of_store(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotFound { file, .. } if file.ty == FileType::Snapshot => "SnapshotMissing",
        // Of a file that the repository says it has.
        StoreError::NotFound { .. } => "RepositoryDamaged",
        StoreError::NoBucket { .. } => "BucketMissing",
        StoreError::Location { .. } | StoreError::Option { .. } => "BadConfiguration",
        _ => "StoreFailed",
    }
}
