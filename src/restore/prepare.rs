//! Stage 3: the target is looked at and made ready: directories are made, and each file that is there already is decided about.
//!
//! What is in the way of a directory is replaced at once, unless it is to be kept; what is in the
//! way of a file only when its content is at hand. A file that
//! is to be overwritten is compared piece by piece, on all cores, and only what differs is fetched. In a directory that is new
//! nothing has to be looked at. A dry run decides in the same way and changes nothing.

use super::close::close;
use super::confine::{Other, Root, is};
use super::delete::Deleter;
use super::durable::FileSystems;
use super::error::{Error, Result};
use super::panics::caught;
use super::plan::{File, Plan, State, Use};
use super::walk::{Selection, display};
use super::{Options, Overwrite};
use crate::id::Id;
use crate::limits;
use crate::progress::Progress;
use crate::repo::Index;
use rayon::prelude::*;
use rustix::fd::AsFd;
use rustix::fs::{FileType, Mode, OFlags, Stat, ftruncate};
use rustix::io::{Errno, pread};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// What this stage works with.
pub struct Prepare<'p> {
    /// `None`: a dry run into a target that does not exist.
    pub root: Option<&'p Root>,
    pub options: &'p Options,
    pub index: &'p Index,
    pub progress: &'p Progress,
}

/// What is told of an entry whose place is taken.
pub const IN_THE_WAY: &str = "a directory that is not empty is in its place";

/// What is reported of an entry whose place this run did not find free, and may not clear.
pub const ONE_NAME: &str = "its place was taken while this restore ran, by another process or by another entry of the snapshot: then \
                            two names of the snapshot are one name on this file system; restore it into another directory";

/// Entries of the target that entries of the snapshot have been given, by device and inode.
type Claimed = HashSet<(u64, u64)>;

/// What has become of a directory's place.
enum Made {
    /// It is new.
    Fresh,
    /// It existed.
    There,
    /// Something else has it, and is not to be overwritten.
    Taken,
    /// Another entry of the snapshot has it.
    OneName,
}

const TAKEN: &str = "an entry of another type has the directory's place and is kept, so that nothing below it is restored; \
                     restore with another --overwrite, or into another directory";

/// A file to be compared with what the snapshot has.
struct Candidate {
    file: u32,
    size: u64,
}

