//! Reads the sealed header at the end of a pack, which lists its blobs.

use super::error::{Error, Result};
use super::repository::Repository;
use crate::format::FormatError;
use crate::format::pack::{self, PackedBlob};
use crate::id::Id;
use crate::store::{File, FileType};

impl Repository {
    /// The blobs that the sealed header of a pack lists.
    pub fn open_pack_header(&self, id: Id, sealed: &[u8]) -> Result<Vec<PackedBlob>> {
        let file = File::new(FileType::Pack, id);
        let mut header = Vec::new();
        self.key.open(sealed, &mut header).map_err(|_| Error::Unauthentic { file })?;
        pack::decode_header(&header).map_err(|source| Error::Damaged { file, source })
    }

    /// The blobs that the header of a pack of `size` bytes lists. Takes one request, unless the
    /// header lists more than some hundreds.
    pub fn load_pack_header(&self, id: Id, size: u64) -> Result<Vec<PackedBlob>> {
        /// Bytes at the end of the pack that are requested first.
        const TAIL: u64 = 32 << 10;
        let file = File::new(FileType::Pack, id);
        let damaged = |source| Error::Damaged { file, source };
        let start = size.saturating_sub(TAIL);
        let tail = self.store().read_at(file, start, usize::try_from(size - start).expect("at most a tail"))?;
        let Some((before, field)) = tail.split_last_chunk() else {
            return Err(damaged(FormatError::new("a pack's header", "the file ends before it")));
        };
        let length = pack::header_length(*field, size).map_err(damaged)?;
        if let Some(start) = before.len().checked_sub(length) {
            return self.open_pack_header(id, &before[start..]);
        }
        let start = size - (length + pack::LENGTH_FIELD) as u64;
        self.open_pack_header(id, &self.store().read_at(file, start, length)?)
    }
}
