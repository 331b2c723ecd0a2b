//! Settings of an open repository that are not stored in it.

use crate::clock::Clock;
use crate::format::compression::Compression;
use crate::limits;
use crate::memory::Budget;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Settings {
    pub compression: Compression,
    /// Bytes after which a pack is closed.
    pub pack_size: u64,
    /// Open every sealed blob again and compare it with its plaintext before it is uploaded.
    pub extra_verify: bool,
    pub budget: Budget,
    /// The directory for temporary files: an index that exceeds the memory budget, and large trees,
    /// are spilled there. `None`: nothing is spilled to disk.
    pub aside: Option<PathBuf>,
    /// The clock of locks, of `init`, and of the age of an index file.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            compression: Compression::default(),
            pack_size: limits::PACK_SIZE,
            extra_verify: true,
            budget: Budget::default(),
            aside: None,
            clock: Clock::default(),
        }
    }
}
