//! restic's locks: a small file that says which process uses the repository, and whether
//! exclusively.
//!
//! Acquiring a lock: look for conflicts, write the lock file, wait until listings have it, look
//! again; of two processes that race, at least one sees the other's file. The first look only
//! spares others a lock file that is removed again, so that it may be old: it is made while the
//! repository is opened ([`Repository::open_to_lock`]). Two processes that begin within that time
//! see each other in the second look only, and both give way, as they may with restic. Nothing that
//! the lock protects is read before the second look has been answered. A `prune` whose own second
//! look missed our lock is either still seen by ours, or it has ended before; but an index listed
//! side by side with our second look may be the one that it was replacing at that moment.
//!
//! Holding it: a thread replaces the file every five minutes ([`refresh`]), because others take a
//! lock older than 30 minutes for dead and may remove it. A stale lock still blocks: as in restic,
//! only `unlock` removes it.

mod acquire;
mod file;
mod policy;
mod refresh;
pub(super) mod state;
#[cfg(test)]
mod tests;

pub use acquire::Lock;
pub use file::{LockMode, LocksToRemove, remove_locks_of, unlock};
