//! `repositories`: everything that is below a place, for whoever has nothing left but a bucket and a password; and the manifests that
//! bring it back.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::exit::{Outcome, reasons};
use crate::cli::render;
use crate::cli::select::SnapshotJson;
use crate::cli::table::Table;
use crate::format::time::Time;
use crate::maintain::survey::{self, Contents};
use crate::manifest::{Plan, Unfit};
use crate::provenance::{Layout, Tag};
use crate::repo::{self, StoredSnapshot};
use crate::store::{Location, Place};
use crate::velero;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Where to look: a folder, or s3:https://HOST/BUCKET/PREFIX
    #[arg(value_name = "BASE")]
    base: String,
    /// Only repositories of the cluster with this id
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// New directory that takes a manifest for each volume, which brings it back on a cluster
    #[arg(long, value_name = "DIRECTORY")]
    manifests: Option<PathBuf>,
    /// Manifests for what this Velero backup made, instead of the newest
    #[arg(long, value_name = "NAME", requires = "manifests")]
    backup: Option<String>,
    /// Manifests for the newest that is not younger than this
    #[arg(long, value_name = "TIME", requires = "manifests", value_parser = args::time)]
    until: Option<Time>,
    /// Namespace for the volumes of old repositories, whose paths name none
    #[arg(long, value_name = "NAME", requires = "manifests")]
    namespace: Option<String>,
    /// Namespace of Velero and of the controller
    #[arg(long, value_name = "NAME", requires = "manifests", default_value = "velero")]
    protected_namespace: String,
    /// Secret there with location, credentials and password
    #[arg(long, value_name = "NAME", requires = "manifests", default_value = "default-volsync-restic")]
    secret: String,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let place = context.place(&args.base)?;
    let mut found = survey::find(&place, "", velero::location::is_own_directory)?;
    let layouts = layouts(&place, &found.repositories);
    let wanted = |path: &String| match (&args.cluster, &layouts[path]) {
        (Some(wanted), Layout::Volume { cluster, .. }) => cluster == wanted,
        (Some(_), _) => false,
        (None, _) => true,
    };
    found.repositories.retain(wanted);
    for (path, error) in &found.failed {
        context.out.warn(format_args!("error: {} is not looked into: {}", place.location(path), reasons(error)));
    }
    if found.repositories.is_empty() {
        let of = args.cluster.as_ref().map(|id| format!(" of the cluster {id}")).unwrap_or_default();
        bail!("there is no repository{of} at {} or below; check the location", place.location(""));
    }
    let writer = match &args.manifests {
        Some(directory) => Some(Writer::new(directory, &args, layouts.values())?),
        None => None,
    };
    if writer.is_some() && matches!(place.location(""), Location::Folder(_)) {
        context
            .out
            .warn("warning: a controller takes no folder: put the bucket's location into the manifests in its place");
    }
    let password = context.password()?;
    let mut listing =
        Listing { context, place: &place, layouts: &layouts, writer, tally: Tally::default(), first: None };
    listing.tally.directories = found.failed.len();
    survey::read(&place, &found.repositories, &password, &context.settings(), |path, contents| {
        listing.tell(path, contents)
    })?;
    let Listing { tally, first, .. } = listing;
    let passed_over: Vec<String> = found.passed_over.iter().map(|path| place.location(path).to_string()).collect();
    if context.out.is_json() {
        context.out.json(&SummaryJson { message_type: "summary", tally: &tally, passed_over: &passed_over })?;
    } else {
        for place in &passed_over {
            context.out.note(format_args!("not looked into: {place}"))?;
        }
        context.out.line(format_args!("{} repositories, {} snapshots", tally.repositories, tally.snapshots))?;
    }
    match first {
        Some(error) if tally.unreadable == tally.repositories => {
            Err(error).context(format!("none of the {} repositories can be read, the first", tally.repositories))
        }
        _ => Ok(tally.outcome()),
    }
}

/// Whose each repository is.
fn layouts(place: &Place, repositories: &[String]) -> BTreeMap<String, Layout> {
    let layout = |path: &String| {
        let parts = place.location(path).parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Layout::guess(&parts, path.split('/').filter(|part| !part.is_empty()).count())
    };
    repositories.iter().map(|path| (path.clone(), layout(path))).collect()
}

/// What came of it.
#[derive(Default, Serialize)]
struct Tally {
    repositories: usize,
    snapshots: usize,
    /// Repositories that cannot be read.
    unreadable: usize,
    /// Snapshots that cannot.
    damaged: usize,
    /// Directories that cannot be listed.
    directories: usize,
    manifests: usize,
    /// Volumes that could be brought back, and for which there is no manifest.
    without_manifest: usize,
}

