//! [`ObjectUpload`]: a file that is being written. Its bytes are kept until its name is known, then
//! sent in one PUT.

use super::blocks::{BLOCK, Block};
use super::body::{Content, Part};
use super::client::Client;
use super::failure::Failure;
use crate::aside::Aside;
use crate::id::Id;
use crate::store::error::{Result, StoreError};
use crate::store::file::{File, FileType};
use crate::store::interface::Upload;
use bytes::Bytes;
use object_store::{PutMode, PutPayload};
use std::sync::Arc;

/// Bytes that one PUT may carry at every provider that we know.
const MAX_OBJECT: u64 = 5 << 30;

impl Client {
    /// Writes a file, which replaces an existing one of its name.
    pub fn replace(&self, file: File, payload: &PutPayload) -> Result<()> {
        self.replace_by(file, payload, async || self.put(file, payload, PutMode::Overwrite).await)
    }

    /// [`Client::replace`] by a file that is not in memory.
    fn replace_by_content(&self, file: File, content: &Content) -> Result<()> {
        let payload = &content.placeholder();
        let put = async || content.clone().sent_by(self.put(file, payload, PutMode::Overwrite)).await;
        self.replace_by(file, payload, put)
    }

    fn replace_by(
        &self,
        file: File,
        payload: &PutPayload,
        put: impl AsyncFnMut() -> std::result::Result<(), Failure>,
    ) -> Result<()> {
        let size = payload.content_length() as u64;
        if size > MAX_OBJECT {
            return Err(StoreError::TooLarge { file, size, max: MAX_OBJECT });
        }
        self.run(&format!("write {file}"), file.ty, put).map_err(|failure| self.error("write", file, failure))
    }
}

/// [`Upload`] to an object store.
pub(super) struct ObjectUpload {
    store: Arc<Client>,
    ty: FileType,
    parts: Vec<Kept>,
}

/// A part of the file.
enum Kept {
    /// Full, unless it is the last part or a spilled one follows.
    Block(Block),
    Aside(Arc<Aside>),
}

impl ObjectUpload {
    pub fn new(store: Arc<Client>, ty: FileType) -> ObjectUpload {
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
