//! Transfers blobs from the packs of a repository to new packs, of the same repository or of
//! another one.
//!
//! A pack is read front to back, and reads of blobs that are close together are coalesced into one
//! request. Each blob is opened and compared with its id. A blob that is damaged in the pack is
//! read from another copy; if no copy can be read, the caller decides what to do.

use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::writer::{Known, SealedForm, Writer};
use crate::repo::{Error, Index, PackReader, Reading, Repository, Result, Stretch, is_large};
use crate::sync::{into_inner, lock};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blobs of a pack that are listed at a time, 48 bytes each; few packs have more.
const LISTED: usize = 16_384;

/// The source, the destination and the rules of a transfer.
pub struct Transfer<'t> {
    pub from: &'t Repository,
    pub index: &'t Index,
    pub writer: &'t Writer,
    /// Decides whether the sealed form of a blob is kept or renewed.
    pub form: &'t (dyn Fn(&PackedBlob) -> SealedForm + Sync),
    /// Decides about a blob of which no copy can be read; an error ends the transfer.
    pub unreadable: &'t (dyn Fn(BlobType, Id, Error) -> Result<()> + Sync),
    pub progress: &'t Progress,
}

impl Transfer<'_> {
    /// Transfers those blobs of some packs that `wanted` returns, front to back. Several packs are
    /// read at a time. `held` bytes of memory are in use besides the index.
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
            let mut reader = PackReader::new(self.from, &reading);
            while let Some(&pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.pack(pack, wanted(pack), &mut reader) {
                    stopped.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
                self.progress.files_done.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        into_inner(failure).map_or(Ok(()), Err)
    }

    fn pack(&self, pack: Id, mut wanted: impl Iterator<Item = PackedBlob>, reader: &mut PackReader<'_>) -> Result<()> {
        let mut blobs = Vec::with_capacity(wanted.size_hint().1.map_or(0, |most| most.min(LISTED)));
        loop {
            blobs.clear();
            blobs.extend(wanted.by_ref().take(LISTED));
            if blobs.is_empty() {
                return Ok(());
            }
            let large: Vec<PackedBlob> = blobs.extract_if(.., |blob| is_large(blob)).collect();
            Stretch::coalesce(pack, &blobs).try_for_each(|stretch| self.stretch(stretch, reader))?;
            large.iter().try_for_each(|blob| self.large_tree(blob))?;
        }
    }

    /// Transfers a tree that is too large for memory, from any copy.
    fn large_tree(&self, blob: &PackedBlob) -> Result<()> {
        match self.from.load_large_tree(self.index, blob.id) {
            Ok(tree) => {
                let form = (self.form)(&tree.blob());
                self.writer.store_large_tree(tree, form)
            }
            Err(error) => (self.unreadable)(blob.ty, blob.id, error),
        }
    }

    /// Reads a stretch of a pack with one request, including the small gaps in it.
    fn stretch(&self, mut stretch: Stretch<'_>, reader: &mut PackReader<'_>) -> Result<()> {
        let mut download = stretch.download(self.from).ok();
        while let Some(mut portion) = reader.next_portion(&mut stretch) {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            // A request that has failed delivers nothing more.
            download = download.and_then(|mut download| download.read(portion.buffer()).ok().map(|()| download));
            let blobs = portion.blobs();
            if download.is_none() {
                blobs.iter().try_for_each(|blob| self.any_copy(blob.ty, blob.id))?;
                continue;
            }
            let (mut known, mut again) = (Vec::with_capacity(blobs.len()), Vec::new());
            for (blob, opened) in portion.open(None) {
                let PackedBlob { ty, id, uncompressed, .. } = blob;
                match opened {
                    Ok(opened) => {
                        let sealed = match (self.form)(&blob) {
                            SealedForm::Keep => Some((opened.sealed, uncompressed)),
                            SealedForm::Renew => None,
                        };
                        known.push(Known { ty, id, plaintext: opened.plaintext, sealed });
                    }
                    Err(_) => again.push((ty, id)),
                }
            }
            self.writer.store_known(&known)?;
            again.into_iter().try_for_each(|(ty, id)| self.any_copy(ty, id))?;
        }
        Ok(())
    }

    /// Transfers one blob from any copy. The first copy is read again, too, because the data may
    /// have been damaged in transit.
    fn any_copy(&self, ty: BlobType, id: Id) -> Result<()> {
        let plaintext = match self.from.load_blob(self.index, ty, id) {
            Ok(plaintext) => plaintext,
            Err(error) => return (self.unreadable)(ty, id, error),
        };
        self.progress.warning(&format!("{ty} blob {id} could only be read the second time, or from another copy"));
        self.writer.store_known(&[Known { ty, id, plaintext: &plaintext, sealed: None }])
    }
}
