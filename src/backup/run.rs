//! The state of one backup that all its stages share: its resources, its counters, and its failure.

use super::options::Options;
use super::slab::{SLAB_SIZE, SlabPool};
use super::source::Standing;
use super::stat::{Observer, display};
use crate::chunk::{MIN_SIZE, Scanner, ZERO_CHUNK};
use crate::format::BlobType;
use crate::format::node::Node;
use crate::format::tree::TreeWriter;
use crate::id::Id;
use crate::memory;
use crate::progress::{Action, Phase, Progress};
use crate::repo::writer::Writer;
use crate::repo::{Error, Result, TreeReader};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The shared state of a backup.
pub struct Run<'r> {
    pub options: &'r Options,
    pub progress: &'r Progress,
    pub parts: memory::Backup,
    pub slabs: SlabPool,
    pub writer: &'r Writer,
    pub parent_trees: TreeReader<'r>,
    pub observer: Observer,
    pub scanner: Arc<Scanner>,
    pub counts: Counts,
    /// The number of unfinished jobs of stage 4.
    pub jobs: AtomicUsize,
    /// The number of named entries, and how many of them are lost.
    pub named: usize,
    pub lost: AtomicUsize,
    damage: AtomicU64,
    root: Mutex<Option<Id>>,
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
}

#[derive(Default)]
pub struct Counts {
    pub files_new: AtomicU64,
    pub files_changed: AtomicU64,
    pub files_unmodified: AtomicU64,
    pub dirs_new: AtomicU64,
    pub dirs_changed: AtomicU64,
    pub dirs_unmodified: AtomicU64,
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    /// Files, and their bytes, that the walk has found so far.
    pub found_files: AtomicU64,
    pub found_bytes: AtomicU64,
}

/// The result of reading the source.
pub struct Read {
    /// The root tree.
    pub tree: Id,
    pub counts: Counts,
    pub damage: u64,
}

impl<'r> Run<'r> {
    /// A run without named entries.
    pub fn new(
        writer: &'r Writer,
        options: &'r Options,
        progress: &'r Progress,
        observer: Observer,
    ) -> Result<Run<'r>> {
        let (repo, index) = (writer.repo(), writer.index());
        let budget = repo.settings().budget;
        let left = budget.left(index.memory(), writer.kept())?;
        let parts = budget.backup(left, options.read_concurrency, SLAB_SIZE as u64);
        Ok(Run {
            options,
            slabs: SlabPool::new(parts.slabs),
            parts,
            progress,
            writer,
            parent_trees: TreeReader::new(repo, index),
            observer,
            scanner: Arc::new(Scanner::new(repo.config().polynomial)),
            counts: Counts::default(),
            jobs: AtomicUsize::new(0),
            named: 0,
            lost: AtomicUsize::new(0),
            damage: AtomicU64::new(0),
            root: Mutex::new(None),
            failure: Mutex::new(None),
            stopped: AtomicBool::new(false),
        })
    }
}

/// The reports of the stages about the source and the parent snapshot.
impl Run<'_> {
    pub fn finish_file(&self, node: &Node, action: Action, path: &Path) {
        let counter = match action {
            Action::New => &self.counts.files_new,
            Action::Unchanged => &self.counts.files_unmodified,
            _ => &self.counts.files_changed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(node.size, Ordering::Relaxed);
        self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        self.progress.item(action, || display(path), node.size);
    }

    /// Reports a fact about the source that makes the snapshot incomplete or doubtful.
    pub fn problem(&self, path: &Path, why: impl fmt::Display) {
        self.progress.problem(Phase::Archival, display(path), why);
    }

    /// Reports an entry that cannot be read. If all named entries are lost, the run fails.
    pub fn lost(&self, standing: Standing, path: &Path, why: impl fmt::Display) {
        if standing == Standing::Named && self.named == 1 {
            return self.fail(source_error(format!("{}: {why}", display(path))));
        }
        self.problem(path, why);
        if standing == Standing::Named && self.lost.fetch_add(1, Ordering::Relaxed) + 1 == self.named {
            self.fail(source_error(format!(
                "none of the {} named paths can be read; see the errors above",
                self.named
            )));
        }
    }

    /// Leaves out a directory that exceeds the memory budget or the space for spill files. If
    /// nothing else was named, the run fails.
    pub fn leave_out(&self, standing: Standing, path: &Path, error: Error) {
        if standing == Standing::Named && self.named == 1 {
            return self.fail(error);
        }
        self.lost(standing, path, format!("it is left out: {error}"));
    }

    /// Reports that the parent snapshot is damaged at this path. The new snapshot is complete
    /// nevertheless.
    pub fn damage(&self, path: &Path, why: impl fmt::Display) {
        self.damage.fetch_add(1, Ordering::Relaxed);
        self.problem(path, why);
    }
}

/// The data that the stages store besides blobs of files.
impl Run<'_> {
    /// Ensures that the repository has the chunk of zeros that holes consist of.
    pub fn store_zero_chunk(&self) -> Result<()> {
        if !self.writer.index().contains(BlobType::Data, Id(ZERO_CHUNK)) {
            self.writer.store_chunks(&[&vec![0; MIN_SIZE]])?;
        }
        Ok(())
    }

    pub fn set_root(&self, tree: Id) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree);
    }

    /// The directory for spill files, which hold long lists.
    pub fn aside(&self) -> Option<&Path> {
        self.writer.repo().settings().aside.as_deref()
    }
}

/// The end of a run.
impl Run<'_> {
    /// Runs a part of a stage. A panic in it, which has been printed by then, ends the run with an
    /// error instead of leaving the other stages waiting.
    pub fn guarded(&self, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.fail(Error::Panicked);
        }
    }

    pub fn check(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// Ends the run with an error.
    pub fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.progress.is_interrupted()
    }

    /// Why the stages ended early, or `Ok` if they did not.
    pub fn outcome(&self) -> Result<()> {
        if self.progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    /// The result of stages that did not end early.
    pub fn end(self) -> Result<Read> {
        let root = self.root.into_inner().unwrap_or_else(PoisonError::into_inner);
        let tree = root.expect("without failure, every directory completes");
        if tree == Id::of(&TreeWriter::new().finish()) {
            return Err(Error::EmptySnapshot);
        }
        Ok(Read { tree, counts: self.counts, damage: self.damage.into_inner() })
    }
}

pub fn source_error(why: String) -> Error {
    Error::Source(std::io::Error::other(why))
}
