//! The FUSE server: answers the kernel's requests.

use super::content::{Content, Directory, OpenFile};
use super::inodes::{self, Inode, Inodes};
use super::places::{Place, Places};
use crate::clock;
use crate::format::node::{Node, NodeType, mode};
use crate::format::time::Time;
use crate::id::Id;
use crate::progress::{Phase, Progress};
use crate::repo::{Error, Index, Repository, StoredSnapshot};
use crate::sync::lock;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// How long the kernel may cache an answer: the mounted snapshots never change.
const VALID: Duration = Duration::from_secs(3600);
const BLOCK: u64 = 512;

/// The snapshots to mount, and their repository.
pub struct Source<'s> {
    pub repo: Arc<Repository>,
    pub index: Index,
    pub snapshots: &'s [StoredSnapshot],
}

/// The owner that entries are shown with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Entries of snapshots have their own owner; the directories above them belong to the user of
    /// this process.
    #[default]
    AsStored,
    Root,
}

pub struct Server {
    content: Content,
    places: Places,
    /// The root directory of each snapshot.
    roots: Vec<Arc<Node>>,
    inodes: Mutex<Inodes>,
    open: Mutex<HashMap<u64, Arc<OpenFile>>>,
    next_handle: AtomicU64,
    /// Owner and group of the directories above the snapshots.
    above: (u32, u32),
    owner: Owner,
    /// The time of the mount, and of the directories above the snapshots.
    started: Time,
    progress: Arc<Progress>,
}

type Answer<T> = Result<T, Errno>;

impl Server {
    pub fn new(source: Source<'_>, owner: Owner, progress: Arc<Progress>) -> Server {
        let Source { repo, index, snapshots } = source;
        let above = match owner {
            Owner::Root => (0, 0),
            Owner::AsStored => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        let (seconds, nanos) = clock::now();
        let root = |stored: &StoredSnapshot| {
            let time = stored.snapshot.time;
            let mode = mode::DIR | 0o555;
            let (mtime, atime, ctime) = (time, time, time);
            let dir = Node { mode, mtime, atime, ctime, subtree: stored.snapshot.tree, ..Node::new("", NodeType::Dir) };
            Arc::new(Node { uid: above.0, gid: above.1, ..dir })
        };
        Server {
            content: Content::new(repo, index),
            places: Places::of(snapshots),
            roots: snapshots.iter().map(root).collect(),
            inodes: Mutex::default(),
            open: Mutex::default(),
            next_handle: AtomicU64::new(1),
            above,
            owner,
            started: Time::utc(seconds, nanos),
            progress,
        }
    }

    fn inode(&self, number: INodeNo) -> Answer<Inode> {
        lock(&self.inodes).get(number.0).ok_or(Errno::ESTALE)
    }

    /// Reports an error to the user. Returns the error code for the program that sent the request.
    fn failed(&self, number: INodeNo, error: &Error) -> Errno {
        let path = lock(&self.inodes).path(number.0);
        self.progress.problem(Phase::Restore, path, error);
        Errno::EIO
    }

    fn node(&self, number: INodeNo) -> Answer<Arc<Node>> {
        match self.inode(number)? {
            Inode::Node { node, .. } => Ok(node),
            Inode::Place(_) | Inode::Link(_) => Err(Errno::ENODATA),
        }
    }

    fn directory(&self, number: INodeNo, tree: Id) -> Answer<Arc<Directory>> {
        let hidden = |name: &str, why: &str| {
            let path = lock(&self.inodes).path(number.0);
            self.progress.problem(Phase::Restore, format!("{path}/{name}"), format!("{why}; the entry is not shown"));
        };
        self.content.directory(tree, hidden).map_err(|error| self.failed(number, &error))
    }

    fn of_place(&self, place: &Place) -> Inode {
        match place {
            Place::Directory(number) => Inode::Place(*number),
            Place::Link(name) => Inode::Link(name.clone()),
            Place::Snapshot(number) => Inode::Node { tree: None, node: self.roots[*number].clone() },
        }
    }

    fn find(&self, parent: INodeNo, name: &[u8]) -> Answer<Inode> {
        match self.inode(parent)? {
            Inode::Place(place) => {
                self.places.entries(place).get(name).map(|place| self.of_place(place)).ok_or(Errno::ENOENT)
            }
            Inode::Link(_) => Err(Errno::ENOTDIR),
            Inode::Node { node, .. } => {
                let tree = node.subtree.ok_or(Errno::ENOTDIR)?;
                let found = self
                    .directory(parent, tree)?
                    .find(name)
                    .map_err(|error| self.failed(parent, &error))?
                    .ok_or(Errno::ENOENT)?;
                // A file's list of blobs may have millions of entries: it is not kept before the
                // file is opened.
                Ok(Inode::Node { tree: Some(tree), node: Arc::new(Node { content: None, ..found }) })
            }
        }
    }

    /// Passes the entries of a directory, without the first `skip`, to `add` until it returns
    /// `true`.
    fn list(&self, number: INodeNo, skip: usize, mut add: impl FnMut(&[u8], FileType) -> bool) -> Answer<()> {
        match self.inode(number)? {
            Inode::Place(place) => {
                let mut entries = self.places.entries(place).iter().skip(skip);
                entries.any(|(name, place)| match place {
                    Place::Link(_) => add(name, FileType::Symlink),
                    Place::Directory(_) | Place::Snapshot(_) => add(name, FileType::Directory),
                });
            }
            Inode::Link(_) => return Err(Errno::ENOTDIR),
            Inode::Node { node, .. } => {
                let directory = self.directory(number, node.subtree.ok_or(Errno::ENOTDIR)?)?;
                directory.entries().iter().skip(skip).any(|entry| add(&entry.name, file_type(entry.ty)));
            }
        }
        Ok(())
    }

    fn open_file(&self, number: INodeNo) -> Answer<u64> {
        let Inode::Node { tree: Some(tree), node } = self.inode(number)? else { return Err(Errno::EISDIR) };
        let whole = self
            .directory(number, tree)?
            .find(&node.name)
            .map_err(|error| self.failed(number, &error))?
            .ok_or(Errno::ESTALE)?;
        let file = self.content.open(&whole).map_err(|error| self.failed(number, &error))?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(handle, Arc::new(file));
        Ok(handle)
    }

    fn attributes(&self, number: u64, inode: &Inode) -> FileAttr {
        let (uid, gid) = self.above;
        let (ino, time) = (INodeNo(number), system_time(&self.started));
        let ours = FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: FileType::Directory,
            perm: 0o555,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        match inode {
            Inode::Place(_) => ours,
            Inode::Link(to) => FileAttr { kind: FileType::Symlink, perm: 0o777, size: to.len() as u64, ..ours },
            Inode::Node { node, .. } => FileAttr {
                size: if node.ty == NodeType::Symlink { node.link_target.len() as u64 } else { node.size },
                blocks: node.size.div_ceil(BLOCK),
                atime: system_time(&node.atime),
                mtime: system_time(&node.mtime),
                ctime: system_time(&node.ctime),
                crtime: system_time(&node.ctime),
                kind: file_type(node.ty),
                perm: u16::try_from(mode::permissions(node.mode)).expect("twelve bits"),
                nlink: u32::try_from(node.links.max(1)).unwrap_or(u32::MAX),
                uid: if self.owner == Owner::Root { 0 } else { node.uid },
                gid: if self.owner == Owner::Root { 0 } else { node.gid },
                rdev: device(node.device),
                ..ours
            },
        }
    }
}

fn file_type(ty: NodeType) -> FileType {
    match ty {
        NodeType::Dir => FileType::Directory,
        NodeType::Symlink => FileType::Symlink,
        NodeType::Dev => FileType::BlockDevice,
        NodeType::CharDev => FileType::CharDevice,
        NodeType::Fifo => FileType::NamedPipe,
        NodeType::Socket => FileType::Socket,
        // Entries of the last two types are never shown.
        NodeType::File | NodeType::Irregular | NodeType::Unknown => FileType::RegularFile,
    }
}

fn system_time(time: &Time) -> SystemTime {
    let (seconds, nanos) = time.instant();
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(whole),
        false => SystemTime::UNIX_EPOCH.checked_add(whole),
    };
    whole.map_or(SystemTime::UNIX_EPOCH, |whole| whole + Duration::from_nanos(nanos.into()))
}

