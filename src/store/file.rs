//! [`File`]: the names of a repository's files.

use crate::id::Id;
use std::fmt;

/// The kinds of files that a repository has. Each has its own directory, except for the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileType {
    Config,
    Key,
    Lock,
    Snapshot,
    Index,
    Pack,
}

/// The name of one file of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    pub ty: FileType,
    /// The SHA-256 of the stored bytes; null for the config, which has a fixed name.
    pub id: Id,
}

impl File {
    /// The only file without an id.
    pub const CONFIG: File = File { ty: FileType::Config, id: Id::NULL };

    pub fn new(ty: FileType, id: Id) -> File {
        File { ty, id }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileType::Config => "config",
            FileType::Key => "key",
            FileType::Lock => "lock",
            FileType::Snapshot => "snapshot",
            FileType::Index => "index",
            FileType::Pack => "pack",
        })
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ty {
            FileType::Config => f.write_str("config"),
            ty => write!(f, "{ty} {}", self.id),
        }
    }
}
