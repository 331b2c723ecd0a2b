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
use crate::room::{Held, Room};
use crate::store::{File, FileType};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

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

    fn load_copy(&self, location: &Location) -> Result<Vec<u8>> {
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

/// Refuses what no pack can hold where the index says that it is: a sealed blob is no shorter than
/// its envelope. Pack headers are held to the same when they are decoded.
fn check_location(location: &Location) -> Result<()> {
    let length = location.blob.length as usize;
    if length < OVERHEAD {
        return Err(damaged(
            location,
            format!("the index gives it {length} bytes, and its envelope alone has {OVERHEAD}"),
        ));
    }
    check_size(&location.blob)
}

/// Reads trees. Neighbouring trees are asked for together and kept for a while, so a walk costs an object store one request per pack, or
/// per window where all packs of trees are more than can be kept, instead of one per directory.
pub struct TreeReader<'r> {
    repo: &'r Repository,
    index: &'r Index,
    packs: HashMap<Id, TreePack>,
    /// Bytes asked for at a time.
    window: u64,
    kept: Mutex<Kept>,
}

const WINDOW: u64 = 1 << 20;

/// What the index says of the trees in a pack.
#[derive(Clone, Copy, Default)]
struct TreePack {
    trees: u64,
    /// Where the last tree ends; beyond it nothing may be read.
    end: u64,
    /// Bytes of the file, if it holds nothing else.
    size: u64,
}

impl TreePack {
    fn add(&mut self, blob: &PackedBlob) {
        self.trees += u64::from(blob.length);
        self.end = self.end.max(blob.end());
        self.size += u64::from(blob.length) + pack::header_size([blob]) - pack::header_size([]);
    }

    /// Whether the pack may hold nothing but trees: a few kilobytes of data behind them would go unnoticed, and make it another file
    /// than the one of [`TreePack::size`].
    fn is_of_trees(&self) -> bool {
        self.trees == self.end
    }
}

/// Windows of packs, those not used for the longest time dropped first.
#[derive(Default)]
struct Kept {
    windows: HashMap<(Id, u64), Window>,
    bytes: u64,
    uses: u64,
}

struct Window {
    length: u64,
    used: u64,
    /// Empty until it has been read. Who reads it holds the lock, so that nobody reads it twice.
    content: Arc<Mutex<Option<Bytes>>>,
}

impl Kept {
    /// A window of `length` bytes, the latest in use now.
    fn window(&mut self, key: (Id, u64), length: u64) -> Arc<Mutex<Option<Bytes>>> {
        self.uses += 1;
        let window = self.windows.entry(key).or_insert_with(|| {
            self.bytes += length;
            Window { length, used: 0, content: Arc::default() }
        });
        window.used = self.uses;
        let content = window.content.clone();
        while self.bytes > TreeReader::KEPT && self.windows.len() > 1 {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.used).map(|(&key, _)| key);
            let dropped = oldest.and_then(|key| self.windows.remove(&key)).expect("there are several");
            self.bytes -= dropped.length;
        }
        content
    }
}

impl<'r> TreeReader<'r> {
    /// Bytes that one keeps at most: sealed trees of about a third of a million entries.
    pub const KEPT: u64 = 16 << 20;

