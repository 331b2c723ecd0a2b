//! A backup, from the source to a snapshot. The stages, each a module:
//!
//! 1. [`source`]: what was asked for becomes the top of a tree.
//! 2. [`walk`]: directories are listed and their entries looked at ([`stat`]), side by side with the parent's ([`parent`]).
//! 3. [`read`]: changed files are read into slabs and cut into chunks.
//! 4. also [`read`]: chunks are hashed and, if new, compressed, sealed and packed; on all cores.
//! 5. [`assemble`]: finished entries complete their directory, which becomes a tree blob and completes its own parent.
//! 6. the snapshot, once everything it names is durable.
//!
//! Every queue between them is bounded, and so is memory: see `docs/ARCHITECTURE.md`.

mod assemble;
mod parent;
mod read;
mod scan;
mod slab;
mod source;
mod stat;
mod walk;

use crate::chunk::{MIN_SIZE, Scanner, ZERO_CHUNK};
use crate::clock;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType, mode};
use crate::format::snapshot::{Snapshot, Summary, VOLUME_NAME, VOLUME_TAG};
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::limits;
use crate::memory;
use crate::pattern::Patterns;
use crate::progress::{Action, Phase, Progress};
use crate::repo::writer::{Writer, Written};
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use crate::store::FileType;
use assemble::Dir;
use parent::ParentDir;
use read::{FileWork, Reader};
use slab::SlabPool;
use source::Tops;
use stat::{Observer, display};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What is backed up.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files and directories, stored under the paths they were given as, in restic's shapes.
    Paths(Vec<PathBuf>),
    /// One directory as a volume: stored as the directory `data` with its own owner, mode, times and xattrs.
    Volume(PathBuf),
    /// Standard input as one file of this path from the root; directories on the way are made up.
    Stdin { name: String },
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
    /// Files read at the same time.
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

/// What a backup did.
#[derive(Debug)]
pub struct Report {
    /// `None` for a dry run, or when nothing changed and that was to be skipped.
    pub snapshot: Option<Id>,
    pub tree: Id,
    pub parent: Option<Id>,
    pub summary: Summary,
    /// Entries that are missing or doubtful; each was told as a problem.
    pub problems: u64,
}

/// What all stages share.
struct Run<'r> {
    options: &'r Options,
    progress: &'r Progress,
    parts: memory::Backup,
    writer: &'r Writer,
    parent_trees: TreeReader<'r>,
    observer: Observer,
    scanner: Arc<Scanner>,
    counts: Counts,
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
}

/// Makes a backup. The caller holds a lock on the repository.
///
/// An error means that there is no snapshot; what was uploaded until then is indexed all the same, and the next backup finds it.
pub fn run(repo: &Arc<Repository>, index: Arc<Index>, options: &Options, progress: &Progress) -> Result<Report> {
    let start = now();
    let (tops, paths) = source::resolve(&options.source, progress).map_err(Error::Source)?;
    let parent = parent::find(repo, options, &paths, progress)?;
    let writer = Writer::new(repo.clone(), index.clone(), options.dry_run)?;
    let outcome = read_source(repo, &index, &writer, options, progress, &tops, parent.as_ref());
    // Also after an error or an interruption: what is uploaded must be found again.
    let finished = writer.finish();
    let (tree, counts) = match outcome {
        Err(Error::Stopped) => return Err(finished.err().unwrap_or(Error::Stopped)),
        outcome => outcome?,
    };
    let summary = Summary { problems: progress.problem_count(), ..summarise(&counts, &finished?, start) };
    let unchanged =
        options.skip_if_unchanged && parent.as_ref().is_some_and(|parent| parent.snapshot.tree == Some(tree));
    let parent = parent.map(|parent| parent.id);
    let snapshot = if options.dry_run || unchanged {
        None
    } else {
        let snapshot = describe(options, paths, tree, parent, summary.clone());
        Some(repo.save_file(FileType::Snapshot, snapshot.encode())?)
    };
    Ok(Report { snapshot, tree, parent, summary, problems: progress.problem_count() })
}

