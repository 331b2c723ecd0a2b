//! Blobs out of packs: decrypted, decompressed, and compared with their id before anybody sees them.

use super::index::Location;
use super::{Error, Index, Repository, Result};
use crate::crypto::OVERHEAD;
use crate::format::compression::decompress;
use crate::format::node::Node;
use crate::format::pack::{self, PackedBlob};
use crate::format::tree;
use crate::format::{BlobType, FormatError};
use crate::hash::{Stream, hash_all};
use crate::id::Id;
use crate::limits;
use crate::memory;
use crate::store::{File, FileType};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Mutex;

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

    /// A whole blob, from the first of its copies that can be read.
    pub fn load_blob(&self, index: &Index, ty: BlobType, id: Id) -> Result<Vec<u8>> {
        let mut failure = Error::BlobMissing { ty, id };
        for location in index.find(ty, id) {
            match self.load_copy(&location) {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn load_copy(&self, location: &Location) -> Result<Vec<u8>> {
        check_size(&location.blob)?;
        let file = File::new(FileType::Pack, location.pack);
        let sealed = self.store().read_at(file, u64::from(location.blob.offset), location.blob.length as usize)?;
        let mut plaintext = Vec::new();
        self.open_blob(location, &sealed, &mut plaintext)?;
        Ok(plaintext)
    }
}

/// How many of some blobs of a pack, front to back, to read and open together; at least one.
pub(crate) fn together(blobs: impl Iterator<Item = PackedBlob>) -> usize {
    let (mut start, mut plain) = (None, 0);
    let fits = |blob: &PackedBlob| {
        plain += blob.plain_length();
        let sealed = blob.end() - *start.get_or_insert(u64::from(blob.offset));
        plain.max(sealed) <= limits::OPENED_TOGETHER
    };
    blobs.take(limits::OPENED_BLOBS).take_while(fits).count().max(1)
}

/// How many threads may read packs side by side, with `left` bytes for all of them: more than cores hide the latency of an object store.
pub(crate) fn reading_threads(repo: &Repository, left: u64) -> usize {
    memory::threads(left, limits::READING_THREAD, repo.settings().budget.threads.max(repo.store().connections()))
}

/// As many as there may be beside an index.
pub(crate) fn reading_pool(repo: &Repository, index: &Index) -> Result<rayon::ThreadPool> {
    let threads = reading_threads(repo, repo.settings().budget.left(index.memory(), 0)?);
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started"))
}

/// What a thread reads packs with, again and again.
pub(crate) struct ReadBuffers {
    pub sealed: Vec<u8>,
    pub plaintexts: Vec<u8>,
}

impl ReadBuffers {
    /// Of full size at once: buffers that grow step by step leave holes of all sizes behind.
    pub fn new() -> ReadBuffers {
        let new = || Vec::with_capacity(limits::OPENED_TOGETHER as usize);
        ReadBuffers { sealed: new(), plaintexts: new() }
    }

    /// Gives back what only a blob of unusual size has needed.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.sealed, &mut self.plaintexts] {
            buffer.truncate(limits::OPENED_TOGETHER as usize);
            buffer.shrink_to(limits::OPENED_TOGETHER as usize);
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

fn damaged(location: &Location, why: String) -> Error {
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

/// Reads trees. Packs are read in windows that are kept for a while: neighbouring trees are asked for together, so a walk costs an object store
/// one request per window instead of one per directory.
pub struct TreeReader<'r> {
    repo: &'r Repository,
    index: &'r Index,
    /// Where the last indexed tree of each pack ends; beyond it nothing may be read.
    ends: HashMap<Id, u64>,
    windows: Mutex<Windows>,
}

const WINDOW: u64 = 1 << 20;
/// 12 MiB of sealed trees hold about a quarter of a million entries.
const WINDOWS: usize = 12;

#[derive(Default)]
struct Windows {
    kept: HashMap<(Id, u64), Bytes>,
    /// Oldest first.
    order: VecDeque<(Id, u64)>,
}

impl<'r> TreeReader<'r> {
    /// Bytes that one keeps at most.
    pub const KEPT: u64 = WINDOW * WINDOWS as u64;

    pub fn new(repo: &'r Repository, index: &'r Index) -> TreeReader<'r> {
        let mut ends = HashMap::new();
        for Location { pack, blob } in index.iter().filter(|location| location.blob.ty == BlobType::Tree) {
            let end = ends.entry(pack).or_insert(0);
            *end = u64::max(*end, blob.end());
        }
        TreeReader { repo, index, ends, windows: Mutex::default() }
    }

    /// The plaintext of a tree.
    pub fn load(&self, id: Id) -> Result<Vec<u8>> {
        let mut failure = Error::BlobMissing { ty: BlobType::Tree, id };
        for location in self.index.find(BlobType::Tree, id) {
            match self.load_copy(&location) {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The entry at a path below a tree; `None` for the tree itself. Empty components and `.` count for nothing.
    pub fn find(&self, root: Id, path: &[u8]) -> Result<Option<Node>> {
        let missing = || Error::NoSuchPath { path: String::from_utf8_lossy(path).into_owned() };
        let mut tree = Some(root);
        let mut found = None;
        for name in path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            let id = tree.ok_or_else(missing)?;
            let mut node = None;
            tree::visit::<FormatError>(&self.load(id)?, |entry| {
                if node.is_none() && entry.name == name {
                    node = Some(entry);
                }
                Ok(())
            })
            .map_err(|source| Error::Tree { id, source })?;
            let node = node.ok_or_else(missing)?;
            tree = node.subtree;
            found = Some(node);
        }
        Ok(found)
    }

    /// The tree of the directory at a path below a tree.
    pub fn folder(&self, root: Id, path: &[u8]) -> Result<Id> {
        match self.find(root, path)? {
            None => Ok(root),
            Some(node) => {
                node.subtree.ok_or_else(|| Error::NoSuchPath { path: String::from_utf8_lossy(path).into_owned() })
            }
        }
    }

    fn load_copy(&self, location: &Location) -> Result<Vec<u8>> {
        check_size(&location.blob)?;
        let Some(&end) = self.ends.get(&location.pack) else { return self.repo.load_copy(location) };
        let (start, length) = (u64::from(location.blob.offset), u64::from(location.blob.length));
        let mut sealed = Vec::with_capacity(location.blob.length as usize);
        for number in start / WINDOW..=(start + length - 1) / WINDOW {
            let window = self.window(location.pack, number, end)?;
            let base = number * WINDOW;
            let from = start.max(base) - base;
            let to = (start + length - base).min(window.len() as u64);
            sealed.extend_from_slice(&window[from as usize..to as usize]);
        }
        let mut plaintext = Vec::new();
        self.repo.open_blob(location, &sealed, &mut plaintext)?;
        Ok(plaintext)
    }

    fn window(&self, pack: Id, number: u64, end: u64) -> Result<Bytes> {
        let key = (pack, number);
        if let Some(window) = self.lock().kept.get(&key) {
            return Ok(window.clone());
        }
        let start = number * WINDOW;
        let length = usize::try_from(WINDOW.min(end - start)).expect("at most a window");
        let window = self.repo.store().read_at(File::new(FileType::Pack, pack), start, length)?;
        let mut windows = self.lock();
        if windows.kept.insert(key, window.clone()).is_none() {
            windows.order.push_back(key);
        }
        if windows.order.len() > WINDOWS
            && let Some(oldest) = windows.order.pop_front()
        {
            windows.kept.remove(&oldest);
        }
        Ok(window)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Windows> {
        self.windows.lock().expect("no holder of this lock panics")
    }
}
