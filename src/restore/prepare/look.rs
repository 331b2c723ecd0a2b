//! The first half of the stage: directories are made, and each file that exists is decided about.
//!
//! Directories are made level by level, those of a level by many threads. In a directory that this
//! run made, the kernel lets only one of two entries have a name. In one that existed, an entry
//! of the snapshot claims what it finds, by device and inode, so that another one whose name the
//! file system takes for the same is reported; directories in it are made one after another.

use super::{IN_THE_WAY, ONE_NAME, Prepare, is_kept, mtime_of};
use crate::restore::confine::{Other, Pinned, Root, is};
use crate::restore::delete::Deleter;
use crate::restore::dirs::Dirs;
use crate::restore::durable::FileSystems;
use crate::restore::error::{Error, Result};
use crate::restore::inodes::{Claimed, inode};
use crate::restore::plan::{Found, Outcomes, Plan, State, Stretch};
use crate::restore::walk::{Selection, display};
use crate::restore::workers::Queue;
use crate::restore::{Options, Overwrite};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// The target while it is looked at.
struct Look<'l, 't> {
    prepare: &'l Prepare<'l>,
    root: &'l Root,
    plan: &'l Plan,
    dirs: &'l Dirs<'l>,
    /// `None`: a dry run.
    systems: Option<Mutex<&'l mut FileSystems<'t>>>,
}

/// Makes the directories, and decides about each file.
pub fn run<'l>(
    prepare: &'l Prepare<'l>,
    root: &'l Root,
    plan: &'l Plan,
    dirs: &'l Dirs<'l>,
    systems: Option<&'l mut FileSystems<'_>>,
    outcomes: &mut Outcomes,
) -> Result<()> {
    let look = Look { prepare, root, plan, dirs, systems: systems.map(Mutex::new) };
    look.note_default_acl(0, dirs.get(0).and_then(|dir| dir.pin_self()));
    prepare.workers.run("directories were made", |queue| look.make_dirs(queue))?;
    // The files of one directory follow each other, and may go on in the next table.
    let mut claimed = (0, Arc::default());
    for at in 0..plan.stretches() {
        let stretch = &plan.stretch(at)?;
        let files = Files { look: &look, stretch };
        prepare.workers.run("files were looked at", |queue| files.look_at(queue, &mut claimed))?;
        outcomes.note(stretch);
    }
    Ok(())
}

