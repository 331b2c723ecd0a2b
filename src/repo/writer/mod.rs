//! Stores new blobs: seals them into packs, uploads the packs, and saves the index files that name
//! them.
//!
//! A blob that the repository lacks is reserved ([`reservations`]), so that one thread stores it;
//! sealed into a [`batch`]; put into an open pack of data ([`data_packs`]) or of trees
//! ([`tree_packs`]); uploaded with that pack ([`upload`]); and named by an index file
//! ([`index_saver`]). The first error of a tree or an upload is latched ([`failure`]); an error of
//! data is returned to the caller, which must end the run.
//!
//! A thread that stores data blobs has a pack to itself while it hashes and writes, or adds to it,
//! and does not wait for a pack as long as memory allows; all threads share one pack of trees. A
//! full pack gets its header. Each connection has an uploader thread, which makes one pack durable
//! while the next one fills; only then does an index file name it. While all uploaders are busy,
//! the threads that fill packs wait (backpressure). Index files are saved during the run by
//! restic's rules, so that the next run finds the blobs that an interrupted one has uploaded.

mod batch;
mod data_packs;
mod failure;
mod index_saver;
mod large_tree;
mod new_tree;
mod open_packs;
mod pack_policy;
mod pipeline;
mod reservations;
#[cfg(test)]
mod tests;
mod tree_packs;
mod upload;
mod written;

pub use batch::Known;
pub use large_tree::SealedForm;
pub use new_tree::NewTree;
pub use pipeline::{WriteMode, Writer};
pub use written::Written;
