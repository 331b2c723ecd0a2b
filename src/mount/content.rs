//! Reads directories (trees) and files (blobs) of the mounted snapshots from the repository, and
//! keeps the most recently used ones in bounded LRU caches.

use crate::aside::Aside;
use crate::format::BlobType;
use crate::format::content::Content as Blobs;
use crate::format::node::{Node, NodeType};
use crate::format::tree::{self, LONG, ReadError};
use crate::id::Id;
use crate::repo::{Error, Index, Repository, Result, Tree};
use crate::sync::lock;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Size limit of the cache of directories, and of the cache of blobs, in bytes.
const KEPT: usize = 32 << 20;

pub struct Content {
    repo: Arc<Repository>,
    index: Index,
    directories: Mutex<Recent<Directory>>,
    blobs: Mutex<Recent<Vec<u8>>>,
}

/// A directory: the JSON of its entries, and the position of each in it, sorted by name.
pub struct Directory {
    tree: Id,
    json: Aside,
    entries: Vec<Entry>,
    /// Entries that are not shown, and why.
    hidden: Vec<(String, &'static str)>,
}

pub struct Entry {
    pub name: Vec<u8>,
    pub ty: NodeType,
    start: u64,
    length: usize,
}

/// A file that a program reads.
pub struct OpenFile {
    blobs: Blobs,
    /// The offset in the file of every [`APART`]th blob.
    begins: Vec<u64>,
}

/// Number of blobs from one kept offset to the next; the offsets between are computed from the
/// index again.
const APART: usize = 64;

impl Content {
    pub fn new(repo: Arc<Repository>, index: Index) -> Content {
        Content { repo, index, directories: Mutex::default(), blobs: Mutex::default() }
    }

    /// The directory of a tree. Entries that are not shown are passed to `hidden` whenever the tree
    /// is read.
    pub fn directory(&self, tree: Id, hidden: impl Fn(&str, &str)) -> Result<Arc<Directory>> {
        if let Some(kept) = lock(&self.directories).get(tree) {
            return Ok(kept);
        }
        let directory =
            Directory::read(self.repo.open_tree(&self.index, tree)?, self.repo.settings().aside.as_deref())?;
        directory.hidden.iter().for_each(|(name, why)| hidden(name, why));
        let directory = Arc::new(directory);
        lock(&self.directories).keep(tree, directory.clone(), directory.weight());
        Ok(directory)
    }

    /// Computes the offsets of a file's blobs, and compares their total length with the file's
    /// size.
    pub fn open(&self, node: &Node) -> Result<OpenFile> {
        let blobs = node.content.clone().unwrap_or_default();
        let mut end = 0;
        let mut begins = Vec::with_capacity(blobs.len().div_ceil(APART));
        for (number, id) in blobs.iter().enumerate() {
            if number.is_multiple_of(APART) {
                begins.push(end);
            }
            end += self.length(id)?;
        }
        if end != node.size {
            let why = format!("its metadata says {} bytes, but its blobs have {end}", node.size);
            return Err(Error::Inconsistent { path: node.display_name(), why });
        }
        Ok(OpenFile { blobs, begins })
    }

    /// Reads bytes of a file: fewer than `length` at its end.
    pub fn read(&self, file: &OpenFile, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(length);
        let stretch = file.begins.partition_point(|&begin| begin <= offset).saturating_sub(1);
        let mut end = file.begins.get(stretch).copied().unwrap_or(0);
        for id in (stretch * APART..).map_while(|number| file.blobs.get(number)) {
            if out.len() == length {
                break;
            }
            let start = end;
            end += self.length(id)?;
            if end <= offset {
                continue;
            }
            let blob = self.blob(id)?;
            // Otherwise the offsets of the blobs after it are wrong.
            if blob.len() as u64 != end - start {
                let why = format!("the index says {} bytes, but it has {}", end - start, blob.len());
                return Err(Error::Inconsistent { path: format!("data blob {id}"), why });
            }
            let from = usize::try_from(offset.saturating_sub(start)).expect("within the blob");
            let to = blob.len().min(from + length - out.len());
            out.extend_from_slice(&blob[from..to]);
        }
        Ok(out)
    }

    fn length(&self, id: Id) -> Result<u64> {
        let ty = BlobType::Data;
        Ok(self.index.first(ty, id).ok_or(Error::BlobMissing { ty, id })?.blob.plain_length())
    }

