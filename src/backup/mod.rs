//! A backup, from the source to a snapshot. The stages, each a module:
//!
//! 1. [`source`]: what was asked for becomes the top of a tree.
//! 2. [`walk`]: directories ([`stack`]) are listed and their entries looked at ([`stat`]), side by
//!    side with the parent's ([`parent`]); of a large one in parts ([`names`]).
//! 3. [`small`] and [`read`]: changed files are read into slabs and cut into chunks.
//! 4. [`fill`]: chunks are hashed and, if new, compressed, sealed and packed; on all cores.
//! 5. [`assemble`]: finished entries complete their directory, which becomes a tree blob and completes its own parent.
//! 6. the snapshot, once everything it names is durable.
//!
//! Every queue between them is bounded, and so is memory: see `docs/ARCHITECTURE.md`.

mod assemble;
mod fill;
mod names;
mod parent;
mod reach;
mod read;
mod scan;
mod slab;
mod small;
mod source;
mod stack;
mod stat;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

use crate::chunk::{MIN_SIZE, Scanner, ZERO_CHUNK};
use crate::clock::{self, Clock};
use crate::concurrency::Limit;
use crate::format::BlobType;
use crate::format::node::Node;
use crate::format::snapshot::{Snapshot, Summary, VOLUME_NAME, VOLUME_TAG};
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::limits;
use crate::memory;
use crate::parallel::both;
use crate::pattern::Patterns;
use crate::progress::{Action, Phase, Progress};
use crate::repo::writer::{Writer, Written};
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use crate::store::FileType;
use assemble::Dir;
use fill::Filling;
use parent::ParentNodes;
use read::{FileWork, Reader, Standing};
use slab::SlabPool;
use small::Gatherer;
use source::Resolved;
use stack::Stack;
use stat::{Observer, display};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is backed up.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files and directories, stored under the paths they were given as, in restic's shapes.
    Paths(Vec<PathBuf>),
    /// One directory as a volume: stored as the directory `data` with its own owner, mode, times and xattrs.
    Volume(PathBuf),
    /// A stream as one file of this path from the root; directories on the way are made up.
    Stream { name: String, input: Input },
}

/// Where a stream comes from. One without a single byte is an error: nobody backs up nothing, and a
/// producer that failed gives nothing.
#[derive(Clone, Debug)]
pub enum Input {
    Stdin,
    /// The standard output of a command: its program and arguments. If it fails, there is no
    /// snapshot.
    Command(Vec<OsString>),
}

/// Which `st_dev` numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceIds {
    /// Those of entries on other file systems than the source's root, and one fixed number for hard links on the root's own. A clone of
    /// a volume has another number each time it is mounted, and would make every tree new.
    #[default]
    Foreign,
    /// All, as restic does.
    All,
}

/// How the parent snapshot is chosen.
#[derive(Clone, Debug)]
pub enum ParentChoice {
    /// The latest of the same group (restic's `--group-by`: host and paths by default).
    Group { host: bool, paths: bool, tags: bool },
    /// This one: an id or the beginning of one.
    Named(String),
    /// This one, which the caller has read already.
    Known(Box<StoredSnapshot>),
    /// None: every file is read.
    Force,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    pub hostname: String,
    pub tags: Vec<String>,
    /// The snapshot's time; also the upper limit for a parent's.
    pub time: Time,
    pub parent: ParentChoice,
    pub exclude: Exclude,
    pub one_file_system: bool,
    /// Change detection leaves out ctime, or ctime and inode.
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    pub with_atime: bool,
    pub device_ids: DeviceIds,
    /// Write times in the machine's zone as restic does, instead of UTC.
    pub local_time: bool,
    /// Block devices are read as files; otherwise stored as device nodes.
    pub read_special: bool,
    /// No snapshot if its tree equals the parent's.
    pub skip_if_unchanged: bool,
    pub dry_run: bool,
    /// Large files read at the same time. Small ones are read by as many threads as the volume
    /// answers faster with.
    pub read_concurrency: usize,
    /// Count files and bytes ahead, so that progress has a total.
    pub scan: bool,
}

