//! The header at the end of a pack file, which lists the blobs of the pack.
//!
//! A pack is `blob_1 … blob_n | sealed header | length of the sealed header, u32 little endian`.
//! The header has the type, length and id of each blob in order; offsets follow from the lengths,
//! without gaps.

use super::{BlobType, FormatError, Result};
use crate::crypto::OVERHEAD;
use crate::id::Id;

/// Length of the field after the header.
pub const LENGTH_FIELD: usize = 4;
const PLAIN_ENTRY: usize = 37;
const COMPRESSED_ENTRY: usize = 41;
/// The most bytes of a sealed header that restic reads.
const HEADER_MAX: usize = 16 << 20;
/// The most blobs in a pack, so that restic can read the header: (2^24 - 36) / 41.
pub const BLOBS_MAX: usize = 409_199;

/// One blob of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBlob {
    pub ty: BlobType,
    pub id: Id,
    /// Where its sealed bytes start in the pack.
    pub offset: u32,
    /// How many sealed bytes it has.
    pub length: u32,
    /// Bytes of plaintext if it is compressed, else 0.
    pub uncompressed: u32,
}

impl PackedBlob {
    /// Where it ends in its pack.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    /// Bytes of plaintext.
    pub fn plain_length(&self) -> u64 {
        match self.uncompressed {
            0 => u64::from(self.length).saturating_sub(OVERHEAD as u64),
            length => u64::from(length),
        }
    }

    fn entry_length(&self) -> usize {
        if self.uncompressed == 0 { PLAIN_ENTRY } else { COMPRESSED_ENTRY }
    }
}

/// Bytes that the sealed header of these blobs and its length field take.
pub fn header_size<'a>(blobs: impl IntoIterator<Item = &'a PackedBlob>) -> u64 {
    let entries: usize = blobs.into_iter().map(PackedBlob::entry_length).sum();
    (entries + OVERHEAD + LENGTH_FIELD) as u64
}

/// Size of a whole pack file of these blobs.
pub fn file_size<'a>(blobs: impl IntoIterator<Item = &'a PackedBlob> + Clone) -> u64 {
    blobs.clone().into_iter().map(|blob| u64::from(blob.length)).sum::<u64>() + header_size(blobs)
}

/// The plaintext of a pack's header.
pub fn encode_header(blobs: &[PackedBlob]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blobs.len() * COMPRESSED_ENTRY);
    for blob in blobs {
        let tree = u8::from(blob.ty == BlobType::Tree);
        out.push(if blob.uncompressed == 0 { tree } else { 2 + tree });
        out.extend_from_slice(&blob.length.to_le_bytes());
        if blob.uncompressed != 0 {
            out.extend_from_slice(&blob.uncompressed.to_le_bytes());
        }
        out.extend_from_slice(&blob.id.0);
    }
    out
}

/// The length of the sealed header, from the last four bytes of a pack of `pack_size` bytes.
pub fn header_length(field: [u8; LENGTH_FIELD], pack_size: u64) -> Result<usize> {
    let length = u32::from_le_bytes(field);
    let fits = u64::from(length) + LENGTH_FIELD as u64 <= pack_size;
    match usize::try_from(length) {
        Ok(length) if fits && (OVERHEAD + PLAIN_ENTRY..=HEADER_MAX).contains(&length) => Ok(length),
        _ => {
            let why = format!("its length of {length} bytes is impossible in a pack of {pack_size} bytes");
            Err(FormatError::new("a pack's header", why))
        }
    }
}

/// The blobs that a header's plaintext lists.
pub fn decode_header(mut header: &[u8]) -> Result<Vec<PackedBlob>> {
    let bad = |why: &str| FormatError::new("a pack's header", why);
    let mut blobs = Vec::with_capacity(header.len() / PLAIN_ENTRY);
    let mut offset = 0u32;
    while let Some((&kind, rest)) = header.split_first() {
        let (length, rest) = rest.split_first_chunk().ok_or_else(|| bad("it ends within an entry"))?;
        let (uncompressed, rest) = match kind {
            0 | 1 => (0, rest),
            2 | 3 => {
                let (length, rest) = rest.split_first_chunk().ok_or_else(|| bad("it ends within an entry"))?;
                (u32::from_le_bytes(*length), rest)
            }
            _ => return Err(bad(&format!("unknown blob type {kind}"))),
        };
        let (id, rest) = rest.split_first_chunk().ok_or_else(|| bad("it ends within an entry"))?;
        let length = u32::from_le_bytes(*length);
        if (length as usize) < OVERHEAD {
            return Err(bad(&format!("a blob of {length} bytes, shorter than its own envelope")));
        }
        if kind > 1 && uncompressed == 0 {
            return Err(bad("a compressed blob without a length"));
        }
        let ty = if kind & 1 == 0 { BlobType::Data } else { BlobType::Tree };
        blobs.push(PackedBlob { ty, id: Id(*id), offset, length, uncompressed });
        offset = offset.checked_add(length).ok_or_else(|| bad("its blobs exceed 4 GiB"))?;
        header = rest;
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Key;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// A pack of one blob, computed by an independent implementation.
    #[test]
    fn reads_and_rebuilds_the_published_pack() {
        let pack = hex(concat!(
            "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefffa65a1e14c6108dda4a455b0988dc2be1fb476f841e0e1e2e3e4e5e6e7e8e9eaebecedeeef",
            "ed8a9e57d0695ec8c55d8f3ecc1e5975f4d4df5b101ce9e351fa12ed6ef6cf60ace39e17f1bcc9f17f1bf26886b9a966a7e87060b745000000"
        ));
        assert_eq!(Id::of(&pack).to_string(), "c68b31c2a53fb495ec0daaa89ca903f7c4c4d414fc22cfe9c037c6963de2a902");
        let key = Key {
            encrypt: std::array::from_fn(|i| i as u8),
            mac_k: std::array::from_fn(|i| 0x40 + i as u8),
            mac_r: std::array::from_fn(|i| 0x80 + i as u8),
        };
        let (rest, field) = pack.split_last_chunk().unwrap();
        let length = header_length(*field, pack.len() as u64).unwrap();
        let mut header = Vec::new();
        key.open(&rest[rest.len() - length..], &mut header).unwrap();
        let blobs = decode_header(&header).unwrap();
        let hello = PackedBlob { ty: BlobType::Data, id: Id::of(b"hello"), offset: 0, length: 37, uncompressed: 0 };
        assert_eq!(blobs, [hello]);
        assert_eq!(encode_header(&blobs), header);
        assert_eq!(file_size(&blobs), pack.len() as u64);
    }

    #[test]
    fn refuses_damaged_headers() {
        for bad in [&[9; 37][..], &[0; 36], &[0; 37], &[2, 40, 0, 0, 0]] {
            assert!(decode_header(bad).is_err(), "{bad:?}");
        }
        for (field, size) in [(0u32, 100), (68, 100), (97, 100), (u32::MAX, u64::from(u32::MAX) * 2)] {
            assert!(header_length(field.to_le_bytes(), size).is_err());
        }
        let entry = |length: u32| {
            let mut entry = vec![0];
            entry.extend(length.to_le_bytes());
            entry.extend([1; 32]);
            entry
        };
        assert!(decode_header(&[entry(u32::MAX), entry(40)].concat()).is_err());
    }
}
