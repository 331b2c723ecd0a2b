//! Mounts snapshots as a read-only file system with the kernel's FUSE, so that any program can read
//! them.
//!
//! [`places`] builds the directories above the snapshots. [`content`] reads directories and bytes
//! from the repository, verifies them, and caches the most recently used ones. [`inodes`] maps the
//! kernel's inode numbers to entries, and [`serve`] answers the kernel's requests from the three.
//! The snapshots are those that existed at the start.

mod content;
mod inodes;
mod places;
mod serve;

pub use serve::{Owner, Source};

use crate::progress::Progress;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use serve::Server;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Requests of the kernel that are answered at a time; each may wait for the store.
const THREADS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Other users may read, too, as far as modes and owners allow.
    pub allow_other: bool,
    /// Other users may read everything.
    pub ignore_permissions: bool,
    pub owner: Owner,
}

/// A mounted repository; unmounted when it is dropped.
pub struct Mount(BackgroundSession);

impl Mount {
    /// Mounts snapshots on a directory. Data that cannot be read later is reported as a problem,
    /// and the program that reads it gets EIO.
    pub fn start(source: Source<'_>, target: &Path, options: Options, progress: Arc<Progress>) -> io::Result<Mount> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
            MountOption::FSName("vsm-mover".into()),
            MountOption::Subtype("restic".into()),
        ];
        config.n_threads = Some(THREADS);
        if options.allow_other {
            config.acl = SessionACL::All;
            if !options.ignore_permissions {
                config.mount_options.push(MountOption::DefaultPermissions);
            }
        }
        let server = Server::new(source, options.owner, progress);
        Session::new(server, target, &config)?.spawn().map(Mount)
    }

    /// Whether another process has unmounted it.
    pub fn is_over(&self) -> bool {
        self.0.guard.is_finished()
    }

    /// Unmounts it if it is still mounted. Fails while a program uses it.
    pub fn end(self) -> io::Result<()> {
        if self.is_over() { self.0.join() } else { self.0.umount_and_join() }
    }
}
