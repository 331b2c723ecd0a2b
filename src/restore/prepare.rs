//! Stage 3: prepares the target. It creates directories, decides for each existing file whether it
//! is kept, corrected or replaced, and compares the files to correct.
//!
//! An entry in the way of a directory is replaced at once, unless it is to be kept; an entry in the
//! way of a file only when the content of the file has been read. A file to correct is compared
//! piece by piece, and only differing pieces are fetched. A new directory needs no inspection. A
//! dry run makes the same decisions and changes nothing.

pub mod compare;
mod look;

use super::dirs::Dirs;
use super::durable::FileSystems;
use super::error::Result;
use super::file_states::FileStates;
use super::outcomes::Outcomes;
use super::target::Target;
use look::Look;

/// Creates the directories, opens each file system that will be written to, and decides about each
/// existing file. All decisions precede the first write, because the file system may treat two
/// names of the snapshot as equal. `dirs` is `None` if the target does not exist, `systems` for a
/// dry run.
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
