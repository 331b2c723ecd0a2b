//! Decides how many packs may be open or being uploaded, and when a pack is full.

use super::open_packs::OpenPack;
use crate::limits;
use crate::memory::Packs;
use crate::repo::error::Result;
use crate::repo::repository::Repository;
use crate::repo::settings::Settings;

pub(super) struct PackPolicy {
    /// Bytes after which a pack of data is closed.
    pub data_pack_size: u64,
    pub packs: Packs,
    /// Threads that compress and seal.
    pub threads: usize,
    /// Threads that upload packs.
    pub uploaders: usize,
}

impl PackPolicy {
    /// The policy of a run that holds `held` bytes of memory for other purposes.
    pub fn new(repo: &Repository, held: u64) -> Result<PackPolicy> {
        let &Settings { budget, pack_size, .. } = repo.settings();
        let left = budget.left(held, 0)?;
        let threads = budget.writers(left);
        let connections = repo.store().connections();
        let packs = if repo.store().keeps_uploads() {
            budget.packs(left, pack_size, connections)
        } else {
            Packs { data: threads + connections, trees: 2, tree_pack_size: pack_size, bytes: 0 }
        };
        // No more threads than packs to upload.
        let uploaders = connections.min(packs.data + packs.trees);
        Ok(PackPolicy { data_pack_size: pack_size, packs, threads, uploaders })
    }
}

pub(super) fn is_full(pack: &OpenPack, size: u64) -> bool {
    pack.size >= size || pack.blobs.len() >= limits::INDEX_BLOBS
}
