//! restic's locks: a small file that says who uses the repository, and whether alone.
//!
//! Taking one: look for conflicts, write the lock, wait until listings have it, look again; of two that race, at least one sees the
//! other. Holding one: a thread replaces the file every five minutes, because others take a lock older than 30 minutes for dead and
//! may remove it. Staleness does not matter when taking a lock: as in restic, a dead process's lock blocks until `unlock`.

use super::{Error, Repository, Result};
use crate::clock;
use crate::format::lock_file::LockFile;
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::progress::Progress;
use crate::store::{File, FileType, Store, StoreError};
use crossbeam_channel::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// restic's interval.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// A lock that was not refreshed for this long is given up: 30 minutes until others may remove it, less a margin for their clocks.
const LOST_AFTER: Duration = Duration::from_secs(22 * 60 + 30);
const STALE_AFTER_SECONDS: i64 = 30 * 60;
const UNREADABLE_RETRIES: [u64; 3] = [5, 10, 20];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// A lock held; released when dropped.
pub struct Lock {
    repo: Arc<Repository>,
    state: Arc<Mutex<Held>>,
    stop: Option<Sender<()>>,
    refresher: Option<JoinHandle<()>>,
}

/// The lock that an open repository has, if it has one.
#[derive(Default)]
pub(super) struct Holding(Mutex<Option<Arc<Mutex<Held>>>>);

impl Holding {
    fn set(&self, held: Option<Arc<Mutex<Held>>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// An error if there was a lock and somebody has removed it, as `unlock` does with one that looks dead: what others have done since then,
    /// nobody knows. Without any lock, that is how it was wanted.
    pub fn confirm(&self, store: &dyn Store) -> Result<()> {
        let Some(held) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &held.lost {
            return Err(Error::LockLost { reason: reason.clone() });
        }
        match store.size(File::new(FileType::Lock, held.id)) {
            Err(StoreError::NotFound { .. }) => {
                let reason = "somebody has removed it, and what others have done since then is not known".into();
                Err(Error::LockLost { reason })
            }
            other => Ok(other.map(|_| ())?),
        }
    }
}

pub(super) struct Held {
    id: Id,
    /// Why it is not held any more.
    lost: Option<String>,
}

impl Lock {
    /// Takes a lock; on a conflict tries again until `retry` has passed or `progress` is interrupted.
    pub fn acquire(repo: Arc<Repository>, mode: LockMode, retry: Duration, progress: &Progress) -> Result<Lock> {
        let deadline = Instant::now() + retry;
        let mut pause = Duration::from_secs(5);
        let id = loop {
            match try_acquire(&repo, mode, progress) {
                Err(Error::Locked { reason }) if Instant::now() < deadline => {
                    progress.warning(&format!("{reason}; waiting up to {} s for it", retry.as_secs()));
                    sleep(pause.min(deadline.saturating_duration_since(Instant::now())), progress)?;
                    pause = (pause * 2).min(Duration::from_secs(60));
                }
                outcome => break outcome?,
            }
        };
        let state = Arc::new(Mutex::new(Held { id, lost: None }));
        repo.holding.set(Some(state.clone()));
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (thread_repo, thread_state) = (repo.clone(), state.clone());
        let refresher = std::thread::spawn(move || {
            let mut refreshed = Instant::now();
            while stopped.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                if refresh(&thread_repo, mode, &thread_state, &mut refreshed).is_break() {
                    break;
                }
            }
        });
        Ok(Lock { repo, state, stop: Some(stop), refresher: Some(refresher) })
    }

