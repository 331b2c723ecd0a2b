//! Closes a descriptor and returns the error of `close`, which dropping the descriptor ignores:
//! NFS, CIFS and many FUSE file systems report a full disk or an exceeded quota only there.

use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};

/// Closes a descriptor. Linux releases it even if `close` fails, so an error means lost data and
/// cannot be retried.
pub fn close(fd: OwnedFd) -> Result<()> {
    nix::unistd::close(fd).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}
