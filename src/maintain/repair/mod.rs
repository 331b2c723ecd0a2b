//! Repositories of which something is damaged or lost, put in order again: the index ([`index`]),
//! packs ([`packs`]), and at last, when nothing else is left, the snapshots that need missing data
//! ([`snapshots`]).

pub mod index;
pub mod packs;
pub mod snapshots;
