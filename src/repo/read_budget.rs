//! The memory budget for reading packs: the number of threads, and the bytes that they hold.

use super::error::Result;
use super::index::Index;
use super::repository::Repository;
use crate::format::pack::PackedBlob;
use crate::memory;
use crate::room::{Held, Room};

/// A pool of the threads that may read packs, with the memory that the index leaves.
pub(crate) fn reading_pool(repo: &Repository, index: &Index) -> Result<rayon::ThreadPool> {
    let Reading { threads, .. } = Reading::beside(repo, index)?;
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started"))
}

/// How packs are read concurrently: the number of threads, and the bytes that they may hold.
pub(crate) struct Reading {
    /// Each has one request in flight: more threads than cores hide the latency of an object store.
    pub threads: usize,
    /// Bytes of a pack, and of plaintext, that a thread holds, unless one blob has more.
    pub portion: u64,
    /// Bytes that all threads together may hold beside their portions.
    beside: Room,
}

impl Reading {
    /// Divides `left` bytes among all threads.
    pub fn within(repo: &Repository, left: u64) -> Reading {
        let most = repo.settings().budget.threads.max(repo.store().downloads());
        let (threads, portion) = memory::reading(left, most);
        let beside = Room::new(left.saturating_sub(threads as u64 * 2 * portion));
        Reading { threads, portion, beside }
    }

    /// Divides the memory that an index leaves of the budget.
    pub fn beside(repo: &Repository, index: &Index) -> Result<Reading> {
        Ok(Reading::within(repo, repo.settings().budget.left(index.memory(), 0)?))
    }

    /// Waits for the memory that some blobs, of which `sealed` bytes are read, take beyond a
    /// portion while they are opened. Dropping the result releases it.
    pub fn room(&self, sealed: u64, blobs: impl Iterator<Item = PackedBlob>) -> Held<'_> {
        let (mut plain, mut largest) = (0, 0);
        for blob in blobs {
            plain += blob.plain_length();
            // One blob at a time is also in memory decrypted, but not yet decompressed.
            largest = largest.max(u64::from(blob.length));
        }
        let more = sealed.saturating_sub(self.portion) + plain.saturating_sub(self.portion);
        self.beside.take(more + largest)
    }
}

/// The buffers that a thread reads packs with; they are reused.
pub(super) struct ReadBuffers {
    pub sealed: Vec<u8>,
    pub plaintexts: Vec<u8>,
    portion: usize,
}

impl ReadBuffers {
    /// Allocated in full size at once: buffers that grow step by step fragment the heap.
    pub fn new(reading: &Reading) -> ReadBuffers {
        let portion = usize::try_from(reading.portion).expect("a few MiB");
        ReadBuffers { sealed: Vec::with_capacity(portion), plaintexts: Vec::with_capacity(portion), portion }
    }

    /// Frees the bytes beyond a portion, which only a blob of unusual size needs. Call before the
    /// [`Reading::room`] for that blob is released.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.sealed, &mut self.plaintexts] {
            buffer.truncate(self.portion);
            buffer.shrink_to(self.portion);
        }
    }
}

/// The first `length` bytes of a reused buffer, which grows if it is too small.
pub(super) fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.reserve_exact(length - buffer.len());
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}
