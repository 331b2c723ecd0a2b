//! Walks a snapshot's tree entry by entry, depth first; the entries of a directory follow the
//! directory.
//!
//! The caller decides which directories to enter. Each open directory is read one node at a time.
//! The open directories are in a list, not on the call stack, so a tree of ten thousand levels can
//! be walked.

use super::gaps::Gaps;
use crate::format::node::Node;
use crate::id::Id;
use crate::repo::{Error, Result, Tree, TreeReader};

pub struct Walk<'t> {
    trees: &'t TreeReader<'t>,
    levels: Vec<Level>,
    /// The path of the entry that was returned last.
    path: Vec<u8>,
}

/// A directory being walked.
struct Level {
    tree: Tree,
    /// The length of this directory's path.
    path_length: usize,
}

impl<'t> Walk<'t> {
    /// Starts at a tree, whose entries have paths like `/name`.
    pub fn new(trees: &'t TreeReader<'t>, root: Id) -> Result<Walk<'t>> {
        Walk::below(trees, root, Vec::new())
    }

    /// Starts at a tree that is the directory `path` (empty for the root).
    pub fn below(trees: &'t TreeReader<'t>, root: Id, path: Vec<u8>) -> Result<Walk<'t>> {
        let mut walk = Walk { trees, levels: Vec::new(), path };
        walk.open(root)?;
        Ok(walk)
    }

    /// Starts at a tree. If the tree cannot be read, that is reported, and the walk has no entries.
    pub fn readable(trees: &'t TreeReader<'t>, root: Id, gaps: &Gaps<'_>) -> Result<Walk<'t>> {
        let mut walk = Walk { trees, levels: Vec::new(), path: Vec::new() };
        let opened = walk.open(root);
        gaps.or_report(b"", opened)?;
        Ok(walk)
    }

    /// The next entry that can be read. An entry that cannot be read is reported with the path of
    /// its directory.
    pub fn next_readable(&mut self, gaps: &Gaps<'_>) -> Result<Option<Node>> {
        loop {
            let next = self.next();
            if let Some(next) = gaps.or_report(&self.path, next)? {
                return Ok(next);
            }
        }
    }

    /// Like [`Walk::enter`], but reports a directory that cannot be read. Returns whether its
    /// entries come next.
    pub fn enter_readable(&mut self, dir: &Node, gaps: &Gaps<'_>) -> Result<bool> {
        let entered = self.enter(dir);
        Ok(gaps.or_report(&self.path, entered)?.is_some())
    }

    /// The next entry; its path is [`Walk::path`].
    #[allow(clippy::should_implement_trait, reason = "an iterator could not lend its path")]
    pub fn next(&mut self) -> Result<Option<Node>> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_length);
            if let Some(node) = level.tree.next() {
                let node = node?;
                self.path.push(b'/');
                self.path.extend_from_slice(&node.name);
                return Ok(Some(node));
            }
            self.levels.pop();
        }
        Ok(None)
    }

    /// Continues with the entries of the directory that was returned last. After an error, the walk
    /// continues behind that directory.
    pub fn enter(&mut self, dir: &Node) -> Result<()> {
        let missing = || Error::NoSuchPath { path: String::from_utf8_lossy(&self.path).into_owned() };
        self.open(dir.subtree.ok_or_else(missing)?)
    }

    fn open(&mut self, id: Id) -> Result<()> {
        self.levels.push(Level { tree: self.trees.open(id)?, path_length: self.path.len() });
        Ok(())
    }

    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The number of open directories; an entry of the first tree has depth 1.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The tree that contains the entry that was returned last.
    pub fn tree(&self) -> Option<Id> {
        self.levels.last().map(|level| level.tree.id())
    }
}