impl Look<'_, '_> {
    fn make_dirs<'s>(&'s self, queue: &Queue<'s, '_>) -> Result<()> {
        let mut level = vec![0];
        while !level.is_empty() {
            let mut next = Vec::new();
            for &above in &level {
                let dir = &self.plan.dirs[above as usize];
                next.extend(self.plan.dirs_in(above));
                if dir.failed.is_set() {
                    self.plan.dirs_in(above).for_each(|below| self.plan.dirs[below as usize].failed.set());
                } else if dir.fresh.is_set() {
                    let mut below = self.plan.dirs_in(above);
                    below.try_for_each(|below| queue.submit(0, move || self.make_needed(below)))?;
                } else if self.plan.dirs_in(above).next().is_some() {
                    queue.submit(0, move || self.plan.dirs_in(above).try_for_each(|below| self.make_needed(below)))?;
                }
            }
            queue.wait()?;
            level = next;
        }
        Ok(())
    }

    fn make_needed(&self, number: u32) -> Result<()> {
        let (plan, progress) = (self.plan, self.prepare.progress);
        let dir = &plan.dirs[number as usize];
        if !dir.needed {
            dir.failed.set();
            return Ok(());
        }
        if progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        let why = match self.make_dir(number) {
            Ok(Made::Fresh) => {
                dir.fresh.set();
                if plan.dirs[dir.parent as usize].hands_down.is_set() {
                    dir.hands_down.set();
                }
                return Ok(());
            }
            Ok(Made::There) => return Ok(()),
            Ok(Made::Taken) => TAKEN.to_owned(),
            Ok(Made::OneName) => format!("{ONE_NAME}; nothing below it is restored"),
            Err((action, errno)) => {
                if let Some(error) = Error::of_target(action, display(&plan.dir_path(number)), errno) {
                    return Err(error);
                }
                format!("cannot {action} the directory, so nothing below it is restored: {errno}")
            }
        };
        dir.failed.set();
        plan.refuse(progress, &plan.dir_path(number), why);
        Ok(())
    }

    /// Makes sure that there is a directory, in the place of whatever else has its name and may be
    /// overwritten.
    fn make_dir(&self, number: u32) -> std::result::Result<Made, (&'static str, Errno)> {
        let options = self.prepare.options;
        let planned = &self.plan.dirs[number as usize];
        let fresh_above = self.plan.dirs[planned.parent as usize].fresh.is_set();
        if fresh_above && options.dry_run {
            return Ok(Made::Fresh);
        }
        let (above, name) = self.dirs.above(number).map_err(|errno| ("look at", errno))?;
        let there = if fresh_above { None } else { above.stat(name).map_err(|errno| ("look at", errno))? };
        match there {
            Some(stat) if is(&stat, FileType::Directory) => {
                if !self.claim_dir(&stat) {
                    return Ok(Made::OneName);
                }
                if let Some(systems) = &self.systems {
                    let pinned = above.pin(name);
                    let opened = pinned.as_ref().map_err(|errno| *errno).and_then(open_to_owner);
                    let path = || self.plan.dir_path(number);
                    let met = opened.and_then(|()| lock(systems).meet(self.root, stat.st_dev, path));
                    met.map_err(|errno| ("open", errno))?;
                    self.note_default_acl(number, pinned);
                }
                return Ok(Made::There);
            }
            Some(stat) if is_kept(options.overwrite, &stat, planned.mtime) => return Ok(Made::Taken),
            Some(_) | None => {}
        }
        if options.dry_run {
            return Ok(Made::Fresh);
        }
        // Only what was seen there is replaced, not what came meanwhile.
        let other = if there.is_some() { Other::Replace } else { Other::Keep };
        let made = above.make_dir(name, other).and_then(|new| {
            let stat = if fresh_above { None } else { above.stat(name)? };
            Ok((new, stat.is_none_or(|stat| self.claim_dir(&stat))))
        });
        match made {
            Ok((true, _)) => Ok(Made::Fresh),
            Ok((false, true)) if !fresh_above => {
                self.note_default_acl(number, above.pin(name));
                Ok(Made::There)
            }
            Ok((false, _)) => Ok(Made::OneName),
            Err(Errno::EXIST) if there.is_none() => Ok(Made::OneName),
            Err(errno) => Err(("create", errno)),
        }
    }

    /// Whether no other entry of the snapshot has been given this directory.
    fn claim_dir(&self, stat: &Stat) -> bool {
        self.plan.claimed_dirs.insert(inode(stat))
    }

    /// Notes of a directory that existed whether what is made in it gets attributes from it. It does
    /// unless the directory is known to have no default ACL.
    fn note_default_acl(&self, number: u32, dir: rustix::io::Result<Pinned>) {
        let has_none = match dir.and_then(|dir| dir.xattr_names()) {
            Ok(names) => !names.iter().any(|name| name == b"system.posix_acl_default"),
            Err(errno) => errno == Errno::OPNOTSUPP,
        };
        if !has_none {
            self.plan.dirs[number as usize].hands_down.set();
        }
    }
}

/// The files of a table while they are looked at.
struct Files<'f, 'l, 't> {
    look: &'f Look<'l, 't>,
    stretch: &'f Stretch<'f>,
}

