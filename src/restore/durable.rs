//! A restore is done when the disk has it: `syncfs` of every file system that was written to.
//!
//! The kernel writes back later, and reports an error of that only to descriptors that were open
//! before the error. So each file system is opened before the first write to it: the target's own,
//! and those that are mounted below the target.

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
    /// Where it was met first, relative to the target.
    path: Vec<u8>,
}

impl<'t> FileSystems<'t> {
    /// Opens the target's own file system.
    pub fn of(root: &Root, target: &'t Path) -> rustix::io::Result<FileSystems<'t>> {
        let mut systems = FileSystems { target, open: BTreeMap::new() };
        systems.meet(root, fstat(root.fd())?.st_dev, Vec::new)?;
        Ok(systems)
    }

    /// Something that exists at `path` is on this device, and will be written to.
    pub fn meet(&mut self, root: &Root, device: u64, path: impl FnOnce() -> Vec<u8>) -> rustix::io::Result<()> {
        if !self.open.contains_key(&device) {
            let path = path();
            // A descriptor that only names a path (O_PATH) cannot be synced.
            let fd = root.open_beneath(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            // Something else may have taken its place meanwhile.
            let device = fstat(&fd)?.st_dev;
            self.open.entry(device).or_insert_with(|| Opened { fd, path });
        }
        Ok(())
    }

    /// Waits until all of it is on the disk.
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