impl Tally {
    fn outcome(&self) -> Outcome {
        let parts = [
            (self.unreadable, "repositories cannot be read"),
            (self.damaged, "snapshots cannot be read"),
            (self.directories, "directories were not looked into"),
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

#[derive(Serialize)]
struct RepositoryJson<'r> {
    message_type: &'static str,
    repository: &'r str,
    #[serde(flatten)]
    owner: OwnerJson<'r>,
    snapshots: Vec<VolumeJson<'r>>,
    /// Why snapshots cannot be read.
    damaged: Vec<String>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The file that brings it back.
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

/// Tells of one repository after the other.
struct Listing<'l> {
    context: &'l Context,
    place: &'l Place,
    layouts: &'l BTreeMap<String, Layout>,
    writer: Option<Writer>,
    tally: Tally,
    /// The first error that kept a repository from being read.
    first: Option<repo::Error>,
}

impl Listing<'_> {
    fn tell(&mut self, path: &str, contents: repo::Result<Contents>) -> Result<()> {
        let out = &self.context.out;
        let repository = self.place.location(path).to_string();
        let layout = &self.layouts[path];
        self.tally.repositories += 1;
        let (contents, error) = match contents {
            Ok(contents) => (contents, None),
            Err(error) => {
                out.warn(format_args!("error: {repository} cannot be read: {}", reasons(&error)));
                self.tally.unreadable += 1;
                (Contents::default(), Some(error))
            }
        };
        for error in &contents.damaged {
            out.warn(format_args!("error: a snapshot in {repository} cannot be read: {}", reasons(error)));
        }
        self.tally.snapshots += contents.snapshots.len();
        self.tally.damaged += contents.damaged.len();
        let written = match &mut self.writer {
            Some(writer) if error.is_none() => Some(writer.write(&repository, layout, &contents.snapshots)?),
            _ => None,
        };
        let manifest = match &written {
            Some(Written::File(file)) => {
                self.tally.manifests += 1;
                Some(file.as_str())
            }
            Some(Written::Nothing { why, wanted }) => {
                self.tally.without_manifest += usize::from(*wanted);
                out.warn(format_args!("warning: no manifest for {repository}: {why}"));
                None
            }
            None => None,
        };
        if out.is_json() {
            out.json(&RepositoryJson {
                message_type: "repository",
                repository: &repository,
                owner: layout.into(),
                snapshots: contents.snapshots.iter().map(VolumeJson::from).collect(),
                damaged: contents.damaged.iter().map(|error| reasons(error)).collect(),
                error: error.as_ref().map(|error| reasons(error)),
                manifest,
            })?;
        } else {
            out.line(&repository)?;
            out.line(describe(layout))?;
            match error {
                Some(_) => out.line("cannot be read")?,
                None => print(self.context, &contents.snapshots)?,
            }
            out.line("")?;
        }
        if self.first.is_none() {
            self.first = error;
        }
        Ok(())
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
        Layout::Unknown => "nobody knows whose".to_owned(),
    }
}

fn print(context: &Context, snapshots: &[StoredSnapshot]) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(context.out.line("no snapshots")?);
    }
    let mut table = Table::new(vec!["ID", "Time", "VSB", "Backup", "Files", "Size", "Volume"]);
    for StoredSnapshot { id, snapshot } in snapshots {
        let tag = |tag: Tag| tag.value(&snapshot.tags).unwrap_or_default().to_owned();
        let summary = |number: fn(&crate::format::snapshot::Summary) -> String| {
            snapshot.summary.as_ref().map(number).unwrap_or_default()
        };
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

/// Writes manifests into a directory.
struct Writer {
    directory: PathBuf,
    plan: Plan,
    /// The claims that are made, and from which repository.
    claims: BTreeMap<(String, String), String>,
}

enum Written {
    File(String),
    /// Nothing, and whether something was `wanted`.
    Nothing {
        why: String,
        wanted: bool,
    },
}

impl Writer {
    /// Manifests of an earlier time beside those of now would bring everything back twice.
    fn new<'l>(directory: &Path, args: &Args, layouts: impl Iterator<Item = &'l Layout>) -> Result<Writer> {
        let clusters: BTreeSet<&str> = layouts
            .filter_map(|layout| match layout {
                Layout::Volume { cluster, .. } => Some(cluster.as_str()),
                _ => None,
            })
            .collect();
        if clusters.len() > 1 && args.cluster.is_none() {
            let clusters = clusters.into_iter().collect::<Vec<_>>().join(", ");
            bail!(
                "below {} are volumes of the clusters {clusters}; --cluster says which are to be brought back",
                args.base
            );
        }
        let name = directory.display();
        fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {name}"))?;
        if fs::read_dir(directory).with_context(|| format!("cannot list {name}"))?.next().is_some() {
            bail!("there is something in {name}; name a new directory");
        }
        let plan = Plan {
            protected: args.protected_namespace.clone(),
            secret: args.secret.clone(),
            backup: args.backup.clone(),
            until: args.until,
            namespace: args.namespace.clone(),
        };
        Ok(Writer { directory: directory.to_owned(), plan, claims: BTreeMap::new() })
    }

    fn write(&mut self, repository: &str, layout: &Layout, snapshots: &[StoredSnapshot]) -> Result<Written> {
        let all = snapshots.iter().map(|stored| (stored.id, &stored.snapshot));
        let manifest = match self.plan.manifest(repository, layout, all) {
            Ok(manifest) => manifest,
            Err(why) => {
                return Ok(Written::Nothing { why: why.to_string(), wanted: why != Unfit::NoSnapshot });
            }
        };
        let claim = format!("{}/{}", manifest.claim.0, manifest.claim.1);
        if let Some(other) = self.claims.get(&manifest.claim) {
            let why = format!("there is one for {claim} from {other}; a longer BASE has only one of them below it");
            return Ok(Written::Nothing { why, wanted: true });
        }
        let path = self.directory.join(&manifest.file);
        let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(manifest.text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        self.claims.insert(manifest.claim, repository.to_owned());
        Ok(Written::File(manifest.file))
    }
}
