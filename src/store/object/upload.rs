//! A file in the making: its parts are kept until its name is known, then sent in one PUT.
//!
//! Large parts are kept as they were given, without a copy. Small ones, like the blobs of a pack of trees, are gathered,
//! so that a pack of many thousand blobs is not as many pieces on its way through the network stack.

use super::Inner;
use crate::id::Id;
use crate::store::{File, FileType, Result, Upload};
use bytes::{Bytes, BytesMut};
use object_store::PutPayload;
use std::sync::Arc;

/// Parts below the first size are gathered into pieces of the second.
const SMALL_PART: usize = 16 << 10;
const GATHERED: usize = 64 << 10;

/// The parts of a file to be, kept until its name is known.
pub(super) struct ObjectUpload {
    store: Arc<Inner>,
    ty: FileType,
    parts: Vec<Bytes>,
    gathered: BytesMut,
}

impl ObjectUpload {
    pub fn new(store: Arc<Inner>, ty: FileType) -> ObjectUpload {
        ObjectUpload { store, ty, parts: Vec::new(), gathered: BytesMut::new() }
    }

    fn settle(&mut self) {
        if !self.gathered.is_empty() {
            self.parts.push(self.gathered.split().freeze());
        }
    }
}

impl Upload for ObjectUpload {
    fn write(&mut self, part: Bytes) -> Result<()> {
        if part.len() < SMALL_PART {
            self.gathered.extend_from_slice(&part);
        }
        if part.len() >= SMALL_PART || self.gathered.len() >= GATHERED {
            self.settle();
        }
        if part.len() >= SMALL_PART {
            self.parts.push(part);
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>, id: Id) -> Result<()> {
        self.settle();
        let payload = PutPayload::from_iter(std::mem::take(&mut self.parts));
        self.store.replace(File::new(self.ty, id), &payload)
    }
}
