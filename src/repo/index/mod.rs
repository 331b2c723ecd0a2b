//! The index: which blob is in which pack, merged from all index files.
//!
//! Loaded blobs are in sorted arrays, one per type, of 48 bytes per blob ([`sorted`]). The arrays
//! are in memory; if they exceed the budget, they are spilled to disk in runs and merged into a
//! temporary file, which lookups read. A blob that is in several packs has several neighbouring
//! entries. Blobs that this process adds or is about to add are in a separate set ([`ids`]).

mod building;
mod groups;
mod ids;
mod load;
mod merged;
mod sorted;
#[cfg(test)]
mod tests;

pub use groups::Group;
pub use load::load_file;
pub use merged::{Index, Location, Placed};
