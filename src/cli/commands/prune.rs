//! The command `prune`: removes data that no snapshot references.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::dry_run::DryRun;
use crate::cli::exit::Outcome;
use crate::cli::progress::{Kind, Ticker};
use crate::cli::render;
use crate::format::Version;
use crate::format::compression::Compression;
use crate::id::Id;
use crate::maintain::prune::{Fate, Limit, Observer, Options, Prune, Stage, Stats};
use crate::repo::{Index, LockMode, Repository};
use anyhow::{Result, bail};
use serde::Serialize;
use std::cell::RefCell;
use std::sync::Arc;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo prune
  vsm-mover -r /srv/repo prune --dry-run --max-unused 10%
  vsm-mover -r /srv/repo prune --repack-cacheable-only")]
pub struct Args {
    /// Do not change anything, only report what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
}

/// Heading of the help.
pub const HEADING: &str = "Prune options";

/// The options of `prune` that `forget --prune` accepts, too.
#[derive(clap::Args)]
#[command(next_help_heading = HEADING)]
pub struct How {
    /// Tolerate this amount of unused data: a size like 1G, a share like 5%, or `unlimited`
    #[arg(long, value_name = "LIMIT", value_parser = limit, default_value = "5%")]
    max_unused: Limit,
    /// Repack at most this amount of data
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    max_repack_size: Option<u64>,
    /// Repack only tree packs
    #[arg(long)]
    repack_cacheable_only: bool,
    /// Repack packs smaller than this [default: packs that are much smaller than most others]
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    repack_smaller_than: Option<u64>,
    /// Repack all uncompressed data
    #[arg(long)]
    repack_uncompressed: bool,
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == "unlimited" {
        return Ok(Limit::Unlimited);
    }
    let Some(percent) = text.strip_suffix('%') else { return args::size(text).map(Limit::Bytes) };
    let percent = percent.parse().ok().filter(|percent| (0.0..100.0).contains(percent));
    percent.map(Limit::Percent).ok_or_else(|| format!("{text:?} is not a share from 0% to below 100%"))
}

impl How {
    fn options(&self, context: &Context) -> Result<Options> {
        let How { max_unused, max_repack_size, repack_smaller_than: small, .. } = *self;
        if self.repack_uncompressed && context.global.performance.compression == Compression::Off {
            bail!("--repack-uncompressed and --compression off exclude each other");
        }
        if small.is_some_and(|small| small == 0 || small > context.settings().pack_size) {
            bail!("--repack-smaller-than must be between 1 and --pack-size");
        }
        Ok(Options {
            max_unused,
            max_repack: max_repack_size,
            small,
            cacheable_only: self.repack_cacheable_only,
            uncompressed: self.repack_uncompressed,
        })
    }
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if context.global.repository.no_lock && !args.dry_run {
        bail!("--no-lock needs --dry-run: removing packs needs an exclusive lock");
    }
    let repo =
        if context.global.repository.no_lock { context.open()? } else { context.open_locked(LockMode::Exclusive)? };
    prune(context, &repo, &args.how, &[], DryRun::from(args.dry_run))
}

/// Prunes a repository that is locked exclusively. The snapshots in `gone` count as removed even if
/// they exist.
pub fn prune(context: &Context, repo: &Arc<Repository>, how: &How, gone: &[Id], dry_run: DryRun) -> Result<Outcome> {
    let options = how.options(context)?;
    if options.uncompressed && repo.config().version == Version::V1 {
        bail!(
            "--repack-uncompressed: a repository of version 1 has no compression; run `migrate upgrade_repo_v2` first"
        );
    }
    let _orderly = context.orderly();
    let tell = Tell::new(context);
    tell.stage(Stage::ReadIndex);
    let index = Index::load(repo)?;
    let observer = Observer { progress: &context.progress, stage: &|stage| tell.stage(stage) };
    let prune = Prune::plan(repo, &index, &options, gone, &observer)?;
    tell.end();
    if context.out.is_json() {
        context.out.json(&Summary { message_type: "summary", stats: prune.stats() })?;
    } else {
        print(context, prune.stats(), dry_run)?;
    }
    if dry_run == DryRun::Yes {
        let list = |what: &str, ids: &[Id]| {
            let ids: Vec<String> = ids.iter().map(Id::to_string).collect();
            context.out.note_at(2, format_args!("would have {what}: {}", ids.join(" ")))
        };
        list("removed packs that are in no index", prune.unindexed())?;
        list("repacked and removed packs", &prune.packs(Fate::Repack))?;
        list("removed packs", &prune.packs(Fate::Remove))?;
        return Ok(Outcome::Complete);
    }
    let done = prune.carry_out(repo, &observer)?;
    tell.end();
    context.out.note("done")?;
    context.note_cost()?;
    Ok(match done.left_behind {
        0 => Outcome::Complete,
        count => {
            Outcome::Incomplete(format!("{count} unreferenced packs could not be removed; the next prune tries again"))
        }
    })
}

