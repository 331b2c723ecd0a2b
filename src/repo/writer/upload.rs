//! Uploader threads: each makes one full pack durable at a time, and passes it to the index saver.

use super::failure::Failure;
use super::index_saver::IndexSaver;
use super::open_packs::{FullPack, OpenPack};
use crate::repo::error::{Error, Result};
use crate::repo::repository::Repository;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What the uploaders and the threads that store blobs share.
pub(super) struct Shared {
    pub index_files: IndexSaver,
    pub failure: Failure,
}

pub(super) struct Uploaders {
    /// `None` once no more packs will come.
    full: Option<Sender<FullPack>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Uploaders {
    /// Starts `count` threads.
    pub fn start(count: usize, shared: &Arc<Shared>) -> Result<Uploaders> {
        let (full, queue) = crossbeam_channel::bounded(0);
        let start = |_| {
            let (shared, queue): (_, Receiver<FullPack>) = (shared.clone(), queue.clone());
            let upload = move || queue.iter().for_each(|pack| shared.upload(pack));
            std::thread::Builder::new().spawn(upload)
        };
        // On an error, the started threads end, because the sender is dropped.
        let threads: std::io::Result<_> = (0..count).map(start).collect();
        let threads = threads.map_err(|source| Error::Thread { purpose: "uploads packs", source })?;
        Ok(Uploaders { full: Some(full), threads, shared: shared.clone() })
    }

    /// Waits for an idle uploader, and passes a complete pack to it.
    pub fn upload(&self, pack: OpenPack) -> Result<()> {
        let full = pack.into_full()?;
        let sender = self.full.as_ref().expect("taken only when the writer is consumed");
        sender.send(full).map_err(|_| Error::Stopped)
    }

    /// Adds the header to a pack and uploads it.
    pub fn close(&self, repo: &Repository, pack: OpenPack) -> Result<()> {
        self.upload(pack.complete(repo)?)
    }

    /// Waits until all packs are durable or have failed.
    pub fn join(&mut self) {
        self.full = None;
        for thread in self.threads.drain(..) {
            // A panic there has been printed. The packs that the thread held are missing from the
            // index, which makes the run fail.
            if thread.join().is_err() {
                self.shared.failure.latch(Error::Panicked);
            }
        }
    }
}

impl Drop for Uploaders {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn upload(&self, full: FullPack) {
        if self.failure.has_failed() {
            return;
        }
        // `_place` is dropped at the end: the slot is free once the pack is durable or has failed.
        let FullPack { upload, pack, _place } = full;
        let outcome = upload.commit(pack.id).map_err(Error::from).and_then(|()| self.index_files.add(pack));
        if let Err(error) = outcome {
            self.failure.latch(error);
        }
    }
}
