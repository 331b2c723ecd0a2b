//! A file system with latency: a directory passed through the kernel's FUSE, where each operation
//! takes a given time longer, as on a network file system.
//!
//! It serves many operations concurrently, and counts them by kind. The kernel may cache names and
//! attributes for 1 s, which is libfuse's default and shorter than NFS's (3 s, `acregmin`), and
//! file content while a file is open, as with NFS's close-to-open consistency. A freshly mounted
//! file system has cold caches. Names are looked up one by one, without READDIRPLUS.

use super::pass_through::{self, Answer, Change, answer};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    Session, TimeOrNow, WriteFlags,
};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, SeekFrom, XattrFlags};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How long the kernel caches a name and attributes.
const CACHED: Duration = Duration::from_secs(1);

/// Operations that are served concurrently.
const THREADS: usize = 128;

/// The mounted file system; unmounted on drop.
pub struct Slow {
    session: Option<BackgroundSession>,
    traffic: Arc<Traffic>,
}

/// The operations of the file system.
#[derive(Default)]
struct Traffic {
    /// Nanoseconds added to each operation.
    delay: AtomicU64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Slow {
    /// Mounts the directory `content` at `mount`; both must exist.
    pub fn mount(content: &Path, mount: &Path, delay: Duration) -> Slow {
        let traffic = Arc::<Traffic>::default();
        let names = Mutex::new(Names { paths: HashMap::from([(INodeNo::ROOT.0, vec![PathBuf::new()])]) });
        let root = fs::metadata(content).expect("the directory to pass through").ino();
        let server = Server {
            content: content.to_owned(),
            root,
            traffic: traffic.clone(),
            names,
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("slow".into()), MountOption::Dev, MountOption::Suid];
        config.n_threads = Some(THREADS);
        let session = Session::new(server, mount, &config).and_then(Session::spawn).expect("FUSE mounts");
        let slow = Slow { session: Some(session), traffic };
        slow.set_delay(delay);
        slow
    }

    pub fn set_delay(&self, delay: Duration) {
        let nanos = u64::try_from(delay.as_nanos()).expect("a short time");
        self.traffic.delay.store(nanos, Ordering::Relaxed);
    }

    /// Operations by kind, since the mount. The kernel does not wait for the response to `release`
    /// and `releasedir`.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.traffic.lock().clone()
    }

    /// The largest number of operations in flight at a time.
    pub fn most_in_flight(&self) -> usize {
        self.traffic.most_in_flight.load(Ordering::Relaxed)
    }

    /// Serves until another program unmounts the file system. Returns the operations by kind, and
    /// the largest number in flight at a time.
    pub fn until_unmounted(mut self) -> (BTreeMap<&'static str, u64>, usize) {
        let session = self.session.take().expect("it is mounted");
        let _ = session.join();
        (self.counts(), self.most_in_flight())
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and delays it.
    fn pass(&self, kind: &'static str) {
        *self.lock().entry(kind).or_default() += 1;
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_flight.fetch_max(now, Ordering::Relaxed);
        std::thread::sleep(Duration::from_nanos(self.delay.load(Ordering::Relaxed)));
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Server {
    content: PathBuf,
    /// The inode number of `content`, which the kernel knows as 1.
    root: u64,
    traffic: Arc<Traffic>,
    names: Mutex<Names>,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
}

/// The paths of inodes, relative to `content`.
struct Names {
    paths: HashMap<u64, Vec<PathBuf>>,
}

enum Handle {
    File(File),
    /// The entries of a directory when it was opened.
    Dir(Vec<(u64, FileType, OsString)>),
}

impl Names {
    fn path(&self, inode: INodeNo) -> Answer<PathBuf> {
        self.paths.get(&inode.0).and_then(|paths| paths.last()).cloned().ok_or(Errno::ESTALE)
    }

    fn add(&mut self, inode: u64, path: PathBuf) {
        let paths = self.paths.entry(inode).or_default();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }

    fn remove(&mut self, path: &Path) {
        self.paths.retain(|_, paths| {
            paths.retain(|known| known != path);
            !paths.is_empty()
        });
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.remove(to);
        for path in self.paths.values_mut().flatten() {
            if let Ok(below) = path.strip_prefix(from) {
                *path = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
            }
        }
    }
}

impl Server {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, inode: INodeNo) -> Answer<PathBuf> {
        self.names().path(inode)
    }

    /// The path of an inode in the directory that is passed through.
    fn at(&self, inode: INodeNo) -> Answer<PathBuf> {
        Ok(self.content.join(self.path(inode)?))
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles().insert(number, Arc::new(handle));
        FileHandle(number)
    }

    fn handle(&self, number: FileHandle) -> Answer<Arc<Handle>> {
        self.handles().get(&number.0).cloned().ok_or(Errno::EBADF)
    }

    fn attributes(&self, found: &fs::Metadata) -> FileAttr {
        let number = if found.ino() == self.root { INodeNo::ROOT } else { INodeNo(found.ino()) };
        pass_through::attributes(found, number)
    }

    /// Returns the attributes of an entry and records its path by its inode number.
    fn look(&self, path: PathBuf) -> Answer<FileAttr> {
        let found = fs::symlink_metadata(self.content.join(&path))?;
        let attributes = self.attributes(&found);
        self.names().add(attributes.ino.0, path);
        Ok(attributes)
    }

    /// Makes an entry with `make` and returns its attributes.
    fn made(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Answer<FileAttr> {
        let path = self.path(parent)?.join(name);
        let at = self.content.join(&path);
        make(&at)?;
        std::os::unix::fs::lchown(&at, Some(request.uid()), Some(request.gid()))?;
        self.look(path)
    }

    fn open_content(&self, inode: INodeNo, flags: i32) -> Answer<FileHandle> {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let truncates = flags.contains(OFlags::TRUNC);
        // The kernel's page cache also reads files that are opened for writing only.
        let file = File::options().read(true).write(writes).truncate(truncates && writes).open(self.at(inode)?)?;
        Ok(self.keep(Handle::File(file)))
    }

    fn create_content(&self, path: &Path, mode: u32) -> io::Result<FileHandle> {
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(mode);
        Ok(self.keep(Handle::File(options.open(path)?)))
    }

    fn open_listing(&self, inode: INodeNo) -> Answer<FileHandle> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(inode)?)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).expect("a type that Linux has");
            entries.push((entry.ino(), kind, entry.file_name()));
        }
        Ok(self.keep(Handle::Dir(entries)))
    }

    fn with_file<T>(&self, number: FileHandle, act: impl FnOnce(&File) -> io::Result<T>) -> Answer<T> {
        match &*self.handle(number)? {
            Handle::File(file) => Ok(act(file)?),
            Handle::Dir(_) => Err(Errno::EISDIR),
        }
    }

    fn change(&self, inode: INodeNo, handle: Option<FileHandle>, change: &Change) -> Answer<FileAttr> {
        let at = self.at(inode)?;
        match (change.size, handle) {
            (Some(size), Some(handle)) => self.with_file(handle, |file| file.set_len(size))?,
            _ => change.apply_size(&at)?,
        }
        change.apply(&at)?;
        Ok(self.attributes(&fs::symlink_metadata(at)?))
    }
}

