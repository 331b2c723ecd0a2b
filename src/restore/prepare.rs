//! Stage 3: the target is looked at and made ready: directories are made, and each file that is there already is decided about.
//!
//! What is in the way of a directory is replaced at once, unless it is to be kept; what is in the
//! way of a file only when its content is at hand. A file that
//! is to be overwritten is compared piece by piece, and only what differs is fetched. In a directory that is new
//! nothing has to be looked at. A dry run decides in the same way and changes nothing.

mod look;

use super::close::close;
use super::confine::Root;
use super::dirs::Dirs;
use super::durable::FileSystems;
use super::error::{Error, Result};
use super::plan::{File, Found, Outcomes, Plan, State, Stretch, Use};
use super::walk::display;
use super::workers::Workers;
use super::{Options, Overwrite};
use crate::id::Id;
use crate::limits;
use crate::progress::Progress;
use crate::repo::Index;
use rustix::fd::AsFd;
use rustix::fs::{OFlags, Stat, ftruncate};
use rustix::io::{Errno, pread};
use std::sync::atomic::{AtomicBool, Ordering};

/// What this stage works with.
pub struct Prepare<'p> {
    /// `None`: a dry run into a target that does not exist.
    pub root: Option<&'p Root>,
    pub options: &'p Options,
    pub index: &'p Index,
    pub progress: &'p Progress,
    pub workers: &'p Workers<'p>,
}

/// What is told of an entry whose place is taken.
pub const IN_THE_WAY: &str = "a directory that is not empty is in its place";

/// What is reported of an entry whose place this run did not find free, and may not clear.
pub const ONE_NAME: &str = "its place was taken while this restore ran, by another process or by another entry of the snapshot: then \
                            two names of the snapshot are one name on this file system; restore it into another directory";