/// `st_rdev` as the kernel packs it into 32 bits, `new_encode_dev` in its sources.
fn device(number: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Answers with an attribute's value or a list of names, or with its length if `size` is 0.
fn answer_xattr(bytes: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(bytes.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name.as_bytes()) {
            Ok(inode) => {
                let number = lock(&self.inodes).look_up(parent.0, name.as_bytes(), || inode.clone());
                reply.entry(&VALID, &self.attributes(number, &inode), Generation(0));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        lock(&self.inodes).forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(number) {
            Ok(inode) => reply.attr(&VALID, &self.attributes(number.0, &inode)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.inode(number) {
            Ok(Inode::Link(to)) => reply.data(&to),
            Ok(Inode::Node { node, .. }) => reply.data(&node.link_target),
            Ok(Inode::Place(_)) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = lock(&self.open).get(&handle.0).cloned() else { return reply.error(Errno::EBADF) };
        match self.content.read(&file, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(self.failed(number, &error)),
        }
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
        lock(&self.open).remove(&handle.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        // Offsets count from 1; the kernel resolves `..` by itself.
        const DOTS: [&str; 2] = [".", ".."];
        let mut next = offset;
        for dots in DOTS.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            next += 1;
            if reply.add(number, next, FileType::Directory, dots) {
                return reply.ok();
            }
        }
        let skip = usize::try_from(next).unwrap_or(usize::MAX) - DOTS.len();
        let listed = self.list(number, skip, |name, ty| {
            next += 1;
            reply.add(INodeNo(inodes::number(number.0, name)), next, ty, OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.node(number) {
            Ok(node) => match node.xattrs.iter().find(|xattr| xattr.name == name.as_bytes()) {
                Some(xattr) => answer_xattr(&xattr.value, size, reply),
                None => reply.error(Errno::NO_XATTR),
            },
            Err(errno) => reply.error(errno),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names =
            |node: &Node| node.xattrs.iter().flat_map(|xattr| [&xattr.name[..], &[0]].concat()).collect::<Vec<u8>>();
        let list = self.node(number).map_or_else(|_| Vec::new(), |node| names(&node));
        answer_xattr(&list, size, reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_converted() {
        let (seconds, nanos) = (-2, 250_000_000);
        let time = system_time(&Time::utc(seconds, nanos));
        assert_eq!(SystemTime::UNIX_EPOCH.duration_since(time).unwrap(), Duration::from_millis(1750));
    }

    #[test]
    fn device_numbers_are_packed_as_in_the_kernel() {
        assert_eq!(device(rustix::fs::makedev(8, 1)), 0x801);
        assert_eq!(device(rustix::fs::makedev(259, 300)), 0x0011_032c);
    }
}