impl Files<'_, '_, '_> {
    /// Decides about each file; `claimed` is of the directory that was looked at last.
    fn look_at<'s>(&'s self, queue: &Queue<'s, '_>, claimed: &mut (u32, Arc<Claimed>)) -> Result<()> {
        for (number, file) in (0..).zip(&self.stretch.files) {
            let dir = &self.stretch.plan.dirs[file.dir as usize];
            if dir.failed.is_set() {
                file.set_state(State::Failed);
            }
            // Where it does not begin, it was decided about in the table where it does.
            if file.state() == State::Failed || dir.fresh.is_set() || !file.begins {
                continue;
            }
            if claimed.0 != file.dir {
                *claimed = (file.dir, Arc::default());
            }
            let claimed = claimed.1.clone();
            queue.submit(0, move || self.look_at_file(number, &claimed))?;
        }
        Ok(())
    }

    fn look_at_file(&self, number: u32, claimed: &Claimed) -> Result<()> {
        let Files { look, stretch, .. } = *self;
        let prepare = look.prepare;
        let file = &stretch.files[number as usize];
        let found = look.dirs.get(file.dir).and_then(|dir| dir.stat(stretch.file_name(number)));
        let stat = match found {
            Ok(None) | Err(Errno::NOENT) => return Ok(()),
            Ok(Some(stat)) => stat,
            Err(errno) => return prepare.fail(stretch, number, "look at", errno),
        };
        // What has several names may have two of the snapshot's; a directory has one, whatever it counts.
        let has_one_name = stat.st_nlink == 1 || is(&stat, FileType::Directory);
        let is_claimed = has_one_name && !claimed.insert(inode(&stat));
        // Where all stays as it was, that is no matter.
        let is_claimed = is_claimed && prepare.options.overwrite != Overwrite::Never;
        if is_claimed || look.plan.claimed_dirs.contains(inode(&stat)) {
            file.set_state(State::Failed);
            stretch.plan.refuse(prepare.progress, &stretch.file_path(number), ONE_NAME);
            return Ok(());
        }
        file.set_found(Found::of(&stat, file.size));
        let state = self.decide(&stat, file.size, file.mtime);
        file.set_state(state);
        if !has_one_name && matches!(state, State::Correct | State::Kept) {
            stretch.plan.settled.note(file.dir, inode(&stat), stretch.file_name(number));
        }
        if state == State::Correcting {
            // A file may be a mount point, too.
            let path = || stretch.file_path(number);
            let met = look.systems.as_ref().map_or(Ok(()), |open| lock(open).meet(look.root, stat.st_dev, path));
            if let Err(errno) = met {
                prepare.fail(stretch, number, "open", errno)?;
            }
        } else if state == State::Planned && is(&stat, FileType::Directory) {
            self.clear_way(number)?;
        }
        Ok(())
    }

    /// What is to become of a file that has `stat` in its place.
    fn decide(&self, stat: &Stat, size: u64, mtime: (i64, u32)) -> State {
        let regular = is(stat, FileType::RegularFile);
        let overwrite = self.look.prepare.options.overwrite;
        if is_kept(overwrite, stat, mtime) {
            return State::Kept;
        }
        let is_same = || regular && u64::try_from(stat.st_size) == Ok(size) && mtime == mtime_of(stat);
        match overwrite {
            Overwrite::IfChanged if is_same() => State::Correct,
            // A file with other names is somebody else's too.
            _ if regular && stat.st_nlink == 1 => State::Correcting,
            _ => State::Planned,
        }
    }

    /// A directory is in the way of a file. It goes if the snapshot decides what may be here, or if there is nothing in it.
    fn clear_way(&self, number: u32) -> Result<()> {
        let Files { look, stretch, .. } = *self;
        let (plan, root, progress) = (stretch.plan, look.root, look.prepare.progress);
        let path = stretch.file_path(number);
        let Options { include, exclude, delete, dry_run, .. } = look.prepare.options;
        if *delete && !plan.doubtful {
            let selection = Selection { include, exclude };
            Deleter { root, selection, dry_run: *dry_run, progress }.remove(&path)?;
            let file = &stretch.files[number as usize];
            if let Ok(None) = look.dirs.get(file.dir).and_then(|dir| dir.stat(stretch.file_name(number))) {
                // What comes there before it is another entry's.
                file.set_found(Found::Nothing);
            }
            return Ok(());
        }
        if root.dir(&path).and_then(|dir| dir.names()).is_ok_and(|names| !names.is_empty()) {
            stretch.files[number as usize].set_state(State::Failed);
            plan.refuse(progress, &path, IN_THE_WAY);
        }
        Ok(())
    }
}

/// Lets its owner work in a directory whose own mode would not; the mode it is to have comes at the end.
fn open_to_owner(dir: &Pinned) -> rustix::io::Result<()> {
    let (stat, user) = (dir.stat()?, rustix::process::geteuid());
    if !user.is_root() && stat.st_uid == user.as_raw() && stat.st_mode & 0o700 != 0o700 {
        dir.chmod(stat.st_mode & 0o7777 | 0o700)?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
