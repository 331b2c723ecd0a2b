//! Blobs out of packs: decrypted, decompressed, and compared with their id before anybody sees them.

use super::index::Location;
use super::{Error, Index, Repository, Result};
use crate::crypto::OVERHEAD;
use crate::format::compression::decompress;
use crate::format::pack::{self, PackedBlob};
use crate::format::{BlobType, FormatError};
use crate::hash::{Stream, hash_all};
use crate::id::Id;
use crate::limits;
use crate::memory;
use crate::room::{Held, Room};
use crate::store::{File, FileType};
use std::cell::RefCell;
use std::ops::Range;

impl Repository {
    /// Opens a sealed blob into `out`, which is cleared first. What `out` then holds has the blob's hash.
    pub fn open_blob(&self, location: &Location, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let opened = self.open_blobs(&[(*location, sealed)], None, out).pop().expect("one for each");
        if opened.is_err() {
            out.clear();
        }
        opened.map(|_| ())
    }

    /// Opens sealed blobs behind each other into `out`, which is cleared first: where each of them is there, with the blob's hash. They
    /// are hashed together, and another stream `beside` them, because that is faster.
    pub fn open_blobs(
        &self,
        blobs: &[(Location, &[u8])],
        beside: Option<Stream<'_>>,
        out: &mut Vec<u8>,
    ) -> Vec<Result<Range<usize>>> {
        out.clear();
        // All at once: to grow step by step takes more, and moves what is there.
        let lengths = blobs.iter().map(|(location, _)| location.blob.plain_length());
        out.reserve_exact(usize::try_from(lengths.sum::<u64>().min(limits::RESERVED)).expect("bounded"));
        let opened: Vec<_> = blobs.iter().map(|(location, sealed)| self.unseal_blob(location, sealed, out)).collect();
        let plaintexts: Vec<&[u8]> =
            opened.iter().map(|opened| opened.as_ref().map_or(&[][..], |range| &out[range.clone()])).collect();
        let hashes = hash_all(&plaintexts, beside);
        let compare = |hash, location: &Location, range| match Id(hash) {
            actual if actual == location.blob.id => Ok(range),
            actual => Err(damaged(location, format!("its content hashes to {actual}"))),
        };
        let hashed = opened.into_iter().zip(hashes).zip(blobs);
        hashed.map(|((opened, hash), (location, _))| opened.and_then(|range| compare(hash, location, range))).collect()
    }

    /// Decrypts and expands a blob to the end of `out`. Its hash is still to be compared.
    fn unseal_blob(&self, location: &Location, sealed: &[u8], out: &mut Vec<u8>) -> Result<Range<usize>> {
        thread_local! {
            static COMPRESSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        check_size(&location.blob)?;
        let PackedBlob { ty, uncompressed, .. } = location.blob;
        let start = out.len();
        if uncompressed == 0 {
            self.key.open(sealed, out).map_err(|error| damaged(location, error.to_string()))?;
        } else {
            COMPRESSED.with_borrow_mut(|compressed| {
                compressed.clear();
                self.key.open(sealed, compressed).map_err(|error| damaged(location, error.to_string()))?;
                decompress(compressed, Some(u64::from(uncompressed)), max_size(ty), out)
                    .map_err(|error| damaged(location, error.why))
            })?;
        }
        Ok(start..out.len())
    }

    /// The blobs that the sealed header of a pack lists.
    pub fn open_pack_header(&self, id: Id, sealed: &[u8]) -> Result<Vec<PackedBlob>> {
        let file = File::new(FileType::Pack, id);
        let mut header = Vec::new();
        self.key.open(sealed, &mut header).map_err(|_| Error::Unauthentic { file })?;
        pack::decode_header(&header).map_err(|source| Error::Damaged { file, source })
    }

    /// The blobs that a pack of `size` bytes lists at its end. One request, unless there are more than some hundreds.
    pub fn load_pack_header(&self, id: Id, size: u64) -> Result<Vec<PackedBlob>> {
        /// Bytes that are asked for first.
        const TAIL: u64 = 32 << 10;
        let file = File::new(FileType::Pack, id);
        let damaged = |source| Error::Damaged { file, source };
        let start = size.saturating_sub(TAIL);
        let tail = self.store().read_at(file, start, usize::try_from(size - start).expect("at most a tail"))?;
        let Some((before, field)) = tail.split_last_chunk() else {
            return Err(damaged(FormatError::new("a pack's header", "the file ends before it")));
        };
        let length = pack::header_length(*field, size).map_err(damaged)?;
        if let Some(start) = before.len().checked_sub(length) {
            return self.open_pack_header(id, &before[start..]);
        }
        let start = size - (length + pack::LENGTH_FIELD) as u64;
        self.open_pack_header(id, &self.store().read_at(file, start, length)?)
    }

    /// A whole blob, from the first of its copies that can be read.
    pub fn load_blob(&self, index: &Index, ty: BlobType, id: Id) -> Result<Vec<u8>> {
        let mut failure = Error::BlobMissing { ty, id };
        for location in index.find(ty, id) {
            match self.load_copy(&location) {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => failure = failure.or_hope(error),
            }
        }
        Err(failure)
    }

    pub(super) fn load_copy(&self, location: &Location) -> Result<Vec<u8>> {
        check_location(location)?;
        let file = File::new(FileType::Pack, location.pack);
        let sealed = self.store().read_at(file, u64::from(location.blob.offset), location.blob.length as usize)?;
        let mut plaintext = Vec::new();
        self.open_blob(location, &sealed, &mut plaintext)?;
        Ok(plaintext)
    }
}

/// How many of some blobs of a pack, front to back, to read and open together: at least one, and no
/// more than make a portion of this many bytes.
pub(crate) fn together(blobs: impl Iterator<Item = PackedBlob>, portion: u64) -> usize {
    let (mut start, mut plain) = (None, 0);
    let fits = |blob: &PackedBlob| {
        plain += blob.plain_length();
        let sealed = blob.end() - *start.get_or_insert(u64::from(blob.offset));
        plain.max(sealed) <= portion
    };
    blobs.take(limits::OPENED_BLOBS).take_while(fits).count().max(1)
}

/// Whether one blob follows the other so closely that they are read with one request. One too large for memory is alone, and refused
/// before it is read.
pub(crate) fn adjoin(one: &PackedBlob, other: &PackedBlob) -> bool {
    let sound = [one, other].iter().all(|blob| check_size(blob).is_ok());
    sound && (one.end()..=one.end() + limits::RESTORE_GAP).contains(&u64::from(other.offset))
}

/// As many threads as may read packs beside an index.
pub(crate) fn reading_pool(repo: &Repository, index: &Index) -> Result<rayon::ThreadPool> {
    let Reading { threads, .. } = Reading::beside(repo, index)?;
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started"))
}

/// How packs are read side by side: by how many threads, and what they may hold.
pub(crate) struct Reading {
    /// Each has one request under way: more than there are cores hide the latency of an object store.
    pub threads: usize,
    /// Bytes of a pack, and of plaintext, that a thread has in its hands, unless one blob has more.
    pub portion: u64,
    /// Bytes that all threads together may hold beside their portions.
    beside: Room,
}

impl Reading {
    /// With `left` bytes for all threads.
    pub fn within(repo: &Repository, left: u64) -> Reading {
        let most = repo.settings().budget.threads.max(repo.store().downloads());
        let (threads, portion) = memory::reading(left, most);
        let beside = Room::new(left.saturating_sub(threads as u64 * 2 * portion));
        Reading { threads, portion, beside }
    }

