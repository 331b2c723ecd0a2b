//! The command line: parses, calls the engine, prints. Nothing here knows the format or decides
//! anything about data.
//!
//! Options, environment variables, exit codes, JSON messages and the phrases that scripts look for
//! are restic's where the meaning is the same; `docs/OPTIONS.md` is the closed table of them.
//! Commands are in [`commands`], one file each; what they share is here: [`args`] the options,
//! [`context`] from options to an open and locked repository, [`output`] text or JSON, [`progress`]
//! the status line, [`session`] locks and signals.

mod args;
mod commands;
mod context;
mod dry_run;
mod exit;
mod from;
mod limits;
#[cfg(test)]
mod options_table;
mod output;
mod panics;
mod password;
mod patterns;
mod progress;
mod render;
mod select;
mod session;
mod snapshot_table;
mod table;

pub use exit::{Outcome, exit_code, message, report_exit};
pub use output::OutputFormat;

use args::Global;
use clap::{CommandFactory, Parser};
use commands::Command;
use context::Context;
use std::ffi::OsString;

/// Moves volumes into restic repositories and back.
#[derive(Parser)]
#[command(
    name = "vsm-mover",
    version,
    about = "Moves volumes into restic repositories and back",
    long_about = "Moves volumes into restic repositories and back.\n\nRepositories are restic's, in both directions. \
                  Options, environment variables, exit codes and JSON messages are restic's where the meaning is the same.",
    args_override_self = true,
    infer_long_args = false,
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// The form of its output.
    pub fn format(&self) -> OutputFormat {
        self.global.output.format()
    }
}

/// The definitions of all commands and options, for help, completions, man pages, and the test of the published table.
pub fn definitions() -> clap::Command {
    Cli::command()
}

/// Parses the command line. What cannot be parsed is told here, with the exit code to end with.
pub fn parse(arguments: &[OsString]) -> Result<Cli, u8> {
    Cli::try_parse_from(arguments).map_err(|error| {
        if !error.use_stderr() {
            // Help or the version, asked for.
            return u8::from(error.print().is_err());
        }
        if arguments.iter().any(|argument| argument == "--json") {
            report_exit(OutputFormat::Json, 1, error.to_string().trim_end());
        } else {
            // Nobody is left to tell if standard error is gone.
            let _ = error.print();
        }
        1
    })
}

/// Runs the command. A panic is an error too, also one before or after the command.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    panics::install(cli.format());
    panics::caught(|| {
        let context = Context::new(cli.global)?;
        to_its_end(context, |context| commands::run(cli.command, context, definitions))
    })
}

/// Runs a command and releases its locks, also if it panics.
fn to_its_end(context: Context, command: impl FnOnce(&Context) -> anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
    let outcome = panics::caught(|| command(&context));
    context.close(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Version;
    use crate::progress::Progress;
    use crate::repo::{self, InitOptions, Lock, LockMode, Password, Settings};
    use crate::store::{self, FileType, Location};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_command_that_panics_releases_its_lock_and_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let location = Location::Folder(dir.path().to_owned());
        let store = store::open(&location, &store::Options::default()).expect("a store");
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let repo = repo::init(store.clone(), &Password::new("pw"), options, Settings::default());
        let repo = Arc::new(repo.expect("a repository"));
        let locks = || store.list(FileType::Lock).expect("a listing").len();
        let global = Cli::try_parse_from(["vsm-mover", "version"]).unwrap_or_else(|error| panic!("{error}")).global;
        let context = Context::new(global).expect("a run");
        let outcome = to_its_end(context, |context| {
            let lock = Lock::acquire(repo.clone(), LockMode::Shared, Duration::ZERO, &Progress::silent())?;
            context.keep(lock);
            assert_eq!(locks(), 1);
            panic!("the earth is flat")
        });
        let error = outcome.expect_err("it panicked");
        assert_eq!((locks(), exit_code(&error)), (0, 1));
        assert!(message(&error).is_some_and(|text| text.contains("the earth is flat")));
    }
}
