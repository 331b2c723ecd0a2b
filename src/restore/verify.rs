//! Stage 6: what this run has written is read again and compared with the snapshot.
//!
//! It comes before the metadata, while every file can still be opened, and so that one that does not verify keeps the time of
//! today: a later `--overwrite if-changed` will not take it for whole.

use super::dirs::Dirs;
use super::error::Result;
use super::file::Files;
use super::plan::{File, State, Stretch};
use super::prepare::{holds, piece};
use super::workers::Workers;
use crate::repo::Index;
use std::sync::atomic::Ordering;

/// Reads all files that this run has written; those that differ become problems.
pub fn run(
    workers: &Workers<'_>,
    dirs: &Dirs<'_>,
    stretch: &Stretch<'_>,
    index: &Index,
    files: &Files<'_>,
) -> Result<()> {
    let written = |file: &File| match file.state() {
        State::Done | State::Corrected => true,
        State::Made | State::Correcting => !file.ends && !file.lacking.load(Ordering::Acquire),
        _ => false,
    };
    let verify = |needed| match holds(dirs, stretch, index, needed) {
        Ok(true) => {}
        Ok(false) => {
            let id = needed.location(index).blob.id;
            let why =
                format!("it does not read back as it was written: data blob {id} is not at byte {}", needed.offset);
            files.fail(needed.file, &why);
        }
        Err(errno) => files.fail(needed.file, &format!("cannot be read back: {errno}")),
    };
    let measure = |number: u32, file: &File| {
        let found = dirs.get(file.dir).and_then(|dir| dir.stat(stretch.file_name(number)));
        let length = found.ok().flatten().map(|stat| stat.st_size);
        if length.and_then(|length| u64::try_from(length).ok()) != Some(file.size) {
            files.fail(number, "it does not have the size that it was given");
        }
    };
    let (verify, measure) = (&verify, &measure);
    workers.run("files were read back", |queue| {
        for needed in stretch.uses.iter().filter(|needed| written(&stretch.files[needed.file as usize])) {
            queue.submit(piece(index, needed), move || {
                verify(needed);
                Ok(())
            })?;
        }
        queue.wait()?;
        for (number, file) in (0..).zip(&stretch.files).filter(|(_, file)| file.ends && written(file)) {
            queue.submit(0, move || {
                measure(number, file);
                Ok(())
            })?;
        }
        Ok(())
    })
}
