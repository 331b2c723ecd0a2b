//! Sealed blobs in, durable packs and index files out.
//!
//! A blob that the repository lacks is reserved ([`reservations`]), so that one thread stores it;
//! sealed into a [`batch`]; put into an open pack of data ([`data_packs`]) or of trees
//! ([`tree_packs`]); uploaded with that ([`upload`]); and named by an index file ([`index_saver`]).
//! The first error of a tree or an upload is latched ([`failure`]); an error of data is returned to the
//! caller, who must end the run.
//!
//! A thread that stores data blobs has a pack to itself while it hashes and writes, or adds to it,
//! and waits for none as long as memory allows; trees share one. A full pack gets its header, and
//! an uploader thread for each connection makes one durable while the next one fills; only then an
//! index file names it. Index files are saved along the way by restic's rules, so that the next run
//! finds what an interrupted one has uploaded.

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
