//! What a check has shown to be lost.

use crate::id::Id;
use crate::repo::index::Location;
use std::collections::HashSet;

#[derive(Default)]
pub(super) struct Lost {
    /// Everything in these packs.
    pub packs: HashSet<Id>,
    /// These blobs, in these packs.
    pub blobs: HashSet<(Id, Id)>,
}

impl Lost {
    pub fn has(&self, location: &Location) -> bool {
        self.packs.contains(&location.pack) || self.blobs.contains(&(location.pack, location.blob.id))
    }
}
