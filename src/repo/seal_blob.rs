//! Seals blobs: compresses and encrypts them, and opens them again for comparison.

use super::error::{Error, Result};
use super::repository::Repository;
use crate::crypto::OVERHEAD;
use crate::format::compression::{self, Compression};
use crate::format::{BlobType, Version};
use crate::id::Id;

/// The sealed form of a blob, as its pack's header describes it.
pub struct SealedBlob {
    /// Bytes of its sealed form.
    pub length: u32,
    /// Bytes of plaintext if it is compressed, else 0.
    pub uncompressed: u32,
}

impl Repository {
    /// Compresses a blob (if the format and the settings ask for it), appends its sealed form to
    /// `out`, and verifies that this opens to the same bytes (if the settings ask for it). On an
    /// error `out` is unchanged.
    pub fn seal_blob(&self, ty: BlobType, id: Id, plaintext: &[u8], out: &mut Vec<u8>) -> Result<SealedBlob> {
        let start = out.len();
        let nonce = self.nonce();
        let compress = self.config.version == Version::V2
            && (ty == BlobType::Tree || self.settings.compression != Compression::Off);
        out.reserve(plaintext.len() + OVERHEAD);
        out.extend_from_slice(&nonce);
        // A blob that does not get smaller is stored uncompressed, as restic stores it with
        // compression off.
        let compressed = compress && compression::append_smaller(self.settings.compression, plaintext, out);
        if compressed {
            self.key.seal_in_place(out, start);
        } else {
            out.truncate(start);
            self.key.seal(&nonce, plaintext, out);
        }
        #[cfg(test)]
        super::tests::tamper(&mut out[start..]);
        if self.settings.extra_verify {
            let sealed = &out[start..];
            let opens = if compressed { self.expands_to(sealed, plaintext) } else { self.opens_to(sealed, plaintext) };
            if !opens {
                out.truncate(start);
                return Err(Error::VerifyFailed { what: format!("{ty} blob {id}") });
            }
        }
        let bytes = |count| u32::try_from(count).expect("a blob is below 4 GiB");
        let uncompressed = if compressed { plaintext.len() } else { 0 };
        Ok(SealedBlob { length: bytes(out.len() - start), uncompressed: bytes(uncompressed) })
    }

    fn opens_to(&self, sealed: &[u8], plaintext: &[u8]) -> bool {
        let mut expected = Expected(plaintext);
        self.opens(sealed, &mut |piece| expected.begins_with(piece)) && expected.is_over()
    }

    fn expands_to(&self, sealed: &[u8], plaintext: &[u8]) -> bool {
        let mut expected = Expected(plaintext);
        compression::expand_in_pieces(|take| self.opens(sealed, take), |piece| expected.begins_with(piece))
            && expected.is_over()
    }
}

/// The rest of a plaintext that is compared piece by piece.
struct Expected<'p>(&'p [u8]);

impl Expected<'_> {
    fn begins_with(&mut self, piece: &[u8]) -> bool {
        self.0.split_off(..piece.len()).is_some_and(|expected| expected == piece)
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
