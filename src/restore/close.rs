//! `close` with its error, which dropping a descriptor ignores: NFS, CIFS and many FUSE file
//! systems report a full disk or an exceeded quota only there.

use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};

/// Closes a descriptor. Whatever the outcome, it is closed afterwards (Linux never keeps it open),
/// so that an error means lost data, not another try.
pub fn close(fd: OwnedFd) -> Result<()> {
    nix::unistd::close(fd).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}
