//! Reaches entries by a name in an open directory, or by a path of any length.
//!
//! The kernel accepts at most [`limits::PATH`] bytes of a path at a time. A name in an open
//! directory saves a network file system the lookup of each directory of the path.

use crate::limits;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use std::borrow::Cow;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path that system calls accept, and the descriptor that keeps it valid.
pub struct Reach<'p> {
    path: Cow<'p, Path>,
    _dir: Option<OwnedFd>,
}

impl<'p> Reach<'p> {
    /// A short path is used as it is. The directory of a longer path is opened piece by piece, and
    /// the new path leads through its descriptor.
    pub fn of(path: &'p Path) -> rustix::io::Result<Reach<'p>> {
        if path.as_os_str().len() <= limits::PATH {
            return Ok(Reach { path: Cow::Borrowed(path), _dir: None });
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Reach { path: Cow::Borrowed(path), _dir: None });
        };
        let dir = open_dir(above)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok(Reach { path: Cow::Owned(path), _dir: Some(dir) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The location of an entry, as system calls accept it.
pub struct Place<'p> {
    dir: BorrowedFd<'p>,
    path: Cow<'p, Path>,
    _reach: Option<OwnedFd>,
}

impl<'p> Place<'p> {
    /// An entry of an open directory.
    pub fn within(dir: &'p OwnedFd, name: &'p [u8]) -> Place<'p> {
        Place { dir: dir.as_fd(), path: Cow::Borrowed(Path::new(OsStr::from_bytes(name))), _reach: None }
    }

    pub fn at(path: &'p Path) -> rustix::io::Result<Place<'p>> {
        let Reach { path, _dir } = Reach::of(path)?;
        Ok(Place { dir: CWD, path, _reach: _dir })
    }

    /// Returns the metadata of the entry itself, not of the target of a symlink.
    pub fn lstat(&self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(self.dir, &*self.path, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(self.dir, &*self.path, flags, Mode::empty())
    }

    pub fn read_link(&self) -> rustix::io::Result<CString> {
        rustix::fs::readlinkat(self.dir, &*self.path, Vec::new())
    }
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = None;
    let mut piece = PathBuf::new();
    let open = |dir: &Option<OwnedFd>, piece: &Path| match dir {
        None => rustix::fs::openat(CWD, piece, flags, Mode::empty()),
        Some(dir) => rustix::fs::openat(dir, piece, flags, Mode::empty()),
    };
    for part in path.components() {
        if piece.as_os_str().len() + 1 + part.as_os_str().as_bytes().len() > limits::PATH {
            dir = Some(open(&dir, &piece)?);
            piece.clear();
        }
        piece.push(part);
    }
    open(&dir, &piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_leads_to_its_entry() {
        let temp = tempfile::tempdir().unwrap();
        let name = "d".repeat(250);
        // The path is made level by level, because no system call accepts all of it.
        let mut dir = rustix::fs::openat(CWD, temp.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut path = temp.path().to_owned();
        for _ in 0..40 {
            rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
            dir = rustix::fs::openat(&dir, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            path.push(&name);
        }
        assert!(path.as_os_str().len() > 2 * limits::PATH);
        let expected = rustix::fs::fstat(&dir).unwrap();
        let reach = Reach::of(&path).unwrap();
        let found = rustix::fs::stat(reach.path()).unwrap();
        assert_eq!((found.st_dev, found.st_ino), (expected.st_dev, expected.st_ino));
        assert!(Reach::of(&path.join("missing/entry")).is_err());
    }
}
