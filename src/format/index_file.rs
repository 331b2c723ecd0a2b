//! An index file: the positions of the blobs in some packs.

use super::pack::PackedBlob;
use super::{BlobType, FormatError, Result};
use crate::id::Id;
use serde::Deserialize;
use std::io::{self, Write};

/// One pack and its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPack {
    pub id: Id,
    pub blobs: Vec<PackedBlob>,
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(default)]
    packs: Option<Vec<RawPack>>,
}

#[derive(Deserialize)]
struct RawPack {
    id: Id,
    #[serde(default)]
    blobs: Option<Vec<RawBlob>>,
}

#[derive(Deserialize)]
struct RawBlob {
    id: Id,
    #[serde(rename = "type")]
    ty: BlobType,
    offset: u32,
    length: u32,
    /// rustic writes `null` for a blob that is not compressed.
    #[serde(default)]
    uncompressed_length: Option<u32>,
}

/// Writes the JSON of an index file.
pub fn encode(packs: &[IndexedPack], mut out: impl Write) -> io::Result<()> {
    let comma = |index| if index > 0 { "," } else { "" };
    write!(out, "{{\"packs\":[")?;
    for (index, pack) in packs.iter().enumerate() {
        write!(out, "{}{{\"id\":\"{}\",\"blobs\":[", comma(index), pack.id)?;
        for (index, blob) in pack.blobs.iter().enumerate() {
            let PackedBlob { ty, id, offset, length, uncompressed } = blob;
            let comma = comma(index);
            write!(out, "{comma}{{\"id\":\"{id}\",\"type\":\"{ty}\",\"offset\":{offset},\"length\":{length}")?;
            if *uncompressed != 0 {
                write!(out, ",\"uncompressed_length\":{uncompressed}")?;
            }
            write!(out, "}}")?;
        }
        write!(out, "]}}")?;
    }
    write!(out, "]}}")
}

/// The packs of an index file. rustic's `packs_to_delete` and other unknown fields are skipped, as
/// restic skips them.
pub fn decode(json: &[u8]) -> Result<Vec<IndexedPack>> {
    // serde would accept an array as the fields in order. Only restic 0.1 wrote one, which current
    // programs do not read.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(FormatError::new("an index", "not a JSON object"));
    }
    let raw: RawIndex = serde_json::from_slice(json).map_err(|error| FormatError::new("an index", error))?;
    Ok(raw
        .packs
        .unwrap_or_default()
        .into_iter()
        .map(|pack| IndexedPack {
            id: pack.id,
            blobs: pack
                .blobs
                .unwrap_or_default()
                .into_iter()
                .map(|blob| PackedBlob {
                    ty: blob.ty,
                    id: blob.id,
                    offset: blob.offset,
                    length: blob.length,
                    uncompressed: blob.uncompressed_length.unwrap_or(0),
                })
                .collect(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_what_rustic_writes() {
        let blob = |ty, uncompressed| PackedBlob { ty, id: Id::of(b"b"), offset: 7, length: 40, uncompressed };
        let packs = [
            IndexedPack { id: Id::of(b"p"), blobs: vec![blob(BlobType::Data, 0), blob(BlobType::Tree, 100)] },
            IndexedPack { id: Id::of(b"q"), blobs: vec![] },
        ];
        let mut json = Vec::new();
        encode(&packs, &mut json).unwrap();
        assert_eq!(decode(&json).unwrap(), packs);
        let json = String::from_utf8(json).unwrap();
        let nulls = json.replace("\"length\":40}", "\"length\":40,\"uncompressed_length\":null}");
        assert_eq!(decode(nulls.as_bytes()).unwrap(), packs);
        let marked = json.replace("{\"packs\"", "{\"supersedes\":[],\"packs_to_delete\":[{}],\"packs\"");
        assert_eq!(decode(marked.as_bytes()).unwrap(), packs);
        assert_eq!(decode(b"{}").unwrap(), []);
        assert!(decode(b"[]").is_err());
    }
}
