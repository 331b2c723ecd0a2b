//! The third step of a check: every tree of every snapshot can be read, and every blob that it
//! references is in the index.

use super::context::Check;
use crate::format::BlobType;
use crate::format::content::Content;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::maintain::forest::{self, Visitor};
use crate::repo::{Result, StoredSnapshot, TreeReader};
use crate::sync::lock;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// The state that the jobs share.
struct Walk<'c> {
    check: &'c Check<'c>,
    trees: TreeReader<'c>,
    seen: Seen,
}

impl Check<'_> {
    /// Walks the trees of all snapshots.
    pub fn trees(&mut self) -> Result<()> {
        self.snapshots = self.roots();
        self.report.snapshots = self.snapshots.len() as u64;
        self.count(self.snapshots.len() as u64, 0);
        let walk = Walk { check: self, trees: TreeReader::new(self.repo, &self.index), seen: Seen::default() };
        // The snapshots are walked one after the other, so that progress is meaningful, and each by
        // all threads.
        for snapshot in &self.snapshots {
            self.check_interrupted()?;
            match snapshot.tree() {
                Ok(root) => forest::walk(&self.pool, root, &walk),
                Err(error) => self.problem(format!("snapshot {}", snapshot.id), error),
            }
            self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        }
        let trees = walk.seen.len() as u64;
        self.report.trees = trees;
        self.check_interrupted()
    }

    fn roots(&mut self) -> Vec<StoredSnapshot> {
        let mut roots = Vec::new();
        for (id, snapshot) in std::mem::take(&mut self.read) {
            match snapshot {
                Ok(snapshot) => roots.push(snapshot),
                Err(error) => {
                    self.report.broken_snapshots.push(id);
                    self.error(format!("snapshot {id}"), &error);
                }
            }
        }
        self.report.broken_snapshots.sort_unstable();
        roots.sort_by_key(|stored| (stored.snapshot.time.instant(), stored.id));
        roots
    }
}

impl Visitor for Walk<'_> {
    fn enter(&self, id: Id) -> bool {
        self.seen.insert(id) && !self.check.progress.is_interrupted()
    }

    fn look(&self, id: Id, below: &mut dyn FnMut(Id)) {
        if let Err(error) = self.look_at_tree(id, below) {
            self.check.error(format!("tree {id}"), &error);
        }
    }
}

impl Walk<'_> {
    fn look_at_tree(&self, id: Id, below: &mut dyn FnMut(Id)) -> Result<()> {
        let mut last: Option<Vec<u8>> = None;
        for node in self.trees.open(id)? {
            let node = match node {
                Ok(node) => node,
                Err(error) => {
                    self.check.error(format!("tree {id}"), &error);
                    continue;
                }
            };
            let problem =
                |why: String| self.check.problem(format!("tree {id}"), format!("{:?} {why}", node.display_name()));
            if !node.has_safe_name() {
                problem("is not a valid name".into());
            }
            match last.as_deref() {
                Some(last) if node.name == last => problem("occurs twice".into()),
                Some(last) if &node.name[..] < last => {
                    problem("is out of order; entries must be sorted by name".into())
                }
                _ => {}
            }
            self.look_at(&node, below, &problem);
            last = Some(node.name);
        }
        Ok(())
    }

    fn look_at(&self, node: &Node, below: &mut dyn FnMut(Id), problem: &dyn Fn(String)) {
        match node.ty {
            NodeType::Dir => match node.subtree {
                Some(subtree) if !subtree.is_null() => below(subtree),
                _ => problem("is a directory without a tree".into()),
            },
            NodeType::File => match &node.content {
                Some(content) => self.look_at_content(node, content, problem),
                None => problem("is a file without a list of contents".into()),
            },
            NodeType::Unknown => problem("is of an unknown type".into()),
            _ => {}
        }
    }

    fn look_at_content(&self, node: &Node, content: &Content, problem: &dyn Fn(String)) {
        let mut size = Some(0u64);
        for id in content {
            match self.check.index.first(BlobType::Data, id) {
                Some(location) => size = size.map(|size| size + location.blob.plain_length()),
                None => {
                    size = None;
                    problem(format!("needs data blob {id}, which is in no index"));
                }
            }
        }
        if let Some(size) = size.filter(|&size| size != node.size) {
            self.check.hint(format!(
                "{:?} records a size of {} bytes, its contents have {size}",
                node.display_name(),
                node.size
            ));
        }
    }
}

/// Ids that have been visited, shared by threads.
#[derive(Default)]
struct Seen(Mutex<HashSet<Id>>);

impl Seen {
    /// Whether the id is new.
    fn insert(&self, id: Id) -> bool {
        lock(&self.0).insert(id)
    }

    fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
