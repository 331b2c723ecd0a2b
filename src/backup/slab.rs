//! The buffers that file content is read into: a fixed number of 8 MiB slabs, used again and again.
//!
//! They are the largest term of a backup's memory and its back-pressure: a reader that is ahead of
//! hashing waits for a slab. A slab is filled by one reader with a large file, or by walkers with
//! small ones behind each other, then shared by the jobs that work on its chunks, and returns when
//! the last of them is done.

use crate::chunk::MAX_SIZE;
use crossbeam_channel::{Receiver, Sender};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in a slab: the longest chunk fits, so a chunk is always contiguous.
pub const SLAB_SIZE: usize = MAX_SIZE;

/// All slabs there are.
pub struct SlabPool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    /// Threads that wait for a slab.
    waiting: AtomicUsize,
}

/// A slab while it is filled, and then, behind an `Arc`, while jobs read it.
pub struct Slab {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl SlabPool {
    /// `count` slabs; their memory is taken when each is first used. A reader holds a full slab
    /// while it waits for the next, so there must be more than readers.
    pub fn new(count: usize) -> SlabPool {
        let (home, free) = crossbeam_channel::bounded(count);
        for _ in 0..count {
            home.send(Vec::new()).expect("both ends are here");
        }
        SlabPool { home, free, waiting: AtomicUsize::new(0) }
    }

    /// An empty slab, as soon as one is free.
    pub fn take(&self) -> Slab {
        let mut bytes = self.free.try_recv().unwrap_or_else(|_| self.wait());
        bytes.clear();
        bytes.reserve_exact(SLAB_SIZE);
        Slab { bytes, home: self.home.clone() }
    }

    /// Whether a thread waits for a slab.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn wait(&self) -> Vec<u8> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let bytes = self.free.recv().expect("the pool itself holds a sender");
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        bytes
    }
}

impl Slab {
    /// The bytes, to be appended to up to [`SLAB_SIZE`].
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn room(&self) -> usize {
        SLAB_SIZE - self.bytes.len()
    }
}

impl Deref for Slab {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // Fails only if the pool has been dropped, and then the memory is freed.
        let _ = self.home.try_send(std::mem::take(&mut self.bytes));
    }
}
