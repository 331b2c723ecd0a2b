//! Stage 2: directories are listed, entries looked at and compared with the parent's.
//!
//! A few threads take directories from one stack, last in first out, which keeps the number of half-finished directories small. What is
//! unchanged or has no content is finished here; files to be read go to the readers. The first
//! directory on the stack is the snapshot's root, which has nothing but what was named.

use super::Run;
use super::assemble::Dir;
use super::parent::{ParentDir, is_unchanged};
use super::reach::Reach;
use super::read::{FileWork, Standing};
use super::source::{Kind, Top, Tops};
use super::stat::{display, lstat, node_type, stat};
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::progress::Action;
use crate::repo::Result;
use crossbeam_channel::Sender;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};

/// Directories to be listed, shared by the walkers.
#[derive(Default)]
pub struct Stack {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dirs: Vec<DirWork>,
    /// Walkers that may still add directories.
    busy: usize,
}

/// A directory to be taken into the snapshot.
struct DirWork {
    dir: Arc<Dir>,
    scope: Scope,
    standing: Standing,
    /// What only few directories have: there may be very many on the stack.
    known: Option<Box<Known>>,
}

/// What is known of a directory before it is listed.
#[derive(Default)]
struct Known {
    /// What the parent has in it, where that is not what the directory's previous node says.
    parent: Option<ParentDir>,
    /// The named entries below it, and the directories on the way to them.
    named: Tops,
}

/// What is taken of a directory.
#[derive(Clone, Copy)]
enum Scope {
    /// All that it lists, and what is named below it.
    Whole {
        /// `st_dev` of the directory.
        device: u64,
    },
    /// Only what is named below it.
    Named,
}

/// A directory that a walker has taken from the stack. While there is one, more may be pushed; also
/// a walker that panics gives it back.
pub(super) struct Popped<'s> {
    stack: &'s Stack,
    work: DirWork,
}

impl Drop for Popped<'_> {
    fn drop(&mut self) {
        self.stack.lock().busy -= 1;
        self.stack.changed.notify_all();
    }
}

impl Stack {
    /// A stack with the snapshot's root on it; `parent` is what the parent snapshot has there.
    pub fn new(root: Arc<Dir>, parent: ParentDir, named: Tops) -> Stack {
        let stack = Stack::default();
        let known = Some(Box::new(Known { parent: Some(parent), named }));
        stack.push(DirWork { dir: root, scope: Scope::Named, standing: Standing::Found, known });
        stack
    }

    fn push(&self, work: DirWork) {
        self.lock().dirs.push(work);
        self.changed.notify_one();
    }

    /// The next directory; `None` when there is none and no walker can add one.
    pub(super) fn pop(&self) -> Option<Popped<'_>> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.dirs.pop() {
                state.busy += 1;
                return Some(Popped { stack: self, work });
            }
            if state.busy == 0 {
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One walker: lists directories until there are none.
pub fn walk(run: &Run<'_>, stack: &Stack, files: &Sender<FileWork>) {
    while let Some(mut popped) = stack.pop() {
        if !run.is_stopped()
            && let Err(error) = (Walker { run, stack, files }).list(&mut popped.work)
        {
            run.fail(error);
        }
    }
}

/// What one walker works with.
struct Walker<'w> {
    run: &'w Run<'w>,
    stack: &'w Stack,
    files: &'w Sender<FileWork>,
}

/// What is known of an entry before it is looked at.
struct Candidate<'c> {
    name: &'c [u8],
    path: PathBuf,
    /// `None`: only the listing has it.
    kind: Option<Kind>,
    /// The named entries below it.
    below: Tops,
}

