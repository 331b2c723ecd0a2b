//! Applies `--overwrite`: decides whether an existing entry is kept as it is.

use super::options::Overwrite;
use rustix::fs::Stat;

/// Whether the existing entry `there`, of any type, is kept in place of the snapshot's entry. Not
/// for two directories: an existing directory is always reused.
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
