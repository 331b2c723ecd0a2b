//! Backs up a source to a snapshot. Each stage is a module:
//!
//! 1. [`source`] or [`stream`]: the requested paths or the stream become the top of a tree, and
//!    [`parent`] finds the parent snapshot.
//! 2. [`walk`]: directories ([`stack`]) are listed, and the metadata of their entries ([`stat`]) is
//!    compared with the parent's; large directories are processed in parts ([`names`]).
//! 3. [`small`] and [`read`]: changed files are read into slabs and cut into chunks.
//! 4. [`fill`]: chunks are hashed and, if new, compressed, sealed and packed; on all cores.
//! 5. [`assemble`]: finished entries complete their directory, which becomes a tree blob and
//!    completes its own parent.
//! 6. [`snapshot`]: the snapshot is saved once everything that it references is durable.
//!
//! [`pipeline`] starts the threads of stages 2 to 5, which share the state in [`run`](mod@run). All
//! queues between them are bounded (backpressure), and so is memory: see
//! `docs/internals/engine.md`.

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
    /// `None` for a dry run, or if nothing changed and `skip_if_unchanged` is set.
    pub snapshot: Option<Id>,
    pub tree: Id,
    pub parent: Option<Id>,
    pub summary: Summary,
    /// Entries of the source that are missing or doubtful; each was reported as a problem.
    pub problems: u64,
    /// Places where the parent snapshot is damaged; each was reported as a problem. The new
    /// snapshot is complete nevertheless.
    pub damage: u64,
}

/// Makes a backup. The caller holds a lock on the repository. `load` loads the index, concurrently
/// with the search for the parent snapshot.
///
/// An error means that no snapshot was made. Data that was uploaded before is indexed nevertheless,
/// so the next backup does not upload it again.
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
    // Finish also after an error or an interruption, so that the uploaded data is indexed.
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
