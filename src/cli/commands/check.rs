//! The command `check`: finds errors in the repository, the snapshots they damage, and the repair
//! commands.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::is_zero;
use crate::cli::progress::Kind;
use crate::cli::select;
use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::id::Id;
use crate::maintain::check::{Check, Hit, Report, Subset};
use crate::repo::{self, LockMode, StoredSnapshot};
use crate::store::CacheLifetime;
use crate::store::traffic::Account;
use anyhow::{Result, bail};
use serde::Serialize;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo check
  vsm-mover -r /srv/repo check --read-data
  vsm-mover -r /srv/repo check --read-data-subset 1/10
  vsm-mover -r /srv/repo check --with-cache --no-lock")]
pub struct Args {
    /// Read and verify all packs
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read and verify a subset of the packs: part N of T as N/T, a random percentage as X%, or a
    /// random sample of a size like 10G
    #[arg(long, value_name = "SUBSET", value_parser = subset)]
    read_data_subset: Option<Subset>,
    /// Use the local cache
    #[arg(long)]
    with_cache: bool,
}

fn subset(text: &str) -> Result<Subset, String> {
    let bad = || format!("{text:?} is not like 1/10 (up to 256 parts), 2.5% or 10G");
    if let Some((number, parts)) = text.split_once('/') {
        let parts: u16 = parts.parse().map_err(|_| bad())?;
        let number: u16 = number.parse().map_err(|_| bad())?;
        if parts > 256 || number == 0 || number > parts {
            return Err(bad());
        }
        return Ok(Subset::Part { number, parts });
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| bad())?;
        return if percent > 0.0 && percent <= 100.0 { Ok(Subset::Percent(percent)) } else { Err(bad()) };
    }
    args::size(text).map_err(|_| bad()).and_then(|bytes| if bytes > 0 { Ok(Subset::Bytes(bytes)) } else { Err(bad()) })
}

#[derive(Serialize)]
struct SummaryMessage<'r> {
    message_type: &'static str,
    num_errors: u64,
    /// Not in restic: the errors among these that are failures of the store, not damage.
    #[serde(skip_serializing_if = "is_zero")]
    num_out_of_reach: u64,
    broken_packs: Option<Vec<Id>>,
    suggest_repair_index: bool,
    suggest_prune: bool,
    /// Not in restic: commands that repair the repository, without the lost data.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    repair: &'r [String],
    /// Not in restic: the requests and bytes of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Account>,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let cache = if args.with_cache { CacheLifetime::Lasting } else { CacheLifetime::ThisRun };
    let repo = context.open_with(cache, (!context.global.repository.no_lock).then_some(LockMode::Exclusive))?;
    let subset = if args.read_data { Some(Subset::All) } else { args.read_data_subset };
    let orderly = context.orderly();
    let (report, loss) = check(context, &repo, subset)?;
    drop(orderly);
    let repair = repairs(&report, loss);
    let Report { errors, suggest_repair_index, suggest_prune, .. } = report;
    if context.out.is_json() {
        let broken_packs = (!report.broken_packs.is_empty()).then_some(report.broken_packs);
        context.out.json(&SummaryMessage {
            message_type: "summary",
            num_errors: errors,
            num_out_of_reach: report.out_of_reach,
            broken_packs,
            suggest_repair_index,
            suggest_prune,
            repair: &repair,
            store: context.cost(),
        })?;
    } else if !repair.is_empty() {
        context.out.warn(
            "back up the same files again first: this restores the lost data of files that still exist. Then run these \
             commands, if possible with a copy of the repository at hand: they repair the repository and remove the \
             entries whose data stays lost:",
        );
        repair.iter().for_each(|command| context.out.warn(format_args!("  vsm-mover {command}")));
    }
    if errors > 0 {
        bail!("repository contains errors: {errors}, each listed above");
    }
    context.out.note("no errors were found")?;
    context.note_cost()?;
    Ok(Outcome::Complete)
}

/// Whether data of snapshots is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SnapshotLoss {
    None,
    Found,
}

