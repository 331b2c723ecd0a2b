//! Packs of data blobs that are being filled, each by one thread at a time.

use super::batch::Batch;
use super::open_packs::{OpenPack, OpenPacks};
use super::pack_policy::is_full;
use super::upload::Uploaders;
use crate::format::BlobType;
use crate::hash::{Stream, hash_all};
use crate::id::Id;
use crate::limits;
use crate::repo::error::Result;
use crate::repo::repository::Repository;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

pub(super) struct DataPacks {
    repo: Arc<Repository>,
    packs: Arc<OpenPacks>,
    /// Bytes after which a pack is closed.
    size: u64,
    /// Buffers of batches that have been written, for reuse.
    spare: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

impl DataPacks {
    /// At most `count` packs of about `size` bytes, filled by `threads` threads.
    pub fn new(repo: Arc<Repository>, count: usize, size: u64, threads: usize) -> DataPacks {
        DataPacks { repo, packs: OpenPacks::new(count), size, spare: crossbeam_channel::bounded(threads) }
    }

    /// Hashes chunks, and beside them the bytes that wait in an idle pack, which are then written.
    /// A pack that is complete then is uploaded. Returns the ids of the chunks.
    pub fn hash_beside(&self, chunks: &[&[u8]], uploaders: &Uploaders) -> Result<Vec<Id>> {
        let mut pack = self.packs.take_to_hash();
        let waiting = pack.as_mut().map_or_else(Vec::new, |pack| std::mem::take(&mut pack.waiting));
        let parts: Vec<&[u8]> = waiting.iter().map(|bytes| &bytes[..]).collect();
        let beside = pack.as_mut().map(|pack| Stream { hash: &mut pack.hash, parts: &parts });
        let ids = hash_all(chunks, beside).into_iter().map(Id).collect();
        let Some(mut pack) = pack else { return Ok(ids) };
        for bytes in waiting {
            pack.upload.write(&bytes)?;
            self.keep_buffer(bytes);
        }
        if pack.complete {
            uploaders.upload(pack)?;
        } else {
            self.packs.put_down(pack);
        }
        Ok(ids)
    }

    /// An empty buffer for at least this number of bytes.
    pub fn buffer(&self, capacity: usize) -> Vec<u8> {
        let mut buffer = self.spare.1.try_recv().unwrap_or_default();
        // Allocated at once: growing step by step would take more memory.
        buffer.reserve_exact(capacity);
        buffer
    }

    pub fn keep_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(limits::KEPT_BUFFER);
        // The queue holds as many buffers as can be in use at a time; others are freed.
        let _ = self.spare.0.try_send(buffer);
    }

    /// A pack that has room for the bytes of a batch.
    pub fn take_for(&self, batch: &Batch, uploaders: &Uploaders) -> Result<OpenPack> {
        let mut pack = self.take(uploaders)?;
        while !pack.has_room(batch.bytes.len() as u64) {
            uploaders.close(&self.repo, pack)?;
            pack = self.take(uploaders)?;
        }
        Ok(pack)
    }

    fn take(&self, uploaders: &Uploaders) -> Result<OpenPack> {
        loop {
            match self.packs.take_to_fill() {
                Ok(complete) if complete.complete => uploaders.upload(complete)?,
                Ok(open) => return Ok(open),
                Err(place) => return OpenPack::new(&self.repo, BlobType::Data, place),
            }
        }
    }

    /// Returns a pack to the idle ones. Its last bytes are hashed and written beside the next
    /// chunks. If it is full, it is uploaded after that.
    pub fn put_down(&self, mut pack: OpenPack) -> Result<()> {
        if is_full(&pack, self.size) {
            pack = pack.complete(&self.repo)?;
        }
        self.packs.put_down(pack);
        Ok(())
    }

    /// Hashes and writes the last bytes of a pack. Then uploads it if it is full, or returns it to
    /// the idle ones.
    pub fn put_down_settled(&self, mut pack: OpenPack, uploaders: &Uploaders) -> Result<()> {
        pack.settle()?;
        if is_full(&pack, self.size) {
            return uploaders.close(&self.repo, pack);
        }
        self.packs.put_down(pack);
        Ok(())
    }

    /// Closes all packs, also after an error. Returns the first error.
    pub fn close_all(&self, uploaders: &Uploaders) -> Result<()> {
        let mut outcome = Ok(());
        for pack in self.packs.take_all() {
            outcome = outcome.and(uploaders.close(&self.repo, pack));
        }
        outcome
    }
}
