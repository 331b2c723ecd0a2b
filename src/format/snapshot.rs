//! A snapshot file: the root tree of a backup, with its time, host, paths and tags.

use super::time::Time;
use super::{FormatError, Result};
use crate::id::Id;
use crate::volume_mode::VolumeMode;
use serde::{Deserialize, Deserializer, Serialize};

/// The tag of snapshots whose one top-level directory is a volume's root. restic keeps tags when it
/// copies or rewrites a snapshot.
pub const VOLUME_TAG: &str = "vsm:volume";

/// The tag of snapshots whose one file is a block device's content.
pub const DEVICE_TAG: &str = "vsm:device";

/// The name of a volume's top-level directory.
pub const VOLUME_NAME: &str = "data";

/// A snapshot file, fields in restic's order. A value that was not recorded is empty or `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub time: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// `None` in damaged snapshots of an old restic for Windows, which cannot be read.
    #[serde(default)]
    pub tree: Option<Id>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub paths: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub excludes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    /// The snapshot that this one was first made from by rewriting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Fields of other programs, kept when the snapshot is written again.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// The statistics of a backup; every field is optional when read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_start: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_end: Option<Time>,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    pub dirs_new: u64,
    pub dirs_changed: u64,
    pub dirs_unmodified: u64,
    pub data_blobs: u64,
    pub tree_blobs: u64,
    /// Plaintext bytes of new blobs.
    pub data_added: u64,
    /// Sealed bytes of new blobs and their header entries.
    pub data_added_packed: u64,
    pub total_files_processed: u64,
    pub total_bytes_processed: u64,
    /// Entries that are missing or doubtful. Only this program writes the field, and only if it is
    /// not 0.
    #[serde(skip_serializing_if = "no_problems")]
    pub problems: u64,
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn no_problems(number: &u64) -> bool {
    *number == 0
}

fn null_is_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Snapshot {
    pub fn decode(json: &[u8]) -> Result<Snapshot> {
        serde_json::from_slice(json).map_err(|error| FormatError::new("a snapshot", error))
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }

    /// Whether the one top-level directory is a volume's root.
    pub fn is_volume(&self) -> bool {
        self.tags.iter().any(|tag| tag == VOLUME_TAG)
    }

    /// Whether the snapshot is of a block volume.
    pub fn is_device(&self) -> bool {
        self.tags.iter().any(|tag| tag == DEVICE_TAG)
    }

    pub fn volume_mode(&self) -> VolumeMode {
        if self.is_device() { VolumeMode::Block } else { VolumeMode::Filesystem }
    }

    /// Whether the snapshot is of a volume without files. An unreadable entry makes this false.
    pub fn is_empty_volume(&self) -> bool {
        let is_empty = |summary: &Summary| summary.total_files_processed == 0 && summary.problems == 0;
        self.is_volume() && self.summary.as_ref().is_some_and(is_empty)
    }

    /// Entries that were missing or doubtful when the snapshot was made; 0 also if its program did
    /// not count them.
    pub fn problems(&self) -> u64 {
        self.summary.as_ref().map_or(0, |summary| summary.problems)
    }

    pub fn has_tags(&self, tags: &[String]) -> bool {
        tags.iter().all(|tag| self.tags.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_snapshots_of_every_age_and_keeps_foreign_fields() {
        let old = r#"{"time":"2015-01-02T18:10:50.895208559+01:00","tree":"TREE","dir":"/tmp","paths":["/tmp"],"hostname":"kasimir","tags":null}"#;
        let old = Snapshot::decode(old.replace("TREE", &"2".repeat(64)).as_bytes()).unwrap();
        assert_eq!((old.summary.is_none(), old.tags.len(), old.hostname.as_str()), (true, 0, "kasimir"));
        let rustic = r#"{"time":"2024-01-01T00:00:00Z","tree":null,"paths":[],"label":"x","summary":{"files_new":3,"total_dirs_processed":2}}"#;
        let snapshot = Snapshot::decode(rustic.as_bytes()).unwrap();
        assert_eq!(snapshot.tree, None);
        let again = String::from_utf8(snapshot.encode()).unwrap();
        assert!(again.contains(r#""label":"x""#) && again.contains(r#""total_dirs_processed":2"#), "{again}");
        assert_eq!(Snapshot::decode(again.as_bytes()).unwrap(), snapshot);
        assert!(Snapshot::decode(b"{}").is_err());
    }
}
