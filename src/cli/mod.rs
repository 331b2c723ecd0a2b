//! The command line of `vsm-mover`: parses options, calls the engine and prints the results.
//!
//! This module does not know the repository format, and decides nothing about data.
//!
//! Options, environment variables, exit codes, JSON messages and the phrases that scripts look for
//! are restic's where the meaning is the same; `docs/reference/cli.md` is the closed table of them.
//! Commands are in [`commands`], one file each. The other modules are shared by the commands:
//! [`args`] defines the options, [`context`] opens and locks the repository, [`output`] prints text
//! or JSON, [`progress`] shows the status line, [`session`] handles locks and signals.

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

/// Backs up volumes to restic repositories, and restores them.
#[derive(Parser)]
#[command(
    name = "vsm-mover",
    version,
    about = "Back up volumes to restic repositories, and restore them",
    long_about = "Back up volumes to restic repositories, and restore them.\n\nrestic can read and write the \
                  repositories, too. Options, environment variables, exit codes and JSON messages are the same as \
                  restic's where they have the same meaning.",
    after_help = "Examples:
  vsm-mover -r /srv/repo init
  vsm-mover -r /srv/repo backup /etc /home
  vsm-mover -r /srv/repo snapshots
  vsm-mover -r /srv/repo restore latest --target /tmp/restored",
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
    /// Whether the output is text or JSON.
    pub fn format(&self) -> OutputFormat {
        self.global.output.format()
    }
}

/// The definitions of all commands and options, for help, completions, man pages, and the test of
/// the published table.
pub fn definitions() -> clap::Command {
    Cli::command()
}

/// Parses the command line. Prints help and errors, and then returns the exit code as the error.
pub fn parse(arguments: &[OsString]) -> Result<Cli, u8> {
    Cli::try_parse_from(arguments).map_err(|error| {
        if !error.use_stderr() {
            // The user asked for help or the version.
            return u8::from(error.print().is_err());
        }
        if arguments.iter().any(|argument| argument == "--json") {
            report_exit(OutputFormat::Json, 1, error.to_string().trim_end());
        } else {
            // If standard error is closed, the error cannot be reported.
            let _ = error.print();
        }
        1
    })
}

/// Runs the command. A panic becomes an error, even before and after the command.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    panics::install(cli.format());
    panics::caught(|| {
        let context = Context::new(cli.global)?;
        to_its_end(context, |context| commands::run(cli.command, context, definitions))
    })
}

/// Runs a command and releases its locks, even if it panics.
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
    fn a_command_that_panics_fails_and_releases_its_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let location = Location::Folder(dir.path().to_owned());
        let store = store::open(&location, &store::Options::default()).expect("a store");
        let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
        let repo = repo::init(store.clone(), &Password::new("pw"), options, Settings::default());
        let repo = Arc::new(repo.expect("a repository"));
        let locks = || store.list(FileType::Lock).expect("a listing").len();
        let global = Cli::try_parse_from(["vsm-mover", "version"]).unwrap_or_else(|error| panic!("{error}")).global;
        let context = Context::new(global).expect("a context");
        let outcome = to_its_end(context, |context| {
            let lock = Lock::acquire(repo.clone(), LockMode::Shared, Duration::ZERO, &Progress::silent())?;
            context.keep(lock);
            assert_eq!(locks(), 1);
            panic!("a broken invariant")
        });
        let error = outcome.expect_err("it panicked");
        assert_eq!((locks(), exit_code(&error)), (0, 1));
        assert!(message(&error).is_some_and(|text| text.contains("a broken invariant")));
    }
}
