//! restic's locks: a small file that says which process uses the repository, and whether
//! exclusively.
//!
//! Acquiring a lock: look for conflicts, write the lock file, wait until listings show it, look
//! again; of two processes that race, at least one sees the other's file. The first look only
//! avoids a lock file that would be removed again, so it may be outdated: it is made while the
//! repository is opened ([`Repository::open_to_lock`](super::Repository::open_to_lock)). Two
//! processes that begin within that time see each other only in the second look, and both withdraw,
//! as they may with restic. Nothing that the lock protects is read before the second look has been
//! answered. If the second look of a `prune` missed our lock, our second look sees the lock of the
//! `prune`, or the `prune` has ended before; but an index that is listed concurrently with our
//! second look may be the one that the `prune` was replacing at that moment.
//!
//! Holding it: a thread replaces the file every five minutes ([`refresh`]), because other processes
//! consider a lock older than 30 minutes stale and may remove it. A stale lock still blocks: as in
//! restic, only `unlock` removes it.

mod acquire;
mod file;
mod policy;
mod refresh;
pub(super) mod state;
#[cfg(test)]
mod tests;

pub use acquire::Lock;
pub use file::{LockMode, LocksToRemove, remove_locks_of, unlock};
