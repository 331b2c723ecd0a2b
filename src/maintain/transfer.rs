//! Blobs out of the packs of a repository and into new packs, of the same repository or of another one.
//!
//! A pack is read front to back, with one request for what lies close together. Nothing is believed: each blob is opened and compared
//! with its id on the way. One that cannot be read there is taken from another copy; what becomes
//! of it if there is none, the caller says.

use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::index::Location;
use crate::repo::writer::{Known, Writer};
use crate::repo::{
    Error, Index, ReadBuffers, Reading, Repository, Result, adjoin, check_size, is_large, room, together,
};
use crate::store::{File, FileType};
use crate::sync::{into_inner, lock};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blobs of a pack that are listed at a time, 48 bytes each; few packs have more.
const LISTED: usize = 16_384;

/// From where, and how.
pub struct Transfer<'t> {
    pub from: &'t Repository,
    pub index: &'t Index,
    pub writer: &'t Writer,
    /// Sealed forms stay as they are, which goes only within a repository: of which blobs.
    pub stays_sealed: &'t (dyn Fn(&PackedBlob) -> bool + Sync),
    /// Judges a blob of which no copy can be read; the error that comes back ends it all.
    pub unreadable: &'t (dyn Fn(BlobType, Id, Error) -> Result<()> + Sync),
    pub progress: &'t Progress,
}

impl Transfer<'_> {
    /// Transfers blobs of some packs: `wanted` says which, front to back. Several packs at a time, with
    /// `held` bytes of memory in use for other things than the index.
    pub fn packs<B: Iterator<Item = PackedBlob>>(
        &self,
        packs: &[Id],
        wanted: impl Fn(Id) -> B + Sync,
        held: u64,
    ) -> Result<()> {
        let left = self.from.settings().budget.left(self.index.memory(), self.writer.kept() + held)?;
        let reading = Reading::within(self.from, left);
        let threads = reading.threads.min(packs.len());
        let (next, stopped, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        let work = || {
            let mut buffers = ReadBuffers::new(&reading);
            while let Some(&pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = self.pack(pack, wanted(pack), &reading, &mut buffers);
                if let Err(error) = outcome {
                    stopped.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
                self.progress.files_done.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        into_inner(failure).map_or(Ok(()), Err)
    }

    fn pack(
        &self,
        pack: Id,
        mut wanted: impl Iterator<Item = PackedBlob>,
        reading: &Reading,
        buffers: &mut ReadBuffers,
    ) -> Result<()> {
        let mut blobs = Vec::with_capacity(wanted.size_hint().1.map_or(0, |most| most.min(LISTED)));
        loop {
            blobs.clear();
            blobs.extend(wanted.by_ref().take(LISTED));
            if blobs.is_empty() {
                return Ok(());
            }
            let large: Vec<PackedBlob> = blobs.extract_if(.., |blob| is_large(blob)).collect();
            blobs.chunk_by(adjoin).try_for_each(|stretch| self.stretch(pack, stretch, reading, buffers))?;
            large.iter().try_for_each(|blob| self.large_tree(blob))?;
        }
    }

    /// A tree that is not to be held in memory, from any copy.
    fn large_tree(&self, blob: &PackedBlob) -> Result<()> {
        match self.from.load_large_tree(self.index, blob.id) {
            Ok(tree) => {
                let stays_sealed = (self.stays_sealed)(&tree.blob());
                self.writer.store_large_tree(tree, stays_sealed)
            }
            Err(error) => (self.unreadable)(blob.ty, blob.id, error),
        }
    }

    /// Reads a stretch of a pack with one request, the small gaps in it too.
    fn stretch(&self, pack: Id, stretch: &[PackedBlob], reading: &Reading, buffers: &mut ReadBuffers) -> Result<()> {
        let (first, last) = (stretch[0], stretch[stretch.len() - 1]);
        let mut at = u64::from(first.offset);
        let file = File::new(FileType::Pack, pack);
        let mut download =
            check_size(&first).ok().and_then(|()| self.from.store().download(file, at, last.end() - at).ok());
        let mut left = stretch;
        while !left.is_empty() {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let (now, later) = left.split_at(together(left.iter().copied(), reading.portion));
            left = later;
            let end = now[now.len() - 1].end();
            let _held = reading.room(end - at, now.iter().copied());
            let ReadBuffers { sealed, plaintexts, .. } = &mut *buffers;
            let read = download.as_mut().and_then(|download| {
                let bytes = room(sealed, usize::try_from(end - at).expect("a few blobs"));
                download.read(bytes).is_ok().then_some(&*bytes)
            });
            let parts: Vec<(Location, &[u8])> = match read {
                Some(bytes) => now.iter().map(|&blob| (Location { pack, blob }, within(bytes, at, &blob))).collect(),
                None => Vec::new(),
            };
            let opened = self.from.open_blobs(&parts, None, plaintexts);
            let mut known = Vec::with_capacity(now.len());
            let mut again: Vec<&PackedBlob> = if read.is_none() { now.iter().collect() } else { Vec::new() };
            for ((blob, (_, sealed)), opened) in now.iter().zip(&parts).zip(opened) {
                let PackedBlob { ty, id, uncompressed, .. } = *blob;
                match opened {
                    Ok(range) => {
                        let sealed = (self.stays_sealed)(blob).then_some((*sealed, uncompressed));
                        known.push(Known { ty, id, plaintext: &plaintexts[range], sealed });
                    }
                    Err(_) => again.push(blob),
                }
            }
            self.writer.store_known(&known)?;
            again.into_iter().try_for_each(|blob| self.any_copy(blob.ty, blob.id))?;
            if read.is_none() {
                download = None;
            }
            buffers.shrink();
            at = end;
        }
        Ok(())
    }

    /// One blob from wherever it can be had; the first copy once more too, for it may have been damaged on the way here.
    fn any_copy(&self, ty: BlobType, id: Id) -> Result<()> {
        let plaintext = match self.from.load_blob(self.index, ty, id) {
            Ok(plaintext) => plaintext,
            Err(error) => return (self.unreadable)(ty, id, error),
        };
        self.progress.warning(&format!("{ty} blob {id} could only be read the second time, or from another copy"));
        self.writer.store_known(&[Known { ty, id, plaintext: &plaintext, sealed: None }])
    }
}

/// A blob's bytes among those that begin at `at`.
fn within<'b>(bytes: &'b [u8], at: u64, blob: &PackedBlob) -> &'b [u8] {
    let from = usize::try_from(u64::from(blob.offset) - at).expect("it is among them");
    &bytes[from..from + blob.length as usize]
}
