//! The command `repositories`: lists the repositories below a location, and writes manifests that
//! restore their volumes.
//!
//! It needs only a bucket and a password, so that volumes can be restored after the loss of a
//! cluster.

mod manifests;
mod show;

use crate::cli::context::Context;
use crate::cli::exit::{Outcome, reasons};
use crate::maintain::survey::{self, Contents};
use crate::provenance::Layout;
use crate::repo;
use crate::store::{Location, Place};
use crate::velero;
use anyhow::{Context as _, Result, bail};
use manifests::{ManifestArgs, Writer, Written};
use show::{Repository, Tally};
use std::collections::{BTreeMap, BTreeSet};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -p /etc/vsm/password repositories s3:https://s3.example.com/bucket/velero
  vsm-mover -p /etc/vsm/password repositories /mnt/velero/restic --manifests /tmp/restore")]
pub struct Args {
    /// Location to search: a folder, or s3:https://HOST/BUCKET/PREFIX
    #[arg(value_name = "BASE")]
    base: String,
    /// Only consider repositories of the cluster with this id
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    #[command(flatten)]
    manifests: ManifestArgs,
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
        context.out.warn(format_args!("error: {} is not searched: {}", place.location(path), reasons(error)));
    }
    if found.repositories.is_empty() {
        let of = args.cluster.as_ref().map(|id| format!(" of the cluster {id}")).unwrap_or_default();
        bail!("there is no repository{of} at {} or below; check the location", place.location(""));
    }
    let writer = match &args.manifests.manifests {
        Some(directory) => {
            check_cluster(&args, &layouts)?;
            Some(Writer::new(directory, &args.manifests)?)
        }
        None => None,
    };
    if writer.is_some() && matches!(place.location(""), Location::Folder(_)) {
        context.out.warn(
            "warning: a controller does not accept a folder: replace it in the manifests by the bucket's location",
        );
    }
    let password = context.password()?;
    let mut listing =
        Listing { context, place: &place, layouts: &layouts, writer, tally: Tally::default(), first: None };
    listing.tally.directories = found.failed.len();
    survey::read(&place, &found.repositories, &password, &context.settings(), |path, contents| {
        listing.add(path, contents)
    })?;
    let Listing { tally, first, .. } = listing;
    let passed_over: Vec<String> = found.passed_over.iter().map(|path| place.location(path).to_string()).collect();
    tally.print(context, &passed_over)?;
    match first {
        Some(error) if tally.unreadable == tally.repositories => {
            Err(error).context(format!("none of the {} repositories can be read, the first", tally.repositories))
        }
        _ => Ok(tally.outcome()),
    }
}

/// The volume that each repository belongs to, by its path.
fn layouts(place: &Place, repositories: &[String]) -> BTreeMap<String, Layout> {
    let layout = |path: &String| {
        let parts = place.location(path).parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Layout::guess(&parts, path.split('/').filter(|part| !part.is_empty()).count())
    };
    repositories.iter().map(|path| (path.clone(), layout(path))).collect()
}

/// Fails if the manifests would restore the volumes of several clusters.
fn check_cluster(args: &Args, layouts: &BTreeMap<String, Layout>) -> Result<()> {
    let clusters: BTreeSet<&str> = layouts
        .values()
        .filter_map(|layout| match layout {
            Layout::Volume { cluster, .. } => Some(cluster.as_str()),
            _ => None,
        })
        .collect();
    if clusters.len() > 1 && args.cluster.is_none() {
        let clusters = clusters.into_iter().collect::<Vec<_>>().join(", ");
        bail!("{} contains volumes of the clusters {clusters}; select one with --cluster", args.base);
    }
    Ok(())
}

/// Prints one repository after the other, and writes their manifests.
struct Listing<'l> {
    context: &'l Context,
    place: &'l Place,
    layouts: &'l BTreeMap<String, Layout>,
    writer: Option<Writer>,
    tally: Tally,
    /// The error of the first unreadable repository.
    first: Option<repo::Error>,
}

impl Listing<'_> {
    fn add(&mut self, path: &str, contents: repo::Result<Contents>) -> Result<()> {
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
        let (location, contents) = (&repository, &contents);
        Repository { location, layout, contents, error: error.as_ref(), manifest }.print(self.context)?;
        if self.first.is_none() {
            self.first = error;
        }
        Ok(())
    }
}