/// Prints the current stage and shows its progress.
struct Tell<'c> {
    context: &'c Context,
    ticker: RefCell<Option<Ticker>>,
}

impl<'c> Tell<'c> {
    fn new(context: &'c Context) -> Tell<'c> {
        Tell { context, ticker: None.into() }
    }

    fn stage(&self, stage: Stage) {
        self.end();
        let text = match stage {
            Stage::ReadIndex => "loading indexes...".to_owned(),
            Stage::FindNeeded { snapshots } => format!("finding data that is still in use for {snapshots} snapshots"),
            Stage::RemoveUnindexed { packs } => format!("removing {packs} packs that are in no index"),
            Stage::Repack { packs } => format!("repacking {packs} packs"),
            Stage::Reindex => "rebuilding index".to_owned(),
            Stage::RemovePacks { packs } => format!("removing {packs} old packs"),
        };
        // A closed standard output must not abort the prune.
        let _ = self.context.out.note(text);
        let kind = match stage {
            Stage::ReadIndex | Stage::Reindex => return,
            Stage::FindNeeded { .. } => Kind::Count("snapshots"),
            Stage::RemoveUnindexed { .. } | Stage::Repack { .. } | Stage::RemovePacks { .. } => Kind::Count("packs"),
        };
        *self.ticker.borrow_mut() = Some(self.context.show_progress(kind));
    }

    fn end(&self) {
        *self.ticker.borrow_mut() = None;
    }
}

#[derive(Serialize)]
struct Summary<'s> {
    message_type: &'static str,
    #[serde(flatten)]
    stats: &'s Stats,
}

fn print(context: &Context, stats: &Stats, dry_run: DryRun) -> Result<()> {
    let Stats { blobs, bytes, packfiles } = stats;
    let out = &context.out;
    let row = |label: &str, count: u64, size: u64| format!("{label:<14}{count:>10} blobs / {}", render::bytes(size));
    out.note_at(2, row("used:", blobs.used, bytes.used))?;
    if blobs.duplicate > 0 {
        out.note_at(2, row("duplicates:", blobs.duplicate, bytes.duplicate))?;
    }
    out.note_at(2, row("unused:", blobs.unused, bytes.unused))?;
    if packfiles.unreferenced > 0 {
        out.note_at(
            2,
            format_args!("in no index:   {:>9} packs / {}", packfiles.unreferenced, render::bytes(bytes.unreferenced)),
        )?;
    }
    out.note_at(2, row("total:", blobs.total, bytes.total))?;
    if dry_run == DryRun::Yes {
        out.note("would do this:")?;
    }
    out.note(row("to repack:", blobs.repack, bytes.repack))?;
    out.note(row("this removes:", blobs.repack_remove, bytes.repack_remove))?;
    out.note(row("to delete:", blobs.remove, bytes.remove + bytes.unreferenced))?;
    out.note(row("total prune:", blobs.remove_total, bytes.remove_total))?;
    if bytes.uncompressed > 0 {
        out.note(format_args!("not yet compressed: {}", render::bytes(bytes.uncompressed)))?;
    }
    out.note(row("remaining:", blobs.remaining, bytes.remaining))?;
    out.note(format_args!("unused after prune: {}", render::bytes(bytes.remaining_unused)))?;
    out.note_at(
        2,
        format_args!(
            "packs: {} used, {} partly used, {} unused; {} kept, {} repacked, {} removed",
            packfiles.used,
            packfiles.partly_used,
            packfiles.unused,
            packfiles.keep,
            packfiles.repack,
            packfiles.remove_total
        ),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_bytes_percentages_or_unlimited() {
        assert_eq!(limit("unlimited"), Ok(Limit::Unlimited));
        assert_eq!(limit("5%"), Ok(Limit::Percent(5.0)));
        assert_eq!(limit("0"), Ok(Limit::Bytes(0)));
        assert_eq!(limit("2G"), Ok(Limit::Bytes(2 << 30)));
        for bad in ["", "100%", "-1%", "NaN%", "x", "%"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