    fn blob(&self, id: Id) -> Result<Arc<Vec<u8>>> {
        if let Some(kept) = lock(&self.blobs).get(id) {
            return Ok(kept);
        }
        let blob = Arc::new(self.repo.load_blob(&self.index, BlobType::Data, id)?);
        lock(&self.blobs).keep(id, blob.clone(), blob.len());
        Ok(blob)
    }
}

impl Directory {
    fn read(mut nodes: Tree, aside: Option<&Path>) -> Result<Directory> {
        let tree = nodes.id();
        let full = |source| Error::aside(format!("tree {tree}"), aside, source);
        let mut json = Aside::new(aside);
        let mut entries = Vec::new();
        let mut hidden = Vec::new();
        while let Some(node) = nodes.next() {
            let node = node?;
            let (start, mut text) = (json.len(), Vec::new());
            nodes.raw().write(&mut text, |text| json.write_all(text).map(|()| text.clear())).map_err(full)?;
            json.write_all(&text).map_err(full)?;
            let length = usize::try_from(json.len() - start).expect("smaller than a tree");
            let why = match node.ty {
                NodeType::Irregular | NodeType::Unknown => Some("its type is not one that a file system has"),
                _ if !node.has_safe_name() => Some("its name is not a valid file name"),
                _ => None,
            };
            match why {
                Some(why) => hidden.push((node.display_name(), why)),
                None => entries.push(Entry { name: node.name, ty: node.ty, start, length }),
            }
        }
        // Of entries with the same name only the first is shown, as a restore writes only the
        // first.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|again, first| {
            let same = again.name == first.name;
            if same {
                hidden.push((String::from_utf8_lossy(&again.name).into_owned(), "the directory has this name twice"));
            }
            same
        });
        Ok(Directory { tree, json, entries, hidden })
    }

    /// Approximate bytes in memory. An open spill file counts, too: the number of open files is
    /// limited.
    fn weight(&self) -> usize {
        let names: usize = self.entries.iter().map(|entry| entry.name.len()).sum();
        self.json.weight() + self.entries.len() * size_of::<Entry>() + names
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn find(&self, name: &[u8]) -> Result<Option<Node>> {
        let Ok(found) = self.entries.binary_search_by(|entry| entry.name[..].cmp(name)) else { return Ok(None) };
        let (id, Entry { start, length, .. }) = (self.tree, &self.entries[found]);
        if *length > LONG {
            let json = self.json.reader_from(*start).take(*length as u64);
            return match tree::read_node(json, self.json.directory()) {
                Ok(node) => Ok(Some(node)),
                Err(ReadError::Format(source)) => Err(Error::Tree { id, source }),
                Err(error) => Err(Error::aside_lost(format!("tree {id}"), std::io::Error::other(error))),
            };
        }
        let mut json = vec![0; *length];
        self.json.read_exact_at(*start, &mut json).map_err(|error| Error::aside_lost(format!("tree {id}"), error))?;
        tree::parse_node(&json).map(Some).map_err(|source| Error::Tree { id, source })
    }
}

/// An LRU cache of at most [`KEPT`] bytes, but at least one value.
struct Recent<T> {
    kept: VecDeque<(Id, Arc<T>, usize)>,
    bytes: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent { kept: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Recent<T> {
    fn get(&mut self, id: Id) -> Option<Arc<T>> {
        let place = self.kept.iter().position(|(kept, ..)| *kept == id)?;
        let used = self.kept.remove(place).expect("found above");
        let value = used.1.clone();
        self.kept.push_back(used);
        Some(value)
    }

    fn keep(&mut self, id: Id, value: Arc<T>, bytes: usize) {
        // Another thread may have added it in the meantime.
        if self.get(id).is_some() {
            return;
        }
        self.bytes += bytes;
        self.kept.push_back((id, value, bytes));
        while self.bytes > KEPT && self.kept.len() > 1 {
            self.bytes -= self.kept.pop_front().map_or(0, |(.., bytes)| bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_values_are_evicted_beyond_the_limit() {
        let mut recent = Recent::default();
        let ids = [1u8, 2, 3].map(|byte| Id([byte; 32]));
        recent.keep(ids[0], Arc::new(()), KEPT / 2);
        recent.keep(ids[1], Arc::new(()), KEPT / 2);
        assert!(recent.get(ids[0]).is_some());
        recent.keep(ids[2], Arc::new(()), 1);
        assert_eq!(ids.map(|id| recent.get(id).is_some()), [true, false, true]);
        recent.keep(ids[1], Arc::new(()), 2 * KEPT);
        assert_eq!(ids.map(|id| recent.get(id).is_some()), [false, true, false]);
    }
}