impl Walker<'_> {
    fn list(&self, work: &mut DirWork) -> Result<()> {
        let run = self.run;
        let dir = &work.dir;
        let Known { parent, mut named } = work.known.take().map_or_else(Known::default, |known| *known);
        let parent = parent.unwrap_or_else(|| run.parent_dir(dir.previous.as_ref(), &dir.path));
        let listed = match work.scope {
            Scope::Named => None,
            Scope::Whole { .. } => match self.listing(work) {
                Ok(listed) => Some(listed),
                Err(error) => {
                    run.lost(work.standing, &dir.path, format!("it cannot be listed: {error}"));
                    if named.is_empty() {
                        return dir.leave_out(run);
                    }
                    work.scope = Scope::Named;
                    None
                }
            },
        };
        let (mut names, mut fd) = listed.map_or_else(|| (Vec::new(), None), |(names, fd)| (names, Some(fd)));
        if let (Scope::Whole { device }, Some(opened)) = (work.scope, &fd)
            && run.options.one_file_system
            && rustix::fs::fstat(opened).is_ok_and(|now| now.st_dev != device)
        {
            // Opening it has mounted a file system on it (autofs): as any mount point, it is empty
            // here.
            work.scope = Scope::Named;
            (names, fd) = (Vec::new(), None);
        }
        let tag = fd.as_ref().and_then(|_| run.tag_file(&dir.path));
        if !named.is_empty() {
            // A listing may lack what is named: some file systems hide directories that can be
            // opened.
            names.extend(named.keys().cloned());
            names.sort_unstable();
            names.dedup();
        }
        for name in names {
            if run.is_stopped() {
                return Ok(());
            }
            let candidate = match named.remove(&name) {
                Some(Top { path, kind, below }) => Candidate { name: &name, path, kind: Some(kind), below },
                None => {
                    let path = dir.path.join(OsStr::from_bytes(&name));
                    Candidate { name: &name, path, kind: None, below: Tops::new() }
                }
            };
            self.candidate(work, &parent, fd.as_ref(), tag.as_deref(), candidate)?;
        }
        dir.listed(run)
    }

    /// The names in a directory, sorted, and the directory. A listing that breaks off is a problem;
    /// what it gave is kept.
    fn listing(&self, work: &DirWork) -> rustix::io::Result<(Vec<Vec<u8>>, OwnedFd)> {
        let (run, dir) = (self.run, &work.dir);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let reach = Reach::of(&dir.path)?;
        let fd = rustix::fs::openat(CWD, reach.path(), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd)? {
            match entry {
                Ok(entry) => names.push(entry.file_name().to_bytes().to_vec()),
                Err(error) => {
                    let why = format!("its listing broke off, entries are missing: {error}");
                    run.lost(work.standing, &dir.path, why);
                    break;
                }
            }
        }
        names.retain(|name| name != b"." && name != b"..");
        names.sort_unstable();
        let listed = names.len();
        names.dedup();
        if names.len() < listed {
            // Network file systems do that to a directory that changes meanwhile. Both entries are
            // the same file.
            let twice = listed - names.len();
            run.progress.warning(&format!("{}: {twice} names were listed twice", display(&dir.path)));
        }
        Ok((names, fd))
    }

    /// Looks at one entry of a directory and takes it, or what is named below it, into the
    /// snapshot.
    fn candidate(
        &self,
        work: &DirWork,
        parent: &ParentDir,
        fd: Option<&OwnedFd>,
        tag: Option<&str>,
        candidate: Candidate<'_>,
    ) -> Result<()> {
        let run = self.run;
        let Candidate { name, path, kind, below } = candidate;
        let boundary = match (kind, work.scope) {
            (Some(Kind::Target), _) => None,
            (Some(Kind::Found { device }), _) | (_, Scope::Whole { device }) => Some(device),
            (_, Scope::Named) => None,
        };
        // Rules are for what was found, not for what was named, nor for what leads to it.
        let is_found = boundary.is_some();
        let excluded = is_found
            && (tag.is_some_and(|tag| tag.as_bytes() != name)
                || run.options.exclude.patterns.matches(&absolute(&path)));
        if excluded && below.is_empty() {
            run.progress.item(Action::Excluded, || display(&path), 0);
            return Ok(());
        }
        let looked = match fd {
            Some(fd) => rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW),
            None => lstat(&path),
        };
        let looked = looked.and_then(|found| seen(&path, found, kind, &below));
        let standing = if kind == Some(Kind::Target) { Standing::Named } else { Standing::Found };
        let Seen { stat: found, followed } = match looked {
            Ok(seen) => seen,
            Err(error) => {
                run.lost(standing, &path, format!("it vanished or cannot be looked at: {error}"));
                self.lose(below);
                return Ok(());
            }
        };
        if !below.is_empty() && node_type(&found) != NodeType::Dir {
            // It was a directory when the sources were resolved.
            self.lose(below);
            if !excluded && (is_found || kind == Some(Kind::Target)) {
                let scope = Scope::Whole { device: found.st_dev };
                let (previous, below) = (parent.get(name), Tops::new());
                return self.entry(&work.dir, Entry { name, path, stat: found, previous, standing, scope, below });
            }
            return Ok(());
        }
        if followed && (is_found || kind == Some(Kind::Target)) {
            run.progress.warning(&format!(
                "{}: stored as the directory that it leads to, with what was named below it and nothing else",
                display(&path)
            ));
        }
        let partial = excluded || followed || kind == Some(Kind::Partial) && !is_found;
        let boundary = boundary.filter(|_| run.options.one_file_system);
        let elsewhere = boundary.is_some_and(|device| device != found.st_dev);
        let scope = if partial || elsewhere { Scope::Named } else { Scope::Whole { device: found.st_dev } };
        self.entry(&work.dir, Entry { name, path, stat: found, previous: parent.get(name), standing, scope, below })
    }

    /// The targets below a directory that is lost are lost, too.
    fn lose(&self, tops: Tops) {
        for Top { path, kind, below } in tops.into_values() {
            if kind == Kind::Target {
                let why = "the directory above it cannot be looked at, or is none any more";
                self.run.lost(Standing::Named, &path, why);
            }
            self.lose(below);
        }
    }

    fn entry(&self, dir: &Arc<Dir>, entry: Entry<'_>) -> Result<()> {
        let run = self.run;
        let Entry { name, path, mut stat, previous, standing, scope, below } = entry;
        if run.options.read_special && standing == Standing::Named {
            match special(&path, &stat) {
                Ok(device) => stat = device.unwrap_or(stat),
                Err(why) => {
                    run.lost(standing, &path, why);
                    return Ok(());
                }
            }
        }
        let ty = node_type(&stat);
        // Nothing can be stored of a socket that would be of use to anybody; restic leaves them
        // out, too.
        if ty == NodeType::Socket {
            match standing {
                Standing::Named => run.lost(standing, &path, "it is a socket, which has no content to be stored"),
                Standing::Found => run.progress.item(Action::Excluded, || display(&path), 0),
            }
            return Ok(());
        }
        let is_large = |max: u64| stat.st_size > i64::try_from(max).unwrap_or(i64::MAX);
        if ty == NodeType::File && standing == Standing::Found && run.options.exclude.larger_than.is_some_and(is_large)
        {
            run.progress.item(Action::Excluded, || display(&path), 0);
            return Ok(());
        }
        self.note_unread(&path, ty, standing);
        let mut node = run.observer.node(name, &path, &stat, |why| run.problem(&path, why));
        let slot = dir.open_slot(name);
        match ty {
            NodeType::Dir => {
                let previous = previous.filter(|node| node.ty == NodeType::Dir).cloned();
                let dir = Dir::new(path, Some(node), previous, Some((dir.clone(), slot)));
                if matches!(scope, Scope::Named) && below.is_empty() {
                    return dir.listed(run);
                }
                let known = (!below.is_empty()).then(|| Box::new(Known { parent: None, named: below }));
                self.stack.push(DirWork { dir, scope, standing, known });
                Ok(())
            }
            NodeType::File => match previous.filter(|before| is_unchanged(run.options, &node, before)) {
                Some(before) if run.has_content(before, &path) => {
                    node.content.clone_from(&before.content);
                    run.progress.bytes_done.fetch_add(node.size, Ordering::Relaxed);
                    run.finish_file(&node, Action::Unchanged, &path);
                    dir.fill(run, slot, Some(&node))
                }
                _ => {
                    // The readers are gone only when the run is stopped.
                    let work = FileWork::file(path, node, dir.clone(), slot, standing, previous.is_some());
                    let _ = self.files.send(work);
                    Ok(())
                }
            },
            NodeType::Dev if run.options.read_special && standing == Standing::Named => {
                node.ty = NodeType::File;
                node.mode &= 0o777;
                (node.device, node.links) = (0, 1);
                let _ = self.files.send(FileWork::device(path, node, dir.clone(), slot, previous.is_some()));
                Ok(())
            }
            _ => dir.fill(run, slot, Some(&node)),
        }
    }

    /// Reports a block device whose content is not read although somebody may expect it to be.
    fn note_unread(&self, path: &Path, ty: NodeType, standing: Standing) {
        let read_special = self.run.options.read_special;
        let leads_to_device = || stat(path).is_ok_and(|stat| node_type(&stat) == NodeType::Dev);
        let what = match (standing, ty) {
            (Standing::Named, NodeType::Dev) if !read_special => {
                "a block device, stored without its content: --read-special reads it"
            }
            (Standing::Named, NodeType::Symlink) if !read_special && leads_to_device() => {
                "a symlink to a block device, stored as a symlink: --read-special reads the device"
            }
            (Standing::Named, NodeType::Symlink) => "a symlink, stored as such, without what it leads to",
            (Standing::Found, NodeType::Dev) if read_special => {
                "a block device, stored without its content: --read-special reads those that are named"
            }
            _ => return,
        };
        self.run.progress.warning(&format!("{}: {what}", display(path)));
    }
}

