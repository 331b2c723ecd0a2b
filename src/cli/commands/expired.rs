//! The command `expired`: lists snapshots whose Velero backups were deleted, and removes them with
//! `--remove`.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::exit::{Outcome, reasons};
use crate::cli::render;
use crate::cli::table::Table;
use crate::clock;
use crate::format::time::Time;
use crate::id::Id;
use crate::maintain::survey;
use crate::provenance::{DIRECTORY, Layout};
use crate::repo::{self, Lock, LockMode, Password, Repository};
use crate::store::{Place, Store};
use crate::velero::expiry::{self, Entry, Rules};
use crate::velero::location;
use anyhow::{Result, bail};
use serde::Serialize;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -p /etc/vsm/password expired s3:https://s3.example.com/bucket/velero
  vsm-mover -p /etc/vsm/password expired /mnt/velero --age 168h --remove")]
pub struct Args {
    /// Velero's backup location: s3:https://HOST/BUCKET/PREFIX, or a folder
    #[arg(value_name = "BASE")]
    base: String,
    /// Remove the expired snapshots
    #[arg(long)]
    remove: bool,
    /// Only consider snapshots that are older than this, at least 24h
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "72h")]
    age: Duration,
    /// Allow all snapshots to expire if none of their Velero backups exists
    #[arg(long)]
    unsafe_allow_remove_all: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if context.global.repository.no_lock && args.remove {
        bail!("--no-lock cannot be used with --remove: removing snapshots needs an exclusive lock");
    }
    let place = context.place(&args.base)?;
    let (seconds, nanos) = clock::now();
    let rules = Rules { now: Time::utc(seconds, nanos), age: args.age, may_be_all: args.unsafe_allow_remove_all };
    let look = || location::backups(&place);
    let backups = look()?;
    // Before the prompt for the password, so that a wrong location is reported at once.
    expiry::compare(&[], &backups, &rules)?;
    let password = context.password()?;
    let Gathered { entries, repositories, unread } = gather(context, &place, &password)?;
    let report = expiry::compare(&entries, &backups, &rules)?;
    tell(context, &place, &report.expired)?;
    let mut removed = 0;
    if args.remove && !report.expired.is_empty() {
        let again = expiry::compare(&entries, &look()?, &rules)?;
        let sure = expiry::in_both(&report, &again);
        if sure.len() < report.expired.len() {
            let back = report.expired.len() - sure.len();
            context
                .out
                .warn(format_args!("warning: {back} snapshots are kept: the second listing contains their backups"));
        }
        removed = remove(context, &place, &password, &sure)?;
    }
    let summary = SummaryJson {
        message_type: "summary",
        repositories,
        backups: backups.count(),
        expired: report.expired.len(),
        expired_bytes: report.expired.iter().map(|entry| entry.bytes).sum(),
        young: report.young,
        kept: report.kept,
        removed,
        unread,
    };
    summary.print(context, if args.remove { Action::Remove } else { Action::Report })?;
    let left = if args.remove { summary.expired - removed } else { 0 };
    let parts = [(unread, "repositories or snapshots were not read"), (left, "expired snapshots were not removed")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    Ok(if parts.is_empty() { Outcome::Complete } else { Outcome::Incomplete(parts.join(", ")) })
}

/// The contents of the repositories of a location.
struct Gathered {
    entries: Vec<Entry>,
    repositories: usize,
    /// Repositories, directories and snapshots that could not be read.
    unread: usize,
}

