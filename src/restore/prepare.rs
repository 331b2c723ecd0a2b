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
use super::plan::{Plan, State, Use};
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

/// A file to be compared with what the snapshot has.
struct Candidate {
    file: u32,
    size: u64,
}

impl Prepare<'_> {
    /// Also opens each file system that will be written to. `None`: a dry run.
    pub fn run(&self, plan: &mut Plan, systems: Option<&mut FileSystems<'_>>) -> Result<()> {
        let Some(root) = self.root else {
            plan.dirs.iter().for_each(|dir| dir.fresh.set());
            return Ok(());
        };
        let shared = &*plan;
        let dirs = &Dirs::new(root, shared);
        let candidates = look::run(self, root, shared, dirs, systems)?;
        if !candidates.is_empty() {
            let present: Vec<AtomicBool> = shared.uses.iter().map(|_| AtomicBool::new(false)).collect();
            self.compare(dirs, shared, &present)?;
            self.settle(dirs, shared, &present, &candidates)?;
            plan.present = present;
        }
        self.count_done(plan);
        Ok(())
    }

    fn fail(&self, plan: &Plan, number: u32, action: &'static str, errno: Errno) -> Result<()> {
        let path = plan.file_path(number);
        if let Some(error) = Error::of_target(action, display(&path), errno) {
            return Err(error);
        }
        plan.files[number as usize].set_state(State::Failed);
        plan.refuse(self.progress, &path, format!("cannot {action} it: {errno}"));
        Ok(())
    }

    /// Finds the pieces that are right already.
    fn compare(&self, dirs: &Dirs<'_>, plan: &Plan, present: &[AtomicBool]) -> Result<()> {
        self.workers.run("files were compared", |queue| {
            for (needed, present) in plan.uses.iter().zip(present) {
                if plan.files[needed.file as usize].state() == State::Correcting {
                    queue.submit(piece(plan, self.index, needed), move || {
                        present.store(holds(dirs, plan, self.index, needed).unwrap_or(false), Ordering::Relaxed);
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })
    }

    /// Decides how the compared files go on, and gives them the right size.
    fn settle(&self, dirs: &Dirs<'_>, plan: &Plan, present: &[AtomicBool], candidates: &[Candidate]) -> Result<()> {
        self.workers.run("files were cut", |queue| {
            for candidate in candidates {
                let uses = plan.uses_of(candidate.file);
                let right = uses.clone().filter(|&at| present[at].load(Ordering::Relaxed));
                let (count, bytes) =
                    right.fold((0, 0), |(count, bytes), at| (count + 1, bytes + plan.use_length(self.index, at)));
                let file = &plan.files[candidate.file as usize];
                file.present.store(bytes, Ordering::Relaxed);
                file.left.store(number(uses.len() - count), Ordering::Relaxed);
                if count == uses.len() && candidate.size == file.size {
                    file.set_state(State::Correct);
                } else if !self.options.dry_run {
                    queue.submit(0, move || self.cut(dirs, plan, candidate, &present[uses]))?;
                }
            }
            Ok(())
        })
    }

    fn cut(&self, dirs: &Dirs<'_>, plan: &Plan, candidate: &Candidate, present: &[AtomicBool]) -> Result<()> {
        let file = &plan.files[candidate.file as usize];
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let opened = dirs.get(file.dir).and_then(|dir| dir.open(plan.file_name(candidate.file), flags));
        let cut = opened.and_then(|fd| ftruncate(&fd, file.size).and_then(|()| close(fd)));
        match cut {
            Ok(()) => {}
            // It cannot be changed, but it can be replaced.
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                file.set_state(State::Planned);
                file.present.store(0, Ordering::Relaxed);
                file.left.store(number(present.len()), Ordering::Relaxed);
                present.iter().for_each(|present| present.store(false, Ordering::Relaxed));
            }
            Err(errno) => self.fail(plan, candidate.file, "resize", errno)?,
        }
        Ok(())
    }

    /// What needs no fetching counts as done.
    fn count_done(&self, plan: &Plan) {
        for file in &plan.files {
            if matches!(file.state(), State::Correct | State::Kept) {
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
pub fn piece(plan: &Plan, index: &Index, needed: &Use) -> usize {
    usize::try_from(plan.location(index, needed).blob.plain_length().min(limits::DATA_BLOB)).expect("bounded")
}

/// Whether the file has the use's blob in its place.
pub fn holds(dirs: &Dirs<'_>, plan: &Plan, index: &Index, needed: &Use) -> rustix::io::Result<bool> {
    let blob = plan.location(index, needed).blob;
    if blob.plain_length() > limits::DATA_BLOB {
        return Ok(false);
    }
    let dir = dirs.get(plan.files[needed.file as usize].dir)?;
    let fd = dir.open(plan.file_name(needed.file), OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut bytes = vec![0; piece(plan, index, needed)];
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
