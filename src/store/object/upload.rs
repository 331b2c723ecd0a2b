//! A file in the making: its bytes are kept until its name is known, then sent in one PUT.
//!
//! They are copied into blocks of one size, which are used again. Kept as they come they would cost
//! no copy, but many times a pack's size: pieces of every size, each with the room it once needed
//! uncompressed, leave holes of every size behind. Blocks that are freed and allocated anew leave
//! some, too: 3 MiB for each pack of 16.

use super::Inner;
use crate::id::Id;
use crate::store::{File, FileType, Result, Upload};
use bytes::Bytes;
use object_store::PutPayload;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in a block: many in a pack, and few enough pieces on its way through the network stack.
const BLOCK: usize = 1 << 20;

/// Blocks that are not in use, for the uploads of one store: as many as were in use at a time.
#[derive(Default)]
pub(super) struct Blocks(Mutex<Vec<Vec<u8>>>);

impl Blocks {
    fn take(self: &Arc<Self>) -> Block {
        let bytes = self.lock().pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
        Block { bytes, home: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
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
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.home.lock().push(bytes);
    }
}

/// The bytes of a file to be, kept until its name is known.
pub(super) struct ObjectUpload {
    store: Arc<Inner>,
    ty: FileType,
    /// All full but the last.
    blocks: Vec<Block>,
}

impl ObjectUpload {
    pub fn new(store: Arc<Inner>, ty: FileType) -> ObjectUpload {
        ObjectUpload { store, ty, blocks: Vec::new() }
    }
}

impl Upload for ObjectUpload {
    fn write(&mut self, part: &[u8]) -> Result<()> {
        let mut rest = part;
        while !rest.is_empty() {
            let block = match self.blocks.last_mut() {
                Some(last) if last.bytes.len() < BLOCK => last,
                _ => self.blocks.push_mut(self.store.blocks.take()),
            };
            let free = BLOCK - block.bytes.len();
            let fits = rest.split_off(..rest.len().min(free)).expect("no more than there are");
            block.bytes.extend_from_slice(fits);
        }
        Ok(())
    }

    fn commit(self: Box<Self>, id: Id) -> Result<()> {
        let payload = PutPayload::from_iter(self.blocks.into_iter().map(Bytes::from_owner));
        self.store.replace(File::new(self.ty, id), &payload)
    }
}
