//! Applies metadata: owner, mode, times and extended attributes, in an order in which none of them
//! undoes another.
//!
//! The owner comes first, because changing it clears set-id bits and capabilities; then attributes,
//! among them ACLs, which may change the mode; then the mode, without set-id bits if the owner
//! could not be set; the times last, because every other change may touch them. Nothing here ends a
//! restore: refusals of the system are counted per kind in [`Refusals`] and reported once per kind,
//! at the end.

use super::confine::{Pinned, is};
use super::options::Unprivileged;
use super::path::display;
use crate::format::node::{Node, Xattr, mode};
use crate::format::time::Time;
use crate::progress::{Phase, Progress};
use rustix::fs::{FileType, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

/// The metadata of an entry.
#[derive(Clone, Debug)]
pub struct Meta {
    /// As `chmod` takes it.
    permissions: u32,
    uid: u32,
    gid: u32,
    atime: (i64, u32),
    mtime: (i64, u32),
    xattrs: Vec<Xattr>,
}

impl Meta {
    pub fn of(node: Node) -> Meta {
        let instant = |time: Time| time.instant();
        Meta {
            permissions: mode::permissions(node.mode),
            uid: node.uid,
            gid: node.gid,
            atime: instant(node.atime),
            mtime: instant(node.mtime),
            xattrs: node.xattrs,
        }
    }

    /// The metadata of a file that [`Access::of_plain`] describes.
    pub fn plain(access: Access, mtime: (i64, u32)) -> Meta {
        let Access { permissions, uid, gid } = access;
        Meta { permissions, uid, gid, atime: mtime, mtime, xattrs: Vec::new() }
    }

    /// Approximate memory in bytes.
    pub fn weight(&self) -> usize {
        let xattrs = self.xattrs.iter().map(|xattr| size_of::<Xattr>() + xattr.name.len() + xattr.value.len());
        size_of::<Meta>() + xattrs.sum::<usize>()
    }

    pub fn mtime(&self) -> (i64, u32) {
        self.mtime
    }

    fn times(&self) -> Timestamps {
        let timespec = |(seconds, nanos): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        Timestamps { last_access: timespec(self.atime), last_modification: timespec(self.mtime) }
    }
}

/// Owner and mode, which most files of a snapshot share with many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// As `chmod` takes it.
    pub permissions: u32,
    uid: u32,
    gid: u32,
}

impl Access {
    /// The owner and mode of a file whose only other metadata is the time, as for most files;
    /// `None` for a file with attributes or an access time of its own.
    pub fn of_plain(node: &Node) -> Option<Access> {
        let is_plain = node.xattrs.is_empty() && node.atime.instant() == node.mtime.instant();
        is_plain.then(|| Access { permissions: mode::permissions(node.mode), uid: node.uid, gid: node.gid })
    }
}

/// The extended attributes that an entry may have before its own are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Any.
    Unknown,
    /// None that a restore would remove: this run created the entry, in a directory that hands down
    /// none.
    Bare,
}

/// Computes the path of an entry, which only a refusal needs.
pub type PathOf<'f> = &'f dyn Fn() -> Vec<u8>;

/// An entry of the target that gets its metadata.
pub struct Recipient<'e> {
    pub pinned: &'e Pinned,
    pub before: Before,
    pub path: PathOf<'e>,
}

/// The metadata that could not be applied, by kind. Threads share it.
pub struct Refusals<'p> {
    progress: &'p Progress,
    /// Whether a lack of privilege is no problem: the process does not run as root, and the options
    /// excuse it.
    excused: bool,
    kinds: Mutex<BTreeMap<String, Kind>>,
}

struct Kind {
    count: u64,
    severity: Severity,
    /// The first path in byte order; if any are problems, the first of those.
    first: Vec<u8>,
    why: Errno,
}

/// Whether something is missing from the restore that should be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    Problem,
    Harmless,
}

