//! Stage 6: reads all data that this run wrote again, and compares it with the snapshot.
//!
//! This stage precedes the metadata, while every file can still be opened. A file that fails
//! verification keeps the current time as its modification time, so that `--overwrite if-changed`
//! does not trust it later.

use super::error::Result;
use super::file::Files;
use super::file_states::{FileState, State};
use super::plan::table::File;
use super::readback::{holds, weight};
use crate::repo::Index;

/// Reads all files that this run wrote; each file that differs is a problem.
pub fn run(files: &Files<'_>, index: &Index) -> Result<()> {
    let Files { target, dirs, table, states, .. } = *files;
    let verify = |needed| match holds(dirs, table, index, needed) {
        Ok(true) => {}
        Ok(false) => {
            let id = needed.location(index).blob.id;
            let why =
                format!("it does not read back as it was written: data blob {id} is not at byte {}", needed.offset);
            files.fail(needed.file, &why);
        }
        Err(errno) => files.fail(needed.file, &format!("cannot be read back: {errno}")),
    };
    let measure = |place: u32, file: &File| {
        let found = dirs.get(file.dir).and_then(|dir| dir.stat(table.file_name(place)));
        let length = found.ok().flatten().map(|stat| stat.st_size);
        if length.and_then(|length| u64::try_from(length).ok()) != Some(file.size) {
            files.fail(place, "its size is not that of its content in the snapshot");
        }
    };
    let (verify, measure) = (&verify, &measure);
    target.workers.run("files were read back", |queue| {
        for needed in &table.uses {
            if is_written(&table.files[needed.file as usize], states.of(needed.file)) {
                queue.submit(weight(index, needed), move || {
                    verify(needed);
                    Ok(())
                })?;
            }
        }
        queue.wait()?;
        for (place, (file, state)) in (0..).zip(table.files.iter().zip(states.iter())) {
            if file.part.ends() && is_written(file, state) {
                queue.submit(0, move || {
                    measure(place, file);
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

/// Whether this run wrote all of a file, or all of its part in this table.
fn is_written(file: &File, state: &FileState) -> bool {
    match state.state() {
        State::Done | State::Corrected => true,
        State::Made | State::Correcting => !file.part.ends() && !state.is_lacking(),
        _ => false,
    }
}
