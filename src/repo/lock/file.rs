//! Lock files: seals new ones, reads those of all processes, and finds conflicting and stale ones.

use super::policy::STALE_AFTER;
use super::state::Stamp;
use crate::clock::Clock;
use crate::format::lock_file::LockFile;
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::parallel::side_by_side;
use crate::progress::Progress;
use crate::repo::error::{Error, Result};
use crate::repo::repository::Repository;
use crate::store::{File, FileType, StoreError};
use bytes::Bytes;
use std::collections::HashSet;
use std::time::Duration;

/// Seconds between the attempts to read a lock file, as in restic (internal/restic/lock.go).
const UNREADABLE_RETRIES: [u64; 3] = [5, 10, 20];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// A sealed lock file that is not written yet.
pub(super) struct NewLock {
    pub file: File,
    pub bytes: Bytes,
    pub stamp: Stamp,
}

/// A lock file of this process with the current time.
pub(super) fn seal(repo: &Repository, mode: LockMode) -> Result<NewLock> {
    let clock = &repo.settings().clock;
    let stamp = Stamp::now(clock);
    let (seconds, nanos) = clock.now();
    let lock = LockFile {
        time: Time::utc(seconds, nanos),
        exclusive: mode == LockMode::Exclusive,
        hostname: host::hostname(),
        username: host::username(),
        pid: i64::from(std::process::id()),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    };
    let json = lock.encode();
    let (file, bytes) = repo.seal_written(FileType::Lock, |out| out.write_all(&json))?;
    Ok(NewLock { file, bytes, stamp })
}

/// Lock files that do not conflict with ours, and our own one. A lock file never changes, because
/// its name is its hash.
#[derive(Default)]
pub(super) struct Harmless(HashSet<Id>);

impl Harmless {
    pub fn insert(&mut self, id: Id) {
        self.0.insert(id);
    }

    /// Fails if one of the `listed` locks conflicts with a lock of this mode. The files are read
    /// concurrently, because many movers may share a repository.
    pub fn look(
        &mut self,
        repo: &Repository,
        mode: LockMode,
        listed: Vec<(Id, u64)>,
        progress: &Progress,
    ) -> Result<()> {
        // An empty file is an upload that was cut short, of a process that has ended.
        let new = listed.into_iter().filter(|(id, size)| *size > 0 && !self.0.contains(id));
        let new: Vec<Id> = new.map(|(id, _)| id).collect();
        let read = side_by_side(repo.store().connections(), &new, |&id| read_patiently(repo, id, progress));
        for (id, lock) in new.into_iter().zip(read) {
            let Some(lock) = lock? else { continue };
            if mode == LockMode::Exclusive || lock.exclusive {
                return Err(Error::Locked { reason: describe(repo, &lock) });
            }
            self.insert(id);
        }
        Ok(())
    }
}

fn describe(repo: &Repository, lock: &LockFile) -> String {
    let LockFile { time, exclusive, hostname, username, pid, .. } = lock;
    let how = if *exclusive { "locked exclusively" } else { "locked" };
    let stale = if is_stale(repo, lock) { "; that lock is stale, `unlock` removes it" } else { "" };
    format!("repository is already {how} by PID {pid} on {hostname} by {username}, since {time}{stale}")
}

/// A lock file, or `None` if it was removed. A file that cannot be read may be half written: it is
/// read again several times before it counts as damaged.
fn read_patiently(repo: &Repository, id: Id, progress: &Progress) -> Result<Option<LockFile>> {
    let mut waits = UNREADABLE_RETRIES.iter();
    loop {
        let error = match read(repo, id) {
            Ok(lock) => return Ok(Some(lock)),
            Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
            Err(error) => error,
        };
        match waits.next() {
            Some(&seconds) => sleep(&repo.settings().clock, Duration::from_secs(seconds), progress)?,
            None => {
                let reason =
                    format!("{error}; if no other process uses the repository, `unlock --remove-all` removes it");
                return Err(Error::Locked { reason });
            }
        }
    }
}

fn read(repo: &Repository, id: Id) -> Result<LockFile> {
    let file = File::new(FileType::Lock, id);
    let json = repo.load_file(file)?;
    LockFile::decode(&json).map_err(|source| Error::Damaged { file, source })
}

/// Sleeps, unless interrupted.
pub(super) fn sleep(clock: &Clock, duration: Duration, progress: &Progress) -> Result<()> {
    /// The longest delay until an interruption is noticed.
    const STEP: Duration = Duration::from_millis(100);
    let end = clock.moment() + duration;
    loop {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let left = end.since(clock.moment());
        if left.is_zero() {
            return Ok(());
        }
        clock.sleep(left.min(STEP));
    }
}

/// Whether the process that wrote the lock has certainly ended, or has not refreshed it for half an
/// hour.
fn is_stale(repo: &Repository, lock: &LockFile) -> bool {
    let age = u64::try_from(repo.settings().clock.now().0.saturating_sub(lock.time.seconds)).unwrap_or(0);
    if Duration::from_secs(age) > STALE_AFTER {
        return true;
    }
    let pid = i32::try_from(lock.pid).ok().and_then(rustix::process::Pid::from_raw);
    lock.hostname == host::hostname()
        && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Which locks [`unlock`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocksToRemove {
    Stale,
    All,
}

/// Removes the locks of all processes on these hosts, also locks that are not stale: the caller
/// knows that the processes have ended. Returns the number of removed locks.
pub fn remove_locks_of(repo: &Repository, hosts: &[String]) -> Result<usize> {
    remove_locks(repo, |id| read(repo, id).is_ok_and(|lock| hosts.contains(&lock.hostname)))
}

/// Removes locks. Returns the number of removed locks.
pub fn unlock(repo: &Repository, which: LocksToRemove) -> Result<usize> {
    remove_locks(repo, |id| match which {
        LocksToRemove::All => true,
        LocksToRemove::Stale => read(repo, id).is_ok_and(|lock| is_stale(repo, &lock)),
    })
}

fn remove_locks(repo: &Repository, condemned: impl Fn(Id) -> bool) -> Result<usize> {
    let mut removed = 0;
    for (id, _) in repo.store().list(FileType::Lock)? {
        if condemned(id) {
            repo.store().remove(File::new(FileType::Lock, id))?;
            removed += 1;
        }
    }
    Ok(removed)
}
