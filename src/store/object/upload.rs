//! A file in the making: its bytes are kept until its name is known, then sent in one PUT.
//!
//! They are copied into blocks of one size. Kept as they come they would cost no copy, but many times a pack's size: pieces of every
//! size, each with the room it once needed uncompressed, leave holes of every size behind.

use super::Inner;
use crate::id::Id;
use crate::store::{File, FileType, Result, Upload};
use bytes::Bytes;
use object_store::PutPayload;
use std::sync::Arc;

/// Bytes in a block: many in a pack, and few enough pieces on its way through the network stack.
const BLOCK: usize = 1 << 20;

/// The bytes of a file to be, kept until its name is known.
pub(super) struct ObjectUpload {
    store: Arc<Inner>,
    ty: FileType,
    /// All full but the last.
    blocks: Vec<Vec<u8>>,
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
                Some(last) if last.len() < BLOCK => last,
                _ => self.blocks.push_mut(Vec::with_capacity(BLOCK)),
            };
            let fits = rest.split_off(..rest.len().min(BLOCK - block.len())).expect("no more than there are");
            block.extend_from_slice(fits);
        }
        Ok(())
    }

    fn commit(self: Box<Self>, id: Id) -> Result<()> {
        let payload = PutPayload::from_iter(self.blocks.into_iter().map(Bytes::from));
        self.store.replace(File::new(self.ty, id), &payload)
    }
}