/// What is left out.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    pub patterns: Patterns,
    /// The `--exclude` values as given, which the snapshot records.
    pub recorded: Vec<String>,
    /// Directories with one of these files, whose content begins with the given header, keep only that file.
    pub if_present: Vec<(String, Vec<u8>)>,
    /// Files larger than this many bytes.
    pub larger_than: Option<u64>,
}

/// Walkers at least: one looks for more while another reads.
const LEAST_WALKERS: usize = 2;

/// What a backup did.
#[derive(Debug)]
pub struct Report {
    /// `None` for a dry run, or when nothing changed and that was to be skipped.
    pub snapshot: Option<Id>,
    pub tree: Id,
    pub parent: Option<Id>,
    pub summary: Summary,
    /// Entries of the source that are missing or doubtful; each was reported as a problem.
    pub problems: u64,
    /// Places where the parent snapshot turned out to be damaged; each was reported as a problem.
    /// This snapshot lacks nothing because of them.
    pub damage: u64,
}

/// What all stages share.
struct Run<'r> {
    options: &'r Options,
    progress: &'r Progress,
    parts: memory::Backup,
    slabs: SlabPool,
    writer: &'r Writer,
    parent_trees: TreeReader<'r>,
    observer: Observer,
    scanner: Arc<Scanner>,
    counts: Counts,
    /// Jobs of stage 4 that are not done.
    jobs: AtomicUsize,
    /// How many entries were named, and how many of them are lost.
    named: usize,
    lost: AtomicUsize,
    damage: AtomicU64,
    root: Mutex<Option<Id>>,
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Counts {
    files_new: AtomicU64,
    files_changed: AtomicU64,
    files_unmodified: AtomicU64,
    dirs_new: AtomicU64,
    dirs_changed: AtomicU64,
    dirs_unmodified: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    /// Files, and their bytes, that the walk has found so far.
    found_files: AtomicU64,
    found_bytes: AtomicU64,
}

/// Makes a backup. The caller holds a lock on the repository. The index that `load` gives is loaded
/// while the parent is looked for.
///
/// An error means that there is no snapshot; what was uploaded until then is indexed all the same, and the next backup finds it.
pub fn run(
    repo: &Arc<Repository>,
    load: impl FnOnce() -> Result<Index> + Send,
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let start = now();
    let resolved = source::resolve(&options.source, progress).map_err(Error::Source)?;
    let recorded = resolved.recorded.clone();
    let (index, parent) = both(load, || parent::find(repo, options, &recorded, progress));
    let (index, parent) = (index?, parent?);
    let index = Arc::new(index.with_roots_of(repo, parent.as_slice())?);
    let writer = Writer::new(repo.clone(), index.clone(), options.dry_run)?;
    let outcome = read_source(repo, &index, &writer, options, progress, resolved, parent.as_ref());
    // Also after an error or an interruption: what is uploaded must be found again.
    let finished = writer.finish();
    let Read { tree, counts, damage } = match outcome {
        Err(Error::Stopped) => return Err(finished.err().unwrap_or(Error::Stopped)),
        outcome => outcome?,
    };
    let problems = progress.problem_count().saturating_sub(damage);
    let summary = Summary { problems, ..summarise(&counts, &finished?, start) };
    let unchanged =
        options.skip_if_unchanged && parent.as_ref().is_some_and(|parent| parent.snapshot.tree == Some(tree));
    let parent = parent.map(|parent| parent.id);
    let snapshot = if options.dry_run || unchanged {
        None
    } else {
        let snapshot = describe(options, recorded, tree, parent, summary.clone());
        Some(repo.save_file(FileType::Snapshot, snapshot.encode())?)
    };
    Ok(Report { snapshot, tree, parent, summary, problems, damage })
}

/// What came of reading the source.
struct Read {
    /// The root tree.
    tree: Id,
    counts: Counts,
    damage: u64,
}

