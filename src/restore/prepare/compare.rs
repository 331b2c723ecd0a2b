//! The second half of stage 3: compares the files of a table that are to be corrected, piece by
//! piece, and sets their sizes.

use crate::repo::Index;
use crate::restore::close::close;
use crate::restore::dirs::Dirs;
use crate::restore::error::{Error, Result};
use crate::restore::file_states::{FileState, FileStates, Found, State};
use crate::restore::path::display;
use crate::restore::plan::PlannedTable;
use crate::restore::plan::table::{File, Part};
use crate::restore::readback::{holds, weight};
use crate::restore::target::Target;
use rustix::fs::{OFlags, ftruncate};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// The files of a table while they are compared.
pub struct Compare<'c> {
    pub target: &'c Target<'c>,
    pub dirs: &'c Dirs<'c>,
    pub index: &'c Index,
    pub table: &'c PlannedTable<'c>,
    pub states: &'c FileStates,
}

impl Compare<'_> {
    /// Compares the files that are to be corrected, and sets their sizes.
    pub fn run(&self) -> Result<()> {
        if self.states.iter().any(|state| state.state() == State::Correcting) {
            let pieces = self.states.compare_pieces(self.table.uses.len());
            self.find_present(pieces)?;
            self.settle(pieces)?;
        }
        self.count_done();
        Ok(())
    }

    /// Counts content that needs no fetching as done.
    fn count_done(&self) {
        let progress = self.target.progress;
        for (file, state) in self.table.files.iter().zip(self.states.iter()) {
            if file.part.begins() && matches!(state.state(), State::Correct | State::Kept) {
                state.stay(file.size);
                progress.files_done.fetch_add(1, Ordering::Relaxed);
            }
            progress.bytes_done.fetch_add(state.present(), Ordering::Relaxed);
        }
    }

    /// Finds the pieces that are already correct.
    fn find_present(&self, pieces: &[AtomicBool]) -> Result<()> {
        self.target.workers.run("files were compared", |queue| {
            for (needed, piece) in self.table.uses.iter().zip(pieces) {
                if self.states.of(needed.file).state() == State::Correcting {
                    queue.submit(weight(self.index, needed), move || {
                        let is_present = holds(self.dirs, self.table, self.index, needed).unwrap_or(false);
                        piece.store(is_present, Ordering::Relaxed);
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })
    }

    /// Decides how to continue with the compared files, and sets their sizes.
    fn settle(&self, pieces: &[AtomicBool]) -> Result<()> {
        self.target.workers.run("files were resized", |queue| {
            for (place, state) in (0..).zip(self.states.iter()) {
                if state.state() == State::Correcting {
                    queue.submit(0, move || self.settle_file(place, pieces))?;
                }
            }
            Ok(())
        })
    }

    fn at(&self, place: u32) -> (&File, &FileState) {
        (&self.table.files[place as usize], self.states.of(place))
    }

    fn settle_file(&self, place: u32, pieces: &[AtomicBool]) -> Result<()> {
        let (file, state) = self.at(place);
        let uses = self.table.uses_of(place);
        let right = uses.clone().filter(|&at| pieces[at].load(Ordering::Relaxed));
        let (count, bytes) = right.fold((0, 0), |(count, bytes), at| {
            (count + 1, bytes + self.table.uses[at].location(self.index).blob.plain_length())
        });
        state.compared(bytes, number(uses.len() - count));
        if !file.part.begins() {
            return Ok(());
        }
        // The file may have been inspected long ago.
        if self.target.plan.tables() > 1
            && let Ok(Some(stat)) = self.dirs.get(file.dir).and_then(|dir| dir.stat(self.table.file_name(place)))
        {
            state.set_found(Found::of(&stat, file.size));
        }
        if file.part.ends() && count == uses.len() && state.found() == Found::Same {
            state.set_correct();
        } else if !self.target.options.dry_run {
            self.cut(place, &pieces[uses])?;
        }
        Ok(())
    }

    fn cut(&self, place: u32, pieces: &[AtomicBool]) -> Result<()> {
        let (file, state) = self.at(place);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let opened = self.dirs.get(file.dir).and_then(|dir| dir.open(self.table.file_name(place), flags));
        // A split file is not extended yet: later tables would compare zeros that were not in it.
        let resizes = file.part == Part::Whole || state.found() == Found::Longer;
        let cut = opened.and_then(|fd| {
            let resized = if resizes { ftruncate(&fd, file.size) } else { Ok(()) };
            resized.and_then(|()| close(fd))
        });
        match cut {
            Ok(()) => {}
            // The file cannot be changed, but it can be replaced.
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                state.replace(number(pieces.len()));
                pieces.iter().for_each(|piece| piece.store(false, Ordering::Relaxed));
            }
            Err(errno) => self.fail(place, errno)?,
        }
        Ok(())
    }

    fn fail(&self, place: u32, errno: Errno) -> Result<()> {
        let path = self.table.file_path(place);
        if let Some(error) = Error::of_target("resize", display(&path), errno) {
            return Err(error);
        }
        self.states.of(place).fail();
        self.target.problems.refuse(&path, format!("cannot resize it: {errno}"));
        Ok(())
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("the plan's memory is bounded far below 2^32 uses")
}
