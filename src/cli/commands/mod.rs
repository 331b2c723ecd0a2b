//! The commands, one file each: its options, and a `run` that calls the engine and prints.

mod backup;
mod cat;
mod check;
mod copy;
mod demo;
mod diff;
mod dump;
mod expired;
mod find;
mod forget;
mod generate;
mod init;
mod key;
mod list;
mod ls;
mod migrate;
#[cfg(feature = "mount")]
mod mount;
mod prune;
mod repair;
mod repositories;
mod restore;
mod rewrite;
mod snapshots;
mod stats;
mod tag;
mod unlock;
mod version;
mod work;

use super::context::Context;
use super::exit::Outcome;
use anyhow::Result;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a new repository
    Init(init::Args),
    /// Make a snapshot of files, directories, a volume or standard input
    Backup(backup::Args),
    /// Bring back what is in a snapshot
    Restore(restore::Args),
    /// Look for errors in the repository
    Check(check::Args),
    /// List the snapshots
    Snapshots(snapshots::Args),
    /// List what is in a snapshot
    Ls(ls::Args),
    /// Print a file, or a directory as a tar archive
    Dump(dump::Args),
    /// Show snapshots as directories
    #[cfg(feature = "mount")]
    Mount(mount::Args),
    /// Find files, directories or objects in snapshots
    Find(find::Args),
    /// Show what changed from one snapshot to another
    Diff(diff::Args),
    /// Count what is in snapshots
    Stats(stats::Args),
    /// Remove snapshots by a policy or by name
    Forget(forget::Args),
    /// Remove what no snapshot needs
    Prune(prune::Args),
    /// Put a damaged repository in order
    Repair(repair::Args),
    /// Copy snapshots from another repository
    Copy(copy::Args),
    /// Leave paths out of snapshots after the fact
    Rewrite(rewrite::Args),
    /// Bring the repository to a newer format
    Migrate(migrate::Args),
    /// Change the tags of snapshots
    Tag(tag::Args),
    /// Print an object of the repository
    Cat(cat::Args),
    /// Manage the passwords of the repository
    Key(key::Args),
    /// List the ids of the repository's objects
    List(list::Args),
    /// Remove locks that dead processes left behind
    Unlock(unlock::Args),
    /// List the repositories below a location, and write manifests that restore their volumes
    Repositories(repositories::Args),
    /// Tell of snapshots whose Velero backups are gone, and remove them if asked to
    Expired(expired::Args),
    /// Do what a work description says, and report it: the command of a mover's Job
    Work(work::Args),
    /// Write completions for shells, and man pages
    Generate(generate::Args),
    /// Print the version
    Version(version::Args),
    /// Show all of it on a sample volume and a repository in a folder
    Demo(demo::Args),
}

/// Runs a command. The definitions are those of the whole command line.
pub fn run(command: Command, context: &Context, definitions: fn() -> clap::Command) -> Result<Outcome> {
    match command {
        Command::Init(args) => init::run(args, context),
        Command::Backup(args) => backup::run(args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::Check(args) => check::run(args, context),
        Command::Snapshots(args) => snapshots::run(args, context),
        Command::Ls(args) => ls::run(args, context),
        Command::Dump(args) => dump::run(args, context),
        #[cfg(feature = "mount")]
        Command::Mount(args) => mount::run(args, context),
        Command::Find(args) => find::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Stats(args) => stats::run(args, context),
        Command::Forget(args) => forget::run(args, context),
        Command::Prune(args) => prune::run(args, context),
        Command::Repair(args) => repair::run(args, context),
        Command::Copy(args) => copy::run(args, context),
        Command::Rewrite(args) => rewrite::run(args, context),
        Command::Migrate(args) => migrate::run(args, context),
        Command::Tag(args) => tag::run(args, context),
        Command::Cat(args) => cat::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::List(args) => list::run(args, context),
        Command::Unlock(args) => unlock::run(args, context),
        Command::Repositories(args) => repositories::run(args, context),
        Command::Expired(args) => expired::run(args, context),
        Command::Work(args) => work::run(args, context),
        Command::Generate(args) => generate::run(args, context, definitions()),
        Command::Version(args) => version::run(args, context),
        Command::Demo(args) => demo::run(args, context),
    }
}