/// What an entry is, as far as its sources are concerned.
struct Seen {
    stat: Stat,
    /// It is a symlink, and `stat` is of what that leads to.
    followed: bool,
}

/// Looks at an entry once more where its own metadata is not what counts: what leads to a target is a
/// directory, also behind a symlink, and opening a named directory may mount a file system on it
/// (autofs), which is what was named.
fn seen(path: &Path, found: Stat, kind: Option<Kind>, below: &Tops) -> rustix::io::Result<Seen> {
    match node_type(&found) {
        NodeType::Symlink if !below.is_empty() => Ok(Seen { stat: stat(path)?, followed: true }),
        NodeType::Dir if kind == Some(Kind::Target) => {
            Ok(Seen { stat: opened(path).unwrap_or(found), followed: false })
        }
        _ => Ok(Seen { stat: found, followed: false }),
    }
}

/// Looks at a directory by opening it.
fn opened(path: &Path) -> rustix::io::Result<Stat> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::fstat(rustix::fs::openat(CWD, Reach::of(path)?.path(), flags, Mode::empty())?)
}

/// With `--read-special`, the block device that a named entry is or leads to; an error for what
/// cannot be read as one.
fn special(path: &Path, found: &Stat) -> std::result::Result<Option<Stat>, String> {
    let stat = match node_type(found) {
        NodeType::Symlink => match stat(path) {
            Ok(stat) => stat,
            Err(error) => return Err(format!("it is a symlink that leads nowhere: {error}")),
        },
        _ => *found,
    };
    match node_type(&stat) {
        NodeType::Dev => Ok(Some(stat)),
        ty @ (NodeType::CharDev | NodeType::Fifo | NodeType::Socket) => {
            Err(format!("it is a {}, and --read-special reads block devices only", ty.name()))
        }
        NodeType::File | NodeType::Dir | NodeType::Symlink | NodeType::Irregular | NodeType::Unknown => Ok(None),
    }
}