/// Stages 2 to 5: everything becomes blobs; the root tree's id.
fn read_source(
    repo: &Repository,
    index: &Index,
    writer: &Writer,
    options: &Options,
    progress: &Progress,
    tops: &Tops,
    parent: Option<&StoredSnapshot>,
) -> Result<(Id, Counts)> {
    let root_device = tops.values().next().and_then(|top| stat::lstat(&top.path).ok()).map(|stat| stat.st_dev);
    let budget = repo.settings().budget;
    let left = budget.left(index.memory(), writer.kept())?;
    let run = Run {
        options,
        parts: budget.backup(left, options.read_concurrency, slab::SLAB_SIZE as u64),
        progress,
        writer,
        parent_trees: TreeReader::new(repo, index),
        observer: Observer::new(options, root_device),
        scanner: Arc::new(Scanner::new(repo.config().polynomial)),
        counts: Counts::default(),
        root: Mutex::new(None),
        failure: Mutex::new(None),
        stopped: AtomicBool::new(false),
    };
    let top = run.parent_top(parent);
    run.pipeline(tops, &top);
    if progress.is_interrupted() {
        return Err(Error::Interrupted);
    }
    if let Some(failure) = run.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(failure);
    }
    let root = run.root.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let tree = root.expect("without failure, every directory completes");
    if tree == Id::of(&crate::format::tree::TreeWriter::new().finish()) {
        return Err(Error::EmptySnapshot);
    }
    Ok((tree, run.counts))
}

impl Run<'_> {
    /// Starts all stages and waits for them.
    fn pipeline(&self, tops: &Tops, parent: &ParentDir) {
        let memory::Backup { threads: cores, readers, slabs } = self.parts;
        let slabs = SlabPool::new(slabs);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(cores).build().expect("threads can be started");
        let stack = walk::Stack::default();
        let (files, queue) = crossbeam_channel::bounded(limits::FILE_QUEUE);
        pool.in_place_scope(|cpu| {
            std::thread::scope(|threads| {
                for _ in 0..readers {
                    let (queue, slabs) = (queue.clone(), &slabs);
                    threads.spawn(move || Reader::new(self, cpu, slabs).read_all(&queue));
                }
                drop(queue);
                if self.options.scan {
                    threads.spawn(|| scan::count(self, tops));
                }
                let root = Dir::new(PathBuf::new(), None, None, None);
                self.check(self.feed(&stack, &files, &root, parent, tops));
                for _ in 0..cores {
                    let (stack, files) = (&stack, files.clone());
                    threads.spawn(move || walk::walk(self, stack, &files));
                }
                drop(files);
            });
        });
    }

    /// Puts what was asked for before the walkers and readers.
    fn feed(
        &self,
        stack: &walk::Stack,
        files: &crossbeam_channel::Sender<FileWork>,
        root: &Arc<Dir>,
        parent: &ParentDir,
        tops: &Tops,
    ) -> Result<()> {
        let Source::Stdin { name } = &self.options.source else {
            return walk::start(self, stack, files, root, parent, tops);
        };
        let mut names: Vec<&str> = name.split('/').filter(|name| !matches!(*name, "" | "." | "..")).collect();
        let last = names
            .pop()
            .ok_or_else(|| Error::Source(std::io::Error::other(format!("{name:?} is no name for a file"))))?;
        let mut dir = root.clone();
        for name in names {
            let node = Node { mode: mode::DIR | 0o755, ..self.invented(name, NodeType::Dir) };
            let slot = dir.open_slot(name.as_bytes());
            let below = Dir::new(PathBuf::from(name), Some(node), None, Some((dir.clone(), slot)));
            dir.listed(self)?;
            dir = below;
        }
        let node = Node { mode: 0o644, ..self.invented(last, NodeType::File) };
        let slot = dir.open_slot(last.as_bytes());
        let stdin = rustix::io::dup(std::io::stdin()).map_err(|error| Error::Source(error.into()))?;
        // The readers are gone only when the run is stopped.
        let _ = files.send(FileWork::stream(stdin, node, dir.clone(), slot));
        dir.listed(self)
    }

    /// A node for what is not in any file system.
    fn invented(&self, name: &str, ty: NodeType) -> Node {
        let time = self.options.time;
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Node { mtime: time, atime: time, ctime: time, uid, gid, ..Node::new(name, ty) }
    }

    /// The parent's root, in the shape that this backup has.
    fn parent_top(&self, parent: Option<&StoredSnapshot>) -> ParentDir {
        let Some(parent) = parent else { return ParentDir::default() };
        let Some(tree) = parent.snapshot.tree else { return ParentDir::default() };
        let volume = matches!(self.options.source, Source::Volume(_));
        // VolSync stores a volume's content at the root: seen as if it were below `data`, its files are found unchanged.
        if volume && !parent.snapshot.is_volume() {
            return ParentDir::below(VOLUME_NAME, tree);
        }
        let mut root = Node::new("", NodeType::Dir);
        root.subtree = Some(tree);
        self.parent_dir(Some(&root))
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

    fn set_root(&self, tree: Id) {
        *self.root.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(tree);
    }

    fn check(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// Ends the run: the repository could not take something.
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.progress.is_interrupted()
    }
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
