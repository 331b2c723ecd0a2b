//! Acquires, holds and releases a lock of a repository.

use super::file::{Harmless, LockMode, seal, sleep};
use super::refresh::Refresher;
use super::state::{Stamp, State};
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::error::{Error, Result};
use crate::repo::repository::Repository;
use crate::store::{File, FileType};
use crate::sync::lock;
use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time that a release waits for a running refresh. A refresh that stalls in the store removes its
/// own file when the store answers.
pub(super) const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// A lock that is held; it is released when dropped.
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

    /// Fails if the lock is not held any more: then nothing may be written.
    pub fn check(&self) -> Result<()> {
        lock(&self.state).confirm_held(&self.repo.settings().clock)
    }

    /// The warnings of its refreshes since the last call.
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
        // A caller that needs the outcome calls `release`; after an error, that error matters more.
        let _ = self.stop_and_remove();
    }
}

pub(super) fn try_acquire(repo: &Repository, mode: LockMode, progress: &Progress) -> Result<(Id, Stamp)> {
    let list = || repo.store().list(FileType::Lock);
    let first = repo.holding.take_first_look().unwrap_or_else(list)?;
    let mut harmless = Harmless::default();
    harmless.look(repo, mode, first, progress)?;
    let new = seal(repo, mode)?;
    if let Err(error) = repo.store().write(new.file, new.bytes) {
        // The file may be in the store nevertheless. If the store's retries are exhausted, a
        // removal would only wait as long again.
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
