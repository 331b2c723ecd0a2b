//! `mount`: snapshots as directories, until a signal comes or somebody unmounts them.

use crate::cli::args::Filter;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::select;
use crate::clock;
use crate::mount::{Mount, Options, Owner, Source};
use crate::repo::Index;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// How often it is looked whether it is to end.
const WATCH: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Args {
    /// Directory to mount the snapshots on
    #[arg(id = "mountpoint", value_name = "DIRECTORY")]
    target: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// Let other users look, too
    #[arg(long)]
    allow_other: bool,
    /// With --allow-other, let them look at everything, whatever its mode and owner
    #[arg(long, requires = "allow_other")]
    no_default_permissions: bool,
    /// Show everything as root's
    #[arg(long)]
    owner_root: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let Args { target, filter, allow_other, no_default_permissions, owner_root } = args;
    if !target.is_dir() {
        bail!("{} is no directory; a file system is mounted on one that is there", target.display());
    }
    let repo = context.open_to_read()?;
    let select = || select::snapshots(context, &repo, &[], &filter.build());
    let ((snapshots, unread), index) = Index::load_beside(&repo, select, |(snapshots, _)| snapshots)?;
    let owner = if owner_root { Owner::Root } else { Owner::AsStored };
    let options = Options { allow_other, ignore_permissions: no_default_permissions, owner };
    let _orderly = context.orderly();
    let source = Source { repo, index, snapshots: &snapshots };
    let mount = Mount::start(source, &target, options, context.progress.clone())
        .with_context(|| format!("cannot mount on {}", target.display()))?;
    context.out.note(format_args!(
        "{} snapshots are mounted on {}; end with Ctrl-C, or by unmounting",
        snapshots.len(),
        target.display()
    ))?;
    while !mount.is_over() && !context.progress.is_interrupted() {
        clock::sleep(WATCH);
    }
    let busy = || format!("cannot unmount {}: a program may still be in it; end it, and umount", target.display());
    mount.end().with_context(busy)?;
    context.check_lock()?;
    Ok(match context.progress.problem_count() + unread as u64 {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} things could not be read, each told above")),
    })
}
