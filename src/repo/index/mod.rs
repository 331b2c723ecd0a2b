//! Which blob is where: the merged content of all index files.
//!
//! Loaded blobs are sorted arrays, one per type: 48 bytes a blob, whatever the repository's age
//! ([`sorted`]). They are in memory; where they exceed the budget, they are spilled to disk in runs
//! and merged into a temporary file, which lookups read. A blob that is in several packs has
//! several neighbouring entries. Blobs that this process adds or is about to add are in a set
//! beside them ([`ids`]).

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