impl Prepare<'_> {
    /// Makes the directories, opens each file system that will be written to, and decides about each
    /// file that exists: about all of them before any is written, because two names of the snapshot
    /// may be one here. `systems` is `None`: a dry run.
    pub fn run(&self, plan: &Plan, dirs: Option<&Dirs<'_>>, systems: Option<&mut FileSystems<'_>>) -> Result<Outcomes> {
        let mut outcomes = Outcomes::new(plan.files);
        match self.root.zip(dirs) {
            Some((root, dirs)) => look::run(self, root, plan, dirs, systems, &mut outcomes)?,
            None => {
                plan.dirs.iter().for_each(|dir| dir.fresh.set());
                for at in 0..plan.stretches() {
                    outcomes.note(&plan.stretch(at)?);
                }
            }
        }
        Ok(outcomes)
    }

    /// Compares the files of a table that are to be corrected, and gives them the right size.
    pub fn compare(&self, dirs: &Dirs<'_>, stretch: &Stretch<'_>) -> Result<()> {
        if stretch.files.iter().any(|file| file.state() == State::Correcting) {
            let present = stretch.uses.iter().map(|_| AtomicBool::new(false)).collect();
            let present = stretch.present.get_or_init(|| present);
            self.find_present(dirs, stretch, present)?;
            self.settle(dirs, stretch, present)?;
        }
        self.count_done(stretch);
        Ok(())
    }

    fn fail(&self, stretch: &Stretch<'_>, number: u32, action: &'static str, errno: Errno) -> Result<()> {
        let path = stretch.file_path(number);
        if let Some(error) = Error::of_target(action, display(&path), errno) {
            return Err(error);
        }
        stretch.files[number as usize].set_state(State::Failed);
        stretch.plan.refuse(self.progress, &path, format!("cannot {action} it: {errno}"));
        Ok(())
    }

    /// Finds the pieces that are right already.
    fn find_present(&self, dirs: &Dirs<'_>, stretch: &Stretch<'_>, present: &[AtomicBool]) -> Result<()> {
        self.workers.run("files were compared", |queue| {
            for (needed, present) in stretch.uses.iter().zip(present) {
                if stretch.files[needed.file as usize].state() == State::Correcting {
                    queue.submit(piece(self.index, needed), move || {
                        present.store(holds(dirs, stretch, self.index, needed).unwrap_or(false), Ordering::Relaxed);
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })
    }

    /// Decides how the compared files go on, and gives them the right size.
    fn settle(&self, dirs: &Dirs<'_>, stretch: &Stretch<'_>, present: &[AtomicBool]) -> Result<()> {
        self.workers.run("files were cut", |queue| {
            for (place, file) in (0..).zip(&stretch.files).filter(|(_, file)| file.state() == State::Correcting) {
                queue.submit(0, move || self.settle_file(dirs, stretch, (place, file), present))?;
            }
            Ok(())
        })
    }

    fn settle_file(
        &self,
        dirs: &Dirs<'_>,
        stretch: &Stretch<'_>,
        (place, file): (u32, &File),
        present: &[AtomicBool],
    ) -> Result<()> {
        let uses = stretch.uses_of(place);
        let right = uses.clone().filter(|&at| present[at].load(Ordering::Relaxed));
        let (count, bytes) = right.fold((0, 0), |(count, bytes), at| {
            (count + 1, bytes + stretch.uses[at].location(self.index).blob.plain_length())
        });
        file.present.store(bytes, Ordering::Relaxed);
        file.left.store(number(uses.len() - count), Ordering::Relaxed);
        if !file.begins {
            return Ok(());
        }
        // It may have been looked at long ago.
        if stretch.plan.stretches() > 1
            && let Ok(Some(stat)) = dirs.get(file.dir).and_then(|dir| dir.stat(stretch.file_name(place)))
        {
            file.set_found(Found::of(&stat, file.size));
        }
        if file.ends && count == uses.len() && file.found() == Found::Same {
            file.set_state(State::Correct);
        } else if !self.options.dry_run {
            self.cut(dirs, stretch, place, &present[uses])?;
        }
        Ok(())
    }

    fn cut(&self, dirs: &Dirs<'_>, stretch: &Stretch<'_>, place: u32, present: &[AtomicBool]) -> Result<()> {
        let file = &stretch.files[place as usize];
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let opened = dirs.get(file.dir).and_then(|dir| dir.open(stretch.file_name(place), flags));
        // What the tables to come compare is not yet to have zeros that were not there.
        let resizes = file.is_whole() || file.found() == Found::Longer;
        let cut = opened.and_then(|fd| {
            let resized = if resizes { ftruncate(&fd, file.size) } else { Ok(()) };
            resized.and_then(|()| close(fd))
        });
        match cut {
            Ok(()) => {}
            // It cannot be changed, but it can be replaced.
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                file.set_state(State::Planned);
                file.present.store(0, Ordering::Relaxed);
                file.left.store(number(present.len()), Ordering::Relaxed);
                present.iter().for_each(|present| present.store(false, Ordering::Relaxed));
            }
            Err(errno) => self.fail(stretch, place, "resize", errno)?,
        }
        Ok(())
    }

    /// What needs no fetching counts as done.
    fn count_done(&self, stretch: &Stretch<'_>) {
        for file in &stretch.files {
            if file.begins && matches!(file.state(), State::Correct | State::Kept) {
                file.present.store(file.size, Ordering::Relaxed);
                self.progress.files_done.fetch_add(1, Ordering::Relaxed);
            }
            self.progress.bytes_done.fetch_add(file.present.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("the plan's memory is bounded far below 2^32 uses")
}

/// Whether what has an entry's place, whatever it is, stays there. Directories that exist are no
/// case of this.
pub fn is_kept(overwrite: Overwrite, there: &Stat, mtime: (i64, u32)) -> bool {
    match overwrite {
        Overwrite::Always | Overwrite::IfChanged => false,
        Overwrite::IfNewer => mtime <= mtime_of(there),
        Overwrite::Never => true,
    }
}

pub fn mtime_of(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// Bytes in memory that [`holds`] needs.
pub fn piece(index: &Index, needed: &Use) -> usize {
    usize::try_from(needed.location(index).blob.plain_length().min(limits::DATA_BLOB)).expect("bounded")
}

/// Whether the file has the use's blob in its place.
pub fn holds(dirs: &Dirs<'_>, stretch: &Stretch<'_>, index: &Index, needed: &Use) -> rustix::io::Result<bool> {
    let blob = needed.location(index).blob;
    if blob.plain_length() > limits::DATA_BLOB {
        return Ok(false);
    }
    let dir = dirs.get(stretch.files[needed.file as usize].dir)?;
    let fd = dir.open(stretch.file_name(needed.file), OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut bytes = vec![0; piece(index, needed)];
    Ok(read_at(fd, &mut bytes, needed.offset)? == bytes.len() && Id::of(&bytes) == blob.id)
}

/// Reads until the buffer is full or the file ends.
pub fn read_at(fd: impl AsFd, bytes: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match pread(&fd, &mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}
