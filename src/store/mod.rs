//! Where a repository's files live: a folder or an object store.
//!
//! A store knows names and bytes and nothing of what is in them. Its calls block; an object store runs its own small
//! runtime inside. A [`Place`] is where many repositories are, and shows what is there. A write returns only when the file is durable and visible under its name, whole or not at all.
//! Retrying what can be retried is the store's duty: an error that leaves it is final.

mod cache;
pub mod folder;
pub mod layout;
pub mod location;
#[cfg(feature = "cloud")]
pub mod object;
pub mod options;
mod place;
pub mod traffic;

pub use cache::Cached;
pub use location::Location;
pub use options::Options;
pub use place::{Directory, Place};

use crate::aside::Aside;
use crate::id::Id;
use bytes::Bytes;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The kinds of files a repository has, one directory each (but for the config).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileType {
    Config,
    Key,
    Lock,
    Snapshot,
    Index,
    Pack,
}

/// The name of one file of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    pub ty: FileType,
    /// The SHA-256 of the stored bytes; null for the config, which has a fixed name.
    pub id: Id,
}

impl File {
    /// The only file without an id.
    pub const CONFIG: File = File { ty: FileType::Config, id: Id::NULL };

    pub fn new(ty: FileType, id: Id) -> File {
        File { ty, id }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileType::Config => "config",
            FileType::Key => "key",
            FileType::Lock => "lock",
            FileType::Snapshot => "snapshot",
            FileType::Index => "index",
            FileType::Pack => "pack",
        })
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ty {
            FileType::Config => f.write_str("config"),
            ty => write!(f, "{ty} {}", self.id),
        }
    }
}

/// Why a store could not do what it was asked.
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
    #[error("{file} is too short: {wanted} bytes wanted at offset {offset}, {got} there; it is truncated or damaged")]
    Short { file: File, offset: u64, wanted: u64, got: u64 },
    /// The file is larger than anything of its kind may be.
    #[error("{file} has {size} bytes, more than the {max} that a file of its kind may have; it is damaged or foreign")]
    TooLarge { file: File, size: u64, max: u64 },
    /// A part of a file was put aside, and is gone.
    #[error("a temporary file cannot be read again: {source}")]
    Aside { source: std::io::Error },
    /// The location cannot be understood or used as given.
    #[error("repository location {location:?}: {reason}")]
    Location { location: String, reason: String },
    /// An extended option is unknown or has a value it cannot have.
    #[error("option {option:?} {reason}")]
    Option { option: String, reason: String },
    /// The bucket, of which the repository is to be a part, does not exist. Its text is one that scripts look for.
    #[error("bucket {bucket:?} does not exist. Is there a repository at the following location?\n{location}")]
    NoBucket { bucket: String, location: String },
    /// The store refused the credentials, or they do not allow this.
    #[error("not allowed to {action} in {location}: {reason}; check the credentials and what they allow")]
    Denied { action: String, location: String, reason: String },
    /// Everything else: the network, the disk, the credentials.
    #[error("cannot {action} in {location}")]
    Failed { action: String, location: String, source: Box<dyn Error + Send + Sync> },
}

pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// Whether it was tried again and again until patience ended: what is asked next may wait as long, for nothing.
    pub fn is_given_up(&self) -> bool {
        match self {
            #[cfg(feature = "cloud")]
            StoreError::Failed { source, .. } => object::was_patient(&**source),
            _ => false,
        }
    }
}

/// The store at a location. Nothing is asked of it yet: whether it can be reached, the first call finds out.
pub fn open(location: &Location, options: &Options) -> Result<Arc<dyn Store>> {
    match location {
        Location::Folder(path) => {
            let connections = options.local_connections.unwrap_or(folder::CONNECTIONS);
            Ok(Arc::new(folder::Folder::new(path, connections)))
        }
        #[cfg(feature = "cloud")]
        Location::Bucket(bucket) => Ok(Arc::new(object::ObjectStore::open(bucket, options)?)),
        #[cfg(not(feature = "cloud"))]
        Location::Bucket(_) => Err(folders_only(location)),
    }
}

