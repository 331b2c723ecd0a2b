//! An open repository: reads and writes the files of a store with the master key.
//!
//! Write order, kept by [`writer`]: nothing that names a blob is written before the blob is
//! durable. So packs come before the index file that lists them, and index files before the
//! snapshot. Read rule: nothing is trusted before its MAC and its hash are checked; `documents` and
//! `key_files` keep it for JSON files, `load_blob` and `trees` for blobs.
//!
//! The files, lowest layer first; a file uses only files of its own line and of the lines above:
//!
//! * `error`, `settings`, `key_files`: used to open a repository.
//! * `repository`: the open repository, which knows whether it is locked (`lock::state`).
//! * `documents`, `keys`, `init`, `snapshots`, `lock`: its small files.
//! * [`index`]: which blob is in which pack.
//! * `blob_bounds`, `seal_blob`, `load_blob`, `pack_header`: single blobs, and the ends of packs.
//! * `coalesce`, `read_budget`, `pack_reader`: packs, read in stretches.
//! * `trees`: trees, node by node.
//! * [`writer`]: new blobs into packs, and index files.

mod blob_bounds;
mod coalesce;
mod documents;
mod error;
pub mod index;
mod init;
mod key_files;
mod keys;
mod load_blob;
mod lock;
mod pack_header;
mod pack_reader;
mod read_budget;
mod repository;
mod seal_blob;
mod settings;
mod snapshots;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod tests;
mod trees;
pub mod writer;

pub(crate) use blob_bounds::check_size;
pub use error::{Error, Result};
pub use index::Index;
pub use init::{InitOptions, init, key_owner};
pub use key_files::Password;
pub use keys::KeyInfo;
pub use lock::{Lock, LockMode, LocksToRemove, remove_locks_of, unlock};
pub(crate) use pack_reader::{PackReader, Portion, Stretch};
pub(crate) use read_budget::{Reading, reading_pool};
pub use repository::Repository;
pub use settings::Settings;
pub use snapshots::{SnapshotFilter, StoredSnapshot};
pub use trees::{LargeTree, Tree, TreeReader, is_large};
