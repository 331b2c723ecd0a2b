//! Reads many trees: neighbours are read together and cached.

use super::tree::{Tree, open};
use super::window::{KEPT, Kept};
use crate::format::BlobType;
use crate::format::node::Node;
use crate::format::pack::{self, PackedBlob};
use crate::id::Id;
use crate::repo::blob_bounds::check_location;
use crate::repo::error::{Error, Result};
use crate::repo::index::{Index, Location};
use crate::repo::repository::Repository;
use crate::store::{File, FileType};
use crate::sync::lock;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Mutex;

/// Reads trees. Neighbouring trees are requested together and cached, so that a walk costs an
/// object store one request per pack, or per window where all packs of trees exceed the cache,
/// instead of one per directory.
pub struct TreeReader<'r> {
    repo: &'r Repository,
    index: &'r Index,
    packs: HashMap<Id, TreePack>,
    /// Bytes of a pack that are requested at a time.
    window: u64,
    kept: Mutex<Kept>,
}

/// Bytes of a window where not all packs of trees can be cached.
const WINDOW: u64 = 1 << 20;

/// The trees of a pack according to the index.
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

    /// Whether the pack may hold nothing but trees: a few kilobytes of data behind them would go
    /// unnoticed, and give the file another size than [`TreePack::size`].
    fn is_of_trees(&self) -> bool {
        self.trees == self.end
    }
}

impl<'r> TreeReader<'r> {
    /// Size limit of the cache of a reader, in bytes.
    pub const KEPT: u64 = KEPT;

    pub fn new(repo: &'r Repository, index: &'r Index) -> TreeReader<'r> {
        let mut packs: HashMap<Id, TreePack> = HashMap::new();
        for Location { pack, blob } in index.iter().filter(|location| location.blob.ty == BlobType::Tree) {
            packs.entry(pack).or_default().add(&blob);
        }
        let all: u64 = packs.values().map(|pack| pack.end).sum();
        let window = if all <= KEPT { KEPT } else { WINDOW };
        TreeReader { repo, index, packs, window, kept: Mutex::default() }
    }

    /// The plaintext of a tree.
    pub fn load(&self, id: Id) -> Result<Vec<u8>> {
        for location in self.index.find(BlobType::Tree, id) {
            if let Ok(plaintext) = self.load_copy(&location) {
                return Ok(plaintext);
            }
        }
        // The cached bytes may have been damaged on the network.
        self.repo.load_blob(self.index, BlobType::Tree, id)
    }

    /// Opens a tree to be read node by node. All of it has been compared with its id before.
    pub fn open(&self, id: Id) -> Result<Tree> {
        let small = |location: &Location| self.load_copy(location).or_else(|_| self.repo.load_copy(location));
        open(self.repo, self.index, id, small, |pack| {
            if let Some(of_trees) = self.packs.get(&pack) {
                self.keep(pack, of_trees);
            }
        })
    }

    /// The entry at a path below a tree; `None` for the tree itself. Empty components and `.` are
    /// ignored.
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
        let bytes = self.repo.store().read_at(file, start, usize::try_from(length).expect("fits into the cache"))?;
        *content = Some(bytes.clone());
        Ok(bytes)
    }

    /// Asks a store that caches files to cache a pack that is about to be read again and again.
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
    use crate::repo::writer::{WriteMode, Writer};
    use crate::repo::{InitOptions, Password, Settings, init};
    use crate::store::folder::Folder;
    use std::sync::Arc;

    #[test]
    fn trees_are_read_correctly_with_every_window_size() {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let store = Arc::new(Folder::new(dir.path().join("repo"), 1));
        let repo = Arc::new(init(store, &Password::new("x"), options, Settings::default()).unwrap());
        let tree = |length: usize| crate::clock::random_bytes::<2000>()[..length].to_vec();
        let trees: Vec<Vec<u8>> = (0..200).map(|number| tree(number * 10)).collect();
        for part in trees.chunks(70) {
            let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
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

    /// Any holder of the key may write an index: lengths and offsets at their bounds are refused
    /// with every window size, and other blobs stay readable.
    #[test]
    fn a_forged_location_of_a_blob_is_refused_and_spares_other_blobs() {
        let (_dir, repo) = crate::repo::tests::new_repository(Settings::default());
        let repo = Arc::new(repo);
        let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
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
        // Each in a pack of its own, and all of them in the pack of the real blob.
        let alone = |blob: &PackedBlob| crate::format::index_file::IndexedPack { id: blob.id, blobs: vec![*blob] };
        let alone: Vec<_> = blobs.iter().map(alone).collect();
        let together = vec![crate::format::index_file::IndexedPack { id: pack, blobs: blobs.clone() }];
        for forged in [alone, together] {
            let mut json = Vec::new();
            crate::format::index_file::encode(&forged, &mut json).unwrap();
            let file = repo.save_file(FileType::Index, json).unwrap();
            let index = Index::load(&repo).unwrap();
            for window in [None, Some(1), Some(1000), Some(1 << 20)] {
                // With a window of one byte, a blob that claims to be large would take billions of
                // requests.
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
}