impl<'p> Refusals<'p> {
    pub fn new(progress: &'p Progress, unprivileged: Unprivileged) -> Refusals<'p> {
        let excused = match unprivileged {
            Unprivileged::Excused => !rustix::process::geteuid().is_root(),
            Unprivileged::Counted => false,
        };
        Refusals { progress, excused, kinds: Mutex::default() }
    }

    /// Counts metadata that the system refused.
    pub fn add(&self, kind: &str, path: PathOf<'_>, why: Errno) {
        let expected = self.excused && matches!(why, Errno::PERM | Errno::ACCESS);
        self.count(kind, path, why, if expected { Severity::Harmless } else { Severity::Problem });
    }

    /// Counts a refusal that is no loss.
    pub fn add_harmless(&self, kind: &str, path: PathOf<'_>, why: Errno) {
        self.count(kind, path, why, Severity::Harmless);
    }

    fn count(&self, kind: &str, path: PathOf<'_>, why: Errno, severity: Severity) {
        let path = path();
        self.progress.refused(kind, || display(&path), why);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = kinds.get_mut(kind) else {
            kinds.insert(kind.to_owned(), Kind { count: 1, severity, first: path, why });
            return;
        };
        known.count += 1;
        // Threads report in any order.
        let is_first = match severity {
            _ if severity == known.severity => path < known.first,
            Severity::Problem => true,
            Severity::Harmless => false,
        };
        if is_first {
            *known = Kind { count: known.count, severity, first: path, why };
        }
    }

    /// Reports each kind once and returns the counts.
    pub fn settle(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let kinds = std::mem::take(&mut *self.kinds.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, Kind { count, severity, first, why }) in kinds {
            let first = display(&first);
            let entries = if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
            match severity {
                Severity::Problem => {
                    let why = format!("{name} not applied to {entries}; here: {why}");
                    self.progress.problem(Phase::Restore, first, why);
                }
                Severity::Harmless => {
                    self.progress.warning(&format!("{name} not applied to {entries}, the first {first}: {why}"));
                }
            }
            counts.insert(name, count);
        }
        counts
    }

    /// Applies the metadata of an entry.
    pub fn apply(&self, entry: &Recipient<'_>, meta: &Meta) {
        match entry.pinned.stat() {
            Ok(stat) => self.apply_to(entry, &stat, meta),
            Err(why) => self.add("metadata", entry.path, why),
        }
    }

    /// Applies the metadata of an entry whose present owner and mode are those of `stat`. Values
    /// that are already right are not set again, because only this run changes them meanwhile.
    pub fn apply_to(&self, entry: &Recipient<'_>, stat: &Stat, meta: &Meta) {
        let &Recipient { pinned, before, path } = entry;
        let (mut touched, mut permissions) = (false, meta.permissions);
        if (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid) {
            // A change of the owner clears only set-id bits.
            touched = stat.st_mode & SET_ID != 0;
            if let Err(why) = pinned.chown(meta.uid, meta.gid) {
                self.add("owner", path, why);
                if !is(stat, FileType::Directory) {
                    // The bits would grant the rights of the restoring user instead of those of the
                    // owner.
                    permissions &= !SET_ID;
                }
            }
        }
        touched |= match before {
            Before::Bare if meta.xattrs.is_empty() => false,
            Before::Bare | Before::Unknown => self.apply_xattrs(entry, stat, meta),
        };
        if !is(stat, FileType::Symlink) && (touched || stat.st_mode & 0o7777 != permissions) {
            self.apply_mode(pinned, permissions, path);
        }
        if let Err(why) = pinned.set_times(&meta.times()) {
            self.add("times", path, why);
        }
    }

    fn apply_mode(&self, entry: &Pinned, permissions: u32, path: PathOf<'_>) {
        if let Err(why) = entry.chmod(permissions) {
            return self.add("mode", path, why);
        }
        // The kernel silently drops a set-group-id bit if the group is not one of the caller's.
        if permissions & SET_ID != 0 && entry.stat().is_ok_and(|stat| stat.st_mode & 0o7777 != permissions) {
            self.add("mode", path, Errno::PERM);
        }
    }

    /// Makes the attributes equal to the snapshot's. Returns whether it changed any.
    fn apply_xattrs(&self, entry: &Recipient<'_>, stat: &Stat, meta: &Meta) -> bool {
        let &Recipient { pinned, path, .. } = entry;
        let present = match pinned.xattr_names() {
            Ok(present) => present,
            Err(why) => {
                if !meta.xattrs.is_empty() && why != Errno::OPNOTSUPP {
                    self.add("xattr list", path, why);
                }
                Vec::new()
            }
        };
        let mut touched = false;
        for name in present.iter().filter(|name| is_ours_to_remove(name)) {
            if !meta.xattrs.iter().any(|xattr| xattr.name == *name) {
                touched = true;
                if let Err(why) = pinned.remove_xattr(name) {
                    self.add_harmless(&format!("removal of {}", kind_of(name)), path, why);
                }
            }
        }
        for Xattr { name, value } in &meta.xattrs {
            let name = &name[..];
            if present.iter().any(|present| present == name) && pinned.xattr(name).is_ok_and(|there| there == *value) {
                continue;
            }
            touched = true;
            if let Err(why) = pinned.set_xattr(name, value) {
                self.refuse_xattr(name, path, stat, why);
            }
        }
        touched
    }

    fn refuse_xattr(&self, name: &[u8], path: PathOf<'_>, stat: &Stat, why: Errno) {
        // A label belongs to the policy of the machine that it was made on; user attributes exist
        // on files and directories only.
        let label = name.starts_with(b"security.") && name != b"security.capability";
        let nowhere = name.starts_with(b"user.") && !is(stat, FileType::RegularFile) && !is(stat, FileType::Directory);
        if label || nowhere {
            self.add_harmless(&kind_of(name), path, why);
        } else {
            self.add(&kind_of(name), path, why);
        }
    }
}

/// Attributes that are user data or grant rights. All others (labels, internal attributes of a file
/// system) belong to this machine and stay.
fn is_ours_to_remove(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"system.posix_acl_"].iter().any(|prefix| name.starts_with(prefix))
        || name == b"security.capability"
}

/// The attribute's kind: its full name if that is well known, else its name space.
fn kind_of(name: &[u8]) -> String {
    const KNOWN: [&str; 4] =
        ["security.capability", "security.selinux", "system.posix_acl_access", "system.posix_acl_default"];
    const SPACES: [&str; 4] = ["user", "trusted", "security", "system"];
    let space = |space: &&&str| name.strip_prefix(space.as_bytes()).is_some_and(|rest| rest.starts_with(b"."));
    if let Some(known) = KNOWN.iter().find(|known| known.as_bytes() == name) {
        format!("xattr {known}")
    } else if let Some(space) = SPACES.iter().find(space) {
        format!("xattr {space}.*")
    } else {
        "xattr of other name spaces".into()
    }
}
