//! Packs that are being filled. A thread takes a pack while it hashes and writes, or adds to it,
//! and puts it down again. A pack that cannot be written may be incomplete: it is dropped, and the
//! error ends the run.

use super::batch::Batch;
use crate::aside::Aside;
use crate::clock;
use crate::format::BlobType;
use crate::format::index_file::IndexedPack;
use crate::format::pack::{self, PackedBlob};
use crate::hash::Sha256;
use crate::id::Id;
use crate::repo::error::{Error, Result};
use crate::repo::repository::Repository;
use crate::repo::trees::large::PIECE;
use crate::store::{FileType, Upload};
use crate::sync::{lock, wait};
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

/// A pack being filled.
pub(super) struct OpenPack {
    pub upload: Box<dyn Upload>,
    /// The hash of all bytes in `upload`.
    pub hash: Sha256,
    /// The latest bytes, which are in neither yet. Two hashes at a time cost little more than one,
    /// so these bytes wait until the next plaintext is hashed.
    pub waiting: Vec<Vec<u8>>,
    pub blobs: Vec<PackedBlob>,
    pub size: u64,
    /// Whether it has its header.
    pub complete: bool,
    pub place: Place,
}

impl OpenPack {
    /// Starts the upload of a pack. A store that caches files caches a pack of trees.
    pub fn new(repo: &Repository, ty: BlobType, place: Place) -> Result<OpenPack> {
        let store = repo.store();
        let upload = match ty {
            BlobType::Data => store.upload(FileType::Pack),
            BlobType::Tree => store.upload_kept(FileType::Pack),
        }?;
        let (hash, waiting, blobs) = (Sha256::new(), Vec::new(), Vec::new());
        Ok(OpenPack { upload, hash, waiting, blobs, size: 0, complete: false, place })
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.size += bytes.len() as u64;
        self.waiting.push(bytes);
    }

    /// Whether `length` more bytes fit: offsets are 32 bits wide.
    pub fn has_room(&self, length: u64) -> bool {
        self.size + length <= u64::from(u32::MAX)
    }

    /// The offset of the next blob.
    fn offset(&self) -> u32 {
        u32::try_from(self.size).expect("it has room")
    }

    /// Adds sealed blobs for which it has room.
    pub fn add(&mut self, Batch { bytes, blobs }: Batch) {
        let start = self.offset();
        self.push(bytes);
        self.blobs.extend(blobs.iter().map(|&(blob, _)| PackedBlob { offset: start + blob.offset, ..blob }));
    }

    /// Adds a sealed blob that was spilled to disk, and for which it has room.
    pub fn add_spilled(&mut self, blob: PackedBlob, sealed: Aside) -> Result<()> {
        let offset = self.offset();
        self.push_spilled(sealed)?;
        self.blobs.push(PackedBlob { offset, ..blob });
        Ok(())
    }

    /// Hashes and writes a blob that was spilled to disk, after all waiting bytes.
    fn push_spilled(&mut self, aside: Aside) -> Result<()> {
        self.settle()?;
        let mut piece = vec![0; PIECE];
        let mut reader = aside.reader();
        loop {
            match reader.read(&mut piece).map_err(|error| Error::aside_lost("a tree", error))? {
                0 => break,
                got => self.hash.update(&piece[..got]),
            }
        }
        self.size += aside.len();
        self.upload.write_aside(&Arc::new(aside))?;
        Ok(())
    }

    /// Hashes and writes the waiting bytes.
    pub fn settle(&mut self) -> Result<()> {
        for bytes in self.waiting.drain(..) {
            self.hash.update(&bytes);
            self.upload.write(&bytes)?;
        }
        Ok(())
    }

    /// Adds the header, unless the pack has it. On an error the pack is dropped.
    pub fn complete(mut self, repo: &Repository) -> Result<OpenPack> {
        if self.complete {
            return Ok(self);
        }
        let mut end = Vec::new();
        let header = pack::encode_header(&self.blobs);
        repo.key.seal(&clock::random_bytes(), &header, &mut end);
        if repo.settings().extra_verify {
            let mut opened = Vec::new();
            let same = repo.key.open(&end, &mut opened).is_ok()
                && pack::decode_header(&opened).is_ok_and(|blobs| blobs == self.blobs);
            if !same {
                return Err(Error::VerifyFailed { what: "the header of a new pack".into() });
            }
        }
        end.extend_from_slice(&u32::try_from(end.len()).expect("at most 16 MiB").to_le_bytes());
        self.push(end);
        self.complete = true;
        Ok(self)
    }