/// An entry to be taken into a snapshot.
struct Entry<'e> {
    name: &'e [u8],
    path: PathBuf,
    stat: Stat,
    previous: Option<&'e Node>,
    standing: Standing,
    /// What is taken of it, if it is a directory.
    scope: Scope,
    /// The named entries below it.
    below: Tops,
}

impl Run<'_> {
    /// What the parent has in a directory of its own.
    pub(super) fn parent_dir(&self, dir: Option<&Node>, path: &Path) -> ParentDir {
        let Some(id) = dir.and_then(|node| node.subtree) else { return ParentDir::default() };
        ParentDir::load(&self.parent_trees, id).unwrap_or_else(|error| {
            if error.is_damage() {
                // The tree is stored again even if an index names the damaged copy.
                self.writer.distrust(BlobType::Tree, id);
                let what = "the parent snapshot's copy of the directory is damaged, so its files are read again";
                self.damage(path, format!("{what}: {error}"));
            } else if error.spares_others() {
                let what = "the parent snapshot's copy of the directory cannot be read, so its files are read again";
                self.progress.warning(&format!("{}: {what}: {error}", display(path)));
            } else {
                self.fail(error);
            }
            ParentDir::default()
        })
    }

    /// Whether the repository has all blobs of a file.
    fn has_content(&self, node: &Node, path: &Path) -> bool {
        let content = node.content.as_deref().unwrap_or_default();
        let complete = content.iter().all(|&id| self.writer.index().contains(BlobType::Data, id));
        if !complete {
            self.damage(path, "the repository lacks parts of it that the parent snapshot needs, so it is read again");
        }
        complete
    }

    /// The name of the file that marks a directory as one to be left out, if it has one.
    fn tag_file(&self, dir: &Path) -> Option<String> {
        let marked = |(name, header): &&(String, Vec<u8>)| {
            use std::io::Read;
            // A FIFO of that name must not hold the backup until somebody writes into it.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let opened = Reach::of(&dir.join(name))
                .and_then(|reach| rustix::fs::openat(CWD, reach.path(), flags, Mode::empty()));
            let Ok(fd) = opened else { return false };
            let file = std::fs::File::from(fd);
            let mut start = Vec::new();
            file.take(header.len() as u64).read_to_end(&mut start).is_ok() && start == *header
        };
        self.options.exclude.if_present.iter().find(marked).map(|(name, _)| name.clone())
    }
}

/// The path that exclude patterns are matched with.
fn absolute(path: &Path) -> Vec<u8> {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string().as_bytes().to_vec()
}
