//! [`Session`]: holds the locks of one run and handles signals.
//!
//! SIGINT and SIGTERM ask commands with an [`Orderly`] guard, such as a backup, a restore or a
//! check, to end in an orderly way. They end every other command at once, after its locks are
//! removed. A second signal ends the process immediately. SIGHUP is caught and ignored: restic
//! sends it to find out whether the process that holds a lock is alive.

use super::exit::exit_code;
use super::output::Output;
use super::password;
use crate::clock;
use crate::progress::Progress;
use crate::repo::{self, Lock};
use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Interval of the checks of the locks. A lock counts as lost only after many minutes without a
/// refresh.
const LOCK_WATCH: Duration = Duration::from_secs(5);

/// The state that commands share with the signal handler.
pub struct Session {
    progress: Arc<Progress>,
    /// The number of existing [`Orderly`] guards. While it is not 0, the command checks
    /// [`Progress::is_interrupted`] and ends by itself.
    orderly: AtomicUsize,
    /// One lock for each repository.
    locks: Mutex<Vec<Lock>>,
}

/// A guard by which the command promises to end soon after [`Progress::interrupt`]. Guards may
/// overlap.
pub struct Orderly<'s>(&'s Session);

impl Drop for Orderly<'_> {
    fn drop(&mut self) {
        self.0.orderly.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Session {
    /// Starts the signal handler.
    pub fn start(progress: Arc<Progress>, out: Arc<Output>) -> Result<Arc<Session>> {
        let session = Arc::new(Session::new(progress));
        watch_signals(session.clone(), out)?;
        Ok(session)
    }

    fn new(progress: Arc<Progress>) -> Session {
        Session { progress, orderly: AtomicUsize::new(0), locks: Mutex::default() }
    }

    /// While the guard exists, the first signal asks the command to end instead of ending it.
    pub fn orderly(&self) -> Orderly<'_> {
        self.orderly.fetch_add(1, Ordering::SeqCst);
        Orderly(self)
    }

    fn is_orderly(&self) -> bool {
        self.orderly.load(Ordering::SeqCst) > 0
    }

    /// Holds a lock until the session is closed. A failed refresh is a warning; the loss of a lock
    /// interrupts the run.
    pub fn keep(self: &Arc<Self>, lock: Lock) {
        let watched = {
            let mut locks = self.locks();
            locks.push(lock);
            locks.len() > 1
        };
        if watched {
            return;
        }
        let session = Arc::downgrade(self);
        std::thread::spawn(move || {
            while let Some(session) = session.upgrade() {
                session.warn_of_locks();
                match session.check() {
                    Some(Ok(())) => {}
                    Some(Err(_)) => return session.progress.interrupt(),
                    None => return,
                }
                drop(session);
                clock::sleep(LOCK_WATCH);
            }
        });
    }

    /// Fails if a lock was lost.
    pub fn check_lock(&self) -> repo::Result<()> {
        self.check().unwrap_or(Ok(()))
    }

    /// The outcome of a run. If a lost lock interrupted the run, the error is the loss.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        explained(outcome, self.check_lock().err())
    }

    /// Releases the locks, and returns the outcome of the run.
    pub fn close<T>(&self, outcome: Result<T>, out: &Output) -> Result<T> {
        self.warn_of_locks();
        let outcome = self.explained(outcome);
        let why = outcome.as_ref().err().and_then(|error| error.downcast_ref::<repo::Error>());
        for error in self.release() {
            match (error, why) {
                // The run ends with that error.
                (repo::Error::LockLost { .. }, Some(repo::Error::LockLost { .. } | repo::Error::Interrupted)) => {}
                (error @ repo::Error::LockLost { .. }, _) => out.warn(format_args!("error: {error}")),
                (error, _) => out.warn(format_args!("error: the lock could not be removed: {error}")),
            }
        }
        outcome
    }

    /// Prints the reasons of failed refreshes.
    fn warn_of_locks(&self) {
        let warnings: Vec<String> = self.locks().iter().flat_map(Lock::take_warnings).collect();
        warnings.iter().for_each(|warning| self.progress.warning(warning));
    }

    fn locks(&self) -> MutexGuard<'_, Vec<Lock>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if one of the locks was lost; `None` without locks.
    fn check(&self) -> Option<repo::Result<()>> {
        let locks = self.locks();
        (!locks.is_empty()).then(|| locks.iter().try_for_each(Lock::check))
    }

    /// Releases all locks, and returns the errors of those that could not be removed.
    fn release(&self) -> Vec<repo::Error> {
        let locks = std::mem::take(&mut *self.locks());
        locks.into_iter().filter_map(|lock| lock.release().err()).collect()
    }
}

fn explained<T>(outcome: Result<T>, lost: Option<repo::Error>) -> Result<T> {
    outcome.map_err(|error| match lost {
        Some(lost) if exit_code(&error) == repo::Error::Interrupted.exit_code() => lost.into(),
        Some(_) | None => error,
    })
}

fn watch_signals(session: Arc<Session>, out: Arc<Output>) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            if signal == SIGHUP {
                continue;
            }
            if session.progress.is_interrupted() {
                leave();
            }
            session.progress.interrupt();
            out.status("");
            out.warn("signal received, cleaning up; a second signal ends the program at once");
            if !session.is_orderly() {
                let session = session.clone();
                // In its own thread, so that a second signal is handled during the removal of the
                // locks.
                std::thread::spawn(move || {
                    drop(session.release());
                    leave();
                });
            }
        }
    });
    Ok(())
}

fn leave() -> ! {
    password::restore_terminal();
    std::process::exit(130)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_a_lost_lock_interrupted_reports_the_lost_lock() {
        let lost = || Some(repo::Error::LockLost { reason: "it was removed".into() });
        let text = |error: repo::Error, lost| {
            explained::<()>(Err(error.into()), lost).expect_err("an error stays one").to_string()
        };
        assert_eq!(text(repo::Error::Interrupted, lost()), "the lock is lost: it was removed");
        assert_eq!(text(repo::Error::Interrupted, None), "interrupted");
        assert!(text(repo::Error::EmptySnapshot, lost()).starts_with("snapshot is empty"));
        assert_eq!(explained(Ok(7), lost()).expect("no error"), 7);
    }

    #[test]
    fn a_run_is_orderly_until_the_last_of_nested_guards_is_dropped() {
        let session = Session::new(Arc::new(Progress::silent()));
        assert!(!session.is_orderly());
        let outer = session.orderly();
        drop(session.orderly());
        assert!(session.is_orderly());
        drop(outer);
        assert!(!session.is_orderly());
    }
}
