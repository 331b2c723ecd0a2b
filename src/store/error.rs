//! [`StoreError`]: why a call to a store failed.

use super::file::File;
use std::error::Error;

/// Why a call to a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is confirmed to be absent (not: could not be looked up).
    #[error("{file} does not exist in {location}")]
    NotFound { file: File, location: String },
    /// A create-only write met an existing file.
    #[error("{file} already exists in {location}")]
    AlreadyExists { file: File, location: String },
    /// The file ends before the range that was asked for.
    #[error("{file} is too short: {wanted} bytes wanted at offset {offset}, {got} found; it is truncated or damaged")]
    Short { file: File, offset: u64, wanted: u64, got: u64 },
    /// The file is larger than anything of its kind may be.
    #[error("{file} has {size} bytes, more than the {max} that a file of its kind may have; it is damaged or foreign")]
    TooLarge { file: File, size: u64, max: u64 },
    /// A part of a file that was spilled to disk cannot be read again.
    #[error("cannot read a spill file back: {source}")]
    Aside { source: std::io::Error },
    /// The location cannot be understood or used as given.
    #[error("repository location {location:?}: {reason}")]
    Location { location: String, reason: String },
    /// An extended option is unknown or has a value it cannot have.
    #[error("option {option:?} {reason}")]
    Option { option: String, reason: String },
    /// The bucket does not exist. Scripts look for this text.
    #[error("bucket {bucket:?} does not exist. Is there a repository at the following location?\n{location}")]
    NoBucket { bucket: String, location: String },
    /// The store refused the credentials, or they do not allow this.
    #[error("not allowed to {action} in {location}: {reason}; check the credentials and what they allow")]
    Denied { action: String, location: String, reason: String },
    /// The run was interrupted, and the request did not end in time.
    #[error("interrupted: the request to {action} in {location} was cancelled")]
    Interrupted { action: String, location: String },
    /// Everything else: the network, the disk, the credentials.
    #[error("cannot {action} in {location}")]
    Failed { action: String, location: String, source: Box<dyn Error + Send + Sync> },
}

pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// Whether the store was tried again until its retry budget was spent, or until the run was
    /// interrupted. The next request may take as long, and fail as well.
    pub fn is_given_up(&self) -> bool {
        match self {
            StoreError::Failed { source, .. } => source.is::<GivenUp>(),
            StoreError::Interrupted { .. } => true,
            _ => false,
        }
    }
}

/// The error of the last attempt, as the source of a [`StoreError`] that [is given
/// up](StoreError::is_given_up).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct GivenUp(Box<dyn Error + Send + Sync>);

impl GivenUp {
    pub fn new(last: impl Error + Send + Sync + 'static) -> GivenUp {
        GivenUp(Box::new(last))
    }
}
