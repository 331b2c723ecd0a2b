//! restic's locks: a small file that says which process uses the repository, and whether
//! exclusively.
//!
//! Acquiring a lock: look for conflicts, write the lock file, wait until listings have it, look
//! again; of two processes that race, at least one sees the other's file. The first look only
//! spares others a lock file that is removed again, so that it may be old: it is made while the
//! repository is opened ([`Repository::open_to_lock`]). Two processes that begin within that time
//! see each other in the second look only, and both give way, as they may with restic. Nothing that the lock protects is read
//! before the second look has been answered. A `prune` whose own second look missed our lock is
//! either still seen by ours, or it has ended before; but an index listed side by side with our
//! second look may be the one that it was replacing at that moment. Holding it: a thread
//! replaces the file every five minutes ([`refresh`]), because others take a lock older than 30
//! minutes for dead and may remove it. A stale lock still blocks: as in restic, only `unlock`
//! removes it.
//!
//! [`State`] is what the threads of this process know of the lock. Its mutex is never held during a
//! call to the store, so that a store that stalls delays no check and no release.

mod file;
mod refresh;
#[cfg(test)]
mod tests;

pub use file::{remove_locks_of, unlock};

use super::{Error, Repository, Result};
use crate::clock::{Clock, Moment};
use crate::id::Id;
use crate::progress::Progress;
use crate::store::{self, File, FileType, Store, StoreError};
use crate::sync::lock;
use crossbeam_channel::{Receiver, Sender};
use file::{Harmless, Stamp, seal, sleep};
use refresh::Refresher;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time that a release gives a refresh to end by itself. One that stalls in the store is left
/// to remove its own file when it comes back.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

const REMOVED: &str = "another process has removed it, and may have changed the repository since then";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// A lock held; released when dropped.
pub struct Lock {
    repo: Arc<Repository>,
    state: Arc<Mutex<State>>,
    thread: Option<RefreshThread>,
}

struct RefreshThread {
    stop: Sender<Infallible>,
    /// Its sender is dropped when the thread ends.
    ended: Receiver<Infallible>,
    handle: JoinHandle<()>,
}

/// A listing of the lock files.
type Listing = store::Result<Vec<(Id, u64)>>;

/// What an open repository knows of its lock.
#[derive(Default)]
pub(super) struct Holding {
    state: Mutex<Option<Arc<Mutex<State>>>>,
    /// The first look of the next acquisition, made while the repository was opened.
    first_look: Mutex<Option<Listing>>,
}

impl Holding {
    fn set(&self, state: Arc<Mutex<State>>) {
        *lock(&self.state) = Some(state);
    }

    pub fn set_first_look(&self, locks: Listing) {
        *lock(&self.first_look) = Some(locks);
    }

    fn take_first_look(&self) -> Option<Listing> {
        lock(&self.first_look).take()
    }

    /// An error if there was a lock and another process has removed it, as `unlock` does with one
    /// that looks dead, or if this process has released it. A repository that was never locked has
    /// no lock to lose.
    pub fn confirm(&self, store: &dyn Store, clock: &Clock) -> Result<()> {
        let Some(state) = lock(&self.state).clone() else { return Ok(()) };
        loop {
            let id = {
                let mut state = lock(&state);
                if state.released {
                    return Err(Error::LockLost { reason: "this process has released it".to_owned() });
                }
                state.confirm_held(clock)?;
                state.current
            };
            match store.size(File::new(FileType::Lock, id)) {
                Ok(_) => return Ok(()),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let mut state = lock(&state);
            // A refresh that replaced the file in the meantime has removed it, too.
            if state.current == id {
                state.lose(REMOVED.to_owned());
            }
        }
    }
}

/// What is known of a lock.
struct State {
    /// The lock file that others are to see.
    current: Id,
    stamp: Stamp,
    /// More files of this lock that may be in the store: one that is being written, and those whose
    /// removal failed.
    others: Vec<Id>,
    /// Since when a refresh is under way.
    refreshing: Option<Moment>,
    /// When the last refresh ended, if it failed.
    failed: Option<Moment>,
    /// Not yet shown to the user.
    warnings: Vec<String>,
    /// Why it is not held any more.
    lost: Option<String>,
    /// By this process.
    released: bool,
}

impl State {
    fn new(current: Id, stamp: Stamp) -> State {
        State {
            current,
            stamp,
            others: Vec::new(),
            refreshing: None,
            failed: None,
            warnings: Vec::new(),
            lost: None,
            released: false,
        }
    }

