//! Carries out `--delete`: removes the selected entries that the snapshot lacks.
//!
//! Only directories of which the snapshot has the complete listing are swept. A mount point is left
//! alone with all its content. No symlink is followed: the symlink itself is removed.

use super::confine::{Dir, Root, is};
use super::error::{Error, Result};
use super::names::Names;
use super::path::display;
use super::selection::Selection;
use crate::progress::{Action, Phase, Progress};
use rustix::fs::FileType;
use rustix::io::Errno;

pub struct Deleter<'d> {
    pub root: &'d Root,
    pub selection: Selection<'d>,
    /// Count and report only.
    pub dry_run: bool,
    pub progress: &'d Progress,
}

/// The kind of an entry to remove.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Other,
}

/// An entry to remove with all that is below it.
struct Doomed {
    path: Vec<u8>,
    /// Its content has been processed.
    emptied: bool,
}

impl Deleter<'_> {
    /// Removes the selected entries of a directory whose names the snapshot lacks. Returns the
    /// number of removed entries.
    pub fn remove_unexpected(&self, path: &[u8], expected: &Names) -> Result<u64> {
        let names = match self.root.dir(path).and_then(|dir| dir.names()) {
            Ok(names) => names,
            Err(errno) => {
                self.problem(path, "list", errno);
                return Ok(0);
            }
        };
        let mut removed = 0;
        for name in names.iter().filter(|name| !expected.contains(name)) {
            let entry = join(path, name);
            if self.selection.takes(&absolute(&entry)) {
                removed += self.remove(&entry)?;
            }
        }
        Ok(removed)
    }

    /// Removes an entry and all selected entries below it. Returns the number of removed entries.
    pub fn remove(&self, path: &[u8]) -> Result<u64> {
        let mut removed = 0;
        let mut stack = vec![Doomed { path: path.to_vec(), emptied: false }];
        while let Some(mut top) = stack.pop() {
            if self.progress.is_interrupted() {
                return Err(Error::interrupted());
            }
            if !top.emptied
                && let Some(below) = self.subdirs(&top.path, &mut removed)
            {
                top.emptied = true;
                let path = top.path.clone();
                stack.push(top);
                stack.extend(below.into_iter().map(|name| Doomed { path: join(&path, &name), emptied: false }));
            } else if top.emptied {
                removed += self.unlink(&top.path, Kind::Directory);
            }
        }
        Ok(removed)
    }

    /// Removes an entry that is not a directory, or the selected entries of that kind in a
    /// directory; then returns the selected subdirectories.
    fn subdirs(&self, path: &[u8], removed: &mut u64) -> Option<Vec<Vec<u8>>> {
        let outcome = self.root.parent(path).and_then(|(above, name)| {
            let Some(stat) = above.stat(name)? else { return Ok(None) };
            if !is(&stat, FileType::Directory) {
                *removed += self.unlink(path, Kind::Other);
                return Ok(None);
            }
            if above.pin_self()?.stat()?.st_dev != stat.st_dev {
                return Err(Errno::XDEV);
            }
            let dir = self.root.dir(path)?;
            self.sweep(&dir, path, removed).map(Some)
        });
        outcome.unwrap_or_else(|errno| {
            match errno {
                Errno::XDEV => {
                    let why =
                        "it is not in the snapshot but was not deleted, because another file system is mounted on it";
                    self.progress.problem(Phase::Restore, display(path), why);
                }
                errno => self.problem(path, "delete", errno),
            }
            None
        })
    }

    /// Removes the selected entries of a directory that are not directories; returns the selected
    /// subdirectories.
    fn sweep(&self, dir: &Dir, path: &[u8], removed: &mut u64) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut below = Vec::new();
        for name in dir.names()? {
            let entry = join(path, &name);
            if !self.selection.takes(&absolute(&entry)) {
                continue;
            }
            match dir.stat(&name)? {
                Some(stat) if is(&stat, FileType::Directory) => below.push(name),
                Some(_) => *removed += self.unlink(&entry, Kind::Other),
                None => {}
            }
        }
        Ok(below)
    }

    fn unlink(&self, path: &[u8], kind: Kind) -> u64 {
        let outcome = if self.dry_run {
            Ok(())
        } else {
            self.root.parent(path).and_then(|(dir, name)| match kind {
                Kind::Directory => dir.remove_dir(name),
                Kind::Other => dir.unlink(name),
            })
        };
        match outcome {
            Ok(()) => {
                self.progress.item(Action::Deleted, || display(path), 0);
                return 1;
            }
            // The filters keep an entry in it, or the removal of an entry failed, which has been
            // reported.
            Err(Errno::NOTEMPTY | Errno::EXIST) if kind == Kind::Directory => {}
            Err(errno) => self.problem(path, "delete", errno),
        }
        0
    }

    fn problem(&self, path: &[u8], action: &str, errno: Errno) {
        self.progress.problem(Phase::Restore, display(path), format!("cannot {action} it: {errno}"));
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') }
}

fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}
