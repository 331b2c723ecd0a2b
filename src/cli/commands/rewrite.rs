//! `rewrite`: leaves paths out of snapshots after the fact, or says otherwise when and where they were made.

use crate::cli::args::{self, Filter};
use crate::cli::exit::Outcome;
use crate::cli::patterns::Lists;
use crate::cli::select;
use crate::cli::session::Context;
use crate::format::time::Time;
use crate::maintain::exclude::{self, Became, Options};
use crate::repo::LockMode;
use anyhow::{Result, bail};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Snapshots to rewrite [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Pattern of what to leave out; may be given several times
    #[arg(short, long, value_name = "PATTERN", allow_hyphen_values = true)]
    exclude: Vec<String>,
    /// The same, whatever the case
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    iexclude: Vec<String>,
    /// File of such patterns, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// The same, whatever the case
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
    /// The host that the new snapshots name
    #[arg(long, value_name = "HOST")]
    new_host: Option<String>,
    /// The time that they name
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    new_time: Option<Time>,
    /// Remove the old snapshots
    #[arg(long)]
    forget: bool,
    /// Change nothing, only tell what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let Args { ids, filter, new_host, new_time, forget, dry_run, .. } = args;
    let exclude = Lists {
        patterns: &args.exclude,
        ignoring_case: &args.iexclude,
        files: &args.exclude_file,
        files_ignoring_case: &args.iexclude_file,
    }
    .build()?;
    if exclude.is_empty() && new_host.is_none() && new_time.is_none() {
        bail!("nothing to do: give patterns to exclude, --new-host or --new-time");
    }
    if context.global.no_lock && !dry_run {
        bail!("--no-lock goes only with --dry-run here");
    }
    let mode = if forget { LockMode::Exclusive } else { LockMode::Shared };
    let repo = if context.global.no_lock { context.open()? } else { context.open_locked(mode)? };
    let (snapshots, missing) = select::snapshots(context, &repo, &ids, &filter.build())?;
    let _orderly = context.orderly();
    let options = Options { exclude, host: new_host, time: new_time, forget, dry_run };
    let mut changed = 0;
    let would = if dry_run { "would be " } else { "" };
    exclude::rewrite(&repo, &snapshots, &options, &context.progress, &mut |stored, became| {
        let text = match became {
            Became::Unchanged => return,
            Became::Rewritten(None) => "would be made anew".to_owned(),
            Became::Rewritten(Some(id)) => format!("is now snapshot {}", id.short()),
            Became::Nothing => format!("has nothing left, and {would}removed"),
        };
        changed += 1;
        // Who does not read it is no reason to stop halfway.
        let _ = context.out.note(format_args!("{} {text}", select::describe(stored)));
    })?;
    context.out.note(format_args!("{changed} snapshots {would}changed"))?;
    Ok(match missing {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} snapshots could not be read")),
    })
}
