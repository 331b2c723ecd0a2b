//! [`Writer`] stores new blobs in a repository, from reservation to index file.

use super::batch::{Batch, Known};
use super::data_packs::DataPacks;
use super::failure::Failure;
use super::index_saver::IndexSaver;
use super::pack_policy::PackPolicy;
use super::reservations::Reservations;
use super::tree_packs::TreePacks;
use super::upload::{Shared, Uploaders};
use super::written::Written;
use crate::aside::Aside;
use crate::crypto::OVERHEAD;
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::repo::error::{Error, Result};
use crate::repo::index::{Index, Location};
use crate::repo::repository::Repository;
use std::sync::Arc;

/// Whether blobs are written to the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    Upload,
    /// Everything is done and counted, except the writing.
    DryRun,
}

impl WriteMode {
    pub fn dry_run_if(dry_run: bool) -> WriteMode {
        if dry_run { WriteMode::DryRun } else { WriteMode::Upload }
    }
}

/// Stores new blobs in a repository. Threads may share it.
pub struct Writer {
    /// The first field, so that the uploaders end before the objects they use are dropped.
    uploaders: Uploaders,
    shared: Arc<Shared>,
    repo: Arc<Repository>,
    reservations: Reservations,
    data: DataPacks,
    trees: TreePacks,
    kept: u64,
    mode: WriteMode,
    pub written: Written,
}

impl Writer {
    pub fn new(repo: Arc<Repository>, index: Arc<Index>, mode: WriteMode) -> Result<Writer> {
        Writer::beside(repo, index, 0, mode)
    }

    /// A writer where the caller holds `held` bytes of memory besides the index.
    pub fn beside(repo: Arc<Repository>, index: Arc<Index>, held: u64, mode: WriteMode) -> Result<Writer> {
        let PackPolicy { data_pack_size, packs, threads, uploaders } = PackPolicy::new(&repo, index.memory() + held)?;
        let shared = Arc::new(Shared { index_files: IndexSaver::new(repo.clone()), failure: Failure::default() });
        let uploaders = match mode {
            WriteMode::Upload => uploaders,
            WriteMode::DryRun => 0,
        };
        Ok(Writer {
            uploaders: Uploaders::start(uploaders, &shared)?,
            shared,
            reservations: Reservations::new(index),
            data: DataPacks::new(repo.clone(), packs.data, data_pack_size, threads),
            trees: TreePacks::new(repo.clone(), packs.trees, packs.tree_pack_size),
            repo,
            kept: packs.bytes,
            mode,
            written: Written::default(),
        })
    }