    /// The complete pack, hashed and written as a whole.
    pub fn into_full(mut self) -> Result<FullPack> {
        self.settle()?;
        let id = Id(self.hash.finish());
        let OpenPack { upload, blobs, place, .. } = self;
        Ok(FullPack { upload, pack: IndexedPack { id, blobs }, _place: place })
    }
}

/// A pack with its header, ready to be made durable.
pub(super) struct FullPack {
    pub upload: Box<dyn Upload>,
    pub pack: IndexedPack,
    pub _place: Place,
}

/// The idle packs, which no thread has taken, and the number of further packs that may be opened.
pub(super) struct OpenPacks {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    idle: Vec<OpenPack>,
    free: usize,
}

/// A slot for a pack; dropping it frees the slot.
pub(super) struct Place(Weak<OpenPacks>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(packs) = self.0.upgrade() {
            packs.lock().free += 1;
            packs.changed.notify_one();
        }
    }
}

impl OpenPacks {
    /// Slots for `count` packs.
    pub fn new(count: usize) -> Arc<OpenPacks> {
        let state = State { idle: Vec::new(), free: count };
        Arc::new(OpenPacks { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The idle pack with the most waiting parts.
    pub fn take_to_hash(&self) -> Option<OpenPack> {
        let idle = &mut self.lock().idle;
        let most = (0..idle.len()).max_by_key(|&at| idle[at].waiting.len())?;
        Some(idle.swap_remove(most))
    }

    /// The idle pack with the fewest waiting parts, or a slot for a new pack. Waits while no pack
    /// is idle and no slot is free.
    pub fn take_to_fill(self: &Arc<Self>) -> std::result::Result<OpenPack, Place> {
        let mut state = self.lock();
        loop {
            if let Some(least) = (0..state.idle.len()).min_by_key(|&at| state.idle[at].waiting.len()) {
                return Ok(state.idle.swap_remove(least));
            }
            if state.free > 0 {
                state.free -= 1;
                return Err(Place(Arc::downgrade(self)));
            }
            state = wait(&self.changed, state);
        }
    }

    /// A slot for a new pack. Waits until one is free.
    pub fn place(self: &Arc<Self>) -> Place {
        let mut state = self.lock();
        while state.free == 0 {
            state = wait(&self.changed, state);
        }
        state.free -= 1;
        Place(Arc::downgrade(self))
    }

    pub fn put_down(&self, pack: OpenPack) {
        self.lock().idle.push(pack);
        self.changed.notify_one();
    }

    /// All idle packs.
    pub fn take_all(&self) -> Vec<OpenPack> {
        std::mem::take(&mut self.lock().idle)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::Settings;
    use crate::repo::tests::new_repository;

    #[test]
    fn without_a_free_slot_a_thread_waits_for_an_idle_pack() {
        let (_dir, repo) = new_repository(Settings::default());
        let packs = OpenPacks::new(1);
        let Err(place) = packs.take_to_fill() else { panic!("there is no pack yet") };
        let pack = OpenPack::new(&repo, BlobType::Data, place).unwrap();
        assert!(packs.take_to_hash().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| packs.take_to_fill().is_ok());
            packs.put_down(pack);
            assert!(waiting.join().unwrap(), "it gets the pack that was put down");
        });
        // That thread has dropped the pack, so its slot is free again.
        assert!(packs.take_to_fill().is_err());
    }

    #[test]
    fn the_pack_with_the_most_waiting_parts_is_hashed_first_and_filled_last() {
        let (_dir, repo) = new_repository(Settings::default());
        let packs = OpenPacks::new(2);
        let open = [3, 1].map(|parts| {
            let Err(place) = packs.take_to_fill() else { panic!("none is idle") };
            let mut pack = OpenPack::new(&repo, BlobType::Data, place).unwrap();
            (0..parts).for_each(|_| pack.push(vec![0; 10]));
            pack
        });
        open.into_iter().for_each(|pack| packs.put_down(pack));
        let most = packs.take_to_hash().unwrap();
        assert_eq!(most.waiting.len(), 3);
        packs.put_down(most);
        assert_eq!(packs.take_to_fill().ok().unwrap().waiting.len(), 1);
    }
}
