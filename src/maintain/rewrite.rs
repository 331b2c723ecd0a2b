//! Rewrites the tree of a snapshot with entries dropped or changed, and replaces the snapshot.
//!
//! Trees are rewritten from the bottom up, without recursion. A directory in which nothing changes
//! keeps its tree byte for byte, even if another program encoded it differently. A changed entry is
//! encoded again and would lose fields that we do not know. That is an error unless the [`Change`]
//! allows it.

use crate::format::FormatError;
use crate::format::content::JsonRef;
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeWriter;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::writer::{NewTree, WriteMode, Writer};
use crate::repo::{Error, Repository, Result, StoredSnapshot, Tree, TreeReader};
use crate::store::FileType;
use std::collections::HashMap;

/// The decision about an entry.
pub enum Verdict {
    Keep,
    Change(Box<Node>),
    Drop,
}

/// The decision about a directory that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Keep the directory without entries.
    Empty,
    Drop,
}

/// How rewritten snapshots are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replace {
    /// Remove the old snapshots; otherwise the new ones get a tag.
    pub forget: bool,
    pub dry_run: bool,
}

impl Replace {
    pub fn write_mode(self) -> WriteMode {
        WriteMode::dry_run_if(self.dry_run)
    }
}

/// Replaces snapshots by their rewritten versions.
pub struct Replacer<'r> {
    repo: &'r Repository,
    replace: Replace,
    /// The tag of a new snapshot whose old version stays.
    tag: &'static str,
    /// The snapshots of the repository.
    existing: Vec<StoredSnapshot>,
}

impl<'r> Replacer<'r> {
    pub fn new(repo: &'r Repository, replace: Replace, tag: &'static str) -> Result<Replacer<'r>> {
        let (existing, _) = repo.snapshots()?;
        Ok(Replacer { repo, replace, tag, existing })
    }

    /// Stores the rewritten version of a snapshot. Returns its id, or `None` in a dry run.
    pub fn put(&self, old: &StoredSnapshot, new: Snapshot) -> Result<Option<Id>> {
        if self.replace.dry_run {
            return Ok(None);
        }
        let mut new = Snapshot { original: Some(old.id), ..new };
        if !self.replace.forget && !new.tags.iter().any(|one| one == self.tag) {
            new.tags.push(self.tag.to_owned());
        }
        // An earlier run may have been interrupted after it wrote the new snapshot.
        let made = self.existing.iter().find(|other| other.snapshot == new).map(|other| other.id);
        let id = made.map_or_else(|| self.repo.save_file(FileType::Snapshot, new.encode()), Ok)?;
        if self.replace.forget {
            self.repo.remove_snapshot(old.id)?;
        }
        Ok(Some(id))
    }
}

/// A change to the entries of trees.
pub trait Change {
    /// Decides about an entry; an error ends the rewrite. The entries of a directory that is kept
    /// come next.
    fn entry(&mut self, path: &[u8], node: &Node) -> Result<Verdict>;

    /// Decides about a directory that cannot be read; an error ends the rewrite.
    fn unreadable(&mut self, path: &[u8], error: Error) -> Result<Unreadable> {
        let _ = path;
        Err(error)
    }

    /// Whether the result for a tree does not depend on its path.
    fn is_the_same_everywhere(&self) -> bool {
        false
    }

    /// Whether unknown fields may be lost.
    fn may_lose_fields(&self) -> bool {
        false
    }
}

/// Rewrites trees, one after the other.
pub struct Rewrite<'r, C> {
    trees: &'r TreeReader<'r>,
    writer: &'r Writer,
    progress: &'r Progress,
    pub change: C,
    known: HashMap<Id, Id>,
}

/// Whether an entry is changed in the new tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Kept,
    Changed,
}

/// A directory that is being rewritten.
struct Level {
    tree: Tree,
    /// The length of this directory's path.
    path_length: usize,
    out: NewTree,
    changed: bool,
    /// Why the directory cannot be rewritten: its entries are not in order.
    fault: Option<FormatError>,
    /// The subdirectory whose tree is being rewritten, and whether its entry was changed.
    below: Option<(Node, Entry)>,
}

