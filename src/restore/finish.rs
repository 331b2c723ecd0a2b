//! Stage 7: the second walk, which makes of right content a right tree.
//!
//! Symlinks, fifos, devices and further names of hard-linked files are made, what the snapshot lacks is deleted, and everything gets its
//! metadata: a directory's after all that changes what is in it, so the deepest first and the target itself last. Files
//! whose content is not complete get none.

use super::confine::{Dir, Other, Pinned, Root, is};
use super::delete::Deleter;
use super::error::{Error, Result};
use super::meta::{Meta, Refusals};
use super::plan::{Plan, State, link_key};
use super::prepare::{self, IN_THE_WAY, ONE_NAME};
use super::walk::{Flaw, Visitor, Walk, display};
use super::{Options, Overwrite, Report};
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::{Action, Phase, Progress};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// Walks again and finishes everything; fills the report.
pub fn run(walk: &Walk<'_>, plan: &Plan, root: Option<&Root>, options: &Options, report: &mut Report) -> Result<()> {
    let mut finish = Finish {
        walk,
        plan,
        root,
        options,
        progress: walk.progress,
        refusals: Refusals::new(walk.progress, options.unprivileged),
        report,
        next_dir: 0,
        next_file: 0,
        above: Vec::new(),
        here: None,
        links: HashMap::new(),
        made: HashSet::new(),
    };
    let outcome = walk.run(&mut finish);
    let Finish { refusals, report, .. } = finish;
    report.not_applied = refusals.settle();
    outcome
}

struct Finish<'f> {
    walk: &'f Walk<'f>,
    plan: &'f Plan,
    /// `None`: a dry run into a target that does not exist.
    root: Option<&'f Root>,
    options: &'f Options,
    progress: &'f Progress,
    refusals: Refusals<'f>,
    report: &'f mut Report,
    /// The numbers that the plan gave to what comes next.
    next_dir: u32,
    next_file: u32,
    /// The open directories, the target first.
    above: Vec<u32>,
    /// The directory whose entries are coming in; nothing is made in it in a dry run.
    here: Option<Dir>,
    /// The first path of each group of hard links that are not regular files.
    links: HashMap<Id, Vec<u8>>,
    /// What this run has put into the directory whose entries are coming in, by device and inode,
    /// if the directory existed before.
    made: HashSet<(u64, u64)>,
}

impl Visitor for Finish<'_> {
    fn enter(&mut self, path: &[u8], _: Option<Id>, _: Option<&Meta>, _: bool) -> Result<bool> {
        let number = self.next_dir;
        let dir = &self.plan.dirs[number as usize];
        self.above.push(number);
        self.next_dir += 1;
        self.here = None;
        if !dir.needed || dir.failed || dir.unreadable {
            (self.next_dir, self.next_file) = (dir.dirs_end, dir.files_end);
            return Ok(false);
        }
        if let (Some(root), false) = (self.root, self.options.dry_run) {
            match root.dir(path) {
                Ok(dir) => self.here = Some(dir),
                Err(errno) => {
                    if let Some(error) = Error::of_target("open", display(path), errno) {
                        return Err(error);
                    }
                    let why = format!("the directory cannot be opened any more: {errno}");
                    self.plan.refuse(self.progress, path, why);
                    (self.next_dir, self.next_file) = (dir.dirs_end, dir.files_end);
                    return Ok(false);
                }
            }
        }
        self.list_files_made(number);
        Ok(true)
    }

    fn entry(&mut self, path: &[u8], node: Node) -> Result<()> {
        if self.progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        let key = link_key(&node);
        if node.ty == NodeType::File {
            return match key.and_then(|key| self.plan.links.get(&key)) {
                Some(&first) if first != self.next_file => self.link_file(path, first, &node),
                _ => {
                    self.next_file += 1;
                    self.file(path, self.next_file - 1, node);
                    Ok(())
                }
            };
        }
        self.special(path, node, key)
    }

    fn listed(&mut self, path: &[u8], names: &HashSet<Box<[u8]>>) -> Result<()> {
        let dir = *self.above.last().expect("entered before");
        // What a directory has cannot be told from names that cannot be trusted, neither here nor above or below.
        if !self.options.delete || self.plan.doubtful || self.plan.dirs[dir as usize].fresh {
            return Ok(());
        }
        let Some(root) = self.root else { return Ok(()) };
        let (selection, progress, dry_run) = (self.walk.selection, self.progress, self.options.dry_run);
        self.report.files_deleted += Deleter { root, selection, dry_run, progress }.remove_unexpected(path, names)?;
        Ok(())
    }

    fn leave(&mut self, path: &[u8], meta: Option<Meta>) -> Result<()> {
        self.here = None;
        let number = self.above.pop().expect("entered before");
        let dir = &self.plan.dirs[number as usize];
        if !dir.needed || dir.failed {
            return Ok(());
        }
        if let (Some(root), Some(meta), false) = (self.root, meta, self.options.dry_run) {
            let pinned = root.dir(path).and_then(|dir| dir.pin_self());
            self.apply(path, pinned, &meta);
        }
        if number != 0 {
            let action = if dir.fresh { Action::Restored } else { Action::Updated };
            self.count_entry(path, action, 0);
        }
        Ok(())
    }

    fn flaw(&mut self, path: &[u8], flaw: Flaw, why: String) -> Result<()> {
        // The plan has told all others; a tree that was readable then and is not now would put every number wrong.
        match flaw {
            Flaw::Unreadable => Err(Error::Changed { path: display(path), why }),
            Flaw::Name | Flaw::Truncated | Flaw::Entry => Ok(()),
        }
    }
}

