//! Makes a restore durable: calls `syncfs` on every file system that it wrote to.
//!
//! The kernel writes back later, and reports a write-back error only through descriptors that were
//! open before the error. So each file system is opened before the first write to it: that of the
//! target, and those mounted below the target.

use super::confine::Root;
use super::error::{Error, Result};
use super::path::display;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, fstat, syncfs};
use std::collections::BTreeMap;
use std::path::Path;

/// The file systems that a restore writes to, by device number.
pub struct FileSystems<'t> {
    target: &'t Path,
    open: BTreeMap<u64, Opened>,
}

struct Opened {
    fd: OwnedFd,
    /// The path at which it was found first, relative to the target.
    path: Vec<u8>,
}

impl<'t> FileSystems<'t> {
    /// Opens the target's own file system.
    pub fn of(root: &Root, target: &'t Path) -> rustix::io::Result<FileSystems<'t>> {
        let mut systems = FileSystems { target, open: BTreeMap::new() };
        systems.meet(root, fstat(root.fd())?.st_dev, Vec::new)?;
        Ok(systems)
    }

    /// Opens the file system of `device` unless it is open already. An entry that exists at `path`
    /// is on it and will be written to.
    pub fn meet(&mut self, root: &Root, device: u64, path: impl FnOnce() -> Vec<u8>) -> rustix::io::Result<()> {
        if !self.open.contains_key(&device) {
            let path = path();
            // A descriptor that only names a path (O_PATH) cannot be synced.
            let fd = root.open_beneath(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            // Another entry may have replaced it meanwhile.
            let device = fstat(&fd)?.st_dev;
            self.open.entry(device).or_insert_with(|| Opened { fd, path });
        }
        Ok(())
    }

    /// Waits until all written data is on the disk.
    pub fn sync(&self) -> Result<()> {
        self.open.values().try_for_each(|Opened { fd, path }| {
            syncfs(fd).map_err(|errno| {
                let target = self.target.display();
                let path = if path.is_empty() { target.to_string() } else { format!("{target}{}", display(path)) };
                Error::NotOnDisk { path, source: errno.into() }
            })
        })
    }
}
