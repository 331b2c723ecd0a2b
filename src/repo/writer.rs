//! Sealed blobs in, durable packs and index files out.
//!
//! A thread that stores data blobs has a pack to itself while it hashes and writes, or adds to it, and waits for none as long as memory allows;
//! trees share one. A pack that is full gets its header, and an uploader thread for each connection makes one durable while the next one fills; only
//! then an index file names it. Those are saved along the way by restic's rules, so that what an interrupted run has uploaded is found
//! by the next.

mod tree;

pub use tree::NewTree;

use super::index::{Index, Location};
use super::packs::{OpenPack, OpenPacks, Place};
use super::trees::LargeTree;
use super::{Error, Repository, Result, SealedBlob, Settings};
use crate::aside::Aside;
use crate::clock::{self, Moment};
use crate::crypto::OVERHEAD;
use crate::format::BlobType;
use crate::format::index_file::{self, IndexedPack};
use crate::format::pack::{self, PackedBlob};
use crate::hash::{Stream, hash_all};
use crate::id::Id;
use crate::limits;
use crate::memory::Packs;
use crate::store::{FileType, Upload};
use crate::sync::lock;
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sealed blobs behind each other, on their way into a pack.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// With offsets from the batch's beginning, and the length of the plaintext.
    blobs: Vec<(PackedBlob, usize)>,
}

/// A blob out of another pack, whose plaintext has been compared with its id.
pub struct Known<'b> {
    pub ty: BlobType,
    pub id: Id,
    pub plaintext: &'b [u8],
    /// Its sealed form with this repository's key, and the length of what it expands to (0: it is not compressed), if it is to stay like that.
    pub sealed: Option<(&'b [u8], u32)>,
}

/// A pack with its header, ready to be made durable.
struct FullPack {
    upload: Box<dyn Upload>,
    pack: IndexedPack,
    _place: Place,
}

/// What was written, by blob type where it differs.
#[derive(Debug, Default)]
pub struct Written {
    pub data_blobs: AtomicU64,
    pub tree_blobs: AtomicU64,
    /// Bytes of plaintext.
    pub plain_bytes: AtomicU64,
    /// Sealed bytes and their header entries.
    pub packed_bytes: AtomicU64,
    /// The index files that name it; known at the end.
    pub indexes: Vec<Id>,
}

/// What the uploaders and the caller share.
struct Shared {
    repo: Arc<Repository>,
    index: Arc<Index>,
    unsaved: Mutex<Unsaved>,
    saved: Mutex<Vec<Id>>,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    /// No more blobs will come. What is still unsaved goes into one index file, so that nobody sees
    /// the root of a snapshot in an index that lacks what is below it.
    finishing: AtomicBool,
}

/// Durable packs that no index file names yet.
struct Unsaved {
    packs: Vec<IndexedPack>,
    blobs: usize,
    since: Moment,
}

impl Unsaved {
    fn put_back(&mut self, taken: Unsaved) {
        self.packs.extend(taken.packs);
        self.blobs += taken.blobs;
        self.since = self.since.min(taken.since);
    }
}

/// The way into a repository for new blobs. May be shared by threads.
pub struct Writer {
    shared: Arc<Shared>,
    data: Arc<OpenPacks>,
    tree_pack_size: u64,
    kept: u64,
    /// Buffers of batches that have been written, to be used again.
    spare: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    trees: Mutex<Option<OpenPack>>,
    /// Where packs of trees have their places; none is idle there.
    tree_places: Arc<OpenPacks>,
    full: Option<Sender<FullPack>>,
    uploaders: Vec<JoinHandle<()>>,
    /// Blobs that the index names and that cannot be read: they are stored again.
    distrusted: Mutex<HashSet<(BlobType, Id)>>,
    /// Everything is done and counted but for the writing.
    dry_run: bool,
    pub written: Written,
}

impl Writer {
    pub fn new(repo: Arc<Repository>, index: Arc<Index>, dry_run: bool) -> Result<Writer> {
        Writer::beside(repo, index, 0, dry_run)
    }