/// The commands that repair the repository, in their order.
fn repairs(report: &Report, loss: SnapshotLoss) -> Vec<String> {
    let hits = loss == SnapshotLoss::Found;
    let with = |command: &str, ids: &[Id]| {
        let words = std::iter::once(command.to_owned()).chain(ids.iter().map(Id::to_string));
        words.collect::<Vec<_>>().join(" ")
    };
    let Report { broken_packs, broken_snapshots, suggest_repair_index, missing_packs, unindexed, .. } = report;
    if report.out_of_reach > 0 {
        return Vec::new();
    }
    let commands = [
        // Missing blobs may be in packs that no index lists.
        (*suggest_repair_index || *missing_packs > 0 || (hits && *unindexed > 0), with("repair index", &[])),
        (!broken_packs.is_empty(), with("repair packs", broken_packs)),
        (!broken_snapshots.is_empty(), with("repair snapshots --forget", broken_snapshots)),
        (hits, with("repair snapshots --forget", &[])),
    ];
    commands.into_iter().filter(|(helps, _)| *helps).map(|(_, command)| command).collect()
}

/// A snapshot with lost data.
#[derive(Serialize)]
struct DamagedMessage<'h> {
    message_type: &'static str,
    id: Id,
    time: Time,
    hostname: &'h str,
    entries: u64,
    paths: &'h [String],
}

/// The number of damaged paths that are listed for a snapshot without `-v`.
const PATHS: usize = 10;

fn tell_hit(context: &Context, stored: &StoredSnapshot, hit: &Hit) {
    let Hit { entries, paths } = hit;
    let out = &context.out;
    if out.is_json() {
        let Snapshot { time, hostname, .. } = &stored.snapshot;
        let (id, time) = (stored.id, *time);
        let message = DamagedMessage { message_type: "damaged_snapshot", id, time, hostname, entries: *entries, paths };
        // On standard error like the errors: restic prints only the summary on standard output.
        return out.warn_json(&message);
    }
    out.warn(format_args!("damaged: {} lacks {entries} entries or parts of them:", select::describe(stored)));
    let shown = if out.verbosity > 1 { paths.len() } else { PATHS.min(paths.len()) };
    paths[..shown].iter().for_each(|path| out.warn(format_args!("  {path}")));
    if (shown as u64) < *entries {
        out.warn(format_args!("  and {} more", *entries - shown as u64));
    }
}

/// Checks the repository, and reports which snapshots are damaged.
fn check(context: &Context, repo: &repo::Repository, subset: Option<Subset>) -> Result<(Report, SnapshotLoss)> {
    let out = &context.out;
    out.note("load indexes")?;
    let mut check = Check::start(repo, &context.progress)?;
    out.note("check all packs")?;
    check.packs()?;
    out.note("check snapshots, trees and blobs")?;
    let ticker = context.show_progress(Kind::Count("snapshots"));
    check.trees()?;
    drop(ticker);
    if let Some(subset) = subset {
        out.note(match subset {
            Subset::All => "read all data".to_owned(),
            Subset::Part { number, parts } => format!("read part {number} of {parts} of the packs"),
            Subset::Percent(percent) => format!("read {percent}% of the packs"),
            Subset::Bytes(bytes) => format!("read {bytes} bytes of packs"),
        })?;
        let ticker = context.show_progress(Kind::Count("packs"));
        check.data(subset)?;
        drop(ticker);
    }
    let mut loss = SnapshotLoss::None;
    if check.out_of_reach() > 0 {
        out.warn(format_args!(
            "{} of these errors are failures of the store, not damage: make sure that the store can be reached, and \
             run check again; until then it is unknown which data is lost",
            check.out_of_reach()
        ));
    } else if context.progress.problem_count() > 0 {
        out.note("look for lost data")?;
        check.hits(&mut |stored, hit| {
            loss = SnapshotLoss::Found;
            tell_hit(context, stored, hit);
        })?;
    }
    let report = check.finish();
    let Report { snapshots, trees, packs, packs_read, .. } = report;
    out.note_at(2, format_args!("{snapshots} snapshots, {trees} trees, {packs} packs, {packs_read} of them read"))?;
    Ok((report, loss))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_parts_percentages_or_sizes() {
        assert_eq!(subset("3/10"), Ok(Subset::Part { number: 3, parts: 10 }));
        assert_eq!(subset("256/256"), Ok(Subset::Part { number: 256, parts: 256 }));
        assert_eq!(subset("2.5%"), Ok(Subset::Percent(2.5)));
        assert_eq!(subset("10k"), Ok(Subset::Bytes(10 << 10)));
        for bad in ["", "0/3", "4/3", "1/257", "1/0", "0%", "101%", "NaN%", "x", "0"] {
            assert!(subset(bad).is_err(), "{bad}");
        }
    }
}
