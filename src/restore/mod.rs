//! A restore, from a snapshot to the target: a backup's stages backwards, each a module.
//!
//! 1. [`origin`]: the path that was asked for becomes a tree, or one entry of a tree.
//! 2. [`plan`]: the first [`walk`] lists directories, files and where each blob goes. Nothing has been touched yet.
//! 3. [`prepare`]: directories are made, and each file that is there already is decided about; then it is compared.
//! 4. [`fetch`]: packs are read in runs, blobs opened and compared with their hash; over all connections.
//! 5. [`file`]: plaintext goes to its places, and zeros stay holes. Most files get their metadata here.
//! 6. [`verify`]: what was written is read again, if asked for. From comparing to here, as many files at a time have
//!    their turn as there is memory for.
//! 7. [`finish`]: the second walk makes links and special files, [`delete`]s, and applies [`meta`]data, the deepest first.
//!
//! What stages 3 and 5 to 7 do to the target are tasks of [`workers`], which keep as many of them in flight as the
//! target answers faster with; [`dirs`] keeps the directories open that they work in.
//!
//! [`confine`] is the only way to the file system, and nothing that goes through it leaves the target. A block device takes one
//! file instead of a tree: [`device`]. At the end everything is [`durable`].
//!
//! What concerns one entry of several is a problem, and the rest goes on. What concerns the root of
//! what was asked for is an error.

mod close;
mod confine;
mod delete;
mod device;
mod dirs;
mod durable;
mod error;
mod fetch;
mod file;
mod finish;
mod inodes;
mod meta;
mod names;
mod origin;
mod panics;
mod plan;
mod prepare;
#[cfg(test)]
mod tests;
mod verify;
mod walk;
mod weigh;
mod workers;

pub use error::{Error, Result};

use crate::limits;
use crate::pattern::Patterns;
use crate::progress::Progress;
use crate::repo::{Index, Repository, StoredSnapshot, TreeReader};
use confine::Root;
use dirs::Dirs;
use durable::FileSystems;
use file::Files;
use finish::Finish;
use meta::Refusals;
use origin::Origin;
use plan::{Flag, Plan, Room};
use prepare::Prepare;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use walk::{Selection, Walk};
use workers::Workers;

/// What becomes of files that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// They are compared, and corrected where they differ.
    #[default]
    Always,
    /// As above, but size and modification time are trusted.
    IfChanged,
    /// They are kept unless the snapshot's are newer.
    IfNewer,
    /// They are kept.
    Never,
}

/// Whether metadata that the system refuses to a process without root's rights is a problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unprivileged {
    /// It is a warning: the user knows that an owner is not theirs to set.
    #[default]
    Excused,
    /// It is a problem, as it is for root.
    Counted,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// A directory, made if it is missing, or a block device.
    pub target: PathBuf,
    /// The snapshot is a volume's: the volume's root becomes the target, whichever shape the snapshot has.
    pub volume: bool,
    /// Which paths below the target are meant; all if empty.
    pub include: Patterns,
    /// Which of them are not.
    pub exclude: Patterns,
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have.
    pub delete: bool,
    /// Blocks of zeros in new files become holes.
    pub sparse: bool,
    /// Read everything that was written again.
    pub verify: bool,
    /// Decide and tell, but change nothing.
    pub dry_run: bool,
    pub unprivileged: Unprivileged,
    /// Bytes that the plan may take.
    pub plan_memory: u64,
    /// Bytes of its files' tables that are in memory at a time; `None`: what the budget leaves for them.
    pub stretch_memory: Option<u64>,
}

impl Options {
    pub fn new(target: impl Into<PathBuf>) -> Options {
        Options {
            target: target.into(),
            volume: false,
            include: Patterns::default(),
            exclude: Patterns::default(),
            overwrite: Overwrite::default(),
            delete: false,
            sparse: true,
            verify: false,
            dry_run: false,
            unprivileged: Unprivileged::default(),
            plan_memory: limits::RESTORE_PLAN,
            stretch_memory: None,
        }
    }
}

/// What a restore did. Files are entries of all kinds, as restic counts them.
#[derive(Debug, Default)]
pub struct Report {
    pub files_restored: u64,
    pub bytes_restored: u64,
    /// Files that were right already, and entries that were not to be overwritten.
    pub files_skipped: u64,
    pub bytes_skipped: u64,
    pub files_deleted: u64,
    /// What the restore set out to bring.
    pub total_files: u64,
    pub total_bytes: u64,
    /// Metadata, links and nodes that the system did not take, by kind.
    pub not_applied: BTreeMap<String, u64>,
    /// Everything that is missing or doubtful; each was told as a problem.
    pub problems: u64,
    /// Entries that the snapshot itself lacks or that are doubtful in it, anywhere in it, by its
    /// summary.
    pub snapshot_problems: u64,
}

impl Report {
    /// Entries that the target has as the snapshot has them, or that were not to be overwritten.
    pub fn files_done(&self) -> u64 {
        self.files_restored + self.files_skipped
    }

    /// Bytes of file content that the target has now.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_restored + self.bytes_skipped
    }

    /// The problems, and at least one for each entry that was not restored: what is below a
    /// directory that could not be made is not reported one by one.
    pub fn problems_by_entry(&self) -> u64 {
        self.problems.max(self.total_files.saturating_sub(self.files_done()))
    }
}

