//! A file system with injected faults: a directory passed through the kernel's FUSE, with faults by
//! path.
//!
//! Reads and writes bypass the page cache, so that a fault at an offset occurs at that offset. Loop
//! devices over files of this file system are block devices that fail in the same way.

use super::pass_through::{self, Answer, Change, answer};
use super::scratch;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// The call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `open` of a file, `opendir` of a directory.
    Open,
    /// `lstat`.
    Stat,
    /// A read of this byte or a later one.
    Read(u64),
    /// The listing of a directory, after this number of entries.
    List(usize),
    /// A write to this byte or a later one.
    Write(u64),
    /// `close` of a file.
    Close,
    /// `fsync` of a file.
    Sync,
}

struct Fault {
    /// Relative to the mount point; empty for its root.
    path: PathBuf,
    at: At,
    errno: rustix::io::Errno,
}

/// The mounted file system; unmounted on drop.
pub struct Faulty {
    session: Option<BackgroundSession>,
    faults: Arc<Mutex<Vec<Fault>>>,
    dir: TempDir,
}

impl Faulty {
    /// An empty file system without faults.
    pub fn new() -> Faulty {
        let dir = scratch();
        let (content, mount) = (dir.path().join("content"), dir.path().join("mount"));
        fs::create_dir(&content).expect("a directory");
        fs::create_dir(&mount).expect("a mount point");
        let faults = Arc::<Mutex<Vec<Fault>>>::default();
        let server = Server { content, faults: faults.clone(), paths: Mutex::new(vec![PathBuf::new()]) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty".into())];
        config.n_threads = Some(2);
        let session = Session::new(server, &mount, &config).and_then(Session::spawn).expect("FUSE mounts");
        Faulty { session: Some(session), faults, dir }
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// The same files without faults.
    pub fn content(&self) -> PathBuf {
        self.dir.path().join("content")
    }

    /// Makes this call fail from now on, at a path relative to the mount point (empty for the
    /// root).
    pub fn fail(&self, path: impl Into<PathBuf>, at: At, errno: rustix::io::Errno) {
        let fault = Fault { path: path.into(), at, errno };
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

const NO_CACHE: Duration = Duration::ZERO;

struct Server {
    content: PathBuf,
    faults: Arc<Mutex<Vec<Fault>>>,
    /// Paths by inode number; that of the root (1) is first.
    paths: Mutex<Vec<PathBuf>>,
}

impl Server {
    fn path(&self, inode: INodeNo) -> PathBuf {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths[usize::try_from(inode.0).expect("a number of ours") - 1].clone()
    }

    fn number(&self, path: PathBuf) -> u64 {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let at = paths.iter().position(|known| *known == path).unwrap_or_else(|| {
            paths.push(path);
            paths.len() - 1
        });
        at as u64 + 1
    }

    /// Fails with the fault that `matches` selects for a path, if there is one.
    fn check(&self, path: &Path, matches: impl Fn(At) -> bool) -> Answer<()> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.iter().find(|fault| fault.path == path && matches(fault.at)) {
            Some(fault) => Err(Errno::from_i32(fault.errno.raw_os_error())),
            None => Ok(()),
        }
    }

    fn attributes(&self, path: &Path) -> Answer<FileAttr> {
        self.check(path, |at| at == At::Stat)?;
        let found = fs::symlink_metadata(self.content.join(path))?;
        Ok(pass_through::attributes(&found, INodeNo(self.number(path.to_owned()))))
    }

    /// Makes an entry with `make` and returns its attributes.
    fn made(&self, parent: INodeNo, name: &OsStr, make: impl FnOnce(&Path) -> io::Result<()>) -> Answer<FileAttr> {
        let path = self.path(parent).join(name);
        make(&self.content.join(&path))?;
        self.attributes(&path)
    }

    fn open_content(&self, inode: INodeNo, flags: i32) -> Answer<()> {
        let path = self.path(inode);
        self.check(&path, |at| at == At::Open)?;
        let mut options = File::options();
        let writes = flags & (OFlags::WRONLY | OFlags::RDWR).bits().cast_signed() != 0;
        options.read(!writes).write(writes).open(self.content.join(path))?;
        Ok(())
    }

    fn read_content(&self, inode: INodeNo, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let path = self.path(inode);
        // The bytes before the fault are readable.
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let first = faults.iter().filter(|fault| fault.path == path).find_map(|fault| match fault.at {
            At::Read(from) => Some((from, fault.errno)),
            _ => None,
        });
        let readable = match first {
            Some((from, errno)) if offset >= from => return Err(Errno::from_i32(errno.raw_os_error())),
            Some((from, _)) => from - offset,
            None => u64::MAX,
        };
        drop(faults);
        let file = File::open(self.content.join(path))?;
        let mut bytes = vec![0; usize::try_from(u64::from(size).min(readable)).expect("32 bits")];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write_content(&self, inode: INodeNo, offset: u64, data: &[u8]) -> Answer<u32> {
        let path = self.path(inode);
        let end = offset + data.len() as u64;
        self.check(&path, |at| matches!(at, At::Write(from) if end > from))?;
        File::options().write(true).open(self.content.join(path))?.write_all_at(data, offset)?;
        Ok(u32::try_from(data.len()).expect("a request of the kernel's"))
    }

    /// Lists the entries from `offset` on, up to a fault.
    fn list(&self, inode: INodeNo, offset: u64, add: &mut dyn FnMut(u64, FileType, &OsStr) -> bool) -> Answer<()> {
        let path = self.path(inode);
        let mut entries: Vec<_> = fs::read_dir(self.content.join(&path))?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut next = usize::try_from(offset).expect("a position of ours");
        let first = next;
        loop {
            if self.check(&path, |at| matches!(at, At::List(after) if next >= after)).is_err() && next > first {
                // The entries read so far are one response, and the fault is the next.
                return Ok(());
            }
            self.check(&path, |at| matches!(at, At::List(after) if next >= after))?;
            let Some(entry) = entries.get(next) else { return Ok(()) };
            let kind = FileType::from_std(entry.file_type()?).expect("a type that Linux has");
            next += 1;
            if add(next as u64, kind, &entry.file_name()) {
                return Ok(());
            }
        }
    }
}

fn entry(reply: ReplyEntry, attributes: FileAttr) {
    reply.entry(&NO_CACHE, &attributes, Generation(0));
}

fn done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.attributes(&self.path(parent).join(name)), entry);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.attributes(&self.path(inode)), |reply: ReplyAttr, made| reply.attr(&NO_CACHE, &made));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let path = self.path(inode);
        let content = self.content.join(&path);
        let change = Change { mode, uid, gid, size, atime, mtime };
        let changed = change.apply_size(&content).and_then(|()| change.apply(&content));
        let looked = changed.map_err(Errno::from).and_then(|()| self.attributes(&path));
        answer!(reply, looked, |reply: ReplyAttr, made| reply.attr(&NO_CACHE, &made));
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        use std::os::unix::ffi::OsStrExt;
        let target = fs::read_link(self.content.join(self.path(inode))).map_err(Errno::from);
        answer!(reply, target, |reply: ReplyData, made: PathBuf| reply.data(made.as_os_str().as_bytes()));
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, device: u32, reply: ReplyEntry) {
        let make = |path: &Path| {
            let ty = rustix::fs::FileType::from_raw_mode(mode);
            Ok(rustix::fs::mknodat(CWD, path, ty, Mode::from_raw_mode(mode), u64::from(device))?)
        };
        answer!(reply, self.made(parent, name, make), entry);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let make = |path: &Path| Ok(rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode))?);
        answer!(reply, self.made(parent, name, make), entry);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.content.join(self.path(parent)).join(name);
        answer!(reply, fs::remove_file(path).map_err(Errno::from), done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.content.join(self.path(parent)).join(name);
        answer!(reply, fs::remove_dir(path).map_err(Errno::from), done);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let make = |path: &Path| std::os::unix::fs::symlink(target, path);
        answer!(reply, self.made(parent, name, make), entry);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = self.content.join(self.path(parent)).join(name);
        let to = self.content.join(self.path(new_parent)).join(new_name);
        answer!(reply, fs::rename(from, to).map_err(Errno::from), done);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let first = self.content.join(self.path(inode));
        answer!(reply, self.made(parent, name, |path| fs::hard_link(first, path)), entry);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.open_content(inode, flags.0), |reply: ReplyOpen, ()| reply
            .opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        let make = |path: &Path| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            Ok(rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(mode)).map(drop)?)
        };
        answer!(reply, self.made(parent, name, make), |reply: ReplyCreate, made| reply.created(
            &NO_CACHE,
            &made,
            Generation(0),
            FileHandle(0),
            FopenFlags::FOPEN_DIRECT_IO
        ));
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_content(inode, offset, size), |reply: ReplyData, made: Vec<u8>| reply.data(&made));
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.write_content(inode, offset, data), ReplyWrite::written);
    }

    fn flush(&self, _: &Request, inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer!(reply, self.check(&self.path(inode), |at| at == At::Close), done);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.check(&self.path(inode), |at| at == At::Sync), done);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.check(&self.path(inode), |at| at == At::Open), |reply: ReplyOpen, ()| reply
            .opened(FileHandle(0), FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let above = self.path(inode);
        let mut add = |next: u64, kind: FileType, name: &OsStr| {
            reply.add(INodeNo(self.number(above.join(name))), next, kind, name)
        };
        match self.list(inode, offset, &mut add) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
