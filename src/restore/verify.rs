//! Stage 6: what this run has written is read again and compared with the snapshot.
//!
//! It comes before the metadata, while every file can still be opened, and so that one that does not verify keeps the time of
//! today: a later `--overwrite if-changed` will not take it for whole.

use super::confine::Root;
use super::error::{Error, Result};
use super::file::Files;
use super::panics::caught;
use super::plan::{File, Plan, State, Use};
use super::prepare::holds;
use crate::progress::Progress;
use crate::repo::Index;
use rayon::prelude::*;

/// Reads all files that this run has written; those that differ become problems.
pub fn run(root: &Root, plan: &Plan, index: &Index, files: &Files<'_>, progress: &Progress) -> Result<()> {
    let written = |file: &File| matches!(file.state(), State::Done | State::Corrected);
    let verify = |needed: &Use| {
        if !written(&plan.files[needed.file as usize]) || progress.is_interrupted() {
            return;
        }
        match holds(root, plan, index, needed) {
            Ok(true) => {}
            Ok(false) => {
                let id = plan.location(index, needed).blob.id;
                let why =
                    format!("it does not read back as it was written: data blob {id} is not at byte {}", needed.offset);
                files.fail(needed.file, &why);
            }
            Err(errno) => files.fail(needed.file, &format!("cannot be read back: {errno}")),
        }
    };
    caught("files were read back", || {
        plan.uses.par_iter().for_each(verify);
        Ok(())
    })?;
    (0u32..).zip(&plan.files).filter(|(_, file)| written(file)).for_each(|(number, file)| {
        let length = root.stat(&plan.file_path(number)).ok().flatten().map(|stat| stat.st_size);
        if length.and_then(|length| u64::try_from(length).ok()) != Some(file.size) {
            files.fail(number, "it does not have the size that it was given");
        }
    });
    if progress.is_interrupted() { Err(Error::interrupted()) } else { Ok(()) }
}