#[cfg(not(feature = "cloud"))]
fn folders_only(location: &Location) -> StoreError {
    let reason = "this build knows folders only; build it with the feature \"cloud\"".to_owned();
    StoreError::Location { location: location.to_string(), reason }
}

/// The files of one repository.
pub trait Store: Send + Sync {
    /// The location as a person would write it, without credentials.
    fn location(&self) -> &str;

    /// How many calls may usefully run at the same time.
    fn connections(&self) -> usize;

    /// How many files may usefully be read at the same time.
    fn downloads(&self) -> usize {
        self.connections()
    }

    /// How long a listing may miss a file that has been written.
    fn settles_after(&self) -> Duration;

    /// Ids and sizes in bytes of all files of a type (not the config), in no order. Foreign names are skipped; a missing directory is empty.
    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>>;

    /// The size of a file in bytes. Some servers report a missing bucket or an unknown access key as
    /// an absent file here; a listing tells them apart.
    fn size(&self, file: File) -> Result<u64>;

    /// A whole file of at most `max` bytes.
    fn read(&self, file: File, max: u64) -> Result<Bytes>;

    /// Asks for `length` bytes from `offset` on, to be read front to back: one request, however many reads.
    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>>;

    /// Exactly `length` bytes from `offset` on.
    fn read_at(&self, file: File, offset: u64, length: usize) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        // Asked for before the buffer is made: an index may lie about lengths.
        let mut download = self.download(file, offset, length as u64)?;
        let mut bytes = vec![0; length];
        download.read(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Writes a whole file; one that exists under this name is replaced (its bytes are the same: the name is their hash).
    fn write(&self, file: File, bytes: Bytes) -> Result<()>;

    /// Writes a file only if none has its name. A store that cannot do both in one step looks first: two processes
    /// can then both succeed, and the caller must list and read again to find out.
    fn create(&self, file: File, bytes: Bytes) -> Result<()>;

    /// Whether the bytes of an upload stay in memory until it is committed.
    fn keeps_uploads(&self) -> bool;

    /// Starts a file whose name is not known before its last byte.
    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>>;

    /// [`Store::upload`] of a file that will be read again soon: a store that keeps copies keeps one.
    fn upload_kept(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        self.upload(ty)
    }

    /// Copies a file of `size` bytes, if this store keeps copies: parts of it are about to be read, again and again. Failing, which they
    /// will tell, leaves no copy.
    fn keep(&self, file: File, size: u64) {
        let _ = (file, size);
    }

    /// Removes a file; one that is absent is a success.
    fn remove(&self, file: File) -> Result<()>;

    /// Makes the place for a new repository: a folder and its directories, or the bucket if there is none.
    fn prepare(&self) -> Result<()>;
}

/// A range of a file being read. That it is there to its end has been seen already.
pub trait Download {
    /// Fills `out` with the next bytes. That the range has fewer left is [`StoreError::Short`].
    fn read(&mut self, out: &mut [u8]) -> Result<()>;
}

/// A file being written in pieces: a folder appends them to a temporary file, an object store keeps them for one PUT.
/// Dropped without [`Upload::commit`], it leaves nothing behind.
pub trait Upload: Send {
    fn write(&mut self, part: &[u8]) -> Result<()>;

    /// Writes what was put aside. A store that keeps uploads keeps it where it is.
    fn write_aside(&mut self, part: &Arc<Aside>) -> Result<()> {
        let lost = |error| StoreError::Aside { source: error };
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < part.len() {
            let next = part.len().min(at + piece.len() as u64);
            let bytes = &mut piece[..usize::try_from(next - at).expect("at most a piece")];
            part.read_exact_at(at, bytes).map_err(lost)?;
            self.write(bytes)?;
            at = next;
        }
        Ok(())
    }

    /// Gives the file its name. When this returns, the file is durable.
    fn commit(self: Box<Self>, id: Id) -> Result<()>;
}
