//! The first half of stage 3: creates directories, and decides about each existing file.
//!
//! Directories are created level by level, those of a level by many threads. In a directory that
//! this run created, the kernel gives a name to only one of two entries. In a directory that
//! existed, an entry of the snapshot claims the entry that it finds, by device and inode, so that
//! another entry is reported if the file system treats both names as equal; directories in it are
//! created one after another.

use crate::restore::confine::{Other, Pinned, is};
use crate::restore::delete::Deleter;
use crate::restore::dirs::Dirs;
use crate::restore::durable::FileSystems;
use crate::restore::error::{Error, Result};
use crate::restore::file_states::{FileState, FileStates, Found, State};
use crate::restore::inodes::{Claimed, inode};
use crate::restore::options::Overwrite;
use crate::restore::outcomes::Outcomes;
use crate::restore::overwrite::{is_kept, mtime_of};
use crate::restore::path::display;
use crate::restore::plan::PlannedTable;
use crate::restore::plan::table::File;
use crate::restore::problems::{IN_THE_WAY, ONE_NAME};
use crate::restore::selection::Selection;
use crate::restore::target::Target;
use crate::restore::workers::Queue;
use crate::sync::lock;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// The result of creating a directory.
enum Made {
    /// The directory is new.
    Fresh,
    /// The directory existed.
    There,
    /// An entry of another type has its place and is kept.
    Taken,
    /// Another entry of the snapshot has its place.
    OneName,
}

const TAKEN: &str = "an entry of another type has the directory's place and is kept, so that nothing below it is restored; \
                     restore with another --overwrite, or into another directory";

/// The target while it is inspected.
pub struct Look<'l, 't> {
    target: &'l Target<'l>,
    dirs: &'l Dirs<'l>,
    /// `None`: a dry run.
    systems: Option<Mutex<&'l mut FileSystems<'t>>>,
}

impl<'l, 't> Look<'l, 't> {
    pub fn new(target: &'l Target<'l>, dirs: &'l Dirs<'l>, systems: Option<&'l mut FileSystems<'t>>) -> Look<'l, 't> {
        Look { target, dirs, systems: systems.map(Mutex::new) }
    }

    /// Creates the directories, and decides about each file.
    pub fn run(&self) -> Result<Outcomes> {
        let Target { plan, workers, .. } = self.target;
        self.note_default_acl(0, self.dirs.get(0).and_then(|dir| dir.pin_self()));
        workers.run("directories were made", |queue| self.make_dirs(queue))?;
        let mut outcomes = Outcomes::new(plan.files);
        // The files of one directory are consecutive, and may continue in the next table.
        let mut claimed = (0, Arc::default());
        for at in 0..plan.tables() {
            let table = &plan.table(at)?;
            let states = &FileStates::planned(table);
            let files = Files { look: self, table, states };
            workers.run("files were looked at", |queue| files.look_at(queue, &mut claimed))?;
            outcomes.note(table, states);
        }
        Ok(outcomes)
    }
}