impl Finish<'_> {
    /// Whether this run made the directory whose entries are coming in.
    fn is_fresh(&self) -> bool {
        let number = *self.above.last().expect("entries are in directories");
        self.plan.dirs[number as usize].fresh
    }

    /// Lists the regular files that this run has put into a directory.
    fn list_files_made(&mut self, number: u32) {
        self.made.clear();
        let Some(here) = self.here.take_if(|_| !self.plan.dirs[number as usize].fresh) else { return };
        // They come before those of the directories below.
        let files = self.plan.files[self.next_file as usize..].iter().take_while(|file| file.dir == number);
        for (at, file) in (self.next_file..).zip(files) {
            if matches!(file.state(), State::Done | State::Corrected | State::Correct) {
                self.list_as_made(&here, last(&self.plan.file_path(at)));
            }
        }
        self.here = Some(here);
    }

    fn list_as_made(&mut self, dir: &Dir, name: &[u8]) {
        // What has several names may have two of the snapshot's.
        if let Ok(Some(stat)) = dir.stat(name)
            && stat.st_nlink == 1
        {
            self.made.insert((stat.st_dev, stat.st_ino));
        }
    }

    /// What is to become of an entry that has this name: what this run has put there stays, which
    /// has another name in the snapshot.
    fn other(&self, dir: &Dir, name: &[u8]) -> Other {
        if self.is_fresh() || self.options.overwrite == Overwrite::Never {
            return Other::Keep;
        }
        match dir.stat(name) {
            Ok(Some(stat)) if self.made.contains(&(stat.st_dev, stat.st_ino)) => Other::Keep,
            Ok(_) | Err(_) => Other::Replace,
        }
    }

    /// The metadata of a regular file, if its content is right; and what became of it.
    fn file(&mut self, path: &[u8], number: u32, node: Node) {
        let plan = self.plan;
        let file = &plan.files[number as usize];
        let action = match file.state() {
            State::Failed | State::Made => return,
            State::Kept => {
                self.report.files_skipped += 1;
                self.report.bytes_skipped += file.size;
                return self.progress.item(Action::Skipped, || display(path), file.size);
            }
            State::Correct => Action::Skipped,
            State::Done | State::Planned => Action::Restored,
            State::Corrected | State::Correcting => Action::Updated,
        };
        if action == Action::Skipped {
            self.report.files_skipped += 1;
        } else {
            self.report.files_restored += 1;
        }
        self.report.bytes_skipped += file.present;
        self.report.bytes_restored += file.size - file.present;
        self.progress.item(action, || display(path), file.size);
        self.apply_here(path, Meta::of(node));
    }

    /// Another name of a file that has its content.
    fn link_file(&mut self, path: &[u8], first: u32, node: &Node) -> Result<()> {
        let state = self.plan.files[first as usize].state();
        let first = self.plan.file_path(first);
        if matches!(state, State::Failed | State::Made) {
            self.problem(path, format!("it is a hard link to {}, which could not be restored", display(&first)));
            return Ok(());
        }
        if state == State::Kept && !self.is_kept(path, node) {
            // What was kept may have any content.
            let why = "it is a hard link, not restored because what has the place of its first name is kept: ";
            self.problem(path, format!("{why}{}", display(&first)));
            return Ok(());
        }
        self.place(path, node, |finish, dir, name, other| finish.link(dir, name, other, &first)).map(|_| ())
    }

    /// Everything that is no regular file and no directory.
    fn special(&mut self, path: &[u8], node: Node, key: Option<Id>) -> Result<()> {
        let ty = match node.ty {
            NodeType::Symlink => FileType::Symlink,
            NodeType::Fifo => FileType::Fifo,
            NodeType::Dev => FileType::BlockDevice,
            NodeType::CharDev => FileType::CharacterDevice,
            NodeType::Socket => {
                self.refusals.add_harmless("socket", path, Errno::OPNOTSUPP);
                return Ok(());
            }
            other => {
                self.problem(path, format!("entries of type {} cannot be restored", other.name()));
                return Ok(());
            }
        };
        if let Some(first) = key.and_then(|key| self.links.get(&key)).cloned() {
            let link = |finish: &mut Self, dir: &Dir, name: &[u8], other| finish.link(dir, name, other, &first);
            return self.place(path, &node, link).map(|_| ());
        }
        let placed = self.place(path, &node, |_, dir, name, other| match ty {
            FileType::Symlink => make_symlink(dir, name, other, &node.link_target),
            ty => make_node(dir, name, other, ty, node.device),
        })?;
        if placed {
            if let Some(key) = key {
                self.links.insert(key, path.to_vec());
            }
            self.apply_here(path, Meta::of(node));
        }
        Ok(())
    }

    /// Puts an entry in its place unless it is to be left alone; `make` replaces what is there. Says whether it is there now.
    fn place(
        &mut self,
        path: &[u8],
        node: &Node,
        make: impl FnOnce(&mut Self, &Dir, &[u8], Other) -> rustix::io::Result<()>,
    ) -> Result<bool> {
        if self.is_kept(path, node) {
            self.report.files_skipped += 1;
            self.progress.files_done.fetch_add(1, Ordering::Relaxed);
            self.progress.item(Action::Skipped, || display(path), 0);
            return Ok(false);
        }
        if let Some(dir) = self.here.take() {
            let name = last(path);
            let other = self.other(&dir, name);
            let outcome = make(self, &dir, name, other);
            if outcome.is_ok() && !self.is_fresh() {
                self.list_as_made(&dir, name);
            }
            self.here = Some(dir);
            if let Err(errno) = outcome {
                return self.not_made(path, other, errno).map(|()| false);
            }
        }
        self.count_entry(path, Action::Restored, 0);
        Ok(true)
    }

    /// Whether something that is not to be overwritten has the entry's place.
    fn is_kept(&self, path: &[u8], node: &Node) -> bool {
        let dir = *self.above.last().expect("entries are in directories");
        let Some(root) = self.root.filter(|_| !self.plan.dirs[dir as usize].fresh) else { return false };
        let there = root.stat(path).ok().flatten();
        there.is_some_and(|there| prepare::is_kept(self.options.overwrite, &there, node.mtime.instant()))
    }

    fn not_made(&mut self, path: &[u8], other: Other, errno: Errno) -> Result<()> {
        if let Some(error) = Error::of_target("create", display(path), errno) {
            return Err(error);
        }
        match (other, errno) {
            (Other::Keep, Errno::EXIST) => self.plan.refuse(self.progress, path, ONE_NAME),
            (Other::Replace, Errno::NOTEMPTY | Errno::EXIST) => self.plan.refuse(self.progress, path, IN_THE_WAY),
            _ => self.plan.refuse(self.progress, path, format!("cannot create it: {errno}")),
        }
        Ok(())
    }

    /// Makes a name for an entry that another path leads to already.
    fn link(&self, dir: &Dir, name: &[u8], other: Other, first: &[u8]) -> rustix::io::Result<()> {
        let root = self.root.ok_or(Errno::NOENT)?;
        let (from, old) = root.parent(first)?;
        if other == Other::Replace {
            let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
            if let (Some(there), Some(wanted)) = (dir.stat(name)?, from.stat(old)?)
                && same(&there, &wanted)
            {
                return Ok(());
            }
            dir.clear(name)?;
        }
        dir.link(&from, old, name)
    }

    fn apply_here(&mut self, path: &[u8], meta: Meta) {
        if let Some(dir) = &self.here {
            let pinned = dir.pin(last(path));
            self.apply(path, pinned, &meta);
        }
    }

    fn apply(&mut self, path: &[u8], pinned: rustix::io::Result<Pinned>, meta: &Meta) {
        match pinned {
            Ok(pinned) => self.refusals.apply(&pinned, meta, path),
            Err(errno) => {
                self.problem(path, format!("its metadata is not applied, because it cannot be opened: {errno}"))
            }
        }
    }

    fn count_entry(&mut self, path: &[u8], action: Action, size: u64) {
        self.report.files_restored += 1;
        self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        self.progress.item(action, || display(path), size);
    }

    fn problem(&self, path: &[u8], why: impl std::fmt::Display) {
        self.progress.problem(Phase::Restore, display(path), why);
    }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

fn make_symlink(dir: &Dir, name: &[u8], other: Other, target: &[u8]) -> rustix::io::Result<()> {
    if other == Other::Replace
        && let Some(stat) = dir.stat(name)?
    {
        if is(&stat, FileType::Symlink) && stat.st_nlink == 1 && dir.read_link(name)? == target {
            return Ok(());
        }
        dir.clear(name)?;
    }
    dir.symlink(target, name)
}

fn make_node(dir: &Dir, name: &[u8], other: Other, ty: FileType, device: u64) -> rustix::io::Result<()> {
    let device = if ty == FileType::Fifo { 0 } else { device };
    if other == Other::Replace
        && let Some(stat) = dir.stat(name)?
    {
        if is(&stat, ty) && stat.st_rdev == device && stat.st_nlink == 1 {
            return Ok(());
        }
        dir.clear(name)?;
    }
    dir.make_node(name, ty, device)
}
