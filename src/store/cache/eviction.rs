//! Eviction: removes old copies and the caches of unused repositories.

use crate::clock;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// 30 days in seconds: the age at which a copy is removed, and the cache of a repository that no
/// run has opened since. The latter is restic's limit.
pub(super) const OLD: i64 = 30 * 24 * 60 * 60;

/// By the Cache Directory Tagging Specification: backup and search programs leave such a directory
/// out.
pub(super) const TAG: (&str, &str) = ("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");

/// Tags the folder of all caches, and marks the cache `root` as used now.
pub(super) fn mark(parent: &Path, root: &Path) -> io::Result<()> {
    let (name, text) = TAG;
    let tag = || fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(parent.join(name));
    match tag().and_then(|mut tag| io::Write::write_all(&mut tag, text.as_bytes())) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let now = Timestamps { last_access: special(UTIME_OMIT), last_modification: special(UTIME_NOW) };
    Ok(futimens(fs::File::open(root)?, &now)?)
}

/// Removes the entries of a directory that are old. A missing directory has none.
pub(super) fn evict(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let now = clock::now().0;
    for entry in entries {
        let entry = entry?;
        let remove = || {
            let metadata = entry.metadata()?;
            if now - metadata.mtime() <= OLD || entry.file_name() == TAG.0 {
                return Ok(());
            }
            if metadata.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }
        };
        match remove() {
            // Another run has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
