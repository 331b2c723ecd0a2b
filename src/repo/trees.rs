//! Trees: whole, or node by node.

mod large;

pub use large::{LargeTree, is_large};

use super::index::Location;
use super::reader::check_location;
use super::{Error, Index, Repository, Result};
use crate::format::BlobType;
use crate::format::content::JsonRef;
use crate::format::node::Node;
use crate::format::pack::{self, PackedBlob};
use crate::format::tree::{Nodes, ReadError};
use crate::id::Id;
use crate::limits;
use crate::store::{File, FileType};
use crate::sync::lock;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Bytes of a large tree that are sealed, opened or compressed at a time: whole blocks of the cipher.
pub(super) const PIECE: usize = 64 << 10;

/// The nodes of a tree, in its order. An error that concerns one of them spares the others, which
/// come next.
pub struct Tree {
    id: Id,
    is_large: bool,
    nodes: Nodes<'static>,
}

impl Tree {
    pub fn id(&self) -> Id {
        self.id
    }

    /// Whether it is read piece by piece, because it is not to be held in memory.
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Whether no other node comes, not even after an error.
    pub fn is_over(&self) -> bool {
        self.nodes.is_over()
    }

    /// The JSON of the node that came last, also of one that cannot be read.
    pub fn raw(&self) -> JsonRef<'_> {
        self.nodes.raw()
    }
}

impl Iterator for Tree {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Result<Node>> {
        let id = self.id;
        let next = self.nodes.next();
        let failed = |error| match error {
            ReadError::Format(source) => Error::Tree { id, source },
            ReadError::Source(source) => Error::aside_lost(format!("tree {id}"), source),
            ReadError::Aside(source) => Error::aside(format!("tree {id}"), self.nodes.aside(), source),
            ReadError::TooLarge { size } => {
                Error::BlobTooLarge { ty: BlobType::Tree, id, size, max: limits::TREE_BLOB }
            }
        };
        next.map(|next| next.map_err(failed))
    }
}

impl Repository {
    /// A tree, to be read node by node, alone: [`TreeReader`] reads many.
    pub fn open_tree(&self, index: &Index, id: Id) -> Result<Tree> {
        open(self, index, id, |location| self.load_copy(location), |_| ())
    }
}

/// Opens the first copy of a tree that can be read: a small one as a whole, and a large one after
/// `prepare` with its pack.
fn open(
    repo: &Repository,
    index: &Index,
    id: Id,
    small: impl Fn(&Location) -> Result<Vec<u8>>,
    prepare: impl Fn(Id),
) -> Result<Tree> {
    let mut failure = Error::BlobMissing { ty: BlobType::Tree, id };
    for location in index.find(BlobType::Tree, id) {
        let is_large = is_large(&location.blob);
        let opened = if is_large {
            prepare(location.pack);
            repo.open_large(&location)
        } else {
            small(&location).map(Nodes::new)
        };
        match opened {
            Ok(nodes) => return Ok(Tree { id, is_large, nodes }),
            Err(error) => failure = failure.or_hope(error),
        }
    }
    Err(failure)
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

    /// A tree, to be read node by node. All of it has been compared with its id by then.
    pub fn open(&self, id: Id) -> Result<Tree> {
        let small = |location: &Location| self.load_copy(location).or_else(|_| self.repo.load_copy(location));
        open(self.repo, self.index, id, small, |pack| {
            if let Some(of_trees) = self.packs.get(&pack) {
                self.keep(pack, of_trees);
            }
        })
    }

    /// The entry at a path below a tree; `None` for the tree itself. Empty components and `.` count for nothing.
    pub fn find(&self, root: Id, path: &[u8]) -> Result<Option<Node>> {
        let missing = || Error::NoSuchPath { path: String::from_utf8_lossy(path).into_owned() };
        let mut tree = Some(root);
        let mut found = None;
        for name in path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            let id = tree.ok_or_else(missing)?;
            let node = self.open(id)?.find(|node| node.as_ref().map_or(true, |node| node.name == name)).transpose()?;
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
        self.keep(id, pack);
        let file = File::new(FileType::Pack, id);
        let bytes = self.repo.store().read_at(file, start, usize::try_from(length).expect("at most what is kept"))?;
        *content = Some(bytes.clone());
        Ok(bytes)
    }

    /// Has a pack that is about to be read again and again be kept, by a store that keeps copies.
    fn keep(&self, id: Id, pack: &TreePack) {
        if pack.is_of_trees() {
            self.repo.store().keep(File::new(FileType::Pack, id), pack.size + pack::header_size([]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::OVERHEAD;
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
