//! The plaintext of index, snapshot and lock files: bare JSON, or in version 2 the byte 2 and a
//! zstd frame of the JSON.

use super::compression::{decompress, expand_in_pieces, into_frame};
use super::{FormatError, Result, Version};
use crate::hash::Sha256;
use std::io::{self, Write};

const COMPRESSED: u8 = 2;

/// Appends to `out` the plaintext to seal for the JSON document that `json` writes, and returns the
/// document's hash too. The JSON of an index file is four times as long as the file, and is never
/// in memory as a whole.
pub fn encode(
    version: Version,
    out: Vec<u8>,
    json: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> (Vec<u8>, [u8; 32]) {
    let mut hash = Sha256::new();
    let mut out = out;
    let outcome = match version {
        Version::V1 => json(&mut Hashed { out: &mut out, hash: &mut hash }).map(|()| out),
        Version::V2 => {
            out.push(COMPRESSED);
            into_frame(out, |frame| json(&mut Hashed { out: frame, hash: &mut hash }))
        }
    };
    (outcome.expect("writing to memory does not fail"), hash.finish())
}

/// A writer that hashes the bytes that it passes on.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: &'a mut Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether the plaintext that `feed` delivers in pieces is the encoding of a document with this
/// hash, as [`encode`] writes it.
pub fn holds(version: Version, digest: [u8; 32], feed: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> bool) -> bool {
    let mut hash = Sha256::new();
    let mut take = |json: &[u8]| {
        hash.update(json);
        true
    };
    let whole = match version {
        Version::V1 => feed(&mut take),
        Version::V2 => {
            let mut encoding = None;
            let frame = |give: &mut dyn FnMut(&[u8]) -> bool| {
                feed(&mut |mut piece| {
                    if encoding.is_none() {
                        encoding = piece.split_off_first().copied();
                    }
                    give(piece)
                })
            };
            expand_in_pieces(frame, take) && encoding == Some(COMPRESSED)
        }
    };
    whole && hash.finish() == digest
}

/// The JSON in an opened file, of at most `max` bytes. Bare JSON is valid in both versions, and so
/// is an empty plaintext.
pub fn decode(what: &'static str, plaintext: Vec<u8>, max: u64) -> Result<Vec<u8>> {
    match plaintext.first() {
        None | Some(b'{' | b'[') => Ok(plaintext),
        Some(&COMPRESSED) => {
            let mut json = Vec::new();
            decompress(&plaintext[1..], None, max, &mut json).map_err(|error| FormatError::new(what, error.why))?;
            Ok(json)
        }
        Some(byte) => Err(FormatError::new(what, format!("its encoding {byte:#04x} is unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn encoded(version: Version, json: &[u8]) -> (Vec<u8>, [u8; 32]) {
        encode(version, Vec::new(), |out| out.write_all(json))
    }

    #[test]
    fn reads_both_encodings_and_refuses_others() {
        let json = b"{\"packs\":[]}".to_vec();
        for version in [Version::V1, Version::V2] {
            let (plaintext, _) = encoded(version, &json);
            assert_eq!(decode("x", plaintext, 100).unwrap(), json);
        }
        assert_eq!(decode("x", Vec::new(), 100).unwrap(), b"");
        assert!(decode("x", vec![1, 2, 3], 100).is_err());
        assert!(decode("x", encoded(Version::V2, &[b'{'; 1000]).0, 100).is_err());
    }

    #[test]
    fn holds_is_true_for_the_encoded_document_only() {
        let json = b"{\"packs\":[]}".repeat(1000);
        for version in [Version::V1, Version::V2] {
            let (plaintext, digest) = encoded(version, &json);
            assert_eq!(digest, Id::of(&json).0);
            let in_pieces = |plaintext: &[u8]| holds(version, digest, |give| plaintext.chunks(10).all(give));
            assert!(in_pieces(&plaintext));
            for at in 0..plaintext.len() {
                let mut damaged = plaintext.clone();
                damaged[at] ^= 1;
                // Some bits of a frame do not affect its content.
                let same = decode("x", damaged.clone(), 1 << 20).is_ok_and(|decoded| decoded == json);
                assert_eq!(in_pieces(&damaged), same, "byte {at} of {version:?}");
                assert!(!in_pieces(&plaintext[..at]), "{at} bytes of {version:?}");
            }
        }
    }
}
