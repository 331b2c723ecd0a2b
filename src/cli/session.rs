//! One run of the program: what its parts share, and what a signal does to it.
//!
//! SIGINT and SIGTERM ask a running backup, restore or check to end in good order, and end everything else at once, but never
//! without removing our lock; a second signal ends the process where it stands. SIGHUP is taken and ignored: restic sends it to
//! find out whether the process that holds a lock is alive.

use super::args::Global;
use super::exit::{Outcome, exit_code};
use super::output::Output;
use super::{limits, password, progress, render};
use crate::clock;
use crate::progress::Progress;
use crate::repo::{self, Lock};
use crate::store::traffic::{Account, Traffic};
use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether the lock is still held; it is given up only when it was not refreshed for many minutes.
const LOCK_WATCH: Duration = Duration::from_secs(5);

/// What every command gets.
pub struct Context {
    pub global: Global,
    pub out: Arc<Output>,
    pub progress: Arc<Progress>,
    /// Of all stores that the run opens.
    pub traffic: Arc<Traffic>,
    session: Arc<Session>,
}

/// What the signal handler needs to know.
struct Session {
    progress: Arc<Progress>,
    /// The number of [`Orderly`] guards that live: while there is one, the command looks at
    /// [`Progress::is_interrupted`] and ends by itself.
    orderly: AtomicUsize,
    /// One for each repository.
    locks: Mutex<Vec<Lock>>,
}

/// While it lives, the command promises to end soon after [`Progress::interrupt`]. Guards may
/// overlap.
pub struct Orderly<'c>(&'c Session);

impl Drop for Orderly<'_> {
    fn drop(&mut self) {
        self.0.orderly.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Context {
    pub fn new(global: Global) -> Result<Context> {
        let verbosity = global.output.verbosity().map_err(anyhow::Error::msg)?;
        let out = Arc::new(Output::new(global.output.format(), verbosity));
        let sink = progress::sink(out.clone());
        let progress = Progress::new(sink);
        let progress = Arc::new(if verbosity >= 3 { progress.with_items() } else { progress });
        let session = Arc::new(Session::new(progress.clone()));
        watch_signals(session.clone(), out.clone())?;
        let traffic = limits::start(&global.traffic, &out);
        Ok(Context { global, out, progress, traffic, session })
    }

    /// The same run with other options.
    pub fn with(&self, global: Global) -> Context {
        let Context { out, progress, traffic, session, .. } = self;
        let (out, progress, traffic, session) = (out.clone(), progress.clone(), traffic.clone(), session.clone());
        Context { global, out, progress, traffic, session }
    }

    /// Makes the first signal a request instead of the end.
    pub fn orderly(&self) -> Orderly<'_> {
        self.session.orderly()
    }

    /// Keeps a lock until the end of the run. A refresh that fails is a warning; if a lock is lost,
    /// the run is interrupted.
    pub fn keep(&self, lock: Lock) {
        let watched = {
            let mut locks = self.session.locks();
            locks.push(lock);
            locks.len() > 1
        };
        if watched {
            return;
        }
        let session = Arc::downgrade(&self.session);
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

    /// An error if a lock was lost: whatever is written from now on could be removed by others.
    pub fn check_lock(&self) -> repo::Result<()> {
        self.session.check().unwrap_or(Ok(()))
    }

    /// What the run has cost so far, which is all but the removal of its locks; `None` if it asked no bucket for anything, as folders are not counted.
    pub fn cost(&self) -> Option<Account> {
        Some(self.traffic.account()).filter(|account| account.requests() > 0)
    }

    /// Tells [`Context::cost`].
    pub fn note_cost(&self) -> Result<()> {
        let Some(Account { puts, gets, lists, heads, deletes, others, bytes_sent, bytes_received }) = self.cost()
        else {
            return Ok(());
        };
        let kinds = [
            (puts, "puts"),
            (gets, "gets"),
            (lists, "lists"),
            (heads, "heads"),
            (deletes, "deletes"),
            (others, "others"),
        ];
        let counts: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        let (sent, received) = (render::bytes(bytes_sent), render::bytes(bytes_received));
        let counts = counts.join(", ");
        Ok(self.out.note(format_args!("requests: {counts}; {sent} sent, {received} received"))?)
    }

    /// Ends the run: the lock is released, and all output is out.
    pub fn close(self, outcome: Result<Outcome>) -> Result<Outcome> {
        self.session.warn_of_locks();
        let outcome = self.explained(outcome);
        let why = outcome.as_ref().err().and_then(|error| error.downcast_ref::<repo::Error>());
        for error in self.session.release() {
            match (error, why) {
                // The run ends with that error.
                (repo::Error::LockLost { .. }, Some(repo::Error::LockLost { .. } | repo::Error::Interrupted)) => {}
                (error @ repo::Error::LockLost { .. }, _) => self.out.warn(format_args!("error: {error}")),
                (error, _) => self.out.warn(format_args!("error: the lock could not be removed: {error}")),
            }
        }
        let flushed = self.out.flush();
        let outcome = outcome?;
        flushed?;
        Ok(outcome)
    }

    /// The outcome of a run; of one that was interrupted because it lost its lock, that loss.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        explained(outcome, self.check_lock().err())
    }
}

fn explained<T>(outcome: Result<T>, lost: Option<repo::Error>) -> Result<T> {
    outcome.map_err(|error| match lost {
        Some(lost) if exit_code(&error) == repo::Error::Interrupted.exit_code() => lost.into(),
        Some(_) | None => error,
    })
}

impl Session {
    fn new(progress: Arc<Progress>) -> Session {
        Session { progress, orderly: AtomicUsize::new(0), locks: Mutex::default() }
    }

    fn orderly(&self) -> Orderly<'_> {
        self.orderly.fetch_add(1, Ordering::SeqCst);
        Orderly(self)
    }

    fn is_orderly(&self) -> bool {
        self.orderly.load(Ordering::SeqCst) > 0
    }

    /// Reports what went wrong with refreshing the locks.
    fn warn_of_locks(&self) {
        let warnings: Vec<String> = self.locks().iter().flat_map(Lock::take_warnings).collect();
        warnings.iter().for_each(|warning| self.progress.warning(warning));
    }

    fn locks(&self) -> MutexGuard<'_, Vec<Lock>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all locks are held; `None` without any.
    fn check(&self) -> Option<repo::Result<()>> {
        let locks = self.locks();
        (!locks.is_empty()).then(|| locks.iter().try_for_each(Lock::check))
    }

    /// Releases all locks; what went wrong with that.
    fn release(&self) -> Vec<repo::Error> {
        let locks = std::mem::take(&mut *self.locks());
        locks.into_iter().filter_map(|lock| lock.release().err()).collect()
    }
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
            out.warn("signal received, cleaning up; another one ends this at once");
            if !session.is_orderly() {
                let session = session.clone();
                // In a thread of its own, so that a second signal is heard while the lock is being removed.
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
    fn a_run_that_was_interrupted_because_its_lock_was_lost_reports_the_lock() {
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