/// Reads the snapshots of Velero's backups from our repositories.
fn gather(context: &Context, place: &Place, password: &Password) -> Result<Gathered> {
    let mut found = survey::find(place, DIRECTORY, location::is_own_directory)?;
    let ours = |path: &String| matches!(Layout::of(&path.split('/').collect::<Vec<_>>()), Layout::Volume { .. });
    found.repositories.retain(ours);
    let mut gathered =
        Gathered { entries: Vec::new(), repositories: found.repositories.len(), unread: found.failed.len() };
    let warn = |path: &str, error: &(dyn Error + 'static)| {
        context.out.warn(format_args!("error: {}: {}", place.location(path), reasons(error)));
    };
    found.failed.iter().for_each(|(path, error)| warn(path, error));
    survey::read(place, &found.repositories, password, &context.settings(), |path, contents| {
        match contents {
            Ok(contents) => {
                contents.damaged.iter().for_each(|error| warn(path, error));
                gathered.unread += contents.damaged.len();
                let entries = contents.snapshots.iter().filter_map(|it| Entry::of(path, it.id, &it.snapshot));
                gathered.entries.extend(entries);
            }
            Err(error) => {
                warn(path, &error);
                gathered.unread += 1;
            }
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(gathered)
}

#[derive(Serialize)]
struct ExpiredJson<'e> {
    message_type: &'static str,
    repository: String,
    snapshot: Id,
    time: Time,
    backup: &'e str,
    bytes: u64,
}

#[derive(Serialize)]
struct SummaryJson {
    message_type: &'static str,
    repositories: usize,
    /// Velero backups in the location.
    backups: usize,
    expired: usize,
    /// The size of their volumes.
    expired_bytes: u64,
    young: usize,
    kept: usize,
    removed: usize,
    /// Repositories, directories and snapshots that could not be read.
    unread: usize,
}

/// Whether expired snapshots are only reported.
#[derive(Clone, Copy)]
enum Action {
    Report,
    Remove,
}

impl SummaryJson {
    fn print(&self, context: &Context, action: Action) -> Result<()> {
        if context.out.is_json() {
            return Ok(context.out.json(self)?);
        }
        let SummaryJson { repositories, backups, expired, expired_bytes, young, kept, removed, .. } = self;
        let what = format!("{expired} snapshots of volumes of {} have expired", render::bytes(*expired_bytes));
        let did = match (action, *expired) {
            (_, 0) => String::new(),
            (Action::Report, _) => "; --remove removes them".to_owned(),
            (Action::Remove, _) => {
                format!(
                    ", {removed} were removed; run `prune` in their repositories to free the data that only they needed"
                )
            }
        };
        context.out.line(format_args!("{what}{did}"))?;
        context.out.line(format_args!(
            "{repositories} repositories and {backups} Velero backups; not expired: {kept} snapshots whose backups \
             exist, {young} snapshots that are too young"
        ))?;
        Ok(())
    }
}

/// Lists the expired snapshots, one table for each repository.
fn tell(context: &Context, place: &Place, expired: &[&Entry]) -> Result<()> {
    for same in expired.chunk_by(|a, b| a.repository == b.repository) {
        let repository = place.location(&same[0].repository).to_string();
        let mut table = Table::new(vec!["ID", "Time", "Backup", "Size"]);
        for &Entry { snapshot, time, ref backup, bytes, .. } in same.iter().copied() {
            if context.out.is_json() {
                let repository = repository.clone();
                context.out.json(&ExpiredJson {
                    message_type: "expired",
                    repository,
                    snapshot,
                    time,
                    backup,
                    bytes,
                })?;
            }
            table.row(vec![snapshot.short(), render::local_time(&time), backup.clone(), render::bytes(bytes)]);
        }
        if !context.out.is_json() {
            context.out.line(&repository)?;
            table.lines().iter().try_for_each(|line| context.out.line(line))?;
            context.out.line("")?;
        }
    }
    Ok(())
}

/// Removes snapshots, locking one repository after the other, and returns their number. A
/// repository that cannot be locked is reported, and the others are processed.
fn remove(context: &Context, place: &Place, password: &Password, expired: &[&Entry]) -> Result<usize> {
    let _orderly = context.orderly();
    let mut removed = 0;
    for same in expired.chunk_by(|a, b| a.repository == b.repository) {
        let path = &same[0].repository;
        match remove_from(context, place.store(path), password, same, &mut removed) {
            Err(error @ repo::Error::Interrupted) => {
                context.out.warn(format_args!("{removed} snapshots were removed"));
                return Err(error.into());
            }
            Err(error) => context.out.warn(format_args!("error: {}: {}", place.location(path), reasons(&error))),
            Ok(()) => {}
        }
    }
    Ok(removed)
}

fn remove_from(
    context: &Context,
    store: Arc<dyn Store>,
    password: &Password,
    expired: &[&Entry],
    removed: &mut usize,
) -> repo::Result<()> {
    let repo = Arc::new(Repository::open_to_lock(store, password, None, context.settings())?);
    let lock =
        Lock::acquire(repo.clone(), LockMode::Exclusive, context.global.repository.retry_lock, &context.progress)?;
    for entry in expired {
        if context.progress.is_interrupted() {
            return Err(repo::Error::Interrupted);
        }
        lock.check()?;
        repo.remove_snapshot(entry.snapshot)?;
        *removed += 1;
    }
    lock.take_warnings().iter().for_each(|warning| context.progress.warning(warning));
    lock.release()
}