    pub fn new(repo: &'r Repository, index: &'r Index) -> TreeReader<'r> {
        let mut packs: HashMap<Id, TreePack> = HashMap::new();
        for Location { pack, blob } in index.iter().filter(|location| location.blob.ty == BlobType::Tree) {
            packs.entry(pack).or_default().add(&blob);
        }
        let all: u64 = packs.values().map(|pack| pack.end).sum();
        let window = if all <= TreeReader::KEPT { TreeReader::KEPT } else { WINDOW };
        TreeReader { repo, index, packs, window, kept: Mutex::default() }
    }

    /// The plaintext of a tree.
    pub fn load(&self, id: Id) -> Result<Vec<u8>> {
        for location in self.index.find(BlobType::Tree, id) {
            if let Ok(plaintext) = self.load_copy(&location) {
                return Ok(plaintext);
            }
        }
        // What was kept may have been damaged on its way here.
        self.repo.load_blob(self.index, BlobType::Tree, id)
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
        check_location(location)?;
        let Some(pack) = self.packs.get(&location.pack) else { return self.repo.load_copy(location) };
        let (start, length) = (u64::from(location.blob.offset), u64::from(location.blob.length));
        let mut sealed = Vec::with_capacity(location.blob.length as usize);
        let last = (start + length).saturating_sub(1);
        for number in start / self.window..=last / self.window {
            let window = self.window(location.pack, pack, number)?;
            let base = number * self.window;
            let from = start.max(base) - base;
            let to = (start + length - base).min(window.len() as u64);
            sealed.extend_from_slice(&window[from as usize..to as usize]);
        }
        let mut plaintext = Vec::new();
        self.repo.open_blob(location, &sealed, &mut plaintext)?;
        Ok(plaintext)
    }

    fn window(&self, id: Id, pack: &TreePack, number: u64) -> Result<Bytes> {
        let start = number * self.window;
        let length = self.window.min(pack.end - start);
        let content = lock(&self.kept).window((id, number), length);
        let mut content = lock(&content);
        if let Some(bytes) = &*content {
            return Ok(bytes.clone());
        }
        let file = File::new(FileType::Pack, id);
        if pack.is_of_trees() {
            self.repo.store().keep(file, pack.size + pack::header_size([]));
        }
        let bytes = self.repo.store().read_at(file, start, usize::try_from(length).expect("at most what is kept"))?;
        *content = Some(bytes.clone());
        Ok(bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Version;
    use crate::repo::writer::Writer;
    use crate::repo::{InitOptions, Password, Settings, init};
    use crate::store::folder::Folder;

    #[test]
    fn a_tree_is_the_same_whatever_the_window() {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let store = Arc::new(Folder::new(dir.path().join("repo"), 1));
        let repo = Arc::new(init(store, &Password::new("x"), options, Settings::default()).unwrap());
        let tree = |length: usize| crate::clock::random_bytes::<2000>()[..length].to_vec();
        let trees: Vec<Vec<u8>> = (0..200).map(|number| tree(number * 10)).collect();
        for part in trees.chunks(70) {
            let writer = Writer::new(repo.clone(), Arc::new(Index::default()), false).unwrap();
            for tree in part {
                writer.store_tree(tree).unwrap();
            }
            writer.finish().unwrap();
        }
        let index = Index::load(&repo).unwrap();
        for window in [None, Some(1000), Some(4096), Some(1 << 20)] {
            let mut reader = TreeReader::new(&repo, &index);
            assert_eq!((reader.packs.len(), reader.window), (3, TreeReader::KEPT));
            assert!(reader.packs.values().all(TreePack::is_of_trees));
            reader.window = window.unwrap_or(reader.window);
            for tree in &trees {
                assert_eq!(reader.load(Id::of(tree)).unwrap(), *tree);
            }
        }
        for &id in index.packs() {
            let pack = &TreeReader::new(&repo, &index).packs[&id];
            assert_eq!(repo.store().size(File::new(FileType::Pack, id)).unwrap(), pack.size + pack::header_size([]));
        }
    }

    /// An index that anybody with the key may write: lengths and offsets at their bounds are
    /// refused as damage, whatever the window.
    #[test]
    fn a_forged_place_of_a_blob_is_damage() {
        let (_dir, repo) = crate::repo::tests::new_repository(Settings::default());
        let repo = Arc::new(repo);
        let writer = Writer::new(repo.clone(), Arc::new(Index::default()), false).unwrap();
        let real = writer.store_tree(b"{\"nodes\":[]}\n").unwrap();
        writer.finish().unwrap();
        let pack = Index::load(&repo).unwrap().first(BlobType::Tree, real).unwrap().pack;
        let (short, most) = (u32::try_from(OVERHEAD).unwrap() - 1, u32::MAX);
        let mut blobs = Vec::new();
        for ty in [BlobType::Tree, BlobType::Data] {
            for (offset, length) in
                [(0, 0), (0, 1), (0, short), (1 << 24, 0), (most, 0), (most, 40), (0, most), (most, most)]
            {
                for uncompressed in [0, 1, most] {
                    let id = Id::of(format!("{ty} {offset} {length} {uncompressed}").as_bytes());
                    blobs.push(PackedBlob { ty, id, offset, length, uncompressed });
                }
            }
        }
        // Each in a pack of its own, in the one that exists beside a real blob, and all of them in
        // one.
        let alone = |blob: &PackedBlob| crate::format::index_file::IndexedPack { id: blob.id, blobs: vec![*blob] };
        let alone: Vec<_> = blobs.iter().map(alone).collect();
        let together = vec![crate::format::index_file::IndexedPack { id: pack, blobs: blobs.clone() }];
        for forged in [alone, together] {
            let mut json = Vec::new();
            crate::format::index_file::encode(&forged, &mut json).unwrap();
            let file = repo.save_file(FileType::Index, json).unwrap();
            let index = Index::load(&repo).unwrap();
            for window in [None, Some(1), Some(1000), Some(1 << 20)] {
                // A window of a byte makes billions of requests for what claims to be large.
                let is_tried = |blob: &&PackedBlob| window.is_none_or(|window| u64::from(blob.length) < window * 1000);
                let mut reader = TreeReader::new(&repo, &index);
                reader.window = window.unwrap_or(reader.window);
                for blob in blobs.iter().filter(is_tried) {
                    let error = reader.load(blob.id).unwrap_err();
                    assert!(error.spares_others(), "{blob:?}: {error}");
                    let error = repo.load_blob(&index, blob.ty, blob.id).unwrap_err();
                    assert!(error.spares_others(), "{blob:?}: {error}");
                }
                assert_eq!(reader.load(real).unwrap(), b"{\"nodes\":[]}\n");
            }
            repo.store().remove(File::new(FileType::Index, file)).unwrap();
        }
    }

    #[test]
    fn what_was_used_last_is_kept() {
        let mut kept = Kept::default();
        let mut read = |number: u64| {
            let content = kept.window((Id::NULL, number), TreeReader::KEPT / 4);
            lock(&content).replace(Bytes::new()).is_some()
        };
        let asked = [0, 1, 2, 3, 0, 4, 0, 2, 3, 1, 4];
        let there = asked.map(&mut read);
        assert_eq!(there, [false, false, false, false, true, false, true, true, true, false, false]);
        // One that is larger than all that may be kept is kept alone.
        kept.window((Id::NULL, 9), 2 * TreeReader::KEPT);
        assert_eq!((kept.windows.len(), kept.bytes), (1, 2 * TreeReader::KEPT));
    }
}