    fn lose(&mut self, reason: String) {
        self.lost.get_or_insert(reason);
    }

    /// An error if the lock is lost, which it also is when its refresh stalls for too long.
    fn confirm_held(&mut self, clock: &Clock) -> Result<()> {
        if let Some(start) = self.refreshing {
            let (age, running) = (self.stamp.age(clock), clock.moment().since(start));
            if refresh::is_overdue(age, running) {
                self.lose(format!(
                    "the store has not answered its refresh for {} s, and another process may have removed it",
                    running.as_secs()
                ));
            }
        }
        match &self.lost {
            Some(reason) => Err(Error::LockLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

impl Lock {
    /// Acquires a lock; on a conflict tries again until `retry` has passed or `progress` is
    /// interrupted.
    pub fn acquire(repo: Arc<Repository>, mode: LockMode, retry: Duration, progress: &Progress) -> Result<Lock> {
        let clock = repo.settings().clock.clone();
        let deadline = clock.moment() + retry;
        let mut pause = Duration::from_secs(5);
        let (id, stamp) = loop {
            match try_acquire(&repo, mode, progress) {
                Err(Error::Locked { reason }) if clock.moment() < deadline => {
                    progress.warning(&format!("{reason}; waiting up to {} s for it", retry.as_secs()));
                    sleep(&clock, pause.min(deadline.since(clock.moment())), progress)?;
                    pause = (pause * 2).min(Duration::from_secs(60));
                }
                outcome => break outcome?,
            }
        };
        let state = Arc::new(Mutex::new(State::new(id, stamp)));
        repo.holding.set(state.clone());
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (alive, ended) = crossbeam_channel::bounded(0);
        let refresher = Refresher::new(repo.clone(), mode, state.clone());
        let spawned = std::thread::Builder::new().spawn(move || {
            let _alive: Sender<Infallible> = alive;
            refresher.run(&stopped);
        });
        let handle = match spawned {
            Ok(handle) => handle,
            Err(error) => {
                repo.store().remove(File::new(FileType::Lock, id))?;
                return Err(Error::Thread { purpose: "refreshes the lock", source: error });
            }
        };
        Ok(Lock { repo, state, thread: Some(RefreshThread { stop, ended, handle }) })
    }

    /// An error if the lock is not held any more: then nothing may be written.
    pub fn check(&self) -> Result<()> {
        lock(&self.state).confirm_held(&self.repo.settings().clock)
    }

    /// What went wrong with refreshing it since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).warnings)
    }

    /// Releases the lock; an error if that failed or if the lock was lost.
    pub fn release(mut self) -> Result<()> {
        self.stop_and_remove()
    }

    fn stop_and_remove(&mut self) -> Result<()> {
        let Some(RefreshThread { stop, ended, handle }) = self.thread.take() else { return Ok(()) };
        lock(&self.state).released = true;
        drop(stop);
        let has_ended = self.repo.settings().clock.wait(&ended, RELEASE_WAIT);
        let panicked = has_ended && handle.join().is_err();
        let files = {
            let state = lock(&self.state);
            let mut files = vec![state.current];
            files.extend(&state.others);
            files
        };
        let mut removed = Ok(());
        for id in files {
            removed = removed.and(self.repo.store().remove(File::new(FileType::Lock, id)));
        }
        removed?;
        if panicked {
            return Err(Error::LockLost { reason: "the thread that refreshes it panicked".to_owned() });
        }
        self.check()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A caller that needs the outcome calls `release`; on the way out of an error, that error
        // matters more.
        let _ = self.stop_and_remove();
    }
}

fn try_acquire(repo: &Repository, mode: LockMode, progress: &Progress) -> Result<(Id, Stamp)> {
    let list = || repo.store().list(FileType::Lock);
    let first = repo.holding.take_first_look().unwrap_or_else(list)?;
    let mut harmless = Harmless::default();
    harmless.look(repo, mode, first, progress)?;
    let new = seal(repo, mode)?;
    if let Err(error) = repo.store().write(new.file, new.bytes) {
        // It may be in the store all the same. If the store has not answered for all its patience,
        // a removal would only wait as long again.
        if !error.is_given_up() {
            repo.store().remove(new.file)?;
        }
        return Err(error.into());
    }
    repo.settings().clock.sleep(repo.store().settles_after());
    harmless.insert(new.file.id);
    let second = list().map_err(Error::from);
    if let Err(error) = second.and_then(|locks| harmless.look(repo, mode, locks, progress)) {
        repo.store().remove(new.file)?;
        return Err(error);
    }
    Ok((new.file.id, new.stamp))
}
