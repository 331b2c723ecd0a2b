//! The command `rewrite`: removes paths from snapshots, or changes their host or time.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::patterns::ExcludePatterns;
use crate::cli::select::{self, Selection};
use crate::format::time::Time;
use crate::maintain::exclude::{self, Became, Options};
use crate::maintain::rewrite::Replace;
use crate::repo::LockMode;
use anyhow::{Result, bail};

#[derive(clap::Args)]
#[command(mut_arg("ids", |ids| ids.help("Snapshots to rewrite [default: all that the filters accept]")))]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo rewrite --exclude '*.iso' --forget
  vsm-mover -r /srv/repo rewrite --new-host server latest --dry-run")]
pub struct Args {
    /// Set the host of the new snapshots
    #[arg(long, value_name = "HOST")]
    new_host: Option<String>,
    /// Set the time of the new snapshots
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    new_time: Option<Time>,
    /// Remove the original snapshots
    #[arg(long)]
    forget: bool,
    /// Do not change anything, only report what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    exclude: ExcludePatterns,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let Args { selection, exclude, new_host, new_time, forget, dry_run } = args;
    let exclude = exclude.build()?;
    if exclude.is_empty() && new_host.is_none() && new_time.is_none() {
        bail!("nothing to do: give patterns to exclude, --new-host or --new-time");
    }
    if context.global.repository.no_lock && !dry_run {
        bail!("--no-lock needs --dry-run: rewriting snapshots needs a lock");
    }
    let mode = if forget { LockMode::Exclusive } else { LockMode::Shared };
    let repo = if context.global.repository.no_lock { context.open()? } else { context.open_locked(mode)? };
    let (snapshots, missing) = selection.snapshots(context, &repo)?;
    let _orderly = context.orderly();
    let options = Options { exclude, host: new_host, time: new_time, replace: Replace { forget, dry_run } };
    let (mut changed, mut failed) = (0, missing);
    let would = if dry_run { "would be " } else { "" };
    exclude::rewrite(&repo, &snapshots, &options, &context.progress, &mut |stored, became| {
        let text = match became {
            Became::Unchanged => return,
            Became::Failed => {
                failed += 1;
                return;
            }
            Became::Rewritten(None) => "would be rewritten".to_owned(),
            Became::Rewritten(Some(id)) => format!("is now snapshot {}", id.short()),
        };
        changed += 1;
        // A closed standard output must not abort the rewrite.
        let _ = context.out.note(format_args!("{} {text}", select::describe(stored)));
    })?;
    context.out.note(format_args!("{changed} snapshots {would}changed"))?;
    Ok(match failed {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} snapshots could not be rewritten, each listed above")),
    })
}