    /// An error if the lock is not held any more: then nothing may be written.
    pub fn check(&self) -> Result<()> {
        match &self.held().lost {
            Some(reason) => Err(Error::LockLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Releases the lock and says if that failed.
    pub fn release(mut self) -> Result<()> {
        self.stop_and_remove()
    }

    fn stop_and_remove(&mut self) -> Result<()> {
        self.stop = None;
        let Some(refresher) = self.refresher.take() else { return Ok(()) };
        let panicked = refresher.join().is_err();
        self.repo.holding.set(None);
        self.repo.store().remove(File::new(FileType::Lock, self.held().id))?;
        if panicked {
            return Err(Error::LockLost { reason: "its refreshing failed".into() });
        }
        self.check()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever cares calls `release`; on the way out of an error, that error matters more.
        let _ = self.stop_and_remove();
    }
}

/// Sleeps, unless interrupted.
fn sleep(duration: Duration, progress: &Progress) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        match end.checked_duration_since(Instant::now()) {
            Some(left) => std::thread::sleep(left.min(Duration::from_millis(100))),
            None => return Ok(()),
        }
    }
}

fn try_acquire(repo: &Repository, mode: LockMode, progress: &Progress) -> Result<Id> {
    check_conflicts(repo, mode, None, progress)?;
    let id = write(repo, mode)?;
    std::thread::sleep(repo.store().settles_after());
    if let Err(error) = check_conflicts(repo, mode, Some(id), progress) {
        repo.store().remove(File::new(FileType::Lock, id))?;
        return Err(error);
    }
    Ok(id)
}

fn write(repo: &Repository, mode: LockMode) -> Result<Id> {
    let (seconds, nanos) = clock::now();
    let lock = LockFile {
        time: Time::utc(seconds, nanos),
        exclusive: mode == LockMode::Exclusive,
        hostname: host::hostname(),
        username: host::username(),
        pid: i64::from(std::process::id()),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    };
    repo.save_file(FileType::Lock, lock.encode())
}

/// An error if another lock excludes one of this mode.
fn check_conflicts(repo: &Repository, mode: LockMode, own: Option<Id>, progress: &Progress) -> Result<()> {
    for (id, size) in repo.store().list(FileType::Lock)? {
        // An empty file is an upload that was cut short, of a process that did not go on.
        if Some(id) == own || size == 0 {
            continue;
        }
        let Some(lock) = read_patiently(repo, id, progress)? else { continue };
        if mode == LockMode::Exclusive || lock.exclusive {
            return Err(Error::Locked { reason: describe(&lock) });
        }
    }
    Ok(())
}

fn describe(lock: &LockFile) -> String {
    let LockFile { time, exclusive, hostname, username, pid, .. } = lock;
    let how = if *exclusive { "locked exclusively" } else { "locked" };
    let stale = if is_stale(lock) { "; that lock is stale, `unlock` removes it" } else { "" };
    format!("repository is already {how} by PID {pid} on {hostname} by {username}, since {time}{stale}")
}

/// A lock file, or `None` if it is gone. One that cannot be read may be half written: it is given time before it counts as damaged.
fn read_patiently(repo: &Repository, id: Id, progress: &Progress) -> Result<Option<LockFile>> {
    let mut waits = UNREADABLE_RETRIES.iter();
    loop {
        let error = match read(repo, id) {
            Ok(lock) => return Ok(Some(lock)),
            Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
            Err(error) => error,
        };
        match waits.next() {
            Some(&seconds) => sleep(Duration::from_secs(seconds), progress)?,
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

/// Replaces the lock file by a new one. `Break`: the lock is lost.
fn refresh(
    repo: &Repository,
    mode: LockMode,
    state: &Mutex<Held>,
    refreshed: &mut Instant,
) -> std::ops::ControlFlow<()> {
    let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
    let old = File::new(FileType::Lock, held.id);
    let overdue = refreshed.elapsed() > LOST_AFTER;
    let outcome = (|| {
        // A new one in the place of one that somebody has removed would hide that there was none for a while.
        repo.store().size(old)?;
        let new = write(repo, mode)?;
        if overdue {
            std::thread::sleep(repo.store().settles_after());
            repo.store().size(old)?;
        }
        Ok::<Id, Error>(new)
    })();
    match outcome {
        Ok(new) => {
            held.id = new;
            *refreshed = Instant::now();
            // A lock file too many only blocks others until it is stale; one too few would let them in.
            let _ = repo.store().remove(old);
        }
        Err(error) if overdue || matches!(error, Error::Store(StoreError::NotFound { .. })) => {
            held.lost = Some(format!("it could not be refreshed, and another process may have removed it: {error}"));
            return std::ops::ControlFlow::Break(());
        }
        Err(_) => {}
    }
    std::ops::ControlFlow::Continue(())
}

/// Whether the process that wrote the lock is certainly gone, or has not refreshed it for half an hour.
fn is_stale(lock: &LockFile) -> bool {
    if clock::now().0 - lock.time.seconds > STALE_AFTER_SECONDS {
        return true;
    }
    let pid = i32::try_from(lock.pid).ok().and_then(rustix::process::Pid::from_raw);
    lock.hostname == host::hostname()
        && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Removes the locks of processes on these hosts, which the caller knows to have ended, however fresh they are. Returns how many.
pub fn remove_locks_of(repo: &Repository, hosts: &[String]) -> Result<usize> {
    remove_locks(repo, |id| read(repo, id).is_ok_and(|lock| hosts.contains(&lock.hostname)))
}

/// Removes stale locks, or all of them. Returns how many were removed.
pub fn unlock(repo: &Repository, all: bool) -> Result<usize> {
    remove_locks(repo, |id| all || read(repo, id).is_ok_and(|lock| is_stale(&lock)))
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