impl Prepare<'_> {
    /// Also opens each file system that will be written to. `None`: a dry run.
    pub fn run(&self, plan: &mut Plan, mut systems: Option<&mut FileSystems<'_>>) -> Result<()> {
        let Some(root) = self.root else {
            plan.dirs.iter_mut().for_each(|dir| dir.fresh = true);
            return Ok(());
        };
        let claimed = self.make_dirs(root, plan, systems.as_deref_mut())?;
        let candidates = self.look_at_files(root, plan, systems, &claimed)?;
        drop(claimed);
        if !candidates.is_empty() {
            caught("files were compared", || {
                self.compare(root, plan);
                Ok(())
            })?;
            if self.progress.is_interrupted() {
                return Err(Error::interrupted());
            }
            for candidate in &candidates {
                self.settle(root, plan, candidate)?;
            }
        }
        self.count_done(plan);
        Ok(())
    }

    /// Returns the directories that are in directories that existed.
    fn make_dirs(&self, root: &Root, plan: &mut Plan, mut systems: Option<&mut FileSystems<'_>>) -> Result<Claimed> {
        let mut claimed = Claimed::new();
        for number in 1..plan.dirs.len() {
            let dir = &plan.dirs[number];
            let above = &plan.dirs[dir.parent as usize];
            if !dir.needed || above.failed {
                plan.dirs[number].failed = true;
                continue;
            }
            let path = plan.dir_path(u32::try_from(number).expect("directories are numbered so"));
            match self.make_dir(root, &path, dir.mtime, above.fresh, systems.as_deref_mut(), &mut claimed) {
                Ok(Made::Fresh) => plan.dirs[number].fresh = true,
                Ok(Made::There) => {}
                Ok(Made::Taken) => {
                    plan.dirs[number].failed = true;
                    plan.refuse(self.progress, &path, TAKEN);
                }
                Ok(Made::OneName) => {
                    plan.dirs[number].failed = true;
                    plan.refuse(self.progress, &path, format!("{ONE_NAME}; nothing below it is restored"));
                }
                Err((action, errno)) => {
                    if let Some(error) = Error::of_target(action, display(&path), errno) {
                        return Err(error);
                    }
                    plan.dirs[number].failed = true;
                    let why = format!("cannot {action} the directory, so nothing below it is restored: {errno}");
                    plan.refuse(self.progress, &path, why);
                }
            }
            if self.progress.is_interrupted() {
                return Err(Error::interrupted());
            }
        }
        Ok(claimed)
    }

    /// Makes sure that there is a directory, in the place of whatever else has its name and may be
    /// overwritten.
    fn make_dir(
        &self,
        root: &Root,
        path: &[u8],
        mtime: (i64, u32),
        fresh_above: bool,
        systems: Option<&mut FileSystems<'_>>,
        claimed: &mut Claimed,
    ) -> std::result::Result<Made, (&'static str, Errno)> {
        let there = if fresh_above { None } else { root.stat(path).map_err(|errno| ("look at", errno))? };
        match there {
            Some(stat) if is(&stat, FileType::Directory) => {
                if !claimed.insert((stat.st_dev, stat.st_ino)) {
                    return Ok(Made::OneName);
                }
                if let Some(systems) = systems {
                    let opened = root.parent(path).and_then(|(dir, name)| open_to_owner(&dir.pin(name)?));
                    opened.and_then(|()| systems.meet(root, stat.st_dev, path)).map_err(|errno| ("open", errno))?;
                }
                return Ok(Made::There);
            }
            Some(stat) if is_kept(self.options.overwrite, &stat, mtime) => return Ok(Made::Taken),
            Some(_) | None => {}
        }
        if self.options.dry_run {
            return Ok(Made::Fresh);
        }
        // Only what was seen there is replaced, not what came meanwhile.
        let other = if there.is_some() { Other::Replace } else { Other::Keep };
        let made = root.parent(path).and_then(|(dir, name)| {
            let new = dir.make_dir(name, other)?;
            let stat = if fresh_above { None } else { dir.stat(name)? };
            Ok((new, stat.is_none_or(|stat| claimed.insert((stat.st_dev, stat.st_ino)))))
        });
        match made {
            Ok((true, _)) => Ok(Made::Fresh),
            Ok((false, true)) if !fresh_above => Ok(Made::There),
            Ok((false, _)) => Ok(Made::OneName),
            Err(Errno::EXIST) if there.is_none() => Ok(Made::OneName),
            Err(errno) => Err(("create", errno)),
        }
    }

    /// Decides about each file; returns those that must be compared.
    fn look_at_files(
        &self,
        root: &Root,
        plan: &Plan,
        mut systems: Option<&mut FileSystems<'_>>,
        claimed_dirs: &Claimed,
    ) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        // The files of one directory follow each other.
        let (mut claimed, mut claimed_in) = (Claimed::new(), 0);
        for (number, file) in plan.files.iter().enumerate() {
            let dir = &plan.dirs[file.dir as usize];
            if dir.failed {
                file.set_state(State::Failed);
            }
            if file.state() == State::Failed || dir.fresh {
                continue;
            }
            let number = u32::try_from(number).expect("files are numbered so");
            let path = plan.file_path(number);
            match root.stat(&path) {
                Ok(None) => {}
                Ok(Some(stat)) => {
                    if claimed_in != file.dir {
                        claimed.clear();
                        claimed_in = file.dir;
                    }
                    let inode = (stat.st_dev, stat.st_ino);
                    // What has several names may have two of the snapshot's.
                    let is_claimed = stat.st_nlink == 1 && !claimed.insert(inode) || claimed_dirs.contains(&inode);
                    if is_claimed && !is_kept(self.options.overwrite, &stat, file.mtime) {
                        file.set_state(State::Failed);
                        plan.refuse(self.progress, &path, ONE_NAME);
                        continue;
                    }
                    file.occupied.store(true, Ordering::Relaxed);
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    let state = self.decide(&stat, file.size, file.mtime);
                    file.set_state(state);
                    if state == State::Correcting {
                        // A file may be a mount point, too.
                        let met = systems.as_deref_mut().map_or(Ok(()), |open| open.meet(root, stat.st_dev, &path));
                        match met {
                            Ok(()) => candidates.push(Candidate { file: number, size }),
                            Err(errno) => self.fail(plan, file, &path, "open", errno)?,
                        }
                    } else if state == State::Planned && is(&stat, FileType::Directory) {
                        self.clear_way(root, plan, number, &path)?;
                    }
                }
                Err(errno) => self.fail(plan, file, &path, "look at", errno)?,
            }
            if self.progress.is_interrupted() {
                return Err(Error::interrupted());
            }
        }
        Ok(candidates)
    }

    fn fail(&self, plan: &Plan, file: &File, path: &[u8], action: &'static str, errno: Errno) -> Result<()> {
        if let Some(error) = Error::of_target(action, display(path), errno) {
            return Err(error);
        }
        file.set_state(State::Failed);
        plan.refuse(self.progress, path, format!("cannot {action} it: {errno}"));
        Ok(())
    }

    /// What is to become of a file that has `stat` in its place.
    fn decide(&self, stat: &Stat, size: u64, mtime: (i64, u32)) -> State {
        let regular = is(stat, FileType::RegularFile);
        if is_kept(self.options.overwrite, stat, mtime) {
            return State::Kept;
        }
        let is_same = || regular && u64::try_from(stat.st_size) == Ok(size) && mtime == mtime_of(stat);
        match self.options.overwrite {
            Overwrite::IfChanged if is_same() => State::Correct,
            // A file with other names is somebody else's too.
            _ if regular && stat.st_nlink == 1 => State::Correcting,
            _ => State::Planned,
        }
    }

    /// A directory is in the way of a file. It goes if the snapshot decides what may be here, or if there is nothing in it.
    fn clear_way(&self, root: &Root, plan: &Plan, number: u32, path: &[u8]) -> Result<()> {
        let Options { include, exclude, delete, dry_run, .. } = self.options;
        if *delete && !plan.doubtful {
            let selection = Selection { include, exclude };
            return Deleter { root, selection, dry_run: *dry_run, progress: self.progress }.remove(path).map(|_| ());
        }
        if root.dir(path).and_then(|dir| dir.names()).is_ok_and(|names| !names.is_empty()) {
            plan.files[number as usize].set_state(State::Failed);
            plan.refuse(self.progress, path, IN_THE_WAY);
        }
        Ok(())
    }

    /// Finds the pieces that are right already.
    fn compare(&self, root: &Root, plan: &mut Plan) {
        let shared = &*plan;
        let present = shared
            .uses
            .par_iter()
            .map(|needed| {
                let file = &shared.files[needed.file as usize];
                file.state() == State::Correcting
                    && !self.progress.is_interrupted()
                    && holds(root, shared, self.index, needed).unwrap_or(false)
            })
            .collect();
        plan.present = present;
    }

    /// Says how a compared file goes on, and gives it the right size.
    fn settle(&self, root: &Root, plan: &mut Plan, candidate: &Candidate) -> Result<()> {
        let number = candidate.file;
        let uses = plan.uses_of(number);
        let right: u64 = uses.clone().filter(|&at| plan.present[at]).map(|at| plan.use_length(self.index, at)).sum();
        let left = uses.clone().filter(|&at| !plan.present[at]).count();
        let path = plan.file_path(number);
        let file = &mut plan.files[number as usize];
        file.present = right;
        file.left = AtomicU32::new(u32::try_from(left).expect("bounded"));
        if left == 0 && candidate.size == file.size {
            file.set_state(State::Correct);
            return Ok(());
        }
        if self.options.dry_run {
            return Ok(());
        }
        let size = file.size;
        let cut = root
            .open_beneath(&path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())
            .and_then(|fd| ftruncate(&fd, size).and_then(|()| close(fd)));
        match cut {
            Ok(()) => {}
            // It cannot be changed, but it can be replaced.
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                file.set_state(State::Planned);
                file.present = 0;
                file.left = AtomicU32::new(u32::try_from(uses.len()).expect("bounded"));
                plan.present[uses].fill(false);
            }
            Err(errno) => self.fail(plan, &plan.files[number as usize], &path, "resize", errno)?,
        }
        Ok(())
    }

    /// What needs no fetching counts as done.
    fn count_done(&self, plan: &mut Plan) {
        for file in &mut plan.files {
            if matches!(file.state(), State::Correct | State::Kept) {
                file.present = file.size;
                self.progress.files_done.fetch_add(1, Ordering::Relaxed);
            }
            self.progress.bytes_done.fetch_add(file.present, Ordering::Relaxed);
        }
    }
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

/// Lets its owner work in a directory whose own mode would not; the mode it is to have comes at the end.
fn open_to_owner(dir: &super::confine::Pinned) -> rustix::io::Result<()> {
    let (stat, user) = (dir.stat()?, rustix::process::geteuid());
    if !user.is_root() && stat.st_uid == user.as_raw() && stat.st_mode & 0o700 != 0o700 {
        dir.chmod(stat.st_mode & 0o7777 | 0o700)?;
    }
    Ok(())
}

/// Whether the file has the use's blob in its place.
pub fn holds(root: &Root, plan: &Plan, index: &Index, needed: &Use) -> rustix::io::Result<bool> {
    let blob = plan.location(index, needed).blob;
    if blob.plain_length() > limits::DATA_BLOB {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = root.open_beneath(&plan.file_path(needed.file), flags, Mode::empty())?;
    let mut bytes = vec![0; usize::try_from(blob.plain_length()).expect("bounded")];
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
