//! The pack of trees that is being filled, which all threads share.

use super::open_packs::{OpenPack, OpenPacks};
use super::pack_policy::is_full;
use super::upload::Uploaders;
use crate::format::BlobType;
use crate::repo::error::Result;
use crate::repo::repository::Repository;
use crate::sync::lock;
use std::sync::{Arc, Mutex};

pub(super) struct TreePacks {
    repo: Arc<Repository>,
    open: Mutex<Option<OpenPack>>,
    /// The slots of packs of trees; no pack is idle there.
    places: Arc<OpenPacks>,
    /// Bytes after which a pack is closed.
    size: u64,
}

impl TreePacks {
    /// At most `count` packs of about `size` bytes.
    pub fn new(repo: Arc<Repository>, count: usize, size: u64) -> TreePacks {
        TreePacks { repo, open: Mutex::default(), places: OpenPacks::new(count), size }
    }

    /// Lets `fill` add `length` bytes to the open pack, or to a new one, and closes the pack if it
    /// is full then.
    pub fn fill(
        &self,
        length: u64,
        uploaders: &Uploaders,
        fill: impl FnOnce(&mut OpenPack) -> Result<()>,
    ) -> Result<()> {
        // An uploader, which frees a slot, needs no lock that is held here.
        let new = || OpenPack::new(&self.repo, BlobType::Tree, self.places.place());
        let mut open = lock(&self.open);
        let mut pack = open.take().map_or_else(new, Ok)?;
        while !pack.has_room(length) {
            uploaders.close(&self.repo, pack)?;
            pack = new()?;
        }
        fill(&mut pack)?;
        // Trees come one by one, often long after each other: a tree does not wait for the next
        // one.
        pack.settle()?;
        if is_full(&pack, self.size) {
            drop(open);
            uploaders.close(&self.repo, pack)?;
        } else {
            *open = Some(pack);
        }
        Ok(())
    }

    pub fn close(&self, uploaders: &Uploaders) -> Result<()> {
        let open = lock(&self.open).take();
        open.map_or(Ok(()), |pack| uploaders.close(&self.repo, pack))
    }
}