    /// The same, where the caller holds `held` bytes besides the index.
    pub fn beside(repo: Arc<Repository>, index: Arc<Index>, held: u64, dry_run: bool) -> Result<Writer> {
        let &Settings { budget, pack_size, .. } = repo.settings();
        let left = budget.left(index.memory() + held, 0)?;
        let threads = budget.writers(left);
        let connections = repo.store().connections();
        let keeps_uploads = repo.store().keeps_uploads();
        let packs = if keeps_uploads {
            budget.packs(left, pack_size, connections)
        } else {
            Packs { data: threads + connections, trees: 2, tree_pack_size: pack_size, bytes: 0 }
        };
        let unsaved = Unsaved { packs: Vec::new(), blobs: 0, since: repo.settings().clock.moment() };
        let shared = Arc::new(Shared {
            repo,
            index,
            unsaved: Mutex::new(unsaved),
            saved: Mutex::default(),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
        });
        let (full, queue) = crossbeam_channel::bounded(0);
        let start = |_| {
            let (shared, queue): (_, Receiver<FullPack>) = (shared.clone(), queue.clone());
            let upload = move || queue.iter().for_each(|pack| shared.upload(pack));
            std::thread::Builder::new().spawn(upload)
        };
        // No more than there are packs to upload, and those that were started end without a sender.
        let uploaders = if dry_run { 0 } else { connections.min(packs.data + packs.trees) };
        let uploaders: std::io::Result<_> = (0..uploaders).map(start).collect();
        let uploaders = uploaders.map_err(|source| Error::Thread { purpose: "uploads packs", source })?;
        Ok(Writer {
            shared,
            data: OpenPacks::new(packs.data),
            tree_pack_size: packs.tree_pack_size,
            kept: packs.bytes,
            spare: crossbeam_channel::bounded(threads),
            trees: Mutex::default(),
            tree_places: OpenPacks::new(packs.trees),
            full: Some(full),
            uploaders,
            distrusted: Mutex::default(),
            dry_run,
            written: Written::default(),
        })
    }