/// Stages 2 to 5: everything becomes blobs.
fn read_source(
    repo: &Repository,
    index: &Index,
    writer: &Writer,
    options: &Options,
    progress: &Progress,
    resolved: Resolved,
    parent: Option<&StoredSnapshot>,
) -> Result<Read> {
    let Resolved { tops, named, lost, .. } = resolved;
    let root_device = tops.values().next().and_then(|top| stat::lstat(&top.path).ok()).map(|stat| stat.st_dev);
    let observer = Observer::new(options, root_device);
    let run =
        Run { named, lost: AtomicUsize::new(lost), ..Run::new(repo, index, writer, options, progress, observer)? };
    let root = Dir::root();
    match &options.source {
        Source::Stream { name, input } => {
            let names = stream::names(name)?;
            let (fd, producer) = stream::open(input).map_err(Error::Source)?;
            let source = producer.describe();
            let feed = |files: &_| run.feed(names, (fd, &source), root, files);
            run.pipeline(&Stack::default(), Vec::new(), feed);
            run.outcome()?;
            producer.finish(progress).map_err(Error::Source)?;
            if run.counts.bytes.load(Ordering::Relaxed) == 0 {
                return Err(source_error(format!("{source} gave no data; no snapshot is made of nothing")));
            }
        }
        Source::Paths(_) | Source::Volume(_) => {
            let (top, to_count) = (run.parent_top(parent), scan::roots(&tops));
            run.pipeline(&Stack::new(root, top, tops), to_count, |_| Ok(()));
        }
    }
    run.outcome()?;
    run.end()
}

impl<'r> Run<'r> {
    /// A run in which nothing was named.
    fn new(
        repo: &'r Repository,
        index: &'r Index,
        writer: &'r Writer,
        options: &'r Options,
        progress: &'r Progress,
        observer: Observer,
    ) -> Result<Run<'r>> {
        let budget = repo.settings().budget;
        let left = budget.left(index.memory(), writer.kept())?;
        let parts = budget.backup(left, options.read_concurrency, slab::SLAB_SIZE as u64);
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

impl Run<'_> {
    /// Starts all stages and waits for them. `feed` gives the readers what no walker finds.
    fn pipeline(
        &self,
        stack: &Stack,
        to_count: Vec<scan::Found>,
        feed: impl FnOnce(&crossbeam_channel::Sender<FileWork>) -> Result<()>,
    ) {
        let memory::Backup { threads: cores, readers, walkers, small_files, .. } = self.parts;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(cores).build().expect("threads can be started");
        let (files, queue) = crossbeam_channel::bounded(limits::FILE_QUEUE);
        let limit = Limit::new(cores.max(LEAST_WALKERS), walkers, Clock::default());
        pool.in_place_scope(|cpu| {
            let gatherer = Gatherer::new(self, cpu, small_files);
            let walk = walk::Walk::new(self, stack, &gatherer, &limit);
            std::thread::scope(|threads| {
                // A thread that cannot be started is a panic here, and those that run would first
                // do all the work.
                let _stop = StopOnPanic(self);
                for _ in 0..readers {
                    let mut reader = Reader::new(self, Filling::new(self, cpu));
                    let queue = queue.clone();
                    threads.spawn(move || self.guarded(|| reader.read_all(&queue)));
                }
                drop(queue);
                if self.options.scan {
                    threads.spawn(|| self.guarded(|| scan::count(self, to_count, || walk.is_done())));
                }
                self.check(feed(&files));
                walk.start(threads, &files);
                drop(files);
            });
        });
    }

