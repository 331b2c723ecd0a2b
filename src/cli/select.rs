//! Selects the snapshots that a command works on: by id, `latest`, `<id>:<folder>` or filter.

use super::args::Filter;
use super::context::Context;
use super::exit::Outcome;
use crate::format::snapshot::Snapshot;
use crate::id::Id;
use crate::repo::{self, Repository, SnapshotFilter, StoredSnapshot};
use serde::Serialize;

/// The named snapshots, or all that the filter accepts. Each command sets its own help of `ids`.
#[derive(clap::Args)]
pub struct Selection {
    /// Snapshots to work on
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub filter: Filter,
}

impl Selection {
    /// The selected snapshots of a repository, as [`snapshots`] finds them.
    pub fn snapshots(&self, context: &Context, repo: &Repository) -> repo::Result<(Vec<StoredSnapshot>, usize)> {
        snapshots(context, repo, &self.ids, &self.filter.build())
    }
}

/// Splits `id:folder` into an id and a folder.
pub fn split_folder(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or((name, ""))
}

/// The named snapshots, or without names all that the filter accepts, oldest first. Snapshots that
/// cannot be found or read are reported and left out; the second value is their number.
pub fn snapshots(
    context: &Context,
    repo: &Repository,
    names: &[String],
    filter: &SnapshotFilter,
) -> repo::Result<(Vec<StoredSnapshot>, usize)> {
    if names.is_empty() {
        let (all, errors) = repo.snapshots()?;
        errors.iter().for_each(|error| context.out.warn(format_args!("Ignoring a snapshot: {error}")));
        return Ok((all.into_iter().filter(|stored| filter.accepts(&stored.snapshot)).collect(), errors.len()));
    }
    let mut found: Vec<StoredSnapshot> = Vec::new();
    let mut missing = 0;
    for name in names {
        match repo.find_snapshot(name, filter) {
            Ok(stored) if found.iter().any(|known| known.id == stored.id) => {}
            Ok(stored) => found.push(stored),
            Err(error @ repo::Error::Store(_)) if !is_absent(&error) => return Err(error),
            Err(error) => {
                missing += 1;
                context.out.warn(format_args!("Ignoring {name:?}: {error}"));
            }
        }
    }
    Ok((found, missing))
}

/// The outcome of a command that left out this number of snapshots.
pub fn outcome(missing: usize) -> Outcome {
    match missing {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} snapshots could not be found or read, each listed above")),
    }
}

fn is_absent(error: &repo::Error) -> bool {
    matches!(error, repo::Error::Store(crate::store::StoreError::NotFound { .. }))
}

/// A snapshot in JSON: the fields of its file, and its id.
#[derive(Serialize)]
pub struct SnapshotJson<'s> {
    #[serde(flatten)]
    snapshot: &'s Snapshot,
    id: Id,
    short_id: String,
}

impl<'s> From<&'s StoredSnapshot> for SnapshotJson<'s> {
    fn from(stored: &'s StoredSnapshot) -> SnapshotJson<'s> {
        SnapshotJson { snapshot: &stored.snapshot, id: stored.id, short_id: stored.id.short() }
    }
}

/// Describes a snapshot: `snapshot 1a2b3c4d of [/data] at … by user@host`.
pub fn describe(stored: &StoredSnapshot) -> String {
    let Snapshot { time, paths, hostname, username, .. } = &stored.snapshot;
    let time = super::render::full_time(time);
    format!("snapshot {} of [{}] at {time} by {username}@{hostname}", stored.id.short(), paths.join(" "))
}
