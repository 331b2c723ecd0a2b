//! [`Blocks`]: the memory of uploads, in blocks of one size that are reused.
//!
//! An upload copies its bytes into blocks. Keeping the sealed pieces instead would save the copy,
//! but cost many times a pack's size: pieces of every size, each with the capacity that it needed
//! uncompressed, fragment the heap. Blocks that are freed and allocated again fragment it too: 3
//! MiB for each pack of 16 MiB.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in a block: small against a pack, and large enough that a pack has few pieces to send.
pub(super) const BLOCK: usize = 1 << 20;

/// Blocks for the uploads of one store. Free blocks are kept for the next upload as long as another
/// upload runs.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Pool>);

#[derive(Default)]
struct Pool {
    free: Vec<Vec<u8>>,
    in_use: usize,
}

impl Blocks {
    pub fn take(self: &Arc<Self>) -> Block {
        let mut pool = self.lock();
        pool.in_use += 1;
        let bytes = pool.free.pop();
        drop(pool);
        Block { bytes: bytes.unwrap_or_else(|| Vec::with_capacity(BLOCK)), home: self.clone() }
    }

    fn put_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut pool = self.lock();
        pool.in_use -= 1;
        pool.free.push(bytes);
        if pool.in_use == 0 {
            pool.free = Vec::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block in use.
pub(super) struct Block {
    pub bytes: Vec<u8>,
    home: Arc<Blocks>,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.put_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_reused_while_any_is_in_use() {
        let blocks = Arc::<Blocks>::default();
        let (one, other) = (blocks.take(), blocks.take());
        let place = other.bytes.as_ptr();
        drop(other);
        assert_eq!(blocks.take().bytes.as_ptr(), place);
        drop(one);
        let pool = blocks.lock();
        assert_eq!((pool.free.len(), pool.in_use), (0, 0));
    }
}