    /// Runs a part of a stage. A panic in it, which has been printed by then, ends the run with an
    /// error instead of leaving the other stages waiting.
    fn guarded(&self, work: impl FnOnce()) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            self.fail(Error::Panicked);
        }
    }

    /// The parent's root, in the shape that this backup has.
    fn parent_top(&self, parent: Option<&StoredSnapshot>) -> ParentNodes {
        let Some(parent) = parent else { return ParentNodes::None };
        let Some(tree) = parent.snapshot.tree else { return ParentNodes::None };
        let volume = matches!(self.options.source, Source::Volume(_));
        // VolSync stores a volume's content at the root: seen as if it were below `data`, its files are found unchanged.
        if volume && !parent.snapshot.is_volume() {
            return ParentNodes::below(VOLUME_NAME, tree);
        }
        ParentNodes::Tree(tree)
    }

    /// Makes sure that the repository has the chunk that holes are made of.
    fn store_zero_chunk(&self) -> Result<()> {
        if !self.writer.index().contains(BlobType::Data, Id(ZERO_CHUNK)) {
            self.writer.store_chunks(&[&vec![0; MIN_SIZE]])?;
        }
        Ok(())
    }

    fn finish_file(&self, node: &Node, action: Action, path: &Path) {
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

    /// Something about the source that makes the snapshot incomplete or doubtful.
    fn problem(&self, path: &Path, why: impl fmt::Display) {
        self.progress.problem(Phase::Archival, display(path), why);
    }

    /// An entry cannot be read. If the user named it and nothing else can be read either, the run
    /// has failed.
    fn lost(&self, standing: Standing, path: &Path, why: impl fmt::Display) {
        if standing == Standing::Named && self.named == 1 {
            return self.fail(source_error(format!("{}: {why}", display(path))));
        }
        self.problem(path, why);
        if standing == Standing::Named && self.lost.fetch_add(1, Ordering::Relaxed) + 1 == self.named {
            self.fail(source_error(format!("none of the {} that were named; the errors are above", self.named)));
        }
    }

    /// A directory is too large for the memory or the room there is. If it is all that was named, the
    /// run has failed.
    fn leave_out(&self, standing: Standing, path: &Path, error: Error) {
        if standing == Standing::Named && self.named == 1 {
            return self.fail(error);
        }
        self.lost(standing, path, format!("it is left out: {error}"));
    }

    /// The parent snapshot is damaged at this path. What this run stores makes up for it.
    fn damage(&self, path: &Path, why: impl fmt::Display) {
        self.damage.fetch_add(1, Ordering::Relaxed);
        self.problem(path, why);
    }

    fn set_root(&self, tree: Id) {
        *self.root.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(tree);
    }

    fn check(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// Where long lists are put aside.
    fn aside(&self) -> Option<&Path> {
        self.writer.repo().settings().aside.as_deref()
    }

    /// Ends the run with an error.
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.progress.is_interrupted()
    }

    /// Why the pipeline ended early, if it did.
    fn outcome(&self) -> Result<()> {
        if self.progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    /// What a pipeline that did not end early has made.
    fn end(self) -> Result<Read> {
        let root = self.root.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tree = root.expect("without failure, every directory completes");
        if tree == Id::of(&crate::format::tree::TreeWriter::new().finish()) {
            return Err(Error::EmptySnapshot);
        }
        Ok(Read { tree, counts: self.counts, damage: self.damage.into_inner() })
    }
}

/// Ends a run whose threads could not all be started.
struct StopOnPanic<'s, 'r>(&'s Run<'r>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::Panicked);
        }
    }
}

fn source_error(why: String) -> Error {
    Error::Source(std::io::Error::other(why))
}

fn now() -> Time {
    let (seconds, nanos) = clock::now();
    Time::utc(seconds, nanos)
}

fn summarise(counts: &Counts, written: &Written, start: Time) -> Summary {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Summary {
        backup_start: Some(start),
        backup_end: Some(now()),
        files_new: get(&counts.files_new),
        files_changed: get(&counts.files_changed),
        files_unmodified: get(&counts.files_unmodified),
        dirs_new: get(&counts.dirs_new),
        dirs_changed: get(&counts.dirs_changed),
        dirs_unmodified: get(&counts.dirs_unmodified),
        data_blobs: get(&written.data_blobs),
        tree_blobs: get(&written.tree_blobs),
        data_added: get(&written.plain_bytes),
        data_added_packed: get(&written.packed_bytes),
        total_files_processed: get(&counts.files),
        total_bytes_processed: get(&counts.bytes),
        ..Summary::default()
    }
}

fn describe(options: &Options, paths: Vec<String>, tree: Id, parent: Option<Id>, summary: Summary) -> Snapshot {
    let mut tags = options.tags.clone();
    if matches!(options.source, Source::Volume(_)) && !tags.iter().any(|tag| tag == VOLUME_TAG) {
        tags.push(VOLUME_TAG.to_owned());
    }
    Snapshot {
        time: options.time,
        parent,
        tree: Some(tree),
        paths,
        hostname: options.hostname.clone(),
        username: host::username(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        excludes: options.exclude.recorded.clone(),
        tags,
        original: None,
        program_version: concat!("vsm-mover ", env!("CARGO_PKG_VERSION")).to_owned(),
        summary: Some(summary),
        extra: serde_json::Map::new(),
    }
}
