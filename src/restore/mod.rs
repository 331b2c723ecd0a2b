//! Restores a snapshot into a directory or onto a block device. The stages, each a module:
//!
//! 1. [`origin`] resolves the requested path to a tree, or to one entry of a tree.
//! 2. [`plan`]: the first [`walk`] lists the directories, the files and the offset of each blob,
//!    before anything is touched. The plan does not change afterwards: [`file_states`] and
//!    [`outcomes`] record the state of each file, and [`target`] the other results of the stages.
//! 3. [`prepare`] creates directories, decides for each existing file whether it is kept, corrected
//!    or replaced, and compares the files to correct.
//! 4. [`fetch`] reads packs in runs over all connections, opens the blobs and compares their
//!    hashes.
//! 5. [`file`] writes plaintext at its offsets and leaves zeros as holes. Most files get their
//!    metadata here.
//! 6. [`verify`] reads the written data again, if requested. From the comparison to here, the files
//!    are processed table by table, each as large as the memory budget allows.
//! 7. [`finish`]: the second walk creates links and special files, [`delete`]s, and applies
//!    [`meta`]data, the deepest first.
//!
//! [`directory`] runs stages 2 to 7. The calls of stages 3 and 5 to 7 on the target are tasks of
//! [`workers`], which adapts the number of tasks in flight to the target; [`dirs`] keeps the
//! directories open that the tasks work in.
//!
//! [`confine`] is the only way to the file system, and no call through it leaves the target. A
//! block device takes one file ([`image`]) instead of a tree: [`device`]. At the end, the target is
//! synced ([`durable`]).
//!
//! A failure of one entry among others is a problem ([`problems`]), and the others are restored. A
//! failure of the requested root is an error.

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

/// Restores the entry at `path` of a snapshot, or all of it if `path` is empty, into the target.
/// The content of a directory goes into the target itself; any other entry keeps its name there.
///
/// An error means that the restore ended early, or that it ran to its end but the requested entries
/// are not in the target. Files that are complete by then may have their metadata; directories have
/// it only if the error came in the last stage or after it.
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

/// The kind of the target.
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
