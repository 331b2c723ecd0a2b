//! [`Meta`]: owner, mode, times and extended attributes, and the order in which they hold.
//!
//! The owner comes first, because a change of it takes set-id bits and capabilities away; then attributes, among them ACLs,
//! which may change the mode; then the mode, without set-id bits if the owner is not the one they speak for; the times last,
//! because all else may touch them. Nothing here ends a restore:
//! what the system refuses is counted per kind in [`Refusals`] and told once per kind, at the end.

use super::Unprivileged;
use super::confine::{Pinned, is};
use super::walk::display;
use crate::format::node::{Node, Xattr, mode};
use crate::format::time::Time;
use crate::progress::{Phase, Progress};
use rustix::fs::{FileType, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::BTreeMap;

/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

/// What an entry has besides its content.
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

    pub fn mtime(&self) -> (i64, u32) {
        self.mtime
    }

    fn times(&self) -> Timestamps {
        let timespec = |(seconds, nanos): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        Timestamps { last_access: timespec(self.atime), last_modification: timespec(self.mtime) }
    }
}

/// What could not be applied, by kind.
pub struct Refusals<'p> {
    progress: &'p Progress,
    /// A lack of privilege excuses: the process does not run as root, and no problem is to be made
    /// of that.
    excused: bool,
    kinds: BTreeMap<String, Kind>,
}

struct Kind {
    count: u64,
    /// Something is missing from the restore that should be there.
    problem: bool,
    first: String,
    why: Errno,
}

impl<'p> Refusals<'p> {
    pub fn new(progress: &'p Progress, unprivileged: Unprivileged) -> Refusals<'p> {
        let excused = match unprivileged {
            Unprivileged::Excused => !rustix::process::geteuid().is_root(),
            Unprivileged::Counted => false,
        };
        Refusals { progress, excused, kinds: BTreeMap::new() }
    }

    /// Counts something that the system did not take.
    pub fn add(&mut self, kind: &str, path: &[u8], why: Errno) {
        let expected = self.excused && matches!(why, Errno::PERM | Errno::ACCESS);
        self.count(kind, path, why, !expected);
    }

    /// Counts something whose absence is no loss.
    pub fn add_harmless(&mut self, kind: &str, path: &[u8], why: Errno) {
        self.count(kind, path, why, false);
    }

    fn count(&mut self, kind: &str, path: &[u8], why: Errno, problem: bool) {
        self.progress.refused(kind, || display(path), why);
        if let Some(kind) = self.kinds.get_mut(kind) {
            kind.count += 1;
            if problem && !kind.problem {
                (kind.problem, kind.first, kind.why) = (true, display(path), why);
            }
            return;
        }
        self.kinds.insert(kind.to_owned(), Kind { count: 1, problem, first: display(path), why });
    }

    /// Tells each kind once and returns the counts.
    pub fn settle(self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (name, Kind { count, problem, first, why }) in self.kinds {
            let entries = if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
            if problem {
                self.progress.problem(Phase::Restore, first, format!("{name} not applied to {entries}; here: {why}"));
            } else {
                self.progress.warning(&format!("{name} not applied to {entries}, the first {first}: {why}"));
            }
            counts.insert(name, count);
        }
        counts
    }

    /// Gives an entry its metadata.
    pub fn apply(&mut self, entry: &Pinned, meta: &Meta, path: &[u8]) {
        let stat = match entry.stat() {
            Ok(stat) => stat,
            Err(why) => return self.add("metadata", path, why),
        };
        let (mut touched, mut permissions) = (false, meta.permissions);
        if (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid) {
            touched = true;
            if let Err(why) = entry.chown(meta.uid, meta.gid) {
                self.add("owner", path, why);
                if !is(&stat, FileType::Directory) {
                    // They would lend the rights of whoever runs the restore, instead of those of the owner.
                    permissions &= !SET_ID;
                }
            }
        }
        touched |= self.apply_xattrs(entry, meta, path, &stat);
        if !is(&stat, FileType::Symlink) && (touched || stat.st_mode & 0o7777 != permissions) {
            self.apply_mode(entry, permissions, path);
        }
        if let Err(why) = entry.set_times(&meta.times()) {
            self.add("times", path, why);
        }
    }

    fn apply_mode(&mut self, entry: &Pinned, permissions: u32, path: &[u8]) {
        if let Err(why) = entry.chmod(permissions) {
            return self.add("mode", path, why);
        }
        // The kernel drops a set-group-id bit in silence when the group is not one of the caller's.
        if permissions & SET_ID != 0 && entry.stat().is_ok_and(|stat| stat.st_mode & 0o7777 != permissions) {
            self.add("mode", path, Errno::PERM);
        }
    }

    /// Makes the attributes equal to the snapshot's. Says whether it changed any.
    fn apply_xattrs(&mut self, entry: &Pinned, meta: &Meta, path: &[u8], stat: &Stat) -> bool {
        let present = match entry.xattr_names() {
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
                if let Err(why) = entry.remove_xattr(name) {
                    self.add_harmless(&format!("removal of {}", kind_of(name)), path, why);
                }
            }
        }
        for Xattr { name, value } in &meta.xattrs {
            let name = &name[..];
            if present.iter().any(|present| present == name) && entry.xattr(name).is_ok_and(|there| there == *value) {
                continue;
            }
            touched = true;
            if let Err(why) = entry.set_xattr(name, value) {
                self.refuse_xattr(name, path, stat, why);
            }
        }
        touched
    }

    fn refuse_xattr(&mut self, name: &[u8], path: &[u8], stat: &Stat, why: Errno) {
        // A label belongs to the policy of the machine it was made on; user attributes exist on files and directories only.
        let label = name.starts_with(b"security.") && name != b"security.capability";
        let nowhere = name.starts_with(b"user.") && !is(stat, FileType::RegularFile) && !is(stat, FileType::Directory);
        if label || nowhere {
            self.add_harmless(&kind_of(name), path, why);
        } else {
            self.add(&kind_of(name), path, why);
        }
    }
}

/// Attributes that are somebody's data or grant something. All others (labels, what a file system keeps about itself)
/// are this machine's and stay.
fn is_ours_to_remove(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"system.posix_acl_"].iter().any(|prefix| name.starts_with(prefix))
        || name == b"security.capability"
}

/// The attribute's kind: its name where that has a meaning of its own, else its name space.
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
