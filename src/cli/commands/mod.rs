//! The commands, one file each: the options, and a `run` that calls the engine and prints the
//! result.

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

/// The commands in the order of the help, by topic: backup and restore, views, maintenance,
/// objects, Kubernetes, the program itself.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Initialize a new repository
    Init(init::Args),
    /// Back up files, directories, a volume or standard input
    Backup(backup::Args),
    /// Restore files or a volume from a snapshot
    Restore(restore::Args),
    /// List snapshots
    Snapshots(snapshots::Args),
    /// List the entries of a snapshot
    Ls(ls::Args),
    /// Find files, directories or objects in snapshots
    Find(find::Args),
    /// Show the differences between two snapshots
    Diff(diff::Args),
    /// Print a file, or a directory as an archive
    Dump(dump::Args),
    /// Mount snapshots as directories
    #[cfg(feature = "mount")]
    Mount(mount::Args),
    /// Show statistics about snapshots
    Stats(stats::Args),
    /// Check the repository for errors
    Check(check::Args),
    /// Remove snapshots by a retention policy or by id
    Forget(forget::Args),
    /// Remove unreferenced data from the repository
    Prune(prune::Args),
    /// Repair a damaged repository
    Repair(repair::Args),
    /// Copy snapshots from another repository
    Copy(copy::Args),
    /// Rewrite snapshots to exclude paths, or to change their host or time
    Rewrite(rewrite::Args),
    /// Modify the tags of snapshots
    Tag(tag::Args),
    /// Upgrade the repository to a newer format
    Migrate(migrate::Args),
    /// Manage the keys (passwords) of the repository
    Key(key::Args),
    /// Remove stale locks
    Unlock(unlock::Args),
    /// List the ids of objects in the repository
    List(list::Args),
    /// Print an object of the repository
    Cat(cat::Args),
    /// List the repositories below a location, and write manifests that restore their volumes
    Repositories(repositories::Args),
    /// List, and optionally remove, snapshots whose Velero backups were deleted
    Expired(expired::Args),
    /// Run the work description of a mover's Job, and write a report
    Work(work::Args),
    /// Generate shell completions and man pages
    Generate(generate::Args),
    /// Print the version
    Version(version::Args),
    /// Run a demonstration with a sample volume and a repository in a folder
    Demo(demo::Args),
}

/// Runs a command. `definitions` returns those of the whole command line.
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
