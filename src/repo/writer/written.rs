//! Counts the written blobs and their bytes.

use super::batch::Batch;
use crate::format::BlobType;
use crate::format::pack::{self, PackedBlob};
use crate::id::Id;
use std::sync::atomic::{AtomicU64, Ordering};

/// The written blobs, counted by type.
#[derive(Debug, Default)]
pub struct Written {
    pub data_blobs: AtomicU64,
    pub tree_blobs: AtomicU64,
    /// Bytes of plaintext.
    pub plain_bytes: AtomicU64,
    /// Sealed bytes and their header entries.
    pub packed_bytes: AtomicU64,
    /// The index files that name the blobs; known at the end.
    pub indexes: Vec<Id>,
}

impl Written {
    pub(super) fn count(&self, batch: &Batch) {
        for (blob, plain_length) in &batch.blobs {
            self.count_blob(blob, *plain_length as u64);
        }
    }

    pub(super) fn count_blob(&self, blob: &PackedBlob, plain_length: u64) {
        let blobs = match blob.ty {
            BlobType::Data => &self.data_blobs,
            BlobType::Tree => &self.tree_blobs,
        };
        blobs.fetch_add(1, Ordering::Relaxed);
        self.plain_bytes.fetch_add(plain_length, Ordering::Relaxed);
        let entry = pack::header_size([blob]) - pack::header_size([]);
        self.packed_bytes.fetch_add(u64::from(blob.length) + entry, Ordering::Relaxed);
    }
}
