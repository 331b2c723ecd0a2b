//! The result of a command: restic's exit codes, and the last line with the reason.

use super::output::{self, OutputFormat};
use crate::mover;
use crate::repo;
use serde::Serialize;

/// The result of a command that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// The command is done except for the parts that this text names.
    Incomplete(String),
}

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(mover) = error.chain().find_map(|cause| cause.downcast_ref::<mover::Error>()) {
        return mover.reason().exit_code();
    }
    error.chain().find_map(|cause| cause.downcast_ref::<repo::Error>()).map_or(1, repo::Error::exit_code)
}

/// The message of an error with all its causes. `None` if the reader has closed our output, as
/// `head` does, so that nothing needs to be reported.
pub fn message(error: &anyhow::Error) -> Option<String> {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<output::Failed>().is_some_and(|failed| failed.0.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_broken_pipe) {
        return None;
    }
    Some(reasons(error.as_ref()))
}

/// The text of an error and of its causes, without a cause that the text already contains.
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

/// Prints the last line of a run that failed or is incomplete, on standard error.
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
    fn errors_keep_their_code_below_a_context_and_repeat_no_text() {
        let locked = repo::Error::Locked { reason: "why".into() };
        let error = Err::<(), _>(locked).context("while trying").unwrap_err();
        assert_eq!(exit_code(&error), 11);
        assert_eq!(message(&error).unwrap(), "while trying: unable to create lock in backend: why");
        let io = std::io::Error::other("the disk failed");
        let error = anyhow::Error::from(repo::Error::Source(io)).context("outer");
        assert_eq!(message(&error).unwrap(), "outer: the source cannot be read: the disk failed");
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }

    #[test]
    fn a_closed_output_is_not_reported() {
        let closed = output::Failed(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(message(&anyhow::Error::from(closed)), None);
    }
}
