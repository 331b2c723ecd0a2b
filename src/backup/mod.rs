//! A backup, from the source to a snapshot. The stages, each a module:
//!
//! 1. [`source`], or [`stream`]: what was asked for becomes the top of a tree, and [`parent`] finds
//!    the snapshot to compare with.
//! 2. [`walk`]: directories ([`stack`]) are listed and their entries looked at ([`stat`]), side by
//!    side with the parent's; of a large one in parts ([`names`]).
//! 3. [`small`] and [`read`]: changed files are read into slabs and cut into chunks.
//! 4. [`fill`]: chunks are hashed and, if new, compressed, sealed and packed; on all cores.
//! 5. [`assemble`]: finished entries complete their directory, which becomes a tree blob and
//!    completes its own parent.
//! 6. [`snapshot`]: it is saved once everything it names is durable.
//!
//! [`pipeline`] starts the threads of stages 2 to 5, and [`run`](mod@run) is what they share. Every
//! queue between them is bounded, and so is memory: see `docs/ARCHITECTURE.md`.

mod assemble;
mod file;
mod fill;
mod names;
mod options;
mod parent;
mod pipeline;
mod reach;
mod read;
mod run;
mod scan;
mod slab;
mod small;
mod snapshot;
mod source;
mod stack;
mod stat;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

pub use options::{DeviceIds, Exclude, Input, Options, ParentChoice, Source};

use crate::format::snapshot::Summary;
use crate::id::Id;
use crate::parallel::both;
use crate::progress::Progress;
use crate::repo::writer::{WriteMode, Writer};
use crate::repo::{Error, Index, Repository, Result};
use crate::store::FileType;
use run::Read;
use std::sync::Arc;

/// The result of a backup.
#[derive(Debug)]
pub struct Report {
    /// `None` for a dry run, or if nothing changed and `skip_if_unchanged` was asked for.
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

/// Makes a backup. The caller holds a lock on the repository. The index that `load` gives is loaded
/// while the parent is looked for.
///
/// An error means that there is no snapshot. What was uploaded until then is indexed all the same,
/// and the next backup finds it.
pub fn run(
    repo: &Arc<Repository>,
    load: impl FnOnce() -> Result<Index> + Send,
    options: &Options,
    progress: &Progress,
) -> Result<Report> {
    let start = snapshot::now();
    let resolved = source::resolve(&options.source, progress).map_err(Error::Source)?;
    let recorded = resolved.recorded.clone();
    let (index, parent) = both(load, || parent::find(repo, options, &recorded, progress));
    let (index, parent) = (index?, parent?);
    let index = Arc::new(index.with_roots_of(repo, parent.as_slice())?);
    let writer = Writer::new(repo.clone(), index, WriteMode::dry_run_if(options.dry_run))?;
    let outcome = pipeline::read_source(&writer, options, progress, resolved, parent.as_ref());
    // Also after an error or an interruption: what is uploaded must be found again.
    let finished = writer.finish();
    let Read { tree, counts, damage } = match outcome {
        Err(Error::Stopped) => return Err(finished.err().unwrap_or(Error::Stopped)),
        outcome => outcome?,
    };
    let problems = progress.problem_count().saturating_sub(damage);
    let summary = Summary { problems, ..snapshot::summarise(&counts, &finished?, start) };
    let unchanged =
        options.skip_if_unchanged && parent.as_ref().is_some_and(|parent| parent.snapshot.tree == Some(tree));
    let parent = parent.map(|parent| parent.id);
    let snapshot = if options.dry_run || unchanged {
        None
    } else {
        let snapshot = snapshot::describe(options, recorded, tree, parent, summary.clone());
        Some(repo.save_file(FileType::Snapshot, snapshot.encode())?)
    };
    Ok(Report { snapshot, tree, parent, summary, problems, damage })
}
