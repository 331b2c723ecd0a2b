//! The program `vsm-mover`: parses the command line, runs the command, and returns restic's exit
//! codes.
//!
//! 0 done; 1 an error; 3 done, but incomplete; 10 no repository; 11 the repository is locked; 12
//! wrong password; 13 (of `work`) failed, and a retry would fail, too; 130 interrupted.

use std::process::ExitCode;
use vsm::cli::{self, Outcome};

fn main() -> ExitCode {
    vsm::host::forbid_core_dumps();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match cli::parse(&arguments) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let format = cli.format();
    let (code, message) = match cli::run(cli) {
        Ok(Outcome::Complete) => (0, None),
        Ok(Outcome::Incomplete(what)) => (3, Some(format!("Warning: {what}"))),
        Err(error) => (cli::exit_code(&error), cli::message(&error).map(|message| format!("Fatal: {message}"))),
    };
    if let Some(message) = message {
        cli::report_exit(format, code, &message);
    }
    ExitCode::from(code)
}