    /// Bytes of memory that packs take until they are durable.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    pub fn repo(&self) -> &Repository {
        &self.repo
    }

    pub fn index(&self) -> &Index {
        self.reservations.index()
    }

    /// Stores each chunk as a data blob unless the repository has it. Returns the ids in order.
    ///
    /// Several chunks at a time are hashed faster.
    pub fn store_chunks(&self, chunks: &[&[u8]]) -> Result<Vec<Id>> {
        let ids = self.data.hash_beside(chunks, &self.uploaders)?;
        // The most bytes that they take sealed.
        let most = chunks.iter().map(|chunk| chunk.len() + OVERHEAD).sum();
        let mut batch = Batch::into_buffer(self.data.buffer(most));
        for (&id, &plaintext) in ids.iter().zip(chunks) {
            self.seal_new(&Known { ty: BlobType::Data, id, plaintext, sealed: None }, &mut batch)?;
        }
        if self.mode == WriteMode::DryRun || batch.is_empty() {
            self.written.count(&batch);
            self.data.keep_buffer(batch.bytes);
            return Ok(ids);
        }
        let mut pack = self.data.take_for(&batch, &self.uploaders)?;
        self.written.count(&batch);
        pack.add(batch);
        self.data.put_down(pack)?;
        Ok(ids)
    }

    /// Stores blobs of another pack, unless the repository has them.
    pub fn store_known(&self, blobs: &[Known<'_>]) -> Result<()> {
        let mut batches = [Batch::default(), Batch::default()];
        for known in blobs {
            self.seal_new(known, &mut batches[usize::from(known.ty == BlobType::Tree)])?;
        }
        let [data, trees] = batches;
        if !data.is_empty() {
            let mut pack = self.data.take_for(&data, &self.uploaders)?;
            self.written.count(&data);
            pack.add(data);
            // No plaintext is hashed here that the pack's bytes could be hashed beside.
            self.data.put_down_settled(pack, &self.uploaders)?;
        }
        self.add_trees(trees)
    }

    /// Stores a tree unless the repository has it. Returns its id.
    pub fn store_tree(&self, json: &[u8]) -> Result<Id> {
        let id = Id::of(json);
        let mut batch = Batch::default();
        self.seal_new(&Known { ty: BlobType::Tree, id, plaintext: json, sealed: None }, &mut batch)?;
        match self.mode {
            WriteMode::DryRun => self.written.count(&batch),
            WriteMode::Upload => self.add_trees(batch)?,
        }
        Ok(id)
    }

    /// Adds the sealed form of a blob to a batch, unless the repository has it or another thread is
    /// about to store it.
    fn seal_new(&self, blob: &Known<'_>, batch: &mut Batch) -> Result<()> {
        self.shared.failure.check()?;
        if self.reservations.reserve(blob.ty, blob.id) { batch.add(&self.repo, blob) } else { Ok(()) }
    }

    fn add_trees(&self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let length = batch.bytes.len() as u64;
        self.shared.failure.latch_any(self.trees.fill(length, &self.uploaders, |pack| {
            self.written.count(&batch);
            pack.add(batch);
            Ok(())
        }))
    }

    /// Stores a tree that was sealed and spilled to disk, unless the repository has it or another
    /// thread is about to store it.
    pub(super) fn store_sealed_tree(&self, blob: PackedBlob, sealed: Aside) -> Result<()> {
        self.shared.failure.check()?;
        if self.reservations.reserve(blob.ty, blob.id) {
            self.shared.failure.latch_any(self.add_sealed_tree(blob, sealed))?;
        }
        Ok(())
    }

    fn add_sealed_tree(&self, blob: PackedBlob, sealed: Aside) -> Result<()> {
        let PackedBlob { ty, id, length, .. } = blob;
        if self.repo.settings().extra_verify {
            let nowhere = Location { pack: Id::NULL, blob };
            self.repo.compare_aside(&nowhere, &sealed).map_err(|error| match error.is_damage() {
                true => Error::VerifyFailed { what: format!("{ty} blob {id}") },
                false => error,
            })?;
        }
        self.written.count_blob(&blob, blob.plain_length());
        match self.mode {
            WriteMode::DryRun => Ok(()),
            WriteMode::Upload => self.trees.fill(length.into(), &self.uploaders, |pack| pack.add_spilled(blob, sealed)),
        }
    }

    /// Marks a blob whose copy in the index cannot be read: it is stored again when it comes.
    pub fn distrust(&self, ty: BlobType, id: Id) {
        self.reservations.distrust(ty, id);
    }

    /// Makes all stored blobs durable and indexed. Call it also at the end of an interrupted run.
    pub fn finish(mut self) -> Result<Written> {
        let shared = self.shared.clone();
        shared.index_files.begin_to_finish();
        let closed = self.data.close_all(&self.uploaders).and(self.trees.close(&self.uploaders));
        self.uploaders.join();
        let saved = shared.index_files.save_rest();
        if let Err(error) = &saved
            && !error.is_given_up()
        {
            // The run has failed; its packs are durable, and the next run should find them.
            let _ = shared.index_files.save_rest();
        }
        if let Some(failure) = shared.failure.take() {
            return Err(failure);
        }
        closed.and(saved)?;
        Ok(Written { indexes: shared.index_files.take_saved(), ..self.written })
    }
}
