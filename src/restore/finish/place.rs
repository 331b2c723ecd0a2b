//! The calls on the target that finish entries; any thread may make them.

use super::open::{Made, Open};
use crate::format::node::{Node, NodeType};
use crate::progress::Action;
use crate::restore::confine::{Dir, Other, Pinned, is};
use crate::restore::delete::Deleter;
use crate::restore::dirs::Dirs;
use crate::restore::error::{Error, Result};
use crate::restore::file_states::State;
use crate::restore::inodes::{Inodes, inode};
use crate::restore::meta::{Before, Meta, PathOf, Recipient};
use crate::restore::names::Names;
use crate::restore::options::Overwrite;
use crate::restore::outcomes::Outcomes;
use crate::restore::overwrite;
use crate::restore::path::display;
use crate::restore::plan::link::Link;
use crate::restore::problems::{IN_THE_WAY, ONE_NAME};
use crate::restore::report::Report;
use crate::restore::selection::Selection;
use crate::restore::target::Target;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The target, and the outcomes of the files.
pub struct Place<'p> {
    pub target: &'p Target<'p>,
    pub outcomes: &'p Outcomes,
    /// `None`: a dry run into a target that does not exist.
    pub dirs: Option<&'p Dirs<'p>>,
    pub selection: Selection<'p>,
    pub counts: Counts,
}

/// The counters of the same names in [`Report`].
#[derive(Default)]
pub struct Counts {
    pub files_restored: AtomicU64,
    pub bytes_restored: AtomicU64,
    pub files_skipped: AtomicU64,
    pub bytes_skipped: AtomicU64,
}

impl Counts {
    pub fn report(self, report: &mut Report) {
        report.files_restored = self.files_restored.into_inner();
        report.bytes_restored = self.bytes_restored.into_inner();
        report.files_skipped = self.files_skipped.into_inner();
        report.bytes_skipped = self.bytes_skipped.into_inner();
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The first place of an entry that has several names.
#[derive(Clone)]
pub struct First {
    pub dir: u32,
    pub name: Box<[u8]>,
}

/// A regular file whose content is correct.
pub struct Finished {
    pub name: Box<[u8]>,
    /// Its number in the plan.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    pub action: Action,
}

/// The part of a node that is needed to create the entry: queued tasks hold it instead of the node.
pub struct Entry {
    pub name: Box<[u8]>,
    mtime: (i64, u32),
}

impl Entry {
    pub fn of(node: &Node) -> Entry {
        Entry { name: Box::from(&node.name[..]), mtime: node.mtime.instant() }
    }

    /// Approximate memory in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Entry>() + self.name.len()
    }
}

/// A symlink, fifo or device.
pub struct Special {
    pub entry: Entry,
    ty: FileType,
    link_target: Box<[u8]>,
    /// `st_rdev`.
    device: u64,
    meta: Meta,
}

impl Special {
    /// `None` for anything else.
    pub fn of(mut node: Node) -> Option<Special> {
        let ty = match node.ty {
            NodeType::Symlink => FileType::Symlink,
            NodeType::Fifo => FileType::Fifo,
            NodeType::Dev => FileType::BlockDevice,
            NodeType::CharDev => FileType::CharacterDevice,
            _ => return None,
        };
        let (entry, link_target) = (Entry::of(&node), std::mem::take(&mut node.link_target).into());
        Some(Special { entry, ty, link_target, device: node.device, meta: Meta::of(node) })
    }

    /// Approximate memory in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Special>() + self.entry.weight() + self.link_target.len() + self.meta.weight()
    }
}

/// Whether the existing entry is already the wanted one.
type IsRight<'m> = &'m dyn Fn(&Stat) -> bool;

/// Creates an entry in an open directory. The last argument is the existing entry of its name, if
/// it may be replaced.
type Make<'m> = &'m dyn Fn(&Dir, &[u8], Option<Stat>) -> rustix::io::Result<()>;

