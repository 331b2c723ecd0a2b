//! The state of this process's lock, which its threads share: the lock file that other processes
//! see, its age, and whether the lock is still held.
//!
//! The mutex of a [`State`] is never held during a call to the store, so that a store that stalls
//! delays no check and no release.

use super::policy::is_overdue;
use crate::clock::{Clock, Moment};
use crate::id::Id;
use crate::repo::error::{Error, Result};
use crate::store::{self, File, FileType, Store, StoreError};
use crate::sync::lock;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(super) const REMOVED: &str = "another process has removed it, and may have changed the repository since then";

/// When the time stamp of a lock file was taken, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    moment: Moment,
    /// Seconds since 1970-01-01 UTC.
    wall: i64,
}

impl Stamp {
    pub fn now(clock: &Clock) -> Stamp {
        Stamp { moment: clock.moment(), wall: clock.now().0 }
    }

    /// The age of the lock file, as another process may see it. If this machine's wall clock was
    /// set in the meantime, either of its times may be the right one: the older age counts.
    pub fn age(&self, clock: &Clock) -> Duration {
        let by_wall = u64::try_from(clock.now().0.saturating_sub(self.wall)).unwrap_or(0);
        clock.moment().since(self.moment).max(Duration::from_secs(by_wall))
    }

    /// The distance that the wall clock was set by since then, in either direction.
    pub fn wall_jump(&self, clock: &Clock) -> Duration {
        let passed = i64::try_from(clock.moment().since(self.moment).as_secs()).unwrap_or(i64::MAX);
        Duration::from_secs(clock.now().0.saturating_sub(self.wall).abs_diff(passed))
    }
}

/// A listing of the lock files.
type Listing = store::Result<Vec<(Id, u64)>>;

/// The lock of an open repository, if it has been locked.
#[derive(Default)]
pub(in crate::repo) struct Holding {
    state: Mutex<Option<Arc<Mutex<State>>>>,
    /// The first look of the next acquisition, made while the repository was opened.
    first_look: Mutex<Option<Listing>>,
}

impl Holding {
    pub(super) fn set(&self, state: Arc<Mutex<State>>) {
        *lock(&self.state) = Some(state);
    }

    pub fn set_first_look(&self, locks: Listing) {
        *lock(&self.first_look) = Some(locks);
    }

    pub(super) fn take_first_look(&self) -> Option<Listing> {
        lock(&self.first_look).take()
    }

    /// Fails if the lock is lost, for example because another process removed it with `unlock` as
    /// stale, or if this process has released it. Succeeds if the repository was never locked.
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
            // If a refresh has replaced the file in the meantime, the new file is checked next.
            if state.current == id {
                state.lose(REMOVED.to_owned());
            }
        }
    }
}

/// The state of a lock.
pub(super) struct State {
    /// The lock file that other processes are to see.
    pub current: Id,
    pub stamp: Stamp,
    /// More files of this lock that may be in the store: one that is being written, and those whose
    /// removal failed.
    pub others: Vec<Id>,
    /// The start of the running refresh.
    pub refreshing: Option<Moment>,
    /// The end of the last refresh, if it failed.
    pub failed: Option<Moment>,
    /// Warnings that have not been shown to the user.
    pub warnings: Vec<String>,
    /// Why the lock is not held any more.
    pub lost: Option<String>,
    /// Whether this process has released the lock.
    pub released: bool,
}

impl State {
    pub fn new(current: Id, stamp: Stamp) -> State {
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

    pub fn lose(&mut self, reason: String) {
        self.lost.get_or_insert(reason);
    }

    /// Fails if the lock is lost. A refresh that stalls for too long loses it, too.
    pub fn confirm_held(&mut self, clock: &Clock) -> Result<()> {
        if let Some(start) = self.refreshing {
            let (age, running) = (self.stamp.age(clock), clock.moment().since(start));
            if is_overdue(age, running) {
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
