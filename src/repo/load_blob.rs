//! Opens sealed blobs: decrypts and decompresses them, and compares the plaintext with the blob's
//! id before anything else sees it.

use super::blob_bounds::{check_location, check_size, damaged, max_size};
use super::error::{Error, Result};
use super::index::{Index, Location};
use super::repository::Repository;
use crate::format::BlobType;
use crate::format::compression::decompress;
use crate::format::pack::PackedBlob;
use crate::hash::{Stream, hash_all};
use crate::id::Id;
use crate::limits;
use crate::store::{File, FileType};
use std::cell::RefCell;
use std::ops::Range;

impl Repository {
    /// Opens a sealed blob into `out`, which is cleared first. The plaintext in `out` has the
    /// blob's hash.
    pub fn open_blob(&self, location: &Location, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let opened = self.open_blobs(&[(*location, sealed)], None, out).pop().expect("one for each");
        if opened.is_err() {
            out.clear();
        }
        opened.map(|_| ())
    }

    /// Opens sealed blobs one after the other into `out`, which is cleared first. Returns the range
    /// of each in `out`, whose content has the blob's hash. The blobs and another stream `beside`
    /// them are hashed together, because that is faster.
    pub fn open_blobs(
        &self,
        blobs: &[(Location, &[u8])],
        beside: Option<Stream<'_>>,
        out: &mut Vec<u8>,
    ) -> Vec<Result<Range<usize>>> {
        out.clear();
        // Allocated at once: growing step by step takes more memory, and copies the bytes.
        let lengths = blobs.iter().map(|(location, _)| location.blob.plain_length());
        out.reserve_exact(usize::try_from(lengths.sum::<u64>().min(limits::RESERVED)).expect("bounded"));
        let opened: Vec<_> = blobs.iter().map(|(location, sealed)| self.unseal_blob(location, sealed, out)).collect();
        let plaintexts: Vec<&[u8]> =
            opened.iter().map(|opened| opened.as_ref().map_or(&[][..], |range| &out[range.clone()])).collect();
        let hashes = hash_all(&plaintexts, beside);
        let compare = |hash, location: &Location, range| match Id(hash) {
            actual if actual == location.blob.id => Ok(range),
            actual => Err(damaged(location, format!("its content hashes to {actual}"))),
        };
        let hashed = opened.into_iter().zip(hashes).zip(blobs);
        hashed.map(|((opened, hash), (location, _))| opened.and_then(|range| compare(hash, location, range))).collect()
    }

    /// Decrypts and decompresses a blob to the end of `out`. The caller compares its hash.
    fn unseal_blob(&self, location: &Location, sealed: &[u8], out: &mut Vec<u8>) -> Result<Range<usize>> {
        thread_local! {
            static COMPRESSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        check_size(&location.blob)?;
        let PackedBlob { ty, uncompressed, .. } = location.blob;
        let start = out.len();
        if uncompressed == 0 {
            self.key.open(sealed, out).map_err(|error| damaged(location, error.to_string()))?;
        } else {
            COMPRESSED.with_borrow_mut(|compressed| {
                compressed.clear();
                self.key.open(sealed, compressed).map_err(|error| damaged(location, error.to_string()))?;
                decompress(compressed, Some(u64::from(uncompressed)), max_size(ty), out)
                    .map_err(|error| damaged(location, error.why))
            })?;
        }
        Ok(start..out.len())
    }

    /// A whole blob, from the first of its copies that can be read.
    pub fn load_blob(&self, index: &Index, ty: BlobType, id: Id) -> Result<Vec<u8>> {
        let mut failure = Error::BlobMissing { ty, id };
        for location in index.find(ty, id) {
            match self.load_copy(&location) {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => failure = failure.or_hope(error),
            }
        }
        Err(failure)
    }

    pub(super) fn load_copy(&self, location: &Location) -> Result<Vec<u8>> {
        check_location(location)?;
        let file = File::new(FileType::Pack, location.pack);
        let sealed = self.store().read_at(file, u64::from(location.blob.offset), location.blob.length as usize)?;
        let mut plaintext = Vec::new();
        self.open_blob(location, &sealed, &mut plaintext)?;
        Ok(plaintext)
    }
}
