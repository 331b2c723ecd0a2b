//! Finds the blobs that snapshots need, which must not be removed.

use super::blobs::BlobSet;
use super::forest::{self, Visitor};
use crate::format::BlobType;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use rayon::ThreadPool;
use std::sync::atomic::Ordering;

/// The inputs of a search for needed blobs, and how it reports.
pub struct Reach<'r, 'i> {
    pub repo: &'r Repository,
    pub index: &'i Index,
    pub pool: &'r ThreadPool,
    /// The phase in which problems are reported.
    pub during: Phase,
    pub progress: &'r Progress,
}

impl<'i> Reach<'_, 'i> {
    /// Collects the blobs that some snapshots need. Trees that cannot be read and blobs that are
    /// missing from the index are reported and end in an error, because the set would be
    /// incomplete.
    pub fn blobs(&self, snapshots: &[StoredSnapshot]) -> Result<BlobSet<'i>> {
        match self.readable(snapshots)? {
            (found, 0) => Ok(found),
            (_, problems) => Err(Error::Unreachable { problems }),
        }
    }

    /// Collects the blobs that some snapshots need, as far as they can be read, and returns the
    /// number of problems. Each problem is reported with the first snapshot that it affects; others
    /// may be affected, too.
    pub fn readable(&self, snapshots: &[StoredSnapshot]) -> Result<(BlobSet<'i>, u64)> {
        let &Reach { repo, index, pool, during, progress } = self;
        let (trees, found) = (TreeReader::new(repo, index), BlobSet::new(index));
        let mut collector = Collector { trees, index, found, snapshot: String::new(), during, progress };
        let before = progress.problem_count();
        progress.files_total.store(snapshots.len() as u64, Ordering::Relaxed);
        progress.files_done.store(0, Ordering::Relaxed);
        for stored in snapshots {
            collector.snapshot = format!("snapshot {}", stored.id);
            match stored.tree() {
                Ok(root) => forest::walk(pool, root, &collector),
                Err(error) => progress.problem(during, &*collector.snapshot, error),
            }
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            progress.files_done.fetch_add(1, Ordering::Relaxed);
        }
        Ok((collector.found, progress.problem_count() - before))
    }
}

struct Collector<'r, 'i> {
    trees: TreeReader<'r>,
    index: &'i Index,
    found: BlobSet<'i>,
    /// The snapshot that is being walked, as reports name it.
    snapshot: String,
    during: Phase,
    progress: &'r Progress,
}

impl Visitor for Collector<'_, '_> {
    fn enter(&self, id: Id) -> bool {
        // A tree that is missing from the index is reported when it is read. The set has no bit for
        // it, so it may be reported several times.
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