    /// With what an index leaves of the budget.
    pub fn beside(repo: &Repository, index: &Index) -> Result<Reading> {
        Ok(Reading::within(repo, repo.settings().budget.left(index.memory(), 0)?))
    }

    /// Waits until there is room for what some blobs take beside a portion while they are opened, of
    /// which `sealed` bytes are read. It ends when that is dropped.
    pub fn room(&self, sealed: u64, blobs: impl Iterator<Item = PackedBlob>) -> Held<'_> {
        let (mut plain, mut largest) = (0, 0);
        for blob in blobs {
            plain += blob.plain_length();
            // One of them lies between the two, decrypted and not yet expanded.
            largest = largest.max(u64::from(blob.length));
        }
        let more = sealed.saturating_sub(self.portion) + plain.saturating_sub(self.portion);
        self.beside.take(more + largest)
    }
}

/// What a thread reads packs with, again and again.
pub(crate) struct ReadBuffers {
    pub sealed: Vec<u8>,
    pub plaintexts: Vec<u8>,
    portion: usize,
}

impl ReadBuffers {
    /// Of full size at once: buffers that grow step by step leave holes of all sizes behind.
    pub fn new(reading: &Reading) -> ReadBuffers {
        let portion = usize::try_from(reading.portion).expect("a few MiB");
        ReadBuffers { sealed: Vec::with_capacity(portion), plaintexts: Vec::with_capacity(portion), portion }
    }

    /// Gives back what only a blob of unusual size has needed; before the [`Reading::room`] for it.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.sealed, &mut self.plaintexts] {
            buffer.truncate(self.portion);
            buffer.shrink_to(self.portion);
        }
    }
}

/// The first `length` bytes of a buffer that is used again and again, and grows when it must.
pub(crate) fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.reserve_exact(length - buffer.len());
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

pub(super) fn damaged(location: &Location, why: String) -> Error {
    let PackedBlob { ty, id, .. } = location.blob;
    Error::BlobDamaged { ty, id, pack: File::new(FileType::Pack, location.pack), why }
}

fn max_size(ty: BlobType) -> u64 {
    match ty {
        BlobType::Data => limits::DATA_BLOB,
        BlobType::Tree => limits::TREE_BLOB,
    }
}

/// Refuses a blob whose sealed or plain form is larger than we hold in memory, before anything is allocated for it.
pub(crate) fn check_size(blob: &PackedBlob) -> Result<()> {
    let PackedBlob { ty, id, length, .. } = *blob;
    let max = max_size(ty);
    let size = blob.plain_length().max(u64::from(length));
    if size > max + OVERHEAD as u64 {
        return Err(Error::BlobTooLarge { ty, id, size, max });
    }
    Ok(())
}

/// Refuses what no pack can hold where the index says that it is: a sealed blob is no shorter than
/// its envelope. Pack headers are held to the same when they are decoded.
pub(super) fn check_location(location: &Location) -> Result<()> {
    check_envelope(location)?;
    check_size(&location.blob)
}

/// The same of a blob that is never held as a whole.
pub(super) fn check_envelope(location: &Location) -> Result<()> {
    let length = location.blob.length as usize;
    if length < OVERHEAD {
        return Err(damaged(
            location,
            format!("the index gives it {length} bytes, and its envelope alone has {OVERHEAD}"),
        ));
    }
    Ok(())
}
