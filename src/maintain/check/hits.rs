//! What damage hits: which snapshots, and which entries of them can no longer be restored whole.
//!
//! Looked for only where something is damaged, and after everything else: what the steps before
//! have shown to be lost is looked up for each file of each snapshot. A directory below which
//! nothing was hit is not walked a second time.

use super::context::Check;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::format::text::lossy;
use crate::id::Id;
use crate::maintain::walk::Walk;
use crate::repo::{Result, StoredSnapshot, TreeReader};
use std::collections::HashSet;

/// Paths that are named of one snapshot.
const NAMED: usize = 1000;

/// What is lost of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Files that lack content, and directories that cannot be read.
    pub entries: u64,
    /// The first of them; a directory's ends with a slash, and stands for all that was below it.
    pub paths: Vec<String>,
}

impl Hit {
    fn add(&mut self, path: &[u8], end: &str) {
        self.entries += 1;
        if self.paths.len() < NAMED {
            self.paths.push(lossy(path) + end);
        }
    }
}

impl Check<'_> {
    /// Reports what is lost of each snapshot that can be read, the oldest first.
    pub fn hits(&self, tell: &mut dyn FnMut(&StoredSnapshot, &Hit)) -> Result<()> {
        let trees = TreeReader::new(self.repo, &self.index);
        let mut whole = HashSet::new();
        for stored in &self.snapshots {
            let mut hit = Hit::default();
            if let Some(root) = stored.snapshot.tree {
                self.look_below(&trees, root, &mut whole, &mut hit)?;
            }
            if hit.entries > 0 {
                tell(stored, &hit);
            }
        }
        Ok(())
    }

    /// Adds to `whole` the directories of which nothing is lost.
    fn look_below(&self, trees: &TreeReader<'_>, root: Id, whole: &mut HashSet<Id>, hit: &mut Hit) -> Result<()> {
        let Ok(mut walk) = Walk::new(trees, root) else {
            hit.add(b"", "/");
            return Ok(());
        };
        // The directories that are open, and how much had been hit when they were opened.
        let mut open = vec![(root, 0)];
        loop {
            self.check_interrupted()?;
            let next = walk.next();
            while open.len() > walk.depth() {
                let (id, before) = open.pop().expect("as many as levels");
                if hit.entries == before {
                    whole.insert(id);
                }
            }
            match next {
                Ok(None) => return Ok(()),
                Ok(Some(node)) if node.ty == NodeType::Dir => match node.subtree {
                    Some(subtree) if whole.contains(&subtree) => {}
                    Some(subtree) if walk.enter(&node).is_ok() => open.push((subtree, hit.entries)),
                    _ => hit.add(walk.path(), "/"),
                },
                Ok(Some(node)) if self.is_whole(&node) => {}
                Ok(Some(_)) => hit.add(walk.path(), ""),
                // An entry that is none: that its directory is not whole is all there is to say.
                Err(_) => hit.add(walk.path(), "/"),
            }
        }
    }

    fn is_whole(&self, node: &Node) -> bool {
        let is_there = |id: Id| {
            let copies = self.index.copies(BlobType::Data, id);
            copies.into_iter().any(|position| !self.lost.has(&self.index.at(BlobType::Data, position)))
        };
        match (node.ty, &node.content) {
            (NodeType::File, Some(content)) => content.iter().all(is_there),
            (NodeType::File, None) => false,
            _ => true,
        }
    }
}
