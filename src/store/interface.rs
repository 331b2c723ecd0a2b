//! [`Store`]: the interface of all stores of a repository's files.

use super::error::{Result, StoreError};
use super::file::{File, FileType};
use crate::aside::Aside;
use crate::id::Id;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The files of one repository.
pub trait Store: Send + Sync {
    /// The location in the form that the user writes, without credentials.
    fn location(&self) -> &str;

    /// How many calls may usefully run at the same time.
    fn connections(&self) -> usize;

    /// How many files may usefully be read at the same time.
    fn downloads(&self) -> usize {
        self.connections()
    }

    /// How long a listing may miss a file that has been written.
    fn settles_after(&self) -> Duration;

    /// Ids and sizes in bytes of all files of a type (not the config), in no order. Foreign names
    /// are skipped; a missing directory is empty.
    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>>;

    /// The size of a file in bytes. Some servers report a missing bucket or an unknown access key
    /// as an absent file here; a listing distinguishes them.
    fn size(&self, file: File) -> Result<u64>;

    /// A whole file of at most `max` bytes.
    fn read(&self, file: File, max: u64) -> Result<Bytes>;

    /// Requests `length` bytes from `offset` on, which are read front to back. However many reads
    /// follow, this is one request.
    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>>;

    /// Exactly `length` bytes from `offset` on.
    fn read_at(&self, file: File, offset: u64, length: usize) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        // Requested before the buffer is allocated: an index may contain wrong lengths.
        let mut download = self.download(file, offset, length as u64)?;
        let mut bytes = vec![0; length];
        download.read(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Writes a whole file. An existing file of this name is replaced; as the name is the hash of
    /// the bytes, it has the same bytes.
    fn write(&self, file: File, bytes: Bytes) -> Result<()>;

    /// Writes a file only if none has its name. A store that cannot do both in one step looks up
    /// the name first. Two processes can then both succeed, and the caller must list and read again
    /// to find out.
    fn create(&self, file: File, bytes: Bytes) -> Result<()>;

    /// Whether the bytes of an upload stay in memory until it is committed.
    fn keeps_uploads(&self) -> bool;

    /// Starts a file whose name is not known before its last byte.
    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>>;

    /// [`Store::upload`] of a file that will be read again soon: a cache keeps a copy of it.
    fn upload_kept(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        self.upload(ty)
    }

    /// Copies a file of `size` bytes into the cache, if there is one: parts of the file are about
    /// to be read, again and again. A failure leaves no copy; the reads report it.
    fn keep(&self, file: File, size: u64) {
        let _ = (file, size);
    }

    /// Removes a file; one that is absent is a success.
    fn remove(&self, file: File) -> Result<()>;

    /// Prepares a new repository: creates a folder and its directories, or the bucket if there is
    /// none.
    fn prepare(&self) -> Result<()>;
}

/// A range of a file that is being read. The file has been found to contain the whole range.
pub trait Download {
    /// Fills `out` with the next bytes. If the range has fewer left, this is [`StoreError::Short`].
    fn read(&mut self, out: &mut [u8]) -> Result<()>;
}

/// A file that is being written in pieces: a folder appends them to a temporary file, an object
/// store keeps them for one PUT. Dropped without [`Upload::commit`], it leaves nothing behind.
pub trait Upload: Send {
    fn write(&mut self, part: &[u8]) -> Result<()>;

    /// Writes a part that was spilled to disk. A store that keeps uploads leaves the part there.
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
