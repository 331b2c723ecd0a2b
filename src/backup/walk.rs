//! Stage 2: directories are listed, entries looked at and compared with the parent's.
//!
//! A few threads take directories from one stack, last in first out, which keeps the number of half-finished directories small. What is
//! unchanged or has no content is finished here; files to be read go to the readers.

use super::Run;
use super::assemble::Dir;
use super::parent::{ParentDir, is_unchanged};
use super::read::FileWork;
use super::source::{Kind, Top, Tops};
use super::stat::{display, lstat, node_type};
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::progress::Action;
use crate::repo::Result;
use crossbeam_channel::Sender;
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

struct DirWork {
    dir: Arc<Dir>,
    /// `st_dev` of the directory.
    device: u64,
}

impl Stack {
    fn push(&self, work: DirWork) {
        self.lock().dirs.push(work);
        self.changed.notify_one();
    }

    /// The next directory; `None` when there is none and nobody can add one.
    fn pop(&self) -> Option<DirWork> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.dirs.pop() {
                state.busy += 1;
                return Some(work);
            }
            if state.busy == 0 {
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn done(&self) {
        self.lock().busy -= 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Puts the top of the tree into `dir`; whole directories go to the stack.
pub fn start(
    run: &Run<'_>,
    stack: &Stack,
    files: &Sender<FileWork>,
    dir: &Arc<Dir>,
    parent: &ParentDir,
    tops: &Tops,
) -> Result<()> {
    for (name, top) in tops {
        let Top { path, kind } = top;
        match kind {
            Kind::Found { .. } if run.options.exclude.patterns.matches(&absolute(path)) => {
                run.progress.item(Action::Excluded, || display(path), 0);
            }
            Kind::Found { .. } | Kind::Target => match lstat(path) {
                Ok(stat) => {
                    let read_device = matches!(kind, Kind::Target) && run.options.read_special;
                    let boundary = match kind {
                        Kind::Found { device } if run.options.one_file_system => Some(*device),
                        _ => None,
                    };
                    let previous = parent.get(name);
                    entry(
                        run,
                        stack,
                        files,
                        Entry { dir, name, path: path.clone(), stat, previous, boundary, read_device },
                    )?;
                }
                Err(error) => run.problem(path, error),
            },
            Kind::Partial(children) => match rustix::fs::statat(CWD, path, AtFlags::empty()) {
                Ok(stat) => {
                    let node = run.observer.node(name, path, &stat, |why| run.problem(path, why));
                    let slot = dir.open_slot(name);
                    let before = parent.get(name).cloned();
                    let parent = run.parent_dir(before.as_ref());
                    let below = Dir::new(path.clone(), Some(node), before, Some((dir.clone(), slot)));
                    start(run, stack, files, &below, &parent, children)?;
                }
                Err(error) => run.problem(path, error),
            },
        }
    }
    dir.listed(run)
}

/// One walker: lists directories until there are none.
pub fn walk(run: &Run<'_>, stack: &Stack, files: &Sender<FileWork>) {
    while let Some(work) = stack.pop() {
        if !run.is_stopped()
            && let Err(error) = list(run, stack, files, &work)
        {
            run.fail(error);
        }
        stack.done();
    }
}

fn list(run: &Run<'_>, stack: &Stack, files: &Sender<FileWork>, work: &DirWork) -> Result<()> {
    let DirWork { dir, device } = work;
    let parent = run.parent_dir(dir.previous.as_ref());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let listed =
        rustix::fs::openat(CWD, &dir.path, flags, Mode::empty()).and_then(|fd| Ok((names(run, dir, &fd)?, fd)));
    let (names, fd) = match listed {
        Ok(listed) => listed,
        Err(error) => {
            run.problem(&dir.path, error);
            return dir.leave_out(run);
        }
    };
    let only = run.tag_file(&dir.path);
    for name in names {
        if run.is_stopped() {
            return Ok(());
        }
        let path = dir.path.join(OsStr::from_bytes(&name));
        if only.as_ref().is_some_and(|tag| tag.as_bytes() != name)
            || run.options.exclude.patterns.matches(&absolute(&path))
        {
            run.progress.item(Action::Excluded, || display(&path), 0);
            continue;
        }
        match rustix::fs::statat(&fd, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let boundary = run.options.one_file_system.then_some(*device);
                let previous = parent.get(&name);
                entry(
                    run,
                    stack,
                    files,
                    Entry { dir, name: &name, path, stat, previous, boundary, read_device: false },
                )?;
            }
            Err(error) => run.problem(&path, format!("it vanished or cannot be looked at: {error}")),
        }
    }
    dir.listed(run)
}

/// The names in a directory, sorted. A listing that breaks off is a problem; what it gave is kept.
fn names(run: &Run<'_>, dir: &Dir, fd: &impl rustix::fd::AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_bytes().to_vec()),
            Err(error) => {
                run.problem(&dir.path, format!("its listing broke off, entries are missing: {error}"));
                break;
            }
        }
    }
    names.retain(|name| name != b"." && name != b"..");
    names.sort_unstable();
    let listed = names.len();
    names.dedup();
    if names.len() < listed {
        // Network file systems do that to a directory that changes meanwhile. Both entries are the same file.
        run.progress.warning(&format!("{}: {} names were listed twice", display(&dir.path), listed - names.len()));
    }
    Ok(names)
}

