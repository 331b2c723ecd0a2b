//! A lock file: the process that uses the repository, since when, and whether exclusively.

use super::time::Time;
use super::{FormatError, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    pub time: Time,
    pub exclusive: bool,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub pid: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl LockFile {
    pub fn decode(json: &[u8]) -> Result<LockFile> {
        serde_json::from_slice(json).map_err(|error| FormatError::new("a lock", error))
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }
}
