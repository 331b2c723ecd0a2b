//! Confines a restore to its target: all entries are reached through [`Root`], and no call leaves
//! the target.
//!
//! The kernel resolves a path beneath the descriptor of the root and through no symlink
//! (`openat2`). A path that is longer than a call accepts is resolved in stretches, each beneath
//! the directory that the one before led to. In a sandbox without `openat2`, a path is resolved one
//! component at a time, without following symlinks. All other calls work on one component in an
//! open directory, or on an entry that is pinned by a descriptor, so that no symlink is followed
//! even if another process swaps entries meanwhile. A directory that stays open is the one that was
//! found beneath the target, even if it is moved.

use crate::limits;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fstat, getxattr, linkat, listxattr, mkdirat, mknodat, openat, openat2, readlinkat, removexattr, setxattr, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};
use std::path::Path;

/// Read, write and search for the owner only: the mode of a directory until its metadata is
/// applied.
const PRIVATE_DIR: Mode = Mode::RWXU;

/// The target directory.
pub struct Root {
    fd: OwnedFd,
    /// Whether `openat2` is available.
    openat2: bool,
}

/// A directory below the root, or the root itself.
pub struct Dir(OwnedFd);

/// Whether an existing entry is replaced if it is in the way of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    Replace,
    Keep,
}

/// One entry of any type, which a descriptor identifies even if its name changes.
pub struct Pinned {
    fd: OwnedFd,
    /// The descriptor's path in `/proc`, which leads to the entry itself, even if that is a
    /// symlink.
    path: String,
}

