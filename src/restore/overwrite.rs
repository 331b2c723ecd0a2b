//! `--overwrite`: whether an entry that exists stays as it is.

use super::options::Overwrite;
use rustix::fs::Stat;

/// Whether what has an entry's place, whatever it is, stays there. This is not for directories in
/// the place of directories.
pub fn is_kept(overwrite: Overwrite, there: &Stat, mtime: (i64, u32)) -> bool {
    match overwrite {
        Overwrite::Always | Overwrite::IfChanged => false,
        Overwrite::IfNewer => mtime <= mtime_of(there),
        Overwrite::Never => true,
    }
}

pub fn mtime_of(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}
