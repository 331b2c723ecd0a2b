//! What the repository has: directories by their trees, and files by their blobs. What was used last is kept, within bounds.

use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::format::tree;
use crate::id::Id;
use crate::repo::{Error, Index, Repository, Result};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of directories, and of blobs, that are kept.
const KEPT: usize = 32 << 20;

pub struct Content {
    repo: Arc<Repository>,
    index: Index,
    directories: Mutex<Recent<Directory>>,
    blobs: Mutex<Recent<Vec<u8>>>,
}

/// A directory: its JSON, and which entries stand where in it, sorted by name.
pub struct Directory {
    json: Vec<u8>,
    entries: Vec<Entry>,
    /// What is not shown, and why.
    hidden: Vec<(String, &'static str)>,
}

pub struct Entry {
    pub name: Vec<u8>,
    pub ty: NodeType,
    place: Range<usize>,
}

/// A file that a program reads.
pub struct OpenFile {
    blobs: Vec<Id>,
    /// Where each of them ends in the file.
    ends: Vec<u64>,
}

impl Content {
    pub fn new(repo: Arc<Repository>, index: Index) -> Content {
        Content { repo, index, directories: Mutex::default(), blobs: Mutex::default() }
    }

    /// The directory of a tree. What is not shown is told to `hidden` whenever it is read.
    pub fn directory(&self, tree: Id, hidden: impl Fn(&str, &str)) -> Result<Arc<Directory>> {
        if let Some(kept) = lock(&self.directories).get(tree) {
            return Ok(kept);
        }
        let json = self.repo.load_blob(&self.index, BlobType::Tree, tree)?;
        let directory = Directory::parse(json).map_err(|source| Error::Tree { id: tree, source })?;
        directory.hidden.iter().for_each(|(name, why)| hidden(name, why));
        let directory = Arc::new(directory);
        lock(&self.directories).keep(tree, directory.clone(), directory.json.len());
        Ok(directory)
    }

    /// Finds out where the blobs of a file begin and end.
    pub fn open(&self, node: &Node) -> Result<OpenFile> {
        let blobs = node.content.clone().unwrap_or_default();
        let mut end = 0;
        let mut ends = Vec::with_capacity(blobs.len());
        for &id in &blobs {
            let ty = BlobType::Data;
            end += self.index.first(ty, id).ok_or(Error::BlobMissing { ty, id })?.blob.plain_length();
            ends.push(end);
        }
        if end != node.size {
            let why = format!("it says it has {} bytes, its contents have {end}", node.size);
            return Err(Error::Inconsistent { path: node.display_name(), why });
        }
        Ok(OpenFile { blobs, ends })
    }

    /// Bytes of a file, less at its end.
    pub fn read(&self, file: &OpenFile, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(length);
        let first = file.ends.partition_point(|&end| end <= offset);
        for (number, &id) in file.blobs.iter().enumerate().skip(first) {
            if out.len() == length {
                break;
            }
            let blob = self.blob(id)?;
            let start = file.ends[number] - blob.len() as u64;
            let from = usize::try_from(offset.saturating_sub(start)).expect("within the blob");
            let to = blob.len().min(from + length - out.len());
            out.extend_from_slice(&blob[from..to]);
        }
        Ok(out)
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
    fn parse(json: Vec<u8>) -> crate::format::Result<Directory> {
        let mut entries = Vec::new();
        let mut hidden = Vec::new();
        for place in tree::split(&json)? {
            let node = tree::parse_node(&json[place.clone()])?;
            let why = match node.ty {
                NodeType::Irregular | NodeType::Unknown => Some("it is of no kind that a file system has"),
                _ if !node.has_safe_name() => Some("its name is no name"),
                _ => None,
            };
            match why {
                Some(why) => hidden.push((node.display_name(), why)),
                None => entries.push(Entry { name: node.name, ty: node.ty, place }),
            }
        }
        // The first of a name counts, as for a restore.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|again, first| {
            let same = again.name == first.name;
            if same {
                hidden.push((String::from_utf8_lossy(&again.name).into_owned(), "the directory has this name twice"));
            }
            same
        });
        Ok(Directory { json, entries, hidden })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn find(&self, name: &[u8]) -> Option<Node> {
        let found = self.entries.binary_search_by(|entry| entry.name[..].cmp(name)).ok()?;
        Some(tree::parse_node(&self.json[self.entries[found].place.clone()]).expect("it was parsed before"))
    }
}

/// What was used last, at most [`KEPT`] bytes and at least one.
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
        // Another thread may have been as quick.
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

/// Nothing is ever left half done under these locks.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept_within_bounds() {
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