impl Root {
    /// Opens the target. Symlinks on the way to it are followed: the user named it.
    pub fn open(path: &Path) -> Result<Root> {
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let probe = openat2(&fd, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
        Ok(Root { fd, openat2: probe.is_ok() })
    }

    /// Behaves as in a sandbox without `openat2`.
    #[cfg(test)]
    fn without_openat2(self) -> Root {
        Root { openat2: false, ..self }
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Opens a path below the root; the empty path is the root.
    pub fn open_beneath(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if path.is_empty() {
            return openat(&self.fd, ".", flags, mode);
        }
        self.open_from(&self.fd, path, flags, mode)
    }

    /// Opens a path below the directory `top`, confined like [`Root::open_beneath`].
    fn open_from(&self, top: &OwnedFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let (mut above, mut rest) = (None, path);
        if self.openat2 {
            while rest.len() > limits::PATH {
                let slash = rest[..=limits::PATH].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
                let from = above.as_ref().unwrap_or(top);
                let next = openat2(from, &rest[..slash], ON_THE_WAY, Mode::empty(), BENEATH)?;
                (above, rest) = (Some(next), &rest[slash + 1..]);
            }
            return openat2(above.as_ref().unwrap_or(top), rest, flags, mode, BENEATH);
        }
        while let Some(slash) = rest.iter().position(|&byte| byte == b'/') {
            let name = component(&rest[..slash])?;
            let next = openat(above.as_ref().unwrap_or(top), name, ON_THE_WAY, Mode::empty())?;
            (above, rest) = (Some(next), &rest[slash + 1..]);
        }
        openat(above.as_ref().unwrap_or(top), component(rest)?, flags, mode)
    }

    /// Opens a directory by its path.
    pub fn dir(&self, path: &[u8]) -> Result<Dir> {
        self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map(Dir)
    }

    /// Opens a directory by its path below another one.
    pub fn dir_below(&self, above: &Dir, path: &[u8]) -> Result<Dir> {
        self.open_from(&above.0, path, ON_THE_WAY, Mode::empty()).map(Dir)
    }

    /// Opens the directory of a path's last component, and returns that component, too.
    pub fn parent<'p>(&self, path: &'p [u8]) -> Result<(Dir, &'p [u8])> {
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (above, name) = slash.map_or((&b""[..], path), |slash| (&path[..slash], &path[slash + 1..]));
        Ok((self.dir(above)?, component(name)?))
    }
}

const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Refuses a component that is not a valid name of an entry. The plan has no such names; this check
/// enforces it.
fn component(name: &[u8]) -> Result<&[u8]> {
    let safe = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
    if safe { Ok(name) } else { Err(Errno::INVAL) }
}

impl Dir {
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>> {
        match statat(&self.0, component(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a regular file, if the name is free, and opens it for writing.
    pub fn create(&self, name: &[u8], mode: Mode) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.0, component(name)?, flags, mode)
    }

    /// Opens an entry, but follows no symlink.
    pub fn open(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
        openat(&self.0, component(name)?, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// Ensures that a directory of this name exists. Returns whether it is new.
    pub fn make_dir(&self, name: &[u8], other: Other) -> Result<bool> {
        let name = component(name)?;
        match mkdirat(&self.0, name, PRIVATE_DIR) {
            Err(Errno::EXIST) => {}
            other => return other.map(|()| true),
        }
        if self.stat(name)?.is_some_and(|stat| is(&stat, FileType::Directory)) {
            return Ok(false);
        }
        match other {
            Other::Keep => return Err(Errno::EXIST),
            Other::Replace => unlinkat(&self.0, name, AtFlags::empty())?,
        }
        mkdirat(&self.0, name, PRIVATE_DIR).map(|()| true)
    }

    /// Removes an entry that is not a directory.
    pub fn unlink(&self, name: &[u8]) -> Result<()> {
        unlinkat(&self.0, component(name)?, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &[u8]) -> Result<()> {
        unlinkat(&self.0, component(name)?, AtFlags::REMOVEDIR)
    }

    /// Removes the entry of this name, if it exists; a directory only if it is empty.
    pub fn clear(&self, name: &[u8]) -> Result<()> {
        match self.stat(name)? {
            None => Ok(()),
            Some(stat) if is(&stat, FileType::Directory) => self.remove_dir(name),
            Some(_) => self.unlink(name),
        }
    }

    pub fn symlink(&self, target: &[u8], name: &[u8]) -> Result<()> {
        symlinkat(target, &self.0, component(name)?)
    }

    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        readlinkat(&self.0, component(name)?, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// Creates a fifo or a device node.
    pub fn make_node(&self, name: &[u8], ty: FileType, device: u64) -> Result<()> {
        mknodat(&self.0, component(name)?, ty, Mode::RUSR | Mode::WUSR, device)
    }

    /// Gives an entry of `from` another name here; a symlink is linked itself.
    pub fn link(&self, from: &Dir, old: &[u8], new: &[u8]) -> Result<()> {
        linkat(&from.0, component(old)?, &self.0, component(new)?, AtFlags::empty())
    }

    pub fn pin(&self, name: &[u8]) -> Result<Pinned> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.0, component(name)?, flags, Mode::empty()).map(Pinned::new)
    }

    /// Pins the directory itself.
    pub fn pin_self(&self) -> Result<Pinned> {
        openat(&self.0, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map(Pinned::new)
    }

    /// The names in the directory, except `.` and `..`.
    pub fn names(&self) -> Result<Vec<Vec<u8>>> {
        let fd = openat(&self.0, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Pinned {
    fn new(fd: OwnedFd) -> Pinned {
        let path = path_of(&fd);
        Pinned { fd, path }
    }

    /// Pins the entry of an open descriptor; it stays pinned after that descriptor is closed.
    pub fn of_open(fd: &OwnedFd) -> Result<Pinned> {
        openat(CWD, path_of(fd), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map(Pinned::new)
    }

    pub fn stat(&self) -> Result<Stat> {
        fstat(&self.fd)
    }

    pub fn chown(&self, uid: u32, gid: u32) -> Result<()> {
        if uid == u32::MAX || gid == u32::MAX {
            // To the kernel, this value means "leave unchanged", which was not requested.
            return Err(Errno::INVAL);
        }
        chownat(&self.fd, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
    }

    /// Not for symlinks: they have no mode of their own.
    pub fn chmod(&self, permissions: u32) -> Result<()> {
        chmodat(CWD, &self.path, Mode::from_raw_mode(permissions), AtFlags::empty())
    }

    pub fn set_times(&self, times: &Timestamps) -> Result<()> {
        match utimensat(&self.fd, "", times, AtFlags::EMPTY_PATH) {
            // Kernels before 5.8 support this by path only.
            Err(Errno::INVAL | Errno::NOENT) => utimensat(CWD, &self.path, times, AtFlags::empty()),
            other => other,
        }
    }

    /// The names of all attributes.
    pub fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        let list = read_growing(256, |buffer| listxattr(&self.path, buffer))?;
        Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    pub fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        read_growing(256, |buffer| getxattr(&self.path, name, buffer))
    }

    pub fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        setxattr(&self.path, name, value, XattrFlags::empty())
    }

    pub fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        removexattr(&self.path, name)
    }
}

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Reads with a buffer that grows until it is large enough; the kernel's limit is 64 KiB.
fn read_growing(start: usize, read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; start];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() <= 1 << 20 => buffer.resize(buffer.len() * 16, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Whether an entry is of this type.
pub fn is(stat: &Stat, ty: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == ty
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Runs `test` with both ways of resolving paths, on a target beside a file that must not
    /// change.
    fn with_roots(test: impl Fn(&Root, &Path)) {
        for openat2 in [true, false] {
            let temp = tempfile::tempdir().unwrap();
            let (target, outside) = (temp.path().join("target"), temp.path().join("outside"));
            fs::create_dir(&target).unwrap();
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("file"), "precious").unwrap();
            let root = Root::open(&target).unwrap();
            assert!(root.openat2, "these tests need a kernel with openat2");
            test(&if openat2 { root } else { root.without_openat2() }, &target);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
            let outside = fs::metadata(outside.join("file")).unwrap();
            assert_eq!((outside.len(), outside.permissions().mode() & 0o777), (8, 0o644));
        }
    }

    #[test]
    fn paths_that_leave_the_target_are_refused() {
        with_roots(|root, target| {
            fs::create_dir(target.join("dir")).unwrap();
            symlink("../outside", target.join("planted")).unwrap();
            symlink("../../outside", target.join("dir/planted")).unwrap();
            let absolute = target.parent().unwrap().join("outside/file");
            let paths: [&[u8]; 9] = [
                b"..",
                b"../outside/file",
                b"dir/../../outside/file",
                b"planted/file",
                b"dir/planted/file",
                b"planted",
                b"dir/planted",
                absolute.as_os_str().as_bytes(),
                b"/outside/file",
            ];
            for path in paths {
                let opened = root.open_beneath(path, OFlags::WRONLY | OFlags::CREATE, Mode::RWXU);
                assert!(opened.is_err(), "{}", path.escape_ascii());
                assert!(root.dir(path).is_err(), "{}", path.escape_ascii());
                let top = root.dir(b"").unwrap();
                assert!(root.dir_below(&top, path).is_err(), "{}", path.escape_ascii());
            }
            let (top, _) = root.parent(b"planted").unwrap();
            assert!(top.create(b"planted", Mode::RWXU).is_err(), "create follows no symlink");
            assert!(top.open(b"planted", OFlags::WRONLY).is_err(), "open follows no symlink");
            let below = root.dir_below(&top, b"dir").unwrap();
            for path in [&b".."[..], b"../dir", b"planted/file", b"/"] {
                assert!(root.dir_below(&below, path).is_err(), "{}", path.escape_ascii());
            }
            for name in [&b".."[..], b".", b"", b"../outside/file", b"planted/file", b"nul\0"] {
                assert_eq!(top.make_dir(name, Other::Replace), Err(Errno::INVAL));
                assert_eq!(top.symlink(b"x", name), Err(Errno::INVAL));
                assert_eq!(top.unlink(name), Err(Errno::INVAL));
                assert!(top.create(name, Mode::RWXU).is_err());
                assert!(top.open(name, OFlags::RDONLY).is_err());
                assert!(top.pin(name).is_err());
            }
        });
    }

    #[test]
    fn long_paths_are_resolved_in_stretches_and_do_not_leave_the_target() {
        with_roots(|root, target| {
            let name = "d".repeat(200);
            let mut path = Vec::new();
            for _ in 0..60 {
                let (above, component) = (path.clone(), name.as_bytes());
                root.dir(&above).unwrap().make_dir(component, Other::Keep).unwrap();
                path = if above.is_empty() { component.to_vec() } else { [&above[..], component].join(&b'/') };
            }
            root.dir(&path).unwrap().symlink(b"../file", b"planted").unwrap();
            symlink("../outside", target.join("out")).unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE;
            root.open_beneath(&[&path[..], b"file"].join(&b'/'), flags, Mode::RWXU).unwrap();
            let up = [&path[..], &b"/..".repeat(61), b"/outside/file"].concat();
            for bad in [[&path[..], b"planted"].join(&b'/'), [&b"out"[..], &path[..]].join(&b'/'), up, vec![b'x'; 5000]]
            {
                assert!(root.open_beneath(&bad, flags, Mode::RWXU).is_err(), "{} bytes", bad.len());
            }
            let removed = std::process::Command::new("rm").arg("-rf").arg(target.join(&name)).status();
            assert!(removed.unwrap().success());
        });
    }

    #[test]
    fn a_symlink_in_the_way_of_a_directory_is_replaced() {
        with_roots(|root, target| {
            symlink("../outside", target.join("dir")).unwrap();
            let (top, name) = root.parent(b"dir").unwrap();
            assert_eq!(top.make_dir(name, Other::Keep), Err(Errno::EXIST));
            assert!(top.make_dir(name, Other::Replace).unwrap(), "the directory is new");
            assert!(!top.make_dir(name, Other::Keep).unwrap(), "the directory exists already");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            root.open_beneath(b"dir/file", flags, Mode::RWXU).unwrap();
            assert!(target.join("dir").symlink_metadata().unwrap().is_dir());
        });
    }

    #[test]
    fn metadata_goes_to_the_symlink_itself() {
        with_roots(|root, target| {
            symlink("../outside/file", target.join("link")).unwrap();
            let (top, name) = root.parent(b"link").unwrap();
            let link = top.pin(name).unwrap();
            let time = rustix::fs::Timespec { tv_sec: -5, tv_nsec: 7 };
            link.set_times(&Timestamps { last_access: time, last_modification: time }).unwrap();
            let stat = top.stat(name).unwrap().unwrap();
            assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (-5, 7));
            let _ = link.chmod(0o777);
            let _ = link.set_xattr(b"trusted.test", b"1");
            let outside = target.parent().unwrap().join("outside/file");
            assert!(fs::metadata(&outside).unwrap().modified().unwrap() > std::time::UNIX_EPOCH);
            assert!(!xattr::list(&outside).unwrap().any(|name| name == "trusted.test"));
            if link.xattr_names().unwrap().contains(&b"trusted.test".to_vec()) {
                assert_eq!(link.xattr(b"trusted.test").unwrap(), b"1");
                assert_eq!(link.remove_xattr(b"trusted.test"), Ok(()));
            }
        });
    }
}
