//! Repairs damaged repositories: the index ([`index`]), packs ([`packs`]), and as a last resort the
//! snapshots that need missing data ([`snapshots`]).

pub mod index;
pub mod packs;
pub mod snapshots;
