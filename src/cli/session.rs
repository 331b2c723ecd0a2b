//! One run of the program: what its parts share, and what a signal does to it.
//!
//! SIGINT and SIGTERM ask a running backup, restore or check to end in good order, and end everything else at once, but never
//! without removing our lock; a second signal ends the process where it stands. SIGHUP is taken and ignored: restic sends it to
//! find out whether the process that holds a lock is alive.

use super::args::Global;
use super::exit::{Outcome, exit_code};
use super::output::Output;
use super::{password, progress};
use crate::progress::Progress;
use crate::repo::{self, Lock};
use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether the lock is still held; it is given up only when it was not refreshed for many minutes.
const LOCK_WATCH: Duration = Duration::from_secs(5);

/// What every command gets.
pub struct Context {
    pub global: Global,
    pub out: Arc<Output>,
    pub progress: Arc<Progress>,
    session: Arc<Session>,
}

/// What the signal handler needs to know.
struct Session {
    progress: Arc<Progress>,
    /// The command looks at [`Progress::is_interrupted`] and ends by itself.
    orderly: AtomicBool,
    lock: Mutex<Option<Lock>>,
}

/// While it lives, the command promises to end soon after [`Progress::interrupt`].
pub struct Orderly<'c>(&'c Session);

impl Drop for Orderly<'_> {
    fn drop(&mut self) {
        self.0.orderly.store(false, Ordering::SeqCst);
    }
}

impl Context {
    pub fn new(global: Global) -> Result<Context> {
        let verbosity = global.verbosity().map_err(anyhow::Error::msg)?;
        let out = Arc::new(Output::new(global.json, verbosity));
        let sink = progress::sink(out.clone());
        let progress = Progress::new(sink);
        let progress = Arc::new(if verbosity >= 3 { progress.with_items() } else { progress });
        let session =
            Arc::new(Session { progress: progress.clone(), orderly: AtomicBool::new(false), lock: Mutex::new(None) });
        watch_signals(session.clone(), out.clone())?;
        Ok(Context { global, out, progress, session })
    }

    /// Makes the first signal a request instead of the end.
    pub fn orderly(&self) -> Orderly<'_> {
        self.session.orderly.store(true, Ordering::SeqCst);
        Orderly(&self.session)
    }

    /// Keeps the lock until the end of the run. If it is lost, the run is interrupted.
    pub fn keep(&self, lock: Lock) {
        *self.session.lock() = Some(lock);
        let session = Arc::downgrade(&self.session);
        std::thread::spawn(move || {
            while let Some(session) = session.upgrade() {
                match session.lock().as_ref().map(Lock::check) {
                    Some(Ok(())) => {}
                    Some(Err(_)) => return session.progress.interrupt(),
                    None => return,
                }
                drop(session);
                std::thread::sleep(LOCK_WATCH);
            }
        });
    }

    /// An error if the lock was lost: whatever is written from now on could be removed by others.
    pub fn check_lock(&self) -> repo::Result<()> {
        self.session.lock().as_ref().map_or(Ok(()), Lock::check)
    }

    /// Ends the run: the lock is released, and all output is out.
    pub fn close(self, outcome: Result<Outcome>) -> Result<Outcome> {
        let lock = self.session.lock().take();
        let lost = lock.as_ref().and_then(|lock| lock.check().err());
        if let Some(Err(error)) = lock.map(Lock::release) {
            self.out.warn(format_args!("error: the lock could not be removed: {error}"));
        }
        let flushed = self.out.flush();
        match (outcome, lost) {
            // The lost lock is why it was interrupted.
            (Err(error), Some(lost)) if exit_code(&error) == repo::Error::Interrupted.exit_code() => Err(lost.into()),
            (outcome, _) => {
                let outcome = outcome?;
                flushed?;
                Ok(outcome)
            }
        }
    }
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Option<Lock>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
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
            if !session.orderly.load(Ordering::SeqCst) {
                let session = session.clone();
                // In a thread of its own, so that a second signal is heard while the lock is being removed.
                std::thread::spawn(move || {
                    drop(session.lock().take());
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
