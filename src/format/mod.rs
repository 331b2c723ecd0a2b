//! The restic repository format, versions 1 and 2: bytes to types and back. No clock, no
//! randomness, and no I/O but spill files.
//!
//! Trees must match restic's to the byte ([`tree`], [`node`], [`text`], [`time`]), because a tree's
//! id is the hash of its JSON; everything else must only be readable. Readers accept what any
//! restic or rustic has written, except the index files of restic 0.1. `docs/reference/format.md`
//! lists our choices where restic's format leaves one.

pub mod compression;
pub mod config;
pub mod content;
pub mod index_file;
pub mod key_file;
pub mod lock_file;
pub mod node;
pub mod pack;
mod printable;
pub mod snapshot;
pub mod text;
pub mod time;
pub mod tree;
pub mod unpacked;

use std::fmt;

/// The two kinds of blobs. The same bytes stored as both are two blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobType {
    Data,
    Tree,
}

impl fmt::Display for BlobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BlobType::Data => "data",
            BlobType::Tree => "tree",
        })
    }
}

/// The repository format version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// No compression.
    V1,
    /// Blobs and unpacked files may be compressed.
    V2,
}

impl Version {
    pub fn number(self) -> u32 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

/// Bytes that violate the format. `what` names the kind of object, `why` its first fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is damaged: {why}")]
pub struct FormatError {
    pub what: &'static str,
    pub why: String,
}

impl FormatError {
    pub fn new(what: &'static str, why: impl fmt::Display) -> FormatError {
        FormatError { what, why: why.to_string() }
    }
}

pub type Result<T> = std::result::Result<T, FormatError>;

/// (De)serialisers for bytes in standard base64 with padding; `null` reads as empty.
pub(crate) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::borrow::Cow;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text: Option<Cow<'de, str>> = Option::deserialize(deserializer)?;
        STANDARD.decode(text.as_deref().unwrap_or("")).map_err(serde::de::Error::custom)
    }
}
