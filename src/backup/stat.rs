//! Reads the metadata of one entry from the file system, as a node.

use super::options::{DeviceIds, Options};
use super::reach::{Place, Reach};
use crate::format::node::{Node, NodeType, Xattr, mode};
use crate::format::text::lossy;
use crate::format::time::Time;
use crate::host::Names;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Stat};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The device id of hard links on the source's own file system: rustic links only nodes that have
/// one. It is above the 32 bits that Linux assigns, so that no other file system has it.
const HOME_DEVICE: u64 = 1 << 32;

/// Turns metadata into nodes, by the rules of one backup.
pub struct Observer {
    users: Names,
    groups: Names,
    with_atime: bool,
    device_ids: DeviceIds,
    /// The file system of the source's root; entries there have no device id unless all have.
    root_device: Option<u64>,
    /// The zone in which times are written; UTC if `None`.
    zone: Option<TimeZone>,
}

impl Observer {
    pub fn new(options: &Options, root_device: Option<u64>) -> Observer {
        Observer {
            users: Names::users(),
            groups: Names::groups(),
            with_atime: options.with_atime,
            device_ids: options.device_ids,
            root_device,
            zone: options.local_time.then(TimeZone::system),
        }
    }

    /// The node of an entry, without its extended attributes, content and subtree. `warn` is called
    /// for each property that had to be left out.
    pub fn node(&self, name: &[u8], place: &Place<'_>, stat: &Stat, warn: impl Fn(String)) -> Node {
        let ty = node_type(stat);
        let mut node = Node::new(name, ty);
        node.mode = mode::from_unix(stat.st_mode);
        self.set_times(&mut node, stat);
        node.uid = stat.st_uid;
        node.gid = stat.st_gid;
        node.user = self.users.get(stat.st_uid).to_owned();
        node.group = self.groups.get(stat.st_gid).to_owned();
        node.inode = stat.st_ino;
        match ty {
            NodeType::File => node.size = u64::try_from(stat.st_size).unwrap_or(0),
            NodeType::Symlink => match place.read_link() {
                Ok(target) => node.link_target = target.into_bytes(),
                Err(error) => warn(format!("its target cannot be read: {error}")),
            },
            NodeType::Dev | NodeType::CharDev => node.device = stat.st_rdev,
            _ => {}
        }
        if matches!(ty, NodeType::File | NodeType::Symlink | NodeType::Dev | NodeType::CharDev) {
            // The field is narrower than 64 bits on some architectures.
            #[allow(clippy::useless_conversion)]
            let links = stat.st_nlink.into();
            node.links = links;
        }
        node.device_id = self.device_id(&node, stat);
        node
    }

    fn device_id(&self, node: &Node, stat: &Stat) -> u64 {
        if self.device_ids == DeviceIds::All || self.root_device != Some(stat.st_dev) {
            stat.st_dev
        } else if node.links > 1 {
            HOME_DEVICE
        } else {
            0
        }
    }

    /// Updates size and times from the metadata of the opened file.
    pub fn refresh(&self, node: &mut Node, stat: &Stat) {
        node.size = u64::try_from(stat.st_size).unwrap_or(0);
        self.set_times(node, stat);
    }

    fn set_times(&self, node: &mut Node, stat: &Stat) {
        node.mtime = self.time(stat.st_mtime, stat.st_mtime_nsec);
        node.ctime = self.time(stat.st_ctime, stat.st_ctime_nsec);
        node.atime = if self.with_atime { self.time(stat.st_atime, stat.st_atime_nsec) } else { node.mtime };
    }

    fn time(&self, seconds: i64, nanos: impl TryInto<u32>) -> Time {
        let utc = Time::utc(seconds, nanos.try_into().unwrap_or(0));
        match &self.zone {
            None => utc,
            // Outside the range of jiff's calendar, the offset is 0.
            Some(zone) => {
                let offset = Timestamp::from_second(seconds).map_or(0, |instant| zone.to_offset(instant).seconds());
                Time { offset, ..utc }
            }
        }
    }
}

/// The type of an entry.
pub fn node_type(stat: &Stat) -> NodeType {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeType::File,
        FileType::Directory => NodeType::Dir,
        FileType::Symlink => NodeType::Symlink,
        FileType::BlockDevice => NodeType::Dev,
        FileType::CharacterDevice => NodeType::CharDev,
        FileType::Fifo => NodeType::Fifo,
        FileType::Socket => NodeType::Socket,
        _ => NodeType::Irregular,
    }
}

/// Returns the metadata of an entry itself, not of the target of a symlink.
pub fn lstat(path: &Path) -> rustix::io::Result<Stat> {
    Place::at(path)?.lstat()
}

/// Returns the metadata of an entry, or of the target of a symlink.
pub fn stat(path: &Path) -> rustix::io::Result<Stat> {
    rustix::fs::statat(CWD, Reach::of(path)?.path(), AtFlags::empty())
}

/// The kernel's limits for a list of names and for one value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 << 10;
/// The size of the first buffer, which is enough for nearly all names and values.
const XATTR_COMMON: usize = 1 << 10;

/// The extended attributes of an entry, also of a symlink, in the kernel's order; POSIX ACLs,
/// capabilities and security labels are among them.
pub fn xattrs_of_path(path: &Path, mut warn: impl FnMut(String)) -> Vec<Xattr> {
    match Reach::of(path) {
        Ok(reach) => read_xattrs(
            |names| rustix::fs::llistxattr(reach.path(), names),
            |name, value| rustix::fs::lgetxattr(reach.path(), name, value),
            warn,
        ),
        Err(error) => {
            warn(format!("its extended attributes cannot be reached: {error}"));
            Vec::new()
        }
    }
}

/// The extended attributes of an open file.
pub fn xattrs_of_file(file: &OwnedFd, warn: impl FnMut(String)) -> Vec<Xattr> {
    read_xattrs(
        |names| rustix::fs::flistxattr(file, names),
        |name, value| rustix::fs::fgetxattr(file, name, value),
        warn,
    )
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
    mut warn: impl FnMut(String),
) -> Vec<Xattr> {
    let names = match read_any_length(list) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Vec::new(),
        Err(error) => {
            warn(format!("its extended attributes cannot be listed: {error}"));
            return Vec::new();
        }
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let shown = name.escape_ascii();
        match read_any_length(|value| get(name, value)) {
            Ok(value) => xattrs.push(Xattr { name: name.to_vec(), value }),
            // The attribute was removed after it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => warn(format!("its extended attribute {shown} cannot be read: {error}")),
        }
    }
    xattrs
}

/// Returns the bytes that `read` puts into a buffer of sufficient length.
fn read_any_length(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut common = [0; XATTR_COMMON];
    match read(&mut common) {
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; XATTR_MAX];
            let length = read(&mut buffer)?;
            buffer.truncate(length);
            buffer.shrink_to_fit();
            Ok(buffer)
        }
        length => Ok(common[..length?].to_vec()),
    }
}

/// The path as text, as messages show it.
pub fn display(path: &Path) -> String {
    lossy(path.as_os_str().as_bytes())
}
