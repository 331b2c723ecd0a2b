//! A restore, from a snapshot to the target: a backup's stages backwards, each a module.
//!
//! 1. [`origin`]: the path that was asked for becomes a tree, or one entry of a tree.
//! 2. [`plan`]: the first [`walk`] lists directories, files and where each blob goes. Nothing has
//!    been touched yet, and from here on the plan does not change: what becomes of the files is in
//!    [`file_states`] and [`outcomes`], and the rest of what the stages find out in [`target`].
//! 3. [`prepare`]: directories are made, and each file that exists already is decided about; then
//!    it is compared.
//! 4. [`fetch`]: packs are read in runs, blobs opened and compared with their hash; over all
//!    connections.
//! 5. [`file`]: plaintext goes to its places, and zeros stay holes. Most files get their metadata
//!    here.
//! 6. [`verify`]: what was written is read again, if asked for. From comparing to here, the files
//!    are taken table by table, each as large as the memory budget allows.
//! 7. [`finish`]: the second walk makes links and special files, [`delete`]s, and applies
//!    [`meta`]data, the deepest first.
//!
//! [`directory`] runs stages 2 to 7. What stages 3 and 5 to 7 do to the target are tasks of
//! [`workers`], which keep as many of them in flight as the target answers faster with; [`dirs`]
//! keeps the directories open that they work in.
//!
//! [`confine`] is the only way to the file system, and nothing that goes through it leaves the
//! target. A block device takes one file ([`image`]) instead of a tree: [`device`]. At the end
//! everything is [`durable`].
//!
//! What concerns one entry of several is a problem ([`problems`]), and the rest is restored. What
//! concerns the root of what was asked for is an error.

mod close;
mod confine;
mod context;
mod delete;
mod device;
mod dir_states;
mod directory;
mod dirs;
mod durable;
mod error;
mod fetch;
mod file;
mod file_states;
mod finish;
mod image;
mod inodes;
mod meta;
mod names;
mod open_files;
mod options;
mod origin;
mod outcomes;
mod overwrite;
mod panics;
mod path;
mod plan;
mod positioned_io;
mod prepare;
mod problems;
mod readback;
mod report;
mod selection;
mod target;
#[cfg(test)]
mod tests;
mod verify;
mod walk;
mod weigh;
mod workers;
mod zeros;

pub use context::Restoring;
pub use error::{Error, Result};
pub use options::{Options, Overwrite, Unprivileged};
pub use report::Report;

use crate::repo::{StoredSnapshot, TreeReader};
use origin::Base;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Restores what `path` names in a snapshot (the empty path is all of it) into the target. A
/// directory's content goes into the target, any other entry is put there under its own name.
///
/// An error means that the restore ended early, or that it ran to its end and what was asked for is
/// not in the target. Files that are complete by then may have their metadata; directories have it
/// only if the error came in the last stage or after it.
pub fn run(restoring: &Restoring<'_>, snapshot: &StoredSnapshot, path: &[u8]) -> Result<Report> {
    let Restoring { repo, index, options, progress } = *restoring;
    let problems_before = progress.problem_count();
    let trees = TreeReader::new(repo, index);
    let base = if options.volume { Base::Volume } else { Base::Snapshot };
    let origin = origin::find(&trees, snapshot, path, base)?;
    let mut report = match TargetKind::of(&options.target)? {
        TargetKind::Device => device::run(restoring, &trees, origin)?,
        TargetKind::Directory => directory::run(restoring, &trees, &origin)?,
    };
    report.problems = progress.problem_count() - problems_before;
    report.snapshot_problems = snapshot.snapshot.problems();
    Ok(report)
}

/// What the target is.
enum TargetKind {
    Directory,
    Device,
}

impl TargetKind {
    fn of(path: &Path) -> Result<TargetKind> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(TargetKind::Directory),
            Ok(found) if found.file_type().is_block_device() => Ok(TargetKind::Device),
            Ok(_) => Err(Error::NoTarget { path: path.display().to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(TargetKind::Directory),
            Err(source) => Err(Error::Target { action: "look at", path: path.display().to_string(), source }),
        }
    }
}