fn entry(reply: ReplyEntry, attributes: FileAttr) {
    reply.entry(&CACHED, &attributes, Generation(0));
}

fn attributes(reply: ReplyAttr, attributes: FileAttr) {
    reply.attr(&CACHED, &attributes);
}

fn opened(reply: ReplyOpen, handle: FileHandle) {
    reply.opened(handle, FopenFlags::empty());
}

fn done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// Replies with the value of an attribute, or with its length if `size` is 0.
fn value(reply: ReplyXattr, value: &[u8], size: u32) {
    let length = u32::try_from(value.len()).expect("at most 64 KiB");
    match size {
        0 => reply.size(length),
        size if size < length => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// Converts the error of a system call.
fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

const XATTR_MAX: usize = 64 << 10;

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it, the kernel looks up the names of a directory one after the other.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        // Limit of background requests, such as read-ahead; the default is 12.
        let _ = config.set_max_background(1024);
        let _ = config.set_congestion_threshold(1024);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.traffic.pass("lookup");
        answer!(reply, self.path(parent).and_then(|parent| self.look(parent.join(name))), entry);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        self.traffic.pass("getattr");
        let found = match handle {
            Some(handle) => self.with_file(handle, File::metadata),
            None => self.at(inode).and_then(|at| Ok(fs::symlink_metadata(at)?)),
        };
        answer!(reply, found.map(|found| self.attributes(&found)), attributes);
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
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.traffic.pass("setattr");
        let change = Change { mode, uid, gid, size, atime, mtime };
        answer!(reply, self.change(inode, handle, &change), attributes);
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        self.traffic.pass("readlink");
        let target = self.at(inode).and_then(|at| Ok(fs::read_link(at)?));
        answer!(reply, target, |reply: ReplyData, made: PathBuf| reply.data(made.as_os_str().as_bytes()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        self.traffic.pass("mknod");
        let make = |path: &Path| {
            let ty = rustix::fs::FileType::from_raw_mode(mode);
            Ok(rustix::fs::mknodat(CWD, path, ty, Mode::from_raw_mode(mode), u64::from(device))?)
        };
        answer!(reply, self.made(request, parent, name, make), entry);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.traffic.pass("mkdir");
        let make = |path: &Path| Ok(rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode))?);
        answer!(reply, self.made(request, parent, name, make), entry);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.traffic.pass("unlink");
        let removed = self.path(parent).and_then(|parent| {
            let path = parent.join(name);
            fs::remove_file(self.content.join(&path))?;
            self.names().remove(&path);
            Ok(())
        });
        answer!(reply, removed, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.traffic.pass("rmdir");
        let removed = self.path(parent).and_then(|parent| {
            let path = parent.join(name);
            fs::remove_dir(self.content.join(&path))?;
            self.names().remove(&path);
            Ok(())
        });
        answer!(reply, removed, done);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.traffic.pass("symlink");
        let make = |path: &Path| std::os::unix::fs::symlink(target, path);
        answer!(reply, self.made(request, parent, name, make), entry);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.traffic.pass("rename");
        let renamed = (|| -> Answer<()> {
            let (from, to) = (self.path(parent)?.join(name), self.path(new_parent)?.join(new_name));
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            rustix::fs::renameat_with(CWD, self.content.join(&from), CWD, self.content.join(&to), flags)
                .map_err(errno)?;
            self.names().rename(&from, &to);
            Ok(())
        })();
        answer!(reply, renamed, done);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.traffic.pass("link");
        let linked = (|| -> Answer<FileAttr> {
            let path = self.path(parent)?.join(name);
            fs::hard_link(self.at(inode)?, self.content.join(&path))?;
            self.look(path)
        })();
        answer!(reply, linked, entry);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.traffic.pass("open");
        answer!(reply, self.open_content(inode, flags.0), opened);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        self.traffic.pass("create");
        let mut handle = FileHandle(0);
        let make = |path: &Path| {
            handle = self.create_content(path, mode & 0o7777)?;
            Ok(())
        };
        let made = self.made(request, parent, name, make);
        answer!(reply, made, |reply: ReplyCreate, made| reply.created(
            &CACHED,
            &made,
            Generation(0),
            handle,
            FopenFlags::empty()
        ));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.traffic.pass("read");
        let read = self.with_file(handle, |file| {
            let mut bytes = vec![0; usize::try_from(size).expect("32 bits")];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        });
        answer!(reply, read, |reply: ReplyData, made: Vec<u8>| reply.data(&made));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.traffic.pass("write");
        let length = u32::try_from(data.len()).expect("a request of the kernel's");
        let written = self.with_file(handle, |file| file.write_all_at(data, offset));
        answer!(reply, written, |reply: ReplyWrite, ()| reply.written(length));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.traffic.pass("flush");
        // The kernel does not send another flush: as with NFS, closing a file that was only read
        // costs nothing.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.traffic.pass("release");
        self.handles().remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.traffic.pass("fsync");
        answer!(reply, self.with_file(handle, File::sync_all), done);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.traffic.pass("opendir");
        answer!(reply, self.open_listing(inode), opened);
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.traffic.pass("readdir");
        match self.handle(handle).as_deref() {
            Ok(Handle::Dir(entries)) => {
                let first = usize::try_from(offset).expect("a position of ours");
                for (index, (inode, kind, name)) in entries.iter().enumerate().skip(first) {
                    if reply.add(INodeNo(*inode), index as u64 + 1, *kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Ok(Handle::File(_)) => reply.error(Errno::ENOTDIR),
            Err(errno) => reply.error(*errno),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.traffic.pass("releasedir");
        self.handles().remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.traffic.pass("fsyncdir");
        let synced = self.at(inode).and_then(|at| Ok(File::open(at)?.sync_all()?));
        answer!(reply, synced, done);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.traffic.pass("statfs");
        let found = rustix::fs::statvfs(&self.content).map_err(errno);
        answer!(reply, found, |reply: ReplyStatfs, found: rustix::fs::StatVfs| reply.statfs(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            u32::try_from(found.f_bsize).unwrap_or(4096),
            u32::try_from(found.f_namemax).unwrap_or(255),
            u32::try_from(found.f_frsize).unwrap_or(4096)
        ));
    }

    fn setxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        self.traffic.pass("setxattr");
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let set = self.at(inode).and_then(|at| rustix::fs::lsetxattr(at, name, value, flags).map_err(errno));
        answer!(reply, set, done);
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.traffic.pass("getxattr");
        let mut buffer = vec![0; XATTR_MAX];
        let got = self.at(inode).and_then(|at| rustix::fs::lgetxattr(at, name, &mut buffer[..]).map_err(errno));
        answer!(reply, got, |reply, length| value(reply, &buffer[..length], size));
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.traffic.pass("listxattr");
        let mut buffer = vec![0; XATTR_MAX];
        let got = self.at(inode).and_then(|at| rustix::fs::llistxattr(at, &mut buffer[..]).map_err(errno));
        answer!(reply, got, |reply, length| value(reply, &buffer[..length], size));
    }

    fn removexattr(&self, _: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.traffic.pass("removexattr");
        let removed = self.at(inode).and_then(|at| rustix::fs::lremovexattr(at, name).map_err(errno));
        answer!(reply, removed, done);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.traffic.pass("fallocate");
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let allocated = self.with_file(handle, |file| Ok(rustix::fs::fallocate(file, mode, offset, length)?));
        answer!(reply, allocated, done);
    }

    fn lseek(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.traffic.pass("lseek");
        let at = u64::try_from(offset).unwrap_or(0);
        // The values of `SEEK_DATA` and `SEEK_HOLE`; the kernel handles all others itself.
        let sought = match whence {
            3 => self.with_file(handle, |file| Ok(rustix::fs::seek(file, SeekFrom::Data(at))?)),
            4 => self.with_file(handle, |file| Ok(rustix::fs::seek(file, SeekFrom::Hole(at))?)),
            _ => Err(Errno::EINVAL),
        };
        answer!(reply, sought, |reply: ReplyLseek, at: u64| reply.offset(at.cast_signed()));
    }
}