    /// Bytes of memory that packs take until they are durable.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    pub fn repo(&self) -> &Repository {
        &self.shared.repo
    }

    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    /// Stores each chunk as a data blob unless the repository has it; their ids, in order.
    ///
    /// Several at a time are hashed faster.
    pub fn store_chunks(&self, chunks: &[&[u8]]) -> Result<Vec<Id>> {
        let ids = self.hash_beside(chunks)?;
        let mut bytes = self.spare.1.try_recv().unwrap_or_default();
        // More than this they never take, sealed; to grow step by step would take more.
        bytes.reserve_exact(chunks.iter().map(|chunk| chunk.len() + OVERHEAD).sum());
        let mut batch = Batch { bytes, blobs: Vec::new() };
        for (&id, chunk) in ids.iter().zip(chunks) {
            self.seal_new(BlobType::Data, id, chunk, &mut batch)?;
        }
        if self.dry_run || batch.blobs.is_empty() {
            self.count(&batch);
            self.keep_buffer(batch.bytes);
            return Ok(ids);
        }
        let mut pack = self.add(self.open_data()?, batch, || self.open_data())?;
        if is_full(&pack, self.repo().settings().pack_size) {
            // It is uploaded when its last bytes have been hashed and written, beside the next chunks.
            pack = self.complete(pack)?;
        }
        self.data.put_down(pack);
        Ok(ids)
    }

    /// Stores blobs out of another pack, unless the repository has them.
    pub fn store_known(&self, blobs: &[Known<'_>]) -> Result<()> {
        let mut batches = [Batch::default(), Batch::default()];
        for known in blobs {
            let batch = &mut batches[usize::from(known.ty == BlobType::Tree)];
            match known.sealed {
                None => self.seal_new(known.ty, known.id, known.plaintext, batch)?,
                Some((sealed, uncompressed)) => {
                    self.add_new(known.ty, known.id, known.plaintext.len(), batch, |bytes| {
                        bytes.extend_from_slice(sealed);
                        Ok(SealedBlob {
                            length: u32::try_from(sealed.len()).expect("a blob is below 4 GiB"),
                            uncompressed,
                        })
                    })?;
                }
            }
        }
        let [data, trees] = batches;
        if !data.blobs.is_empty() {
            let mut pack = self.add(self.open_data()?, data, || self.open_data())?;
            // No plaintext is hashed here that it could wait for.
            pack.settle()?;
            if is_full(&pack, self.repo().settings().pack_size) {
                self.close(pack)?;
            } else {
                self.data.put_down(pack);
            }
        }
        self.add_trees(trees)
    }

    /// The ids of chunks; beside them, what waits in some pack is hashed, and then written. A pack that is complete then is uploaded.
    fn hash_beside(&self, chunks: &[&[u8]]) -> Result<Vec<Id>> {
        let mut pack = self.data.take_to_hash();
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
            self.upload(pack)?;
        } else {
            self.data.put_down(pack);
        }
        Ok(ids)
    }

    fn keep_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(limits::KEPT_BUFFER);
        // As many as can be in use at a time are enough.
        let _ = self.spare.0.try_send(buffer);
    }

    /// Stores a tree unless the repository has it; its id.
    pub fn store_tree(&self, json: &[u8]) -> Result<Id> {
        let id = Id::of(json);
        let mut batch = Batch::default();
        self.seal_new(BlobType::Tree, id, json, &mut batch)?;
        if self.dry_run {
            self.count(&batch);
        } else {
            self.add_trees(batch)?;
        }
        Ok(id)
    }

    /// Stores a tree that was sealed and put aside, unless the repository has it or another thread is
    /// about to store it.
    fn store_sealed_tree(&self, blob: PackedBlob, sealed: Aside) -> Result<()> {
        if self.shared.failed.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let PackedBlob { ty, id, .. } = blob;
        if self.index().contains(ty, id) && !lock(&self.distrusted).contains(&(ty, id)) {
            return Ok(());
        }
        if self.index().claim(ty, id) || self.is_distrusted(ty, id) {
            self.or_fail(self.add_sealed_tree(blob, sealed))?;
        }
        Ok(())
    }

    fn add_sealed_tree(&self, blob: PackedBlob, sealed: Aside) -> Result<()> {
        let PackedBlob { ty, id, length, .. } = blob;
        if self.repo().settings().extra_verify {
            let nowhere = Location { pack: Id::NULL, blob };
            self.repo().compare_aside(&nowhere, &sealed).map_err(|error| match error.is_damage() {
                true => Error::VerifyFailed { what: format!("{ty} blob {id}") },
                false => error,
            })?;
        }
        self.count_blob(&blob, blob.plain_length());
        if self.dry_run {
            return Ok(());
        }
        self.fill_trees(|pack, new| {
            let mut pack = self.with_room(pack, length.into(), new)?;
            let offset = u32::try_from(pack.size).expect("it has room");
            pack.push_aside(sealed)?;
            pack.blobs.push(PackedBlob { offset, ..blob });
            Ok(pack)
        })
    }

    /// What has failed was claimed, so that others take it for stored, and a pack may be lost that has
    /// more: nothing that names any of it may be written.
    fn or_fail<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.shared.fail(Error::Stopped);
        }
        outcome
    }

    /// Stores a large tree of another repository, or of this one, whose sealed form may stay.
    pub fn store_large_tree(&self, tree: LargeTree, stays_sealed: bool) -> Result<()> {
        if stays_sealed {
            let blob = PackedBlob { offset: 0, ..tree.blob() };
            return self.store_sealed_tree(blob, tree.into_sealed());
        }
        let id = tree.blob().id;
        NewTree::of_plaintext(self, id, tree.into_plaintext())
    }

    /// A new tree that is too large to be held cannot be put aside.
    fn not_aside(&self, error: std::io::Error) -> Error {
        Error::aside("the tree of a directory", self.repo().settings().aside.as_deref(), error)
    }

    fn add_trees(&self, batch: Batch) -> Result<()> {
        if batch.blobs.is_empty() {
            return Ok(());
        }
        self.or_fail(self.fill_trees(|pack, new| self.add(pack, batch, new)))
    }

    /// Has `fill` add to the pack of trees, or to a new one, and closes that if it is full then.
    fn fill_trees(&self, fill: impl FnOnce(OpenPack, &dyn Fn() -> Result<OpenPack>) -> Result<OpenPack>) -> Result<()> {
        // An uploader, which frees a place, needs nothing that is locked here.
        let new = || OpenPack::new(self.repo(), BlobType::Tree, self.tree_places.place());
        let mut trees = lock(&self.trees);
        let open = trees.take().map_or_else(new, Ok)?;
        let mut pack = fill(open, &new)?;
        // Trees come one by one, often long after each other: none waits for the next.
        pack.settle()?;
        if is_full(&pack, self.tree_pack_size) {
            drop(trees);
            self.close(pack)?;
        } else {
            *trees = Some(pack);
        }
        Ok(())
    }

    /// Adds the sealed form of a blob to a batch, unless the repository has it or another thread is about to store it.
    fn seal_new(&self, ty: BlobType, id: Id, plaintext: &[u8], batch: &mut Batch) -> Result<()> {
        self.add_new(ty, id, plaintext.len(), batch, |bytes| self.repo().seal_blob(ty, id, plaintext, bytes))
    }

    /// The copy of a blob that the index names cannot be read: when the blob comes, it is stored
    /// again.
    pub fn distrust(&self, ty: BlobType, id: Id) {
        lock(&self.distrusted).insert((ty, id));
    }

    /// Whether a blob is to be stored again; once.
    fn is_distrusted(&self, ty: BlobType, id: Id) -> bool {
        let mut distrusted = lock(&self.distrusted);
        !distrusted.is_empty() && distrusted.remove(&(ty, id))
    }

    /// The same with a sealed form that the caller appends.
    fn add_new(
        &self,
        ty: BlobType,
        id: Id,
        plain_length: usize,
        batch: &mut Batch,
        seal: impl FnOnce(&mut Vec<u8>) -> Result<SealedBlob>,
    ) -> Result<()> {
        if self.shared.failed.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if self.index().claim(ty, id) || self.is_distrusted(ty, id) {
            let offset = u32::try_from(batch.bytes.len()).expect("far below 4 GiB");
            let SealedBlob { length, uncompressed } = seal(&mut batch.bytes)?;
            batch.blobs.push((PackedBlob { ty, id, offset, length, uncompressed }, plain_length));
        }
        Ok(())
    }

    /// A pack of data to add to.
    fn open_data(&self) -> Result<OpenPack> {
        loop {
            match self.data.take_to_fill() {
                Ok(complete) if complete.complete => self.upload(complete)?,
                Ok(open) => return Ok(open),
                Err(place) => return OpenPack::new(self.repo(), BlobType::Data, place),
            }
        }
    }

    /// Puts sealed blobs into a pack, or into a new one if it has no room for them.
    fn add(&self, pack: OpenPack, batch: Batch, new: impl Fn() -> Result<OpenPack>) -> Result<OpenPack> {
        let mut pack = self.with_room(pack, batch.bytes.len() as u64, new)?;
        let start = u32::try_from(pack.size).expect("it has room");
        self.count(&batch);
        let Batch { bytes, blobs } = batch;
        pack.push(bytes);
        pack.blobs.extend(blobs.iter().map(|&(blob, _)| PackedBlob { offset: start + blob.offset, ..blob }));
        Ok(pack)
    }

    /// A pack, or a new one in its place, that takes `length` more bytes: offsets are 32 bits wide.
    fn with_room(&self, pack: OpenPack, length: u64, new: impl Fn() -> Result<OpenPack>) -> Result<OpenPack> {
        let mut pack = pack;
        while pack.size + length > u64::from(u32::MAX) {
            self.close(pack)?;
            pack = new()?;
        }
        Ok(pack)
    }

    fn count(&self, batch: &Batch) {
        for (blob, plain_length) in &batch.blobs {
            self.count_blob(blob, *plain_length as u64);
        }
    }

    fn count_blob(&self, blob: &PackedBlob, plain_length: u64) {
        let blobs = match blob.ty {
            BlobType::Data => &self.written.data_blobs,
            BlobType::Tree => &self.written.tree_blobs,
        };
        blobs.fetch_add(1, Ordering::Relaxed);
        self.written.plain_bytes.fetch_add(plain_length, Ordering::Relaxed);
        let entry = pack::header_size([blob]) - pack::header_size([]);
        self.written.packed_bytes.fetch_add(u64::from(blob.length) + entry, Ordering::Relaxed);
    }

    /// Adds the header, unless it is there. A pack that cannot get one is dropped.
    fn complete(&self, mut pack: OpenPack) -> Result<OpenPack> {
        if pack.complete {
            return Ok(pack);
        }
        let mut end = Vec::new();
        let header = pack::encode_header(&pack.blobs);
        self.repo().key.seal(&clock::random_bytes(), &header, &mut end);
        if self.repo().settings().extra_verify {
            let mut opened = Vec::new();
            let same = self.repo().key.open(&end, &mut opened).is_ok()
                && pack::decode_header(&opened).is_ok_and(|blobs| blobs == pack.blobs);
            if !same {
                return Err(Error::VerifyFailed { what: "the header of a new pack".into() });
            }
        }
        end.extend_from_slice(&u32::try_from(end.len()).expect("at most 16 MiB").to_le_bytes());
        pack.push(end);
        pack.complete = true;
        Ok(pack)
    }

    /// Hands a complete pack to the uploaders.
    fn upload(&self, mut pack: OpenPack) -> Result<()> {
        pack.settle()?;
        let id = Id(pack.hash.finish());
        let OpenPack { upload, blobs, place, .. } = pack;
        let full = FullPack { upload, pack: IndexedPack { id, blobs }, _place: place };
        let sender = self.full.as_ref().expect("taken only when the writer is consumed");
        sender.send(full).map_err(|_| Error::Stopped)
    }

    fn close(&self, pack: OpenPack) -> Result<()> {
        self.upload(self.complete(pack)?)
    }

    /// Makes all that was stored durable and indexed. Also the right end of an interrupted run.
    pub fn finish(mut self) -> Result<Written> {
        self.shared.finishing.store(true, Ordering::Relaxed);
        let mut outcome = Ok(());
        let trees = lock(&self.trees).take();
        for pack in self.data.take_all().into_iter().chain(trees) {
            outcome = outcome.and(self.close(pack));
        }
        self.join();
        let saved = self.shared.save_index(|unsaved| unsaved.blobs > 0);
        if let Err(error) = &saved
            && !error.is_given_up()
        {
            // The run has failed; its packs are there, and the next run is to find them.
            let _ = self.shared.save_index(|unsaved| unsaved.blobs > 0);
        }
        if let Some(failure) = lock(&self.shared.failure).take() {
            return Err(failure);
        }
        outcome.and(saved)?;
        let indexes = std::mem::take(&mut *lock(&self.shared.saved));
        Ok(Written { indexes, ..std::mem::take(&mut self.written) })
    }

    fn join(&mut self) {
        self.full = None;
        for uploader in self.uploaders.drain(..) {
            // A panic there has been printed; the packs it held are missing from the index, and the failure below says so.
            if uploader.join().is_err() {
                self.shared.fail(Error::Panicked);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn upload(&self, full: FullPack) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        // Its place is free when it is durable, or lost.
        let FullPack { upload, pack, _place } = full;
        let outcome = upload.commit(pack.id).map_err(Error::from).and_then(|()| {
            let mut unsaved = lock(&self.unsaved);
            unsaved.blobs += pack.blobs.len();
            unsaved.packs.push(pack);
            drop(unsaved);
            let old = Duration::from_secs(limits::INDEX_AGE_SECONDS);
            let now = self.repo.settings().clock.moment();
            let is_due = |unsaved: &Unsaved| unsaved.blobs >= limits::INDEX_BLOBS || now.since(unsaved.since) >= old;
            self.save_index(|unsaved| !self.finishing.load(Ordering::Relaxed) && is_due(unsaved))
        });
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    fn fail(&self, error: Error) {
        self.failed.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }

    /// Saves an index file of all unsaved packs if `due`. If that fails, the next one has them.
    fn save_index(&self, due: impl Fn(&Unsaved) -> bool) -> Result<()> {
        let taken = {
            let mut unsaved = lock(&self.unsaved);
            if !due(&unsaved) {
                return Ok(());
            }
            let since = self.repo.settings().clock.moment();
            std::mem::replace(&mut *unsaved, Unsaved { packs: Vec::new(), blobs: 0, since })
        };
        match self.repo.save_written(FileType::Index, |out| index_file::encode(&taken.packs, out)) {
            Ok(id) => {
                lock(&self.saved).push(id);
                Ok(())
            }
            Err(error) => {
                lock(&self.unsaved).put_back(taken);
                Err(error)
            }
        }
    }
}

fn is_full(pack: &OpenPack, size: u64) -> bool {
    pack.size >= size || pack.blobs.len() >= limits::INDEX_BLOBS
}

#[cfg(test)]
mod tests;
