//! A pool of buffers for file content: a fixed number of reusable slabs of 8 MiB.
//!
//! Slabs are the largest part of a backup's memory and its backpressure: a reader that is ahead of
//! hashing waits for a slab. A slab is filled by one reader with a large file, or by walkers with
//! small files one after the other. Then the jobs that work on its chunks share it, and the last of
//! them returns it to the pool.

use crate::chunk::MAX_SIZE;
use crossbeam_channel::{Receiver, Sender};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in a slab: the longest chunk fits, so a chunk is always contiguous.
pub const SLAB_SIZE: usize = MAX_SIZE;

/// The pool of all slabs.
pub struct SlabPool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    /// The number of threads that wait for a slab.
    waiting: AtomicUsize,
}

/// A slab while it is filled, and then, behind an `Arc`, while jobs read it.
pub struct Slab {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl SlabPool {
    /// A pool of `count` slabs, whose memory is allocated when each is first used. A reader holds a
    /// full slab while it waits for the next, so the pool needs more slabs than readers.
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
