//! How a command ended: restic's exit codes, and the one line that says why.

use super::output::{self, OutputFormat};
use crate::mover;
use crate::repo;
use serde::Serialize;

/// How a command ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// It did what it could, and this is missing.
    Incomplete(String),
}

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(mover) = error.chain().find_map(|cause| cause.downcast_ref::<mover::Error>()) {
        return mover.reason().exit_code();
    }
    error.chain().find_map(|cause| cause.downcast_ref::<repo::Error>()).map_or(1, repo::Error::exit_code)
}

/// What to tell of an error: each cause after the other, unless it was already said. `None` if there is nobody to tell it to:
/// the reader of our output has gone away, as `head` does.
pub fn message(error: &anyhow::Error) -> Option<String> {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<output::Failed>().is_some_and(|failed| failed.0.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return None;
    }
    Some(reasons(error.as_ref()))
}

/// An error and each of its causes, unless it was already said.
pub fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

#[derive(Serialize)]
struct ExitError<'m> {
    message_type: &'static str,
    code: u8,
    message: &'m str,
}

/// The last line of a run that was not a success, on standard error.
pub fn report_exit(format: OutputFormat, code: u8, message: &str) {
    match format {
        OutputFormat::Json => output::stderr_json(&ExitError { message_type: "exit_error", code, message }),
        OutputFormat::Text => output::stderr(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_keep_their_code_below_any_context_and_say_things_once() {
        let locked = repo::Error::Locked { reason: "why".into() };
        let error = Err::<(), _>(locked).context("while trying").unwrap_err();
        assert_eq!(exit_code(&error), 11);
        assert_eq!(message(&error).unwrap(), "while trying: unable to create lock in backend: why");
        let io = std::io::Error::other("disk on fire");
        let error = anyhow::Error::from(repo::Error::Source(io)).context("outer");
        assert_eq!(message(&error).unwrap(), "outer: the source cannot be read: disk on fire");
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }

    #[test]
    fn a_reader_that_left_is_told_nothing() {
        let gone = output::Failed(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(message(&anyhow::Error::from(gone)), None);
    }
}
