//! Prints the results of the command `repositories`.

use crate::cli::context::Context;
use crate::cli::exit::{Outcome, reasons};
use crate::cli::render;
use crate::cli::select::SnapshotJson;
use crate::cli::table::Table;
use crate::format::snapshot::Summary;
use crate::maintain::survey::Contents;
use crate::provenance::{Layout, Tag};
use crate::repo::{self, StoredSnapshot};
use anyhow::Result;
use serde::Serialize;

/// The result of the command, in numbers.
#[derive(Default, Serialize)]
pub struct Tally {
    pub repositories: usize,
    pub snapshots: usize,
    /// Repositories that cannot be read.
    pub unreadable: usize,
    /// Snapshots that cannot be read.
    pub damaged: usize,
    /// Directories that cannot be listed.
    pub directories: usize,
    pub manifests: usize,
    /// Volumes that could be restored, but have no manifest.
    pub without_manifest: usize,
}

impl Tally {
    /// Prints the numbers, and the locations that were not searched.
    pub fn print(&self, context: &Context, passed_over: &[String]) -> Result<()> {
        if context.out.is_json() {
            return Ok(context.out.json(&SummaryJson { message_type: "summary", tally: self, passed_over })?);
        }
        for place in passed_over {
            context.out.note(format_args!("not searched: {place}"))?;
        }
        Ok(context.out.line(format_args!("{} repositories, {} snapshots", self.repositories, self.snapshots))?)
    }

    pub fn outcome(&self) -> Outcome {
        let parts = [
            (self.unreadable, "repositories cannot be read"),
            (self.damaged, "snapshots cannot be read"),
            (self.directories, "directories were not searched"),
            (self.without_manifest, "repositories have no manifest"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if parts.is_empty() { Outcome::Complete } else { Outcome::Incomplete(parts.join(", ")) }
    }
}

#[derive(Serialize)]
struct SummaryJson<'t> {
    message_type: &'static str,
    #[serde(flatten)]
    tally: &'t Tally,
    passed_over: &'t [String],
}

/// One repository of the output.
pub struct Repository<'r> {
    pub location: &'r str,
    pub layout: &'r Layout,
    pub contents: &'r Contents,
    /// Why the repository cannot be read.
    pub error: Option<&'r repo::Error>,
    /// The file that restores its volume.
    pub manifest: Option<&'r str>,
}

impl Repository<'_> {
    pub fn print(&self, context: &Context) -> Result<()> {
        let Repository { location, layout, contents, error, manifest } = *self;
        let out = &context.out;
        if out.is_json() {
            return Ok(out.json(&RepositoryJson {
                message_type: "repository",
                repository: location,
                owner: layout.into(),
                snapshots: contents.snapshots.iter().map(VolumeJson::from).collect(),
                damaged: contents.damaged.iter().map(|error| reasons(error)).collect(),
                error: error.map(|error| reasons(error)),
                manifest,
            })?);
        }
        out.line(location)?;
        out.line(describe(layout))?;
        match error {
            Some(_) => out.line("cannot be read")?,
            None => print_snapshots(context, &contents.snapshots)?,
        }
        Ok(out.line("")?)
    }
}

#[derive(Serialize)]
struct RepositoryJson<'r> {
    message_type: &'static str,
    repository: &'r str,
    #[serde(flatten)]
    owner: OwnerJson<'r>,
    snapshots: Vec<VolumeJson<'r>>,
    /// Why snapshots cannot be read.
    damaged: Vec<String>,
    /// Why the repository cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The file that restores its volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'r str>,
}

#[derive(Serialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
enum OwnerJson<'r> {
    Volume { cluster: &'r str, namespace: &'r str, claim: &'r str },
    Old { protected_namespace: &'r str, backup: Option<&'r str>, content: &'r str },
    Unknown,
}

impl<'r> From<&'r Layout> for OwnerJson<'r> {
    fn from(layout: &'r Layout) -> OwnerJson<'r> {
        match layout {
            Layout::Volume { cluster, namespace, claim } => OwnerJson::Volume { cluster, namespace, claim },
            Layout::Old { protected, backup, content } => {
                OwnerJson::Old { protected_namespace: protected, backup: backup.as_deref(), content }
            }
            Layout::Unknown => OwnerJson::Unknown,
        }
    }
}

#[derive(Serialize)]
struct VolumeJson<'r> {
    #[serde(flatten)]
    snapshot: SnapshotJson<'r>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsb: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<&'r str>,
    volume_mode: &'static str,
    empty: bool,
}

impl<'r> From<&'r StoredSnapshot> for VolumeJson<'r> {
    fn from(stored: &'r StoredSnapshot) -> VolumeJson<'r> {
        let snapshot = &stored.snapshot;
        VolumeJson {
            snapshot: stored.into(),
            vsb: Tag::Backup.value(&snapshot.tags),
            backup: Tag::Velero.value(&snapshot.tags),
            volume_mode: snapshot.volume_mode().name(),
            empty: snapshot.is_empty_volume(),
        }
    }
}

fn describe(layout: &Layout) -> String {
    match layout {
        Layout::Volume { cluster, namespace, claim } => format!("claim {namespace}/{claim} of cluster {cluster}"),
        Layout::Old { protected, backup: Some(backup), content } => {
            format!("content {content} of backup {backup}, by VolumeSnapshotMover in {protected}")
        }
        Layout::Old { protected, backup: None, content } => {
            format!("content {content}, by VolumeSnapshotMover in {protected}")
        }
        Layout::Unknown => "unknown owner".to_owned(),
    }
}

fn print_snapshots(context: &Context, snapshots: &[StoredSnapshot]) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(context.out.line("no snapshots")?);
    }
    let mut table = Table::new(vec!["ID", "Time", "VSB", "Backup", "Files", "Size", "Volume"]);
    for StoredSnapshot { id, snapshot } in snapshots {
        let tag = |tag: Tag| tag.value(&snapshot.tags).unwrap_or_default().to_owned();
        let summary = |number: fn(&Summary) -> String| snapshot.summary.as_ref().map(number).unwrap_or_default();
        let problems = snapshot.summary.as_ref().map_or(0, |summary| summary.problems);
        let mut volume = snapshot.volume_mode().name().to_owned();
        if snapshot.is_empty_volume() {
            volume.push_str(", empty");
        }
        if problems > 0 {
            volume.push_str(&format!(", {problems} entries missing"));
        }
        table.row(vec![
            id.short(),
            render::local_time(&snapshot.time),
            tag(Tag::Backup),
            tag(Tag::Velero),
            summary(|summary| summary.total_files_processed.to_string()),
            summary(|summary| render::bytes(summary.total_bytes_processed)),
            volume,
        ]);
    }
    Ok(table.lines().iter().try_for_each(|line| context.out.line(line))?)
}
