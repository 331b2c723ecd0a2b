//! Code shared by the test file systems that pass a directory through the kernel's FUSE.

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The result of a request.
pub type Answer<T> = Result<T, Errno>;

/// Replies to a request with the value of `$made`, through `$ok`, or with its error.
macro_rules! answer {
    ($reply:ident, $made:expr, $ok:expr) => {
        match $made {
            Ok(made) => $ok($reply, made),
            Err(errno) => $reply.error(errno),
        }
    };
}
pub(crate) use answer;

/// The attributes of an entry as the kernel gets them.
pub fn attributes(found: &Metadata, ino: INodeNo) -> FileAttr {
    FileAttr {
        ino,
        size: found.len(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(found.file_type()).expect("a type that Linux has"),
        perm: u16::try_from(found.permissions().mode() & 0o7777).expect("12 bits"),
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        rdev: u32::try_from(found.rdev()).unwrap_or(0),
        blksize: 4096,
        flags: 0,
    }
}

fn time(seconds: i64, nanos: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// The attributes that a `setattr` changes.
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
}

impl Change {
    /// Applies all changes but the size to the entry at a path.
    pub fn apply(&self, at: &Path) -> io::Result<()> {
        if self.uid.is_some() || self.gid.is_some() {
            std::os::unix::fs::lchown(at, self.uid, self.gid)?;
        }
        if let Some(mode) = self.mode {
            fs::set_permissions(at, fs::Permissions::from_mode(mode & 0o7777))?;
        }
        if self.atime.is_some() || self.mtime.is_some() {
            let times = Timestamps { last_access: timespec(self.atime), last_modification: timespec(self.mtime) };
            rustix::fs::utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Changes the size of the file at a path.
    pub fn apply_size(&self, at: &Path) -> io::Result<()> {
        self.size.map_or(Ok(()), |size| File::options().write(true).open(at)?.set_len(size))
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: since.subsec_nanos().into() },
            Err(before) => {
                // Nanoseconds count forwards, also before 1970.
                let before = before.duration();
                let part = i64::from(before.subsec_nanos() > 0);
                let nanos = (1_000_000_000 - i64::from(before.subsec_nanos())) * part;
                Timespec { tv_sec: -before.as_secs().cast_signed() - part, tv_nsec: nanos }
            }
        },
    }
}
