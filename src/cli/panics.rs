//! Turns panics into errors, so that a command that panics fails like any other.
//!
//! A panic that unwinds to [`caught`] becomes an error, so that the lock is released and the report
//! is written. A panic of another thread is printed to standard error at once, because some threads
//! are never joined.

use super::output::{self, OutputFormat};
use crate::repo;
use serde::Serialize;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The command panicked.
#[derive(Debug, thiserror::Error)]
#[error("internal error: {0}; this is a bug in this program, report it")]
pub struct Panicked(String);

const UNNAMED: &str = "a panic without a message";

/// The first panic of this process. Later panics are mostly its consequences.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Replaces the standard library's panic hook. Panics of the calling thread reach [`caught`].
pub fn install(format: OutputFormat) {
    let main = thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = if thread::current().id() == main { Thread::Main } else { Thread::Other };
        record(panic, thread, format);
    }));
}

/// The thread that panicked.
enum Thread {
    /// The thread that runs the command. Its panics reach [`caught`], and become the command's
    /// error.
    Main,
    Other,
}

fn record(panic: &PanicHookInfo<'_>, thread: Thread, format: OutputFormat) {
    let message = message(panic);
    FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| message.clone());
    if matches!(thread, Thread::Other) {
        warn(format!("internal error: {message}"), format);
    }
    // Print a backtrace if RUST_BACKTRACE is set, as the standard library does.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        warn(trace.to_string(), format);
    }
}

fn warn(message: String, format: OutputFormat) {
    match format {
        OutputFormat::Json => output::stderr_json(&Warning { message_type: "warning", message }),
        OutputFormat::Text => output::stderr(message),
    }
}

#[derive(Serialize)]
struct Warning {
    message_type: &'static str,
    message: String,
}

/// The message of a panic, with its source location.
fn message(panic: &PanicHookInfo<'_>) -> String {
    let what = panic.payload_as_str().unwrap_or(UNNAMED);
    match panic.location() {
        Some(location) => format!("{what} ({}:{})", location.file(), location.line()),
        None => what.to_owned(),
    }
}

/// Runs a command. If the command panics, the error has the message of the first panic.
pub fn caught<T>(command: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // Unwind safe: after a panic, the shared state is read only for the orderly end of the run.
    let outcome = catch_unwind(AssertUnwindSafe(command));
    explained(outcome, FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// The outcome of a command. `first` is the first panic of the process.
fn explained<T>(outcome: thread::Result<anyhow::Result<T>>, first: Option<String>) -> anyhow::Result<T> {
    let what = match outcome {
        Ok(Err(error)) => match first {
            Some(first) if was_stopped(&error) => first,
            Some(_) | None => return Err(error),
        },
        Ok(done) => return done,
        Err(payload) => first.unwrap_or_else(|| text(&*payload).to_owned()),
    };
    // Errors are one line.
    Err(Panicked(what.replace('\n', " ")).into())
}

/// Whether a command failed because one of its threads panicked.
fn was_stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(repo::Error::Stopped | repo::Error::Panicked)))
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or(payload.downcast_ref::<&str>().copied()).unwrap_or(UNNAMED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit;

    fn said(error: anyhow::Error) -> String {
        assert_eq!(exit::exit_code(&error), 1);
        let message = exit::message(&error).expect("a message");
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    }

    /// This test does not call [`install`], which would change the hook of all tests of the
    /// process.
    #[test]
    fn a_panic_is_an_error_with_exit_code_1_and_its_message() {
        for (error, what) in [
            (caught::<()>(|| panic!("the {}\nis closed", "queue")), "internal error: the queue is closed; "),
            (caught::<()>(|| panic!("empty")), "internal error: empty; "),
            (caught::<()>(|| std::panic::panic_any(7)), "internal error: a panic without a message; "),
        ] {
            let message = said(error.expect_err("it panicked"));
            assert!(message.starts_with(what), "{message}");
        }
        assert_eq!(caught(|| Ok(7)).expect("no panic"), 7);
    }

    #[test]
    fn a_command_reports_the_panic_of_its_worker() {
        let first = || Some("index 7 is out of range (src/x.rs:1)".to_owned());
        let scoped: thread::Result<anyhow::Result<()>> = Err(Box::new("a scoped thread panicked"));
        let stopped = || anyhow::Error::from(repo::Error::Stopped).context("while backing up");
        let panicked = anyhow::Error::from(repo::Error::Panicked);
        for outcome in [scoped, Ok(Err(stopped())), Ok(Err(panicked))] {
            let error = explained(outcome, first()).expect_err("it panicked");
            assert!(error.is::<Panicked>() && said(error).contains("index 7 is out of range"));
        }
        // Other errors of the command are reported instead of the panic.
        let own = explained::<()>(Ok(Err(anyhow::anyhow!("no space left"))), first()).expect_err("an error");
        assert_eq!(said(own), "no space left");
        assert!(!explained::<()>(Ok(Err(stopped())), None).expect_err("an error").is::<Panicked>());
    }
}
