//! A batch of sealed blobs that are added to a pack together.

use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::repo::error::Result;
use crate::repo::repository::Repository;
use crate::repo::seal_blob::SealedBlob;

/// A blob whose id has been computed from its plaintext, or compared with it.
pub struct Known<'b> {
    pub ty: BlobType,
    pub id: Id,
    pub plaintext: &'b [u8],
    /// Its sealed form with this repository's key, if that is to be kept, and its uncompressed
    /// length (0: it is not compressed).
    pub sealed: Option<(&'b [u8], u32)>,
}

#[derive(Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    /// The blobs, with offsets from the batch's beginning, and the lengths of their plaintexts.
    pub blobs: Vec<(PackedBlob, usize)>,
}

impl Batch {
    /// An empty batch whose bytes go into `buffer`, which is empty.
    pub fn into_buffer(buffer: Vec<u8>) -> Batch {
        Batch { bytes: buffer, blobs: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Appends the sealed form of a blob. On an error the batch is unchanged.
    pub fn add(&mut self, repo: &Repository, blob: &Known<'_>) -> Result<()> {
        let Known { ty, id, plaintext, sealed } = *blob;
        let offset = u32::try_from(self.bytes.len()).expect("far below 4 GiB");
        let SealedBlob { length, uncompressed } = match sealed {
            None => repo.seal_blob(ty, id, plaintext, &mut self.bytes)?,
            Some((sealed, uncompressed)) => {
                self.bytes.extend_from_slice(sealed);
                SealedBlob { length: u32::try_from(sealed.len()).expect("a blob is below 4 GiB"), uncompressed }
            }
        };
        self.blobs.push((PackedBlob { ty, id, offset, length, uncompressed }, plaintext.len()));
        Ok(())
    }
}
