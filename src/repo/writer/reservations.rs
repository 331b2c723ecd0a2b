//! Deduplication: decides which blobs are stored, each by one thread.

use crate::format::BlobType;
use crate::id::Id;
use crate::repo::index::Index;
use crate::sync::lock;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

pub(super) struct Reservations {
    index: Arc<Index>,
    /// Blobs in the index that cannot be read: they are stored again.
    distrusted: Mutex<HashSet<(BlobType, Id)>>,
}

impl Reservations {
    pub fn new(index: Arc<Index>) -> Reservations {
        Reservations { index, distrusted: Mutex::default() }
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Reserves a blob for the caller to store. `false` if the repository has it, or another thread
    /// stores it.
    pub fn reserve(&self, ty: BlobType, id: Id) -> bool {
        self.index.claim(ty, id) || self.take_distrusted(ty, id)
    }

    pub fn distrust(&self, ty: BlobType, id: Id) {
        lock(&self.distrusted).insert((ty, id));
    }

    /// Whether a blob is to be stored again. Returns `true` once for each mark.
    fn take_distrusted(&self, ty: BlobType, id: Id) -> bool {
        let mut distrusted = lock(&self.distrusted);
        !distrusted.is_empty() && distrusted.remove(&(ty, id))
    }
}
