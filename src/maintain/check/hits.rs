//! Finds the snapshots that damage affects, and their entries that can no longer be restored
//! completely.
//!
//! This step runs last, if the steps before have found damage: it looks up the content of each file
//! of each snapshot among the lost blobs. A directory without losses below it is not walked again.

use super::context::Check;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::format::text::lossy;
use crate::id::Id;
use crate::maintain::walk::Walk;
use crate::repo::{Result, StoredSnapshot, TreeReader};
use std::collections::HashSet;

/// The maximum number of paths that are listed for one snapshot.
const NAMED: usize = 1000;

/// The losses of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Files that lack content, and directories that cannot be read.
    pub entries: u64,
    /// The paths of the first of them. The path of a directory ends with a slash and stands for
    /// everything below it.
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
    /// Reports the losses of each snapshot that can be read, oldest first.
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

    /// Adds the losses below a tree to `hit`, and the directories without losses to `whole`.
    fn look_below(&self, trees: &TreeReader<'_>, root: Id, whole: &mut HashSet<Id>, hit: &mut Hit) -> Result<()> {
        let Ok(mut walk) = Walk::new(trees, root) else {
            hit.add(b"", "/");
            return Ok(());
        };
        // The open directories, and the number of losses when each was opened.
        let mut open = vec![(root, 0)];
        loop {
            self.check_interrupted()?;
            let next = walk.next();
            while open.len() > walk.depth() {
                let (id, before) = open.pop().expect("one for each level");
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
                // The entry cannot be decoded; all that is known is that its directory is
                // incomplete.
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
