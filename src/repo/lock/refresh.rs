//! Replaces the lock file before other processes consider it stale.
//!
//! A refresh checks that the old file still exists, writes a new one, waits until listings show it,
//! and checks the old file again; only then does the new file replace the old one, which is
//! removed. So at every moment a listing shows a file of this lock, or the loss is noticed: if a
//! new file replaced one that another process had removed, it would hide that the repository was
//! not locked for a while.
//!
//! [`decide`] is the policy, without I/O. [`Refresher`] carries it out.

use super::file::{LockMode, NewLock, seal};
use super::policy::{Event, LOST_AFTER, Look, Loss, Step, decide};
use super::state::{REMOVED, State};
use crate::clock::Clock;
use crate::repo::error::Error;
use crate::repo::repository::Repository;
use crate::store::{File, FileType, StoreError};
use crate::sync::lock;
use crossbeam_channel::Receiver;
use std::convert::Infallible;
use std::error::Error as _;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Interval between checks of the lock's age; short, so that one follows soon after a suspended
/// machine wakes up.
const TICK: Duration = Duration::from_secs(5);

/// Keeps one lock fresh.
pub(super) struct Refresher {
    repo: Arc<Repository>,
    mode: LockMode,
    state: Arc<Mutex<State>>,
}

impl Refresher {
    pub fn new(repo: Arc<Repository>, mode: LockMode, state: Arc<Mutex<State>>) -> Refresher {
        Refresher { repo, mode, state }
    }

    /// Refreshes the lock until it is released or lost.
    pub fn run(self, stop: &Receiver<Infallible>) {
        let _report = ReportPanic(&self.state);
        while !self.clock().wait(stop, TICK) {
            if self.tick().is_break() {
                break;
            }
        }
    }

    /// Refreshes the lock if that is due. `Break`: the lock is released or lost.
    pub fn tick(&self) -> ControlFlow<()> {
        let clock = self.clock();
        let (old, stamp, since_failure) = {
            let state = lock(&self.state);
            if state.released || state.lost.is_some() {
                return Break(());
            }
            (file(state.current), state.stamp, state.failed.map(|at| clock.moment().since(at)))
        };
        let mut event = Event::Tick { wall_jump: stamp.wall_jump(clock), since_failure };
        let mut new: Option<NewLock> = None;
        let mut error = None;
        loop {
            event = match decide(event, stamp.age(clock)) {
                Step::Wait => return Continue(()),
                Step::LookForOld => {
                    lock(&self.state).refreshing = Some(clock.moment());
                    Event::FirstLook(self.look(old, &mut error))
                }
                Step::WriteNew => match self.write(&mut new) {
                    Ok(()) => Event::Written,
                    Err(failure) => {
                        error = Some(failure);
                        Event::WriteFailed
                    }
                },
                Step::LookAgain => {
                    clock.sleep(self.repo.store().settles_after());
                    let old = self.look(old, &mut error);
                    let age_of_new = new.as_ref().map_or(Duration::MAX, |new| new.stamp.age(clock));
                    Event::SecondLook { old, age_of_new }
                }
                Step::Replace => return self.replace(new),
                Step::Fail => return self.fail(new, error, stamp.age(clock)),
                Step::GiveUp(loss) => {
                    let reason = match (loss, &error) {
                        (Loss::Removed, _) => REMOVED.to_owned(),
                        (Loss::Overdue, error) => format!(
                            "it could not be refreshed for {} s, and another process may have removed it: {}",
                            stamp.age(clock).as_secs(),
                            reason(error.as_ref())
                        ),
                    };
                    lock(&self.state).lose(reason);
                    return self.end(new, error);
                }
            };
            let is_over = {
                let state = lock(&self.state);
                state.released || state.lost.is_some()
            };
            if is_over {
                return self.end(new, error);
            }
        }
    }

    fn clock(&self) -> &Clock {
        &self.repo.settings().clock
    }

    fn look(&self, file: File, error: &mut Option<Error>) -> Look {
        match self.repo.store().size(file) {
            Ok(_) => Look::Present,
            Err(StoreError::NotFound { .. }) => Look::Missing,
            Err(failure) => {
                *error = Some(failure.into());
                Look::Unknown
            }
        }
    }

    /// Writes a new lock file. Records its name in the state first, because the store's answer may
    /// be lost.
    fn write(&self, new: &mut Option<NewLock>) -> Result<(), Error> {
        let sealed = seal(&self.repo, self.mode)?;
        let (file, bytes) = (sealed.file, sealed.bytes.clone());
        lock(&self.state).others.push(file.id);
        *new = Some(sealed);
        Ok(self.repo.store().write(file, bytes)?)
    }

    fn replace(&self, new: Option<NewLock>) -> ControlFlow<()> {
        let Some(new) = new else { return Continue(()) };
        let is_over = {
            let mut state = lock(&self.state);
            let is_over = state.released || state.lost.is_some();
            if !is_over {
                let old = std::mem::replace(&mut state.current, new.file.id);
                state.stamp = new.stamp;
                state.others.retain(|id| *id != new.file.id);
                state.others.push(old);
                (state.refreshing, state.failed) = (None, None);
            }
            is_over
        };
        if is_over {
            return self.end(Some(new), None);
        }
        self.remove_others();
        Continue(())
    }

    fn fail(&self, new: Option<NewLock>, error: Option<Error>, age: Duration) -> ControlFlow<()> {
        {
            let mut state = lock(&self.state);
            state.failed = Some(self.clock().moment());
            state.warnings.push(format!(
                "the lock of {} could not be refreshed: {}; it is given up in {} s unless a later attempt succeeds",
                self.repo.store().location(),
                reason(error.as_ref()),
                LOST_AFTER.saturating_sub(age).as_secs()
            ));
        }
        self.discard(new, error);
        lock(&self.state).refreshing = None;
        Continue(())
    }

    /// Ends a refresh after the lock was released or lost: its new file is removed.
    fn end(&self, new: Option<NewLock>, error: Option<Error>) -> ControlFlow<()> {
        self.discard(new, error);
        lock(&self.state).refreshing = None;
        Break(())
    }

    /// Removes a new lock file that is not needed. If the store's retries were just exhausted, the
    /// next refresh or the release removes it.
    fn discard(&self, new: Option<NewLock>, error: Option<Error>) {
        let given_up = matches!(&error, Some(Error::Store(error)) if error.is_given_up());
        if new.is_some() && !given_up {
            self.remove_others();
        }
    }

    /// Removes all files of this lock but the current one. A file that cannot be removed stays
    /// recorded.
    fn remove_others(&self) {
        let others = lock(&self.state).others.clone();
        for id in others {
            let removed = self.repo.store().remove(file(id));
            let mut state = lock(&self.state);
            match removed {
                Ok(()) => state.others.retain(|other| *other != id),
                Err(error) => state.warnings.push(format!(
                    "lock file {id} of this process could not be removed, and its removal will be retried: {error}"
                )),
            }
        }
    }
}

/// Marks the lock as lost if the refresher panics, because nothing refreshes it any more.
struct ReportPanic<'s>(&'s Mutex<State>);

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.0).lose("the thread that refreshes it panicked".to_owned());
        }
    }
}

fn file(id: crate::id::Id) -> File {
    File::new(FileType::Lock, id)
}

fn reason(error: Option<&Error>) -> String {
    let Some(error) = error else { return "the store took too long".to_owned() };
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
