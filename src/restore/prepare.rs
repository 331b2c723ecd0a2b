//! Stage 3: the target is looked at and made ready: directories are made, and each file that exists
//! is decided about; then the files that are to be corrected are compared.
//!
//! What is in the way of a directory is replaced at once, unless it is to be kept; what is in the
//! way of a file only when its content is at hand. A file that is to be overwritten is compared
//! piece by piece, and only what differs is fetched. In a directory that is new nothing has to be
//! looked at. A dry run decides in the same way and changes nothing.

pub mod compare;
mod look;

use super::dirs::Dirs;
use super::durable::FileSystems;
use super::error::Result;
use super::file_states::FileStates;
use super::outcomes::Outcomes;
use super::target::Target;
use look::Look;

/// Makes the directories, opens each file system that will be written to, and decides about each
/// file that exists: about all of them before any is written, because two names of the snapshot may
/// be one here. `dirs` is `None` if the target does not exist, `systems` for a dry run.
pub fn run(target: &Target<'_>, dirs: Option<&Dirs<'_>>, systems: Option<&mut FileSystems<'_>>) -> Result<Outcomes> {
    if let Some(dirs) = dirs {
        return Look::new(target, dirs, systems).run();
    }
    target.set_all_fresh();
    let mut outcomes = Outcomes::new(target.plan.files);
    for at in 0..target.plan.tables() {
        let table = &target.plan.table(at)?;
        outcomes.note(table, &FileStates::planned(table));
    }
    Ok(outcomes)
}
