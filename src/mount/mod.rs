//! Snapshots as directories that any program can look into: a read-only file system, by the
//! kernel's FUSE.
//!
//! [`places`] are the directories above the snapshots. [`content`] reads directories and bytes from
//! the repository, verifies them on the way, and caches those that were used last. [`inodes`] are
//! what the kernel knows by number, and [`serve`] answers its questions out of the three. The
//! snapshots are those that existed at the start.

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

/// Questions of the kernel that are answered at a time; each may wait for the store.
const THREADS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Other users may look, too, as far as modes and owners let them.
    pub allow_other: bool,
    /// They may look at everything.
    pub ignore_permissions: bool,
    pub owner: Owner,
}

/// A mounted repository; unmounted when it is dropped.
pub struct Mount(BackgroundSession);

impl Mount {
    /// Mounts snapshots on a directory. What cannot be read later is reported as a problem, and the
    /// program that asked gets EIO.
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

    /// Unmounts it if it still is mounted, which fails while a program is in it.
    pub fn end(self) -> io::Result<()> {
        if self.is_over() { self.0.join() } else { self.0.umount_and_join() }
    }
}
