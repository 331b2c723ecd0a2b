//! The command `mount`: shows snapshots as directories until a signal or an unmount.

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

/// Poll interval for a signal and an unmount.
const WATCH: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo mount /mnt
  vsm-mover -r /srv/repo mount /mnt --allow-other --host server")]
pub struct Args {
    /// Directory to mount the snapshots on
    #[arg(id = "mountpoint", value_name = "DIRECTORY")]
    target: PathBuf,
    /// Allow other users to access the mounted snapshots
    #[arg(long)]
    allow_other: bool,
    /// Ignore file modes and owners, so that other users can read everything (with --allow-other)
    #[arg(long, requires = "allow_other")]
    no_default_permissions: bool,
    /// Show root as the owner of all files
    #[arg(long)]
    owner_root: bool,
    #[command(flatten)]
    filter: Filter,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let Args { target, filter, allow_other, no_default_permissions, owner_root } = args;
    if !target.is_dir() {
        bail!("{} is not a directory; create it, or name an existing one", target.display());
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
        "{} snapshots are mounted on {}; press Ctrl-C or unmount to end",
        snapshots.len(),
        target.display()
    ))?;
    while !mount.is_over() && !context.progress.is_interrupted() {
        clock::sleep(WATCH);
    }
    let busy =
        || format!("cannot unmount {}: a program may still use it; end the program, and run umount", target.display());
    mount.end().with_context(busy)?;
    context.check_lock()?;
    Ok(match context.progress.problem_count() + unread as u64 {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} objects could not be read, each listed above")),
    })
}
