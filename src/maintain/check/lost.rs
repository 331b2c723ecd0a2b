//! The packs and blobs that a check has found to be lost.

use crate::id::Id;
use crate::repo::index::Location;
use std::collections::HashSet;

#[derive(Default)]
pub(super) struct Lost {
    /// Packs that are lost completely.
    pub packs: HashSet<Id>,
    /// Lost blobs: the id of the pack and the id of the blob.
    pub blobs: HashSet<(Id, Id)>,
}

impl Lost {
    pub fn has(&self, location: &Location) -> bool {
        self.packs.contains(&location.pack) || self.blobs.contains(&(location.pack, location.blob.id))
    }
}