impl<'r, C: Change> Rewrite<'r, C> {
    pub fn new(trees: &'r TreeReader<'r>, writer: &'r Writer, progress: &'r Progress, change: C) -> Rewrite<'r, C> {
        Rewrite { trees, writer, progress, change, known: HashMap::new() }
    }

    /// Rewrites a tree. Returns `None` if the tree is dropped.
    pub fn tree(&mut self, root: Id) -> Result<Option<Id>> {
        let mut path = Vec::new();
        let mut levels = match self.open(root, &path)? {
            Ok(level) => vec![level],
            Err(became) => return Ok(became),
        };
        loop {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let level = levels.last_mut().expect("the loop ends with the last");
            path.truncate(level.path_length);
            let node = match level.tree.next().transpose() {
                Ok(Some(node)) => node,
                outcome => {
                    let level = levels.pop().expect("the last level exists");
                    let became = match outcome {
                        Ok(_) => Some(self.close(level)?),
                        // One entry that cannot be decoded must not cost the other entries.
                        Err(error) if !level.tree.is_over() => return Err(error),
                        Err(error) => self.give_up(&path, error)?,
                    };
                    let Some(above) = levels.last_mut() else { return Ok(became) };
                    self.take(above, became)?;
                    continue;
                }
            };
            path.push(b'/');
            path.extend_from_slice(&node.name);
            let (node, entry) = match self.change.entry(&path, &node)? {
                Verdict::Drop => {
                    level.changed = true;
                    continue;
                }
                Verdict::Keep => (node, Entry::Kept),
                Verdict::Change(changed) => {
                    self.check_loss(&path, &node, level.tree.raw())?;
                    (*changed, Entry::Changed)
                }
            };
            if node.ty != NodeType::Dir {
                level.put(self.writer, &node, entry)?;
                continue;
            }
            let subtree = node.subtree.unwrap_or(Id::NULL);
            level.below = Some((node, entry));
            match self.open(subtree, &path)? {
                Ok(below) => levels.push(below),
                Err(became) => self.take(levels.last_mut().expect("the last level exists"), became)?,
            }
        }
    }

    /// Opens a tree to decide about its entries, or returns the result if it is known without that.
    fn open(&mut self, id: Id, path: &[u8]) -> Result<std::result::Result<Level, Option<Id>>> {
        if let Some(&became) = self.known.get(&id) {
            return Ok(Err(Some(became)));
        }
        Ok(match self.trees.open(id) {
            Ok(tree) => {
                let (out, path_length) = (NewTree::default(), path.len());
                Ok(Level { tree, path_length, out, changed: false, fault: None, below: None })
            }
            Err(error) => Err(self.give_up(path, error)?),
        })
    }

    /// The result for a directory that cannot be read to its end.
    fn give_up(&mut self, path: &[u8], error: Error) -> Result<Option<Id>> {
        if !error.is_damage() {
            return Err(error);
        }
        Ok(match self.change.unreadable(path, error)? {
            Unreadable::Empty => Some(self.writer.store_tree(&TreeWriter::new().finish())?),
            Unreadable::Drop => None,
        })
    }

    /// The result for a tree whose entries have all been processed.
    fn close(&mut self, level: Level) -> Result<Id> {
        let Level { tree, out, changed, fault, .. } = level;
        let id = tree.id();
        if let Some(source) = fault.filter(|_| changed) {
            return Err(Error::Tree { id, source });
        }
        let became = if changed { out.finish(self.writer)? } else { id };
        if self.change.is_the_same_everywhere() {
            self.known.insert(id, became);
        }
        Ok(became)
    }

    /// Puts the result for a subdirectory into its parent.
    fn take(&self, level: &mut Level, became: Option<Id>) -> Result<()> {
        let (node, entry) = level.below.take().expect("a directory was entered");
        let Some(became) = became else {
            level.changed = true;
            return Ok(());
        };
        if node.subtree == Some(became) {
            return level.put(self.writer, &node, entry);
        }
        self.check_loss(&node.name, &node, level.tree.raw())?;
        level.put(self.writer, &Node { subtree: Some(became), ..node }, Entry::Changed)
    }

    /// Fails if the entry would lose fields when we encode it.
    fn check_loss(&self, path: &[u8], node: &Node, raw: JsonRef<'_>) -> Result<()> {
        if self.change.may_lose_fields() || node.json().borrow() == raw {
            return Ok(());
        }
        let why = "it has fields that this program does not know, and would lose them if it were changed".to_owned();
        Err(Error::Inconsistent { path: String::from_utf8_lossy(path).into_owned(), why })
    }
}

impl Level {
    /// Adds the entry that was read last; `node` is its new value if it was changed.
    fn put(&mut self, writer: &Writer, node: &Node, entry: Entry) -> Result<()> {
        let put = match entry {
            Entry::Changed => {
                self.changed = true;
                self.out.add(writer, node)
            }
            Entry::Kept => self.out.add_json(writer, &node.name, self.tree.raw()),
        };
        self.fault = self.fault.take().or(put?.err());
        Ok(())
    }
}
