//! The restic repository format, versions 1 and 2: bytes to types and back. No I/O, no clock, no randomness.
//!
//! What the writer must match to the byte is the tree ([`tree`], [`node`], [`text`], [`time`]), because its id is the hash of
//! its JSON; everything else must only be readable. Readers accept what any restic or rustic has ever written.
//! See `docs/FORMAT.md` for what we write where restic leaves a choice.

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

/// Bytes that are not what the format says they should be. `what` names the kind of thing, `why` the first thing wrong with it.
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
