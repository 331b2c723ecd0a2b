//! A file in the making: its bytes are kept until its name is known, then sent in one PUT.
//!
//! They are copied into blocks of one size, which are used again. Kept as they come they would cost
//! no copy, but many times a pack's size: pieces of every size, each with the room it once needed
//! uncompressed, leave holes of every size behind. Blocks that are freed and allocated anew leave
//! some, too: 3 MiB for each pack of 16.

use super::Inner;
use super::body::{Content, Part};
use crate::aside::Aside;
use crate::id::Id;
use crate::store::{File, FileType, Result, Upload};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in a block: many in a pack, and few enough pieces on its way through the network stack.
const BLOCK: usize = 1 << 20;

/// Blocks for the uploads of one store. Those that are not in use wait for the next upload as long as
/// another one is under way.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Pool>);

#[derive(Default)]
struct Pool {
    free: Vec<Vec<u8>>,
    in_use: usize,
}

impl Blocks {
    fn take(self: &Arc<Self>) -> Block {
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
struct Block {
    bytes: Vec<u8>,
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

/// The bytes of a file to be, kept until its name is known.
pub(super) struct ObjectUpload {
    store: Arc<Inner>,
    ty: FileType,
    parts: Vec<Kept>,
}

/// A part of it.
enum Kept {
    /// Full unless it is the last one, or one that was put aside comes next.
    Block(Block),
    Aside(Arc<Aside>),
}

impl ObjectUpload {
    pub fn new(store: Arc<Inner>, ty: FileType) -> ObjectUpload {
        ObjectUpload { store, ty, parts: Vec::new() }
    }
}

impl Upload for ObjectUpload {
    fn write(&mut self, part: &[u8]) -> Result<()> {
        let mut rest = part;
        while !rest.is_empty() {
            match self.parts.last_mut() {
                Some(Kept::Block(last)) if last.bytes.len() < BLOCK => {
                    let free = BLOCK - last.bytes.len();
                    let fits = rest.split_off(..rest.len().min(free)).expect("no more than there are");
                    last.bytes.extend_from_slice(fits);
                }
                _ => self.parts.push(Kept::Block(self.store.blocks.take())),
            }
        }
        Ok(())
    }

    fn write_aside(&mut self, part: &Arc<Aside>) -> Result<()> {
        self.parts.push(Kept::Aside(part.clone()));
        Ok(())
    }

    fn commit(self: Box<Self>, id: Id) -> Result<()> {
        let file = File::new(self.ty, id);
        let is_large = self.parts.iter().any(|part| matches!(part, Kept::Aside(_)));
        let parts = self.parts.into_iter().map(|part| match part {
            Kept::Block(block) => Part::Memory(Bytes::from_owner(block)),
            Kept::Aside(aside) => Part::Aside(aside),
        });
        if is_large {
            return self.store.replace_by_content(file, &Content::new(parts.collect()));
        }
        let in_memory = |part| match part {
            Part::Memory(bytes) => Some(bytes),
            Part::Aside(_) => None,
        };
        self.store.replace(file, &parts.filter_map(in_memory).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again_as_long_as_any_is_in_use() {
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
