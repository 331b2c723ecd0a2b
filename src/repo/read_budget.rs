//! The memory that reading packs may take: the number of threads, and what each holds.

use super::error::Result;
use super::index::Index;
use super::repository::Repository;
use crate::format::pack::PackedBlob;
use crate::memory;
use crate::room::{Held, Room};

/// A pool of as many threads as may read packs beside an index.
pub(crate) fn reading_pool(repo: &Repository, index: &Index) -> Result<rayon::ThreadPool> {
    let Reading { threads, .. } = Reading::beside(repo, index)?;
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started"))
}

/// How packs are read side by side: the number of threads, and the bytes that they may hold.
pub(crate) struct Reading {
    /// Each has one request in flight: more than there are cores hide the latency of an object
    /// store.
    pub threads: usize,
    /// Bytes of a pack, and of plaintext, that a thread holds, unless one blob has more.
    pub portion: u64,
    /// Bytes that all threads together may hold beside their portions.
    beside: Room,
}

impl Reading {
    /// With `left` bytes for all threads.
    pub fn within(repo: &Repository, left: u64) -> Reading {
        let most = repo.settings().budget.threads.max(repo.store().downloads());
        let (threads, portion) = memory::reading(left, most);
        let beside = Room::new(left.saturating_sub(threads as u64 * 2 * portion));
        Reading { threads, portion, beside }
    }

    /// With what an index leaves of the budget.
    pub fn beside(repo: &Repository, index: &Index) -> Result<Reading> {
        Ok(Reading::within(repo, repo.settings().budget.left(index.memory(), 0)?))
    }

    /// Waits for room for the bytes that some blobs take beside a portion while they are opened, of
    /// which `sealed` bytes are read. Dropping the result gives the room back.
    pub fn room(&self, sealed: u64, blobs: impl Iterator<Item = PackedBlob>) -> Held<'_> {
        let (mut plain, mut largest) = (0, 0);
        for blob in blobs {
            plain += blob.plain_length();
            // One of them lies between the two, decrypted and not yet expanded.
            largest = largest.max(u64::from(blob.length));
        }
        let more = sealed.saturating_sub(self.portion) + plain.saturating_sub(self.portion);
        self.beside.take(more + largest)
    }
}

/// The buffers that a thread reads packs with, again and again.
pub(super) struct ReadBuffers {
    pub sealed: Vec<u8>,
    pub plaintexts: Vec<u8>,
    portion: usize,
}

impl ReadBuffers {
    /// Of full size at once: buffers that grow step by step leave holes of all sizes behind.
    pub fn new(reading: &Reading) -> ReadBuffers {
        let portion = usize::try_from(reading.portion).expect("a few MiB");
        ReadBuffers { sealed: Vec::with_capacity(portion), plaintexts: Vec::with_capacity(portion), portion }
    }

    /// Frees what only a blob of unusual size has needed. To be called before the [`Reading::room`]
    /// for that blob is given back.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.sealed, &mut self.plaintexts] {
            buffer.truncate(self.portion);
            buffer.shrink_to(self.portion);
        }
    }
}

/// The first `length` bytes of a buffer that is used again and again, and grows when it must.
pub(super) fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.reserve_exact(length - buffer.len());
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}
