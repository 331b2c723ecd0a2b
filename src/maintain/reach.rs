//! Which blobs the snapshots need: what nobody may remove.

use super::blobs::BlobSet;
use super::forest::{self, Visitor};
use crate::format::BlobType;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use rayon::ThreadPool;
use std::sync::atomic::Ordering;

/// Adds up what some snapshots need. What cannot be read, and what is in no index, is reported, and
/// ends in an error: nobody knows then what is needed.
pub fn blobs<'i>(
    repo: &Repository,
    index: &'i Index,
    snapshots: &[StoredSnapshot],
    pool: &ThreadPool,
    during: Phase,
    progress: &Progress,
) -> Result<BlobSet<'i>> {
    match readable(repo, index, snapshots, pool, during, progress)? {
        (found, 0) => Ok(found),
        (_, problems) => Err(Error::Unreachable { problems }),
    }
}

/// Adds up what some snapshots need, as far as it can be read, and the number of problems. Each
/// problem is reported with the snapshot in which it came up first; another one may need the same.
pub fn readable<'i>(
    repo: &Repository,
    index: &'i Index,
    snapshots: &[StoredSnapshot],
    pool: &ThreadPool,
    during: Phase,
    progress: &Progress,
) -> Result<(BlobSet<'i>, u64)> {
    let mut reach = Reach {
        trees: TreeReader::new(repo, index),
        index,
        found: BlobSet::new(index),
        snapshot: String::new(),
        during,
        progress,
    };
    let before = progress.problem_count();
    progress.files_total.store(snapshots.len() as u64, Ordering::Relaxed);
    progress.files_done.store(0, Ordering::Relaxed);
    for stored in snapshots {
        reach.snapshot = format!("snapshot {}", stored.id);
        match stored.tree() {
            Ok(root) => forest::walk(pool, root, &reach),
            Err(error) => progress.problem(during, &*reach.snapshot, error),
        }
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        progress.files_done.fetch_add(1, Ordering::Relaxed);
    }
    Ok((reach.found, progress.problem_count() - before))
}

struct Reach<'r, 'i> {
    trees: TreeReader<'r>,
    index: &'i Index,
    found: BlobSet<'i>,
    /// The one that is being walked.
    snapshot: String,
    during: Phase,
    progress: &'r Progress,
}

impl Visitor for Reach<'_, '_> {
    fn enter(&self, id: Id) -> bool {
        // Of a tree that is in no index, reading it tells; there is no bit for it, so that it may be told several times.
        let new = self.index.position(BlobType::Tree, id).is_none_or(|at| self.found.insert_at(BlobType::Tree, at));
        new && !self.progress.is_interrupted()
    }

    fn look(&self, id: Id, below: &mut dyn FnMut(Id)) {
        let problem = |error: Error| self.progress.problem(self.during, &*self.snapshot, error);
        let tree = match self.trees.open(id) {
            Ok(tree) => tree,
            Err(error) => return problem(error),
        };
        for node in tree {
            let node = match node {
                Ok(node) => node,
                Err(error) => {
                    problem(error);
                    continue;
                }
            };
            node.subtree.into_iter().for_each(&mut *below);
            for id in node.content.iter().flatten() {
                if let Err(error) = self.found.insert(BlobType::Data, id) {
                    problem(error);
                }
            }
        }
    }
}