impl Look<'_, '_> {
    fn make_dirs<'s>(&'s self, queue: &Queue<'s, '_>) -> Result<()> {
        let plan = self.target.plan;
        let mut level = vec![0];
        while !level.is_empty() {
            let mut next = Vec::new();
            for &above in &level {
                let dir = self.target.dir(above);
                next.extend(plan.dirs_in(above));
                if dir.has_failed() {
                    plan.dirs_in(above).for_each(|below| self.target.dir(below).set_failed());
                } else if dir.is_fresh() {
                    let mut below = plan.dirs_in(above);
                    below.try_for_each(|below| queue.submit(0, move || self.make_needed(below)))?;
                } else if plan.dirs_in(above).next().is_some() {
                    queue.submit(0, move || plan.dirs_in(above).try_for_each(|below| self.make_needed(below)))?;
                }
            }
            queue.wait()?;
            level = next;
        }
        Ok(())
    }

    fn make_needed(&self, number: u32) -> Result<()> {
        let Target { plan, progress, problems, .. } = self.target;
        let (dir, state) = (&plan.dirs[number as usize], self.target.dir(number));
        if !dir.needed {
            state.set_failed();
            return Ok(());
        }
        if progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        let why = match self.make_dir(number) {
            Ok(Made::Fresh) => {
                state.set_fresh();
                if self.target.dir(dir.parent).hands_down() {
                    state.set_hands_down();
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
        state.set_failed();
        problems.refuse(&plan.dir_path(number), why);
        Ok(())
    }

    /// Ensures that the directory exists. Replaces another entry of its name if that may be
    /// overwritten.
    fn make_dir(&self, number: u32) -> std::result::Result<Made, (&'static str, Errno)> {
        let Target { plan, options, .. } = self.target;
        let planned = &plan.dirs[number as usize];
        let fresh_above = self.target.dir(planned.parent).is_fresh();
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
                    let path = || plan.dir_path(number);
                    let met = opened.and_then(|()| lock(systems).meet(self.dirs.root(), stat.st_dev, path));
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
        // Only the entry that was seen is replaced, not one that appeared meanwhile.
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

    /// Claims a directory. Returns `false` if another entry of the snapshot has claimed it.
    fn claim_dir(&self, stat: &Stat) -> bool {
        self.target.claims.dirs.insert(inode(stat))
    }

    /// Records whether entries that are created in an existing directory inherit attributes from
    /// it. They do unless the directory is known to have no default ACL.
    fn note_default_acl(&self, number: u32, dir: rustix::io::Result<Pinned>) {
        let has_none = match dir.and_then(|dir| dir.xattr_names()) {
            Ok(names) => !names.iter().any(|name| name == b"system.posix_acl_default"),
            Err(errno) => errno == Errno::OPNOTSUPP,
        };
        if !has_none {
            self.target.dir(number).set_hands_down();
        }
    }
}

/// The files of a table while they are inspected.
struct Files<'f, 'l, 't> {
    look: &'f Look<'l, 't>,
    table: &'f PlannedTable<'f>,
    states: &'f FileStates,
}

impl Files<'_, '_, '_> {
    /// Decides about each file; `claimed` is that of the directory that was inspected last.
    fn look_at<'s>(&'s self, queue: &Queue<'s, '_>, claimed: &mut (u32, Arc<Claimed>)) -> Result<()> {
        for (place, (file, state)) in (0..).zip(self.table.files.iter().zip(self.states.iter())) {
            let dir = self.look.target.dir(file.dir);
            if dir.has_failed() {
                state.fail();
            }
            // A file that begins in an earlier table was decided about there.
            if state.state() == State::Failed || dir.is_fresh() || !file.part.begins() {
                continue;
            }
            if claimed.0 != file.dir {
                *claimed = (file.dir, Arc::default());
            }
            let claimed = claimed.1.clone();
            queue.submit(0, move || self.look_at_file(place, &claimed))?;
        }
        Ok(())
    }

    fn at(&self, place: u32) -> (&File, &FileState) {
        (&self.table.files[place as usize], self.states.of(place))
    }

    fn look_at_file(&self, place: u32, claimed: &Claimed) -> Result<()> {
        let Files { look, table, .. } = *self;
        let Target { options, claims, problems, .. } = look.target;
        let (file, state) = self.at(place);
        let found = look.dirs.get(file.dir).and_then(|dir| dir.stat(table.file_name(place)));
        let stat = match found {
            Ok(None) | Err(Errno::NOENT) => return Ok(()),
            Ok(Some(stat)) => stat,
            Err(errno) => return self.fail(place, "look at", errno),
        };
        // An inode with several names may belong to two entries of the snapshot; a directory has
        // one name, whatever its link count.
        let has_one_name = stat.st_nlink == 1 || is(&stat, FileType::Directory);
        let is_claimed = has_one_name && !claimed.insert(inode(&stat));
        // With `never`, everything stays as it was, and two entries may find the same file.
        let is_claimed = is_claimed && options.overwrite != Overwrite::Never;
        if is_claimed || claims.dirs.contains(inode(&stat)) {
            state.fail();
            problems.refuse(&table.file_path(place), ONE_NAME);
            return Ok(());
        }
        let decided = self.decide(&stat, file.size, file.mtime);
        state.decide(Found::of(&stat, file.size), decided);
        if !has_one_name && matches!(decided, State::Correct | State::Kept) {
            claims.settled.note(file.dir, inode(&stat), table.file_name(place));
        }
        if decided == State::Correcting {
            // A file may be a mount point, too.
            let path = || table.file_path(place);
            let root = look.dirs.root();
            let met = look.systems.as_ref().map_or(Ok(()), |open| lock(open).meet(root, stat.st_dev, path));
            if let Err(errno) = met {
                self.fail(place, "open", errno)?;
            }
        } else if decided == State::Planned && is(&stat, FileType::Directory) {
            self.clear_way(place)?;
        }
        Ok(())
    }

    /// The decision about a file that has `stat` in its place.
    fn decide(&self, stat: &Stat, size: u64, mtime: (i64, u32)) -> State {
        let regular = is(stat, FileType::RegularFile);
        let overwrite = self.look.target.options.overwrite;
        if is_kept(overwrite, stat, mtime) {
            return State::Kept;
        }
        let is_same = || regular && u64::try_from(stat.st_size) == Ok(size) && mtime == mtime_of(stat);
        match overwrite {
            Overwrite::IfChanged if is_same() => State::Correct,
            // A file with other names is replaced, because another user may have one of them.
            _ if regular && stat.st_nlink == 1 => State::Correcting,
            _ => State::Planned,
        }
    }

    /// Handles a directory in the way of a file. With `--delete` it is removed; otherwise it is
    /// replaced later if it is empty, and fails the file if it is not.
    fn clear_way(&self, place: u32) -> Result<()> {
        let Files { look, table, .. } = *self;
        let Target { plan, options, progress, problems, .. } = look.target;
        let (root, path) = (look.dirs.root(), table.file_path(place));
        let (file, state) = self.at(place);
        if options.delete && !plan.doubtful {
            let (selection, dry_run) = (Selection::of(options), options.dry_run);
            let removed = Deleter { root, selection, dry_run, progress }.remove(&path)?;
            look.target.deleted.fetch_add(removed, Ordering::Relaxed);
            if let Ok(None) = look.dirs.get(file.dir).and_then(|dir| dir.stat(table.file_name(place))) {
                // An entry that appears there before the file belongs to another entry of the
                // snapshot.
                state.set_found(Found::Nothing);
            }
            return Ok(());
        }
        if root.dir(&path).and_then(|dir| dir.names()).is_ok_and(|names| !names.is_empty()) {
            state.fail();
            problems.refuse(&path, IN_THE_WAY);
        }
        Ok(())
    }

    fn fail(&self, place: u32, action: &'static str, errno: Errno) -> Result<()> {
        let path = self.table.file_path(place);
        if let Some(error) = Error::of_target(action, display(&path), errno) {
            return Err(error);
        }
        self.states.of(place).fail();
        self.look.target.problems.refuse(&path, format!("cannot {action} it: {errno}"));
        Ok(())
    }
}

/// Gives the owner access to a directory whose mode denies it; the last stage sets the final mode.
fn open_to_owner(dir: &Pinned) -> rustix::io::Result<()> {
    let (stat, user) = (dir.stat()?, rustix::process::geteuid());
    if !user.is_root() && stat.st_uid == user.as_raw() && stat.st_mode & 0o700 != 0o700 {
        dir.chmod(stat.st_mode & 0o7777 | 0o700)?;
    }
    Ok(())
}
