//! `check`

use crate::cli::args;
use crate::cli::exit::Outcome;
use crate::cli::open::CacheUse;
use crate::cli::progress::Kind;
use crate::cli::session::Context;
use crate::id::Id;
use crate::maintain::check::{Check, Report, Subset};
use crate::repo::{self, LockMode};
use crate::store::traffic::Account;
use anyhow::{Result, bail};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    /// Read and verify all packs
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read and verify some packs: part N of T as N/T, or a percentage as X%, or a size like 10G drawn at random
    #[arg(long, value_name = "SUBSET", value_parser = subset)]
    read_data_subset: Option<Subset>,
    /// Believe in copies that other runs have left on this machine
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
struct SummaryMessage {
    message_type: &'static str,
    num_errors: u64,
    broken_packs: Option<Vec<Id>>,
    suggest_repair_index: bool,
    suggest_prune: bool,
    /// Not restic's.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Account>,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let repo = context.open_with(if args.with_cache { CacheUse::Lasting } else { CacheUse::ThisRun })?;
    if !context.global.no_lock {
        context.lock(&repo, LockMode::Exclusive)?;
    }
    let subset = if args.read_data { Some(Subset::All) } else { args.read_data_subset };
    let orderly = context.orderly();
    let report = check(context, &repo, subset)?;
    drop(orderly);
    let Report { errors, suggest_repair_index, suggest_prune, .. } = report;
    if context.out.json {
        let broken_packs = (!report.broken_packs.is_empty()).then_some(report.broken_packs);
        context.out.json(&SummaryMessage {
            message_type: "summary",
            num_errors: errors,
            broken_packs,
            suggest_repair_index,
            suggest_prune,
            store: context.cost(),
        })?;
    } else if !report.broken_packs.is_empty() {
        let packs: Vec<String> = report.broken_packs.iter().map(Id::to_string).collect();
        context.out.warn(format_args!("broken packs: {}", packs.join(" ")));
    }
    if errors > 0 {
        bail!("repository contains errors: {errors}, each told above");
    }
    context.out.note("no errors were found")?;
    context.note_cost()?;
    Ok(Outcome::Complete)
}

fn check(context: &Context, repo: &repo::Repository, subset: Option<Subset>) -> Result<Report> {
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
    let report = check.finish();
    let Report { snapshots, trees, packs, packs_read, .. } = report;
    out.note_at(2, format_args!("{snapshots} snapshots, {trees} trees, {packs} packs, {packs_read} of them read"))?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets() {
        assert_eq!(subset("3/10"), Ok(Subset::Part { number: 3, parts: 10 }));
        assert_eq!(subset("256/256"), Ok(Subset::Part { number: 256, parts: 256 }));
        assert_eq!(subset("2.5%"), Ok(Subset::Percent(2.5)));
        assert_eq!(subset("10k"), Ok(Subset::Bytes(10 << 10)));
        for bad in ["", "0/3", "4/3", "1/257", "1/0", "0%", "101%", "NaN%", "x", "0"] {
            assert!(subset(bad).is_err(), "{bad}");
        }
    }
}