/// One entry to be taken into a snapshot.
struct Entry<'e> {
    dir: &'e Arc<Dir>,
    name: &'e [u8],
    path: PathBuf,
    stat: Stat,
    previous: Option<&'e Node>,
    /// With `--one-file-system`: the `st_dev` that directories must have to be entered.
    boundary: Option<u64>,
    /// Read a block device as a file.
    read_device: bool,
}

fn entry(run: &Run<'_>, stack: &Stack, files: &Sender<FileWork>, entry: Entry<'_>) -> Result<()> {
    let Entry { dir, name, path, stat, previous, boundary, read_device } = entry;
    let ty = node_type(&stat);
    // Nothing can be stored of a socket that would be of use to anybody; restic leaves them out, too.
    if ty == NodeType::Socket {
        run.progress.item(Action::Excluded, || display(&path), 0);
        return Ok(());
    }
    if ty == NodeType::File
        && run.options.exclude.larger_than.is_some_and(|max| stat.st_size > i64::try_from(max).unwrap_or(i64::MAX))
    {
        run.progress.item(Action::Excluded, || display(&path), 0);
        return Ok(());
    }
    let mut node = run.observer.node(name, &path, &stat, |why| run.problem(&path, why));
    let slot = dir.open_slot(name);
    match ty {
        NodeType::Dir => {
            let below = Dir::new(
                path,
                Some(node),
                previous.filter(|node| node.ty == NodeType::Dir).cloned(),
                Some((dir.clone(), slot)),
            );
            if boundary.is_some_and(|device| device != stat.st_dev) {
                return below.listed(run);
            }
            stack.push(DirWork { dir: below, device: stat.st_dev });
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
                let _ = files.send(FileWork::open_later(path, node, dir.clone(), slot, previous.is_some()));
                Ok(())
            }
        },
        NodeType::Dev if read_device => {
            node.ty = NodeType::File;
            node.mode &= 0o777;
            (node.device, node.links) = (0, 1);
            let _ = files.send(FileWork::open_later(path, node, dir.clone(), slot, previous.is_some()));
            Ok(())
        }
        _ => dir.fill(run, slot, Some(&node)),
    }
}

impl Run<'_> {
    /// What the parent has in a directory of its own.
    pub(super) fn parent_dir(&self, dir: Option<&Node>) -> ParentDir {
        let Some(id) = dir.and_then(|node| node.subtree) else { return ParentDir::default() };
        ParentDir::load(&self.parent_trees, id).unwrap_or_else(|error| {
            // Everything in it is read again, which also repairs the repository.
            self.progress.warning(&format!(
                "a directory of the parent snapshot cannot be read, its files are read again: {error}"
            ));
            ParentDir::default()
        })
    }

    /// Whether the repository has all blobs of a file.
    fn has_content(&self, node: &Node, path: &Path) -> bool {
        let content = node.content.as_deref().unwrap_or_default();
        let complete = content.iter().all(|&id| self.writer.index().contains(BlobType::Data, id));
        if !complete {
            self.progress
                .warning(&format!("{}: the repository misses parts of it, so it is read again", display(path)));
        }
        complete
    }

    /// The name of the file that marks a directory as one to be left out, if it has one.
    fn tag_file(&self, dir: &Path) -> Option<String> {
        let marked = |(name, header): &&(String, Vec<u8>)| {
            use std::io::Read;
            // A FIFO of that name must not hold the backup until somebody writes into it.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let Ok(fd) = rustix::fs::openat(CWD, dir.join(name), flags, Mode::empty()) else { return false };
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