/// Restores what `path` names in a snapshot (the empty path is all of it) into the target. A directory's content goes into the
/// target, any other entry is put there under its own name.
///
/// An error means that the restore ended early, or that it ran to its end and what was asked for is
/// not in the target. Files that are complete by then may have their metadata; directories have it
/// only if the error came in the last stage or after it.
pub fn run(
    repo: &Repository,
    index: &Index,
    snapshot: &StoredSnapshot,
    path: &[u8],
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let problems_before = progress.problem_count();
    let trees = TreeReader::new(repo, index);
    let origin = origin::find(&trees, snapshot, path, options.volume)?;
    let mut report = match Target::of(&options.target)? {
        Target::Device => device::run(repo, index, &trees, origin, options, progress)?,
        Target::Directory => restore_tree(repo, index, &trees, &origin, options, progress)?,
    };
    report.problems = progress.problem_count() - problems_before;
    report.snapshot_problems = snapshot.snapshot.problems();
    Ok(report)
}

fn restore_tree(
    repo: &Repository,
    index: &Index,
    trees: &TreeReader<'_>,
    origin: &Origin,
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let selection = Selection { include: &options.include, exclude: &options.exclude };
    if options.delete && selection.is_everything() && is_system_root(&options.target) {
        return Err(Error::DeleteEverything);
    }
    let walk = Walk { trees, origin, selection, progress };
    let plan = &plan::build(&walk, index, Room::of(repo, index, options)?)?;
    let root = open_root(options, &plan.dirs[0].fresh)?;
    let mut systems = match &root {
        Some(root) if !options.dry_run => {
            let opened = FileSystems::of(root, &options.target);
            Some(opened.map_err(|errno| target_error("open", &options.target, errno))?)
        }
        _ => None,
    };
    let workers = &Workers::new(repo.settings().budget.threads, progress);
    let dirs = root.as_ref().map(|root| Dirs::new(root, plan));
    let prepare = Prepare { root: root.as_ref(), options, index, progress, workers };
    let refusals = &Refusals::new(progress, options.unprivileged);
    let mut report = Report { total_files: plan.entries, total_bytes: plan.bytes, ..Report::default() };
    let outcome = (|| {
        let mut unreached = None;
        let mut outcomes = prepare.run(plan, dirs.as_ref(), systems.as_mut())?;
        for at in 0..plan.stretches() {
            let stretch = &plan.stretch(at)?;
            outcomes.resume(stretch);
            dirs.as_ref().map_or(Ok(()), |dirs| prepare.compare(dirs, stretch))?;
            if let Some(dirs) = dirs.as_ref().filter(|_| !options.dry_run) {
                let files = Files::new(stretch, dirs, refusals, options, progress);
                files.fill(workers, |sink| fetch::run(repo, index, stretch, sink, progress))?;
                if options.verify {
                    verify::run(workers, dirs, stretch, index, &files)?;
                }
                unreached = unreached.or_else(|| files.unreached().map(str::to_owned));
            }
            outcomes.add(stretch);
        }
        let target = root.as_ref().zip(dirs.as_ref());
        Finish { walk: &walk, plan, outcomes: &outcomes, target, options, refusals, workers }.run(&mut report)?;
        Ok::<_, Error>(unreached)
    })();
    report.not_applied = refusals.settle();
    let unreached = outcome?;
    if let Some(systems) = systems {
        systems.sync()?;
    }
    if let Some(why) = &plan.root_damage {
        return Err(Error::RootDamaged { why: why.clone() });
    }
    if let Some(why) = unreached {
        return Err(Error::Unreached { why });
    }
    demand_entries(plan, origin, options, &report)?;
    if plan.entries == 0 && !options.include.is_empty() {
        progress.warning("no entry matches the include patterns; nothing was restored");
    }
    Ok(report)
}

/// An error if nothing is in the target of what was asked for.
fn demand_entries(plan: &Plan, origin: &Origin, options: &Options, report: &Report) -> Result<()> {
    let entries = plan.entries;
    if report.files_done() > 0 {
        return Ok(());
    }
    if let Some(why) = plan.refusal.get() {
        return Err(Error::NothingTaken { target: options.target.display().to_string(), entries, why: why.clone() });
    }
    let is_everything = options.include.is_empty() && options.exclude.is_empty();
    match origin {
        Origin::Entry(node) if entries > 0 || is_everything => Err(Error::NotRestored { path: node.display_name() }),
        Origin::Dir { .. } if entries > 0 => Err(Error::NothingUsable { entries }),
        Origin::Entry(_) | Origin::Dir { .. } => Ok(()),
    }
}

/// What the target is.
enum Target {
    Directory,
    Device,
}

impl Target {
    fn of(path: &Path) -> Result<Target> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(Target::Directory),
            Ok(found) if found.file_type().is_block_device() => Ok(Target::Device),
            Ok(_) => Err(Error::NoTarget { path: path.display().to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Target::Directory),
            Err(source) => Err(Error::Target { action: "look at", path: path.display().to_string(), source }),
        }
    }
}

/// Opens the target, making it if it is missing. `None`: it is missing, and this is a dry run.
fn open_root(options: &Options, fresh: &Flag) -> Result<Option<Root>> {
    let path = &options.target;
    if !path.exists() {
        fresh.set();
        if options.dry_run {
            return Ok(None);
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| Error::Target { action: "create", path: path.display().to_string(), source })?;
    }
    Root::open(path).map(Some).map_err(|errno| target_error("open", path, errno))
}

fn is_system_root(path: &Path) -> bool {
    std::fs::canonicalize(path).is_ok_and(|path| path == Path::new("/"))
}

fn target_error(action: &'static str, path: &Path, errno: Errno) -> Error {
    Error::Target { action, path: path.display().to_string(), source: errno.into() }
}