impl Place<'_> {
    /// Applies the metadata of a file whose content is correct, and counts the file. If its
    /// directory cannot be opened any more, the file does not count: it keeps the owner and mode
    /// that it was created with.
    pub fn finish_file(&self, open: &Open, file: &Finished, meta: &Meta) -> Result<()> {
        if let Some(dir) = self.here(open)? {
            self.apply_here(open, &dir, &file.name, meta);
            self.count_file(open, file);
        }
        Ok(())
    }

    /// Counts a regular file that is in its place with the right content.
    pub fn count_file(&self, open: &Open, file: &Finished) {
        let Finished { name, number, size, action } = file;
        let (counts, present) = (&self.counts, self.outcomes.present(*number, *size));
        add(if *action == Action::Skipped { &counts.files_skipped } else { &counts.files_restored }, 1);
        add(&counts.bytes_skipped, present);
        add(&counts.bytes_restored, size - present);
        self.target.progress.item(*action, || display(&self.path(open, name)), *size);
    }

    /// Creates another name of a regular file.
    pub fn link_file(&self, open: &Open, entry: &Entry, first: &Link) -> Result<()> {
        let name = &entry.name[..];
        let state = self.outcomes.state(first.file);
        let path = || display(&self.target.plan.path_in(first.dir, self.target.plan.link_name(first)));
        if matches!(state, State::Failed | State::Made) {
            let why = format!("it is a hard link to {}, which could not be restored", path());
            self.target.problems.report(&self.path(open, name), why);
            return Ok(());
        }
        if state == State::Kept && !self.is_kept(open, entry)? {
            // The kept entry may have any content.
            let why = "it is a hard link, not restored because an existing entry is kept in place of its first name: ";
            self.target.problems.report(&self.path(open, name), format!("{why}{}", path()));
            return Ok(());
        }
        let first = First { dir: first.dir, name: self.target.plan.link_name(first).into() };
        self.link(open, entry, &first).map(drop)
    }

    /// Creates another name of an entry that is in its place. Returns whether the name is in its
    /// place.
    pub fn link(&self, open: &Open, entry: &Entry, first: &First) -> Result<bool> {
        let from = || self.dirs.ok_or(Errno::NOENT).and_then(|dirs| dirs.get(first.dir));
        let is_right = |there: &Stat| {
            let wanted = from().and_then(|from| from.stat(&first.name));
            wanted.is_ok_and(|wanted| wanted.is_some_and(|wanted| inode(there) == inode(&wanted)))
        };
        self.place(open, entry, &is_right, &|dir, name, there| {
            if there.is_some() {
                dir.clear(name)?;
            }
            dir.link(&*from()?, &first.name, name)
        })
    }

    /// Creates a symlink, fifo or device. Returns whether it is in its place.
    pub fn special(&self, open: &Open, special: &Special) -> Result<bool> {
        let Special { entry, ty, link_target, device, meta } = special;
        let placed = self.place(open, entry, &|_| false, &|dir, name, there| match *ty {
            FileType::Symlink => make_symlink(dir, name, there, link_target),
            ty => make_node(dir, name, there, ty, *device),
        })?;
        if placed
            && !self.target.options.dry_run
            && let Some(dir) = self.here(open)?
        {
            self.apply_here(open, &dir, &entry.name, meta);
        }
        Ok(placed)
    }

    /// Removes the entries of a directory whose names are not expected.
    pub fn sweep(&self, open: &Open, expected: &Names) -> Result<()> {
        let Some(dirs) = self.dirs else { return Ok(()) };
        let Target { options, progress, .. } = self.target;
        let deleter = Deleter { root: dirs.root(), selection: self.selection, dry_run: options.dry_run, progress };
        let removed = deleter.remove_unexpected(&self.target.plan.dir_path(open.number), expected)?;
        add(&self.target.deleted, removed);
        Ok(())
    }

    /// Applies the metadata of a directory in which everything is finished, and counts the
    /// directory.
    pub fn finish_dir(&self, open: &Open) {
        let Target { plan, options, .. } = self.target;
        if !plan.dirs[open.number as usize].needed || self.target.dir(open.number).has_failed() {
            return;
        }
        let path = || plan.dir_path(open.number);
        if let (Some(dirs), Some(meta), false) = (self.dirs, open.meta.get(), options.dry_run) {
            let pinned = dirs.get(open.number).and_then(|dir| dir.pin_self());
            // The attributes that the directory hands down are those that it inherited itself.
            self.apply(pinned, self.before(open), meta, &path);
        }
        if open.number != 0 {
            let action = if self.is_fresh(open) { Action::Restored } else { Action::Updated };
            self.count_entry(&path, action);
        }
    }

    /// The open directory; `None` if it cannot be opened, which is reported once.
    fn here(&self, open: &Open) -> Result<Option<Arc<Dir>>> {
        let Some(dirs) = self.dirs else { return Ok(None) };
        match dirs.get(open.number) {
            Ok(dir) => Ok(Some(dir)),
            Err(errno) => {
                let path = self.target.plan.dir_path(open.number);
                if let Some(error) = Error::of_target("open", display(&path), errno) {
                    return Err(error);
                }
                if open.unopened.set(()).is_ok() {
                    let why = format!("the directory cannot be opened any more: {errno}");
                    self.target.problems.refuse(&path, why);
                }
                Ok(None)
            }
        }
    }

    /// Creates an entry unless the existing one is kept. Returns whether it is in its place.
    fn place(&self, open: &Open, entry: &Entry, is_right: IsRight<'_>, make: Make<'_>) -> Result<bool> {
        let (name, dry_run) = (&entry.name[..], self.target.options.dry_run);
        let placed = match self.dirs {
            None => true,
            Some(_) if self.is_fresh(open) && dry_run => true,
            Some(_) => {
                let Some(dir) = self.here(open)? else { return Ok(false) };
                if self.is_fresh(open) {
                    // The directory was empty, and this run never replaces its own entries.
                    self.heed(open, name, Other::Keep, make(&dir, name, None))?
                } else {
                    match self.place_beside(open, &dir, entry, (is_right, make))? {
                        Some(placed) => placed,
                        None => return Ok(false),
                    }
                }
            }
        };
        if placed {
            self.count_entry(&|| self.path(open, name), Action::Restored);
        }
        Ok(placed)
    }

    /// Creates an entry in a directory that existed. `None`: the existing entry of its name is left
    /// alone.
    fn place_beside(
        &self,
        open: &Open,
        dir: &Dir,
        entry: &Entry,
        (is_right, make): (IsRight<'_>, Make<'_>),
    ) -> Result<Option<bool>> {
        let name = &entry.name[..];
        // Entries must not replace each other if the file system treats their names as equal.
        let mut made = open.made();
        let there = match dir.stat(name) {
            Ok(there) => there,
            Err(Errno::NOENT) => None,
            Err(errno) => return self.heed(open, name, Other::Keep, Err(errno)).map(|_| None),
        };
        let right = there.is_some_and(|there| is_right(&there));
        if let Some(there) = there
            && self.target.options.overwrite != Overwrite::Never
            && !right
            && self.is_made(&mut made, open, (dir, name), &there)?
        {
            drop(made);
            return self.heed(open, name, Other::Keep, Err(Errno::EXIST)).map(|_| None);
        }
        if there.is_some_and(|there| overwrite::is_kept(self.target.options.overwrite, &there, entry.mtime)) {
            drop(made);
            add(&self.counts.files_skipped, 1);
            self.target.progress.files_done.fetch_add(1, Ordering::Relaxed);
            self.target.progress.item(Action::Skipped, || display(&self.path(open, name)), 0);
            return Ok(None);
        }
        if self.target.options.dry_run {
            return Ok(Some(true));
        }
        // If an entry appears where none was seen, it belongs to another entry of the snapshot,
        // whose name the file system treats as equal.
        let other = if there.is_some() { Other::Replace } else { Other::Keep };
        let outcome = if right { Ok(()) } else { make(dir, name, there) };
        if outcome.is_ok()
            && let Ok(Some(stat)) = dir.stat(name)
        {
            match stat.st_nlink {
                1 => drop(made.specials.insert(inode(&stat))),
                _ => self.target.claims.settled.note(open.number, inode(&stat), name),
            }
        }
        drop(made);
        self.heed(open, name, other, outcome).map(Some)
    }

    /// Whether this run created or kept the existing entry for another entry of the snapshot.
    fn is_made(&self, made: &mut Made, open: &Open, (dir, name): (&Dir, &[u8]), there: &Stat) -> Result<bool> {
        if is(there, FileType::Directory) {
            return Ok(self.target.claims.dirs.contains(inode(there)));
        }
        // If the names cannot be listed, the existing entry is left alone.
        if made.specials.contains(inode(there))
            || self.target.claims.settled.is_respelt(open.number, dir, inode(there), name).unwrap_or(true)
        {
            return Ok(true);
        }
        if !is(there, FileType::RegularFile) {
            return Ok(false);
        }
        let files = match &mut made.files {
            Some(files) => files,
            none => none.insert(self.files_made(open, dir)?),
        };
        Ok(files.contains(inode(there)))
    }

    /// The regular files of a directory that this run created, corrected or found correct.
    fn files_made(&self, open: &Open, dir: &Dir) -> Result<Inodes> {
        let right = [State::Done, State::Finished, State::Corrected, State::Correct];
        let mut files = Inodes::default();
        self.target.plan.each_file(open.number, open.first_file, |number, name| {
            let state = self.outcomes.state(number);
            if right.contains(&state)
                && let Ok(Some(stat)) = dir.stat(name)
                && (stat.st_nlink == 1 || state != State::Correct)
            {
                // A file that was already correct may have further names, which the snapshot gives
                // to other entries.
                files.insert(inode(&stat));
            }
        })?;
        Ok(files)
    }

    /// Whether the existing entry of the same name is kept.
    fn is_kept(&self, open: &Open, entry: &Entry) -> Result<bool> {
        if self.is_fresh(open) {
            return Ok(false);
        }
        let there = self.here(open)?.and_then(|dir| dir.stat(&entry.name).ok().flatten());
        let is_kept = |there: Stat| overwrite::is_kept(self.target.options.overwrite, &there, entry.mtime);
        Ok(there.is_some_and(is_kept))
    }

    /// Whether an entry could be created; a failure is reported.
    fn heed(&self, open: &Open, name: &[u8], other: Other, outcome: rustix::io::Result<()>) -> Result<bool> {
        let Err(errno) = outcome else { return Ok(true) };
        let path = self.path(open, name);
        if let Some(error) = Error::of_target("create", display(&path), errno) {
            return Err(error);
        }
        match (other, errno) {
            (Other::Keep, Errno::EXIST) => self.target.problems.refuse(&path, ONE_NAME),
            (Other::Replace, Errno::NOTEMPTY | Errno::EXIST) => self.target.problems.refuse(&path, IN_THE_WAY),
            _ => self.target.problems.refuse(&path, format!("cannot create it: {errno}")),
        }
        Ok(false)
    }

    fn apply_here(&self, open: &Open, dir: &Dir, name: &[u8], meta: &Meta) {
        self.apply(dir.pin(name), self.before(open), meta, &|| self.path(open, name));
    }

    fn apply(&self, pinned: rustix::io::Result<Pinned>, before: Before, meta: &Meta, path: PathOf<'_>) {
        match pinned {
            Ok(pinned) => self.target.refusals.apply(&Recipient { pinned: &pinned, before, path }, meta),
            Err(errno) => {
                let why = format!("its metadata is not applied, because it cannot be opened: {errno}");
                self.target.problems.report(&path(), why);
            }
        }
    }

    /// The attributes that a directory, or an entry created in it, may have inherited.
    fn before(&self, open: &Open) -> Before {
        let dir = self.target.dir(open.number);
        if dir.is_fresh() && !dir.hands_down() { Before::Bare } else { Before::Unknown }
    }

    fn count_entry(&self, path: &dyn Fn() -> Vec<u8>, action: Action) {
        add(&self.counts.files_restored, 1);
        self.target.progress.files_done.fetch_add(1, Ordering::Relaxed);
        self.target.progress.item(action, || display(&path()), 0);
    }

    /// Whether this run created the directory.
    fn is_fresh(&self, open: &Open) -> bool {
        self.target.dir(open.number).is_fresh()
    }

    fn path(&self, open: &Open, name: &[u8]) -> Vec<u8> {
        self.target.plan.path_in(open.number, name)
    }
}

fn make_symlink(dir: &Dir, name: &[u8], there: Option<Stat>, target: &[u8]) -> rustix::io::Result<()> {
    if let Some(stat) = there {
        if is(&stat, FileType::Symlink) && stat.st_nlink == 1 && dir.read_link(name)? == target {
            return Ok(());
        }
        dir.clear(name)?;
    }
    dir.symlink(target, name)
}

fn make_node(dir: &Dir, name: &[u8], there: Option<Stat>, ty: FileType, device: u64) -> rustix::io::Result<()> {
    let device = if ty == FileType::Fifo { 0 } else { device };
    if let Some(stat) = there {
        if is(&stat, ty) && stat.st_rdev == device && stat.st_nlink == 1 {
            return Ok(());
        }
        dir.clear(name)?;
    }
    dir.make_node(name, ty, device)
}
