//! The command `forget`: removes snapshots by a retention policy or by id.
//!
//! The data that only these snapshots reference stays until a prune, which `--prune` runs.

use super::prune;
use crate::cli::args::{self, Filter, GroupBy, group_by};
use crate::cli::context::Context;
use crate::cli::dry_run::DryRun;
use crate::cli::exit::Outcome;
use crate::cli::select::{self, SnapshotJson};
use crate::cli::snapshot_table::{self, Column};
use crate::clock;
use crate::format::time::Time;
use crate::id::Id;
use crate::maintain::forget::{ALL, Kept, Policy, Span, Verdict, apply};
use crate::maintain::group::{GroupCriteria, GroupKey, group};
use crate::parallel::side_by_side;
use crate::repo::{self, LockMode, Repository, SnapshotFilter, StoredSnapshot};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::HashMap;

#[derive(clap::Args)]
#[command(mut_args(without_short_host))]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo forget --keep-daily 7 --keep-weekly 5 --prune
  vsm-mover -r /srv/repo forget --keep-within 30d --tag daily --dry-run
  vsm-mover -r /srv/repo forget 1a2b3c4d")]
pub struct Args {
    /// Snapshots to remove; the policy is not applied then
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Use a compact format without paths and reasons
    #[arg(short, long)]
    compact: bool,
    /// Do not remove anything, only report what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    keep: Keep,
    /// Apply the policy to each group of snapshots with the same host, paths and/or tags
    #[arg(short, long, value_name = "KEYS", value_parser = group_by, default_value = "host,paths",
          help_heading = RETENTION)]
    group_by: GroupBy,
    /// Allow the policy to remove all snapshots of a group
    #[arg(long, help_heading = RETENTION)]
    unsafe_allow_remove_all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Run prune if snapshots were removed
    #[arg(long, help_heading = prune::HEADING)]
    prune: bool,
    #[command(flatten)]
    how: prune::How,
}

/// Removes `-H` from the host filter, because `-H` is `--keep-hourly` here.
fn without_short_host(option: clap::Arg) -> clap::Arg {
    if option.get_id() == "host" { option.short(None) } else { option }
}

/// Heading of the help.
const RETENTION: &str = "Retention options";

#[derive(clap::Args)]
#[command(next_help_heading = RETENTION)]
struct Keep {
    /// Keep the last N snapshots (a number, or `unlimited`)
    #[arg(short = 'l', long, value_name = "N", value_parser = number, default_value = "0", hide_default_value = true)]
    keep_last: u32,
    /// Keep the last N hourly snapshots
    #[arg(short = 'H', long, value_name = "N", value_parser = number, default_value = "0", hide_default_value = true)]
    keep_hourly: u32,
    /// Keep the last N daily snapshots
    #[arg(short = 'd', long, value_name = "N", value_parser = number, default_value = "0", hide_default_value = true)]
    keep_daily: u32,
    /// Keep the last N weekly snapshots
    #[arg(short = 'w', long, value_name = "N", value_parser = number, default_value = "0", hide_default_value = true)]
    keep_weekly: u32,
    /// Keep the last N monthly snapshots
    #[arg(short = 'm', long, value_name = "N", value_parser = number, default_value = "0", hide_default_value = true)]
    keep_monthly: u32,
    /// Keep the last N yearly snapshots
    #[arg(short = 'y', long, value_name = "N", value_parser = number, default_value = "0", hide_default_value = true)]
    keep_yearly: u32,
    /// Keep all snapshots within this time before the latest one, like 1y5m7d2h
    #[arg(long, value_name = "SPAN", default_value = "", hide_default_value = true)]
    keep_within: Span,
    /// Keep hourly snapshots within this time before the latest one
    #[arg(long, value_name = "SPAN", default_value = "", hide_default_value = true)]
    keep_within_hourly: Span,
    /// Keep daily snapshots within this time before the latest one
    #[arg(long, value_name = "SPAN", default_value = "", hide_default_value = true)]
    keep_within_daily: Span,
    /// Keep weekly snapshots within this time before the latest one
    #[arg(long, value_name = "SPAN", default_value = "", hide_default_value = true)]
    keep_within_weekly: Span,
    /// Keep monthly snapshots within this time before the latest one
    #[arg(long, value_name = "SPAN", default_value = "", hide_default_value = true)]
    keep_within_monthly: Span,
    /// Keep yearly snapshots within this time before the latest one
    #[arg(long, value_name = "SPAN", default_value = "", hide_default_value = true)]
    keep_within_yearly: Span,
    /// Keep snapshots with all of these tags (can be specified multiple times)
    #[arg(long, value_name = "TAG[,TAG,...]")]
    keep_tag: Vec<String>,
}

fn number(text: &str) -> Result<u32, String> {
    match text {
        "unlimited" => Ok(ALL),
        text => text.parse().ok().filter(|&n| n < ALL).ok_or_else(|| "must be a number, or unlimited".into()),
    }
}

impl Keep {
    fn policy(&self) -> Policy {
        let Keep { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, .. } = *self;
        Policy {
            counts: [keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly],
            within: self.keep_within,
            within_periods: [
                Span::default(),
                self.keep_within_hourly,
                self.keep_within_daily,
                self.keep_within_weekly,
                self.keep_within_monthly,
                self.keep_within_yearly,
            ],
            tags: self.keep_tag.iter().map(|list| args::split_list(list)).collect(),
        }
    }
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if context.global.repository.no_lock && !args.dry_run {
        bail!("--no-lock needs --dry-run: removing snapshots needs an exclusive lock");
    }
    let policy = args.keep.policy();
    let filter = args.filter.build();
    if args.ids.is_empty() && policy.is_empty() {
        if !args.unsafe_allow_remove_all {
            bail!("no policy and no snapshot given, nothing is removed; give an id or an option such as --keep-daily");
        }
        if filter.is_empty() {
            bail!("--unsafe-allow-remove-all without a policy needs --host, --tag or --path");
        }
    }
    let repo =
        if context.global.repository.no_lock { context.open()? } else { context.open_locked(LockMode::Exclusive)? };
    let (remove, missing) = if args.ids.is_empty() {
        by_policy(&args, context, &repo, &policy, &filter)?
    } else {
        let (snapshots, missing) = select::snapshots(context, &repo, &args.ids, &SnapshotFilter::default())?;
        (snapshots.into_iter().map(|stored| stored.id).collect(), missing)
    };
    let outcome = if args.dry_run {
        let ids: Vec<String> = remove.iter().map(Id::short).collect();
        if !ids.is_empty() {
            context.out.note(format_args!("Would have removed the following snapshots:\n{{{}}}\n", ids.join(" ")))?;
        }
        Outcome::Complete
    } else {
        remove_all(context, &repo, &remove)?
    };
    let outcome = if outcome == Outcome::Complete { select::outcome(missing) } else { outcome };
    if !args.prune || remove.is_empty() || outcome != Outcome::Complete {
        return Ok(outcome);
    }
    let be = if args.dry_run { "would be" } else { "have been" };
    context.out.note(format_args!("{} snapshots {be} removed, running prune", remove.len()))?;
    prune::prune(context, &repo, &args.how, &remove, DryRun::from(args.dry_run))
}

#[derive(Serialize)]
struct GroupJson<'g> {
    tags: Option<&'g [String]>,
    host: &'g str,
    paths: Option<&'g [String]>,
    keep: Option<Vec<SnapshotJson<'g>>>,
    remove: Option<Vec<SnapshotJson<'g>>>,
    reasons: Option<Vec<ReasonJson<'g>>>,
}

#[derive(Serialize)]
struct ReasonJson<'g> {
    snapshot: SnapshotJson<'g>,
    matches: &'g [String],
}

/// Applies the policy to each group and prints the result. Returns the snapshots to remove, and the
/// number of snapshots that cannot be read, which stay.
fn by_policy(
    args: &Args,
    context: &Context,
    repo: &Repository,
    policy: &Policy,
    filter: &SnapshotFilter,
) -> Result<(Vec<Id>, usize)> {
    let (snapshots, missing) = select::snapshots(context, repo, &[], filter)?;
    let GroupBy { host, paths, tags } = args.group_by;
    let (seconds, nanos) = clock::now();
    let now = Time::utc(seconds, nanos);
    if !policy.is_empty() {
        context.out.note(format_args!("Applying Policy: keep {policy}"))?;
    }
    let mut verdicts = Vec::new();
    for group in group(snapshots, GroupCriteria { host, paths, tags }) {
        let verdict = apply(group.snapshots, policy, &now);
        if verdict.keep.is_empty() && !args.unsafe_allow_remove_all {
            let name = snapshot_table::group_name(&group.key);
            bail!("refusing to remove all snapshots of the group ({name}); --unsafe-allow-remove-all allows it");
        }
        verdicts.push((group.key, verdict));
    }
    if context.out.is_json() {
        let groups: Vec<GroupJson<'_>> = verdicts.iter().map(|(key, verdict)| group_json(key, verdict)).collect();
        if !groups.is_empty() {
            context.out.json(&groups)?;
        }
    } else {
        verdicts.iter().try_for_each(|(key, verdict)| print_group(args, context, key, verdict))?;
    }
    Ok((verdicts.into_iter().flat_map(|(_, verdict)| verdict.remove).map(|stored| stored.id).collect(), missing))
}

fn group_json<'g>(key: &'g GroupKey, verdict: &'g Verdict) -> GroupJson<'g> {
    fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
        (!items.is_empty()).then_some(items)
    }
    let reason = |kept: &'g Kept| ReasonJson { snapshot: (&kept.stored).into(), matches: &kept.reasons };
    GroupJson {
        tags: key.tags.as_deref(),
        host: &key.hostname,
        paths: key.paths.as_deref(),
        keep: list(verdict.keep.iter().map(|kept| (&kept.stored).into()).collect()),
        remove: list(verdict.remove.iter().map(SnapshotJson::from).collect()),
        reasons: list(verdict.keep.iter().map(reason).collect()),
    }
}

fn print_group(args: &Args, context: &Context, key: &GroupKey, verdict: &Verdict) -> Result<()> {
    if context.out.verbosity == 0 {
        return Ok(());
    }
    let Verdict { keep, remove } = verdict;
    let reasons: HashMap<Id, String> = keep.iter().map(|kept| (kept.stored.id, kept.reasons.join("\n"))).collect();
    let oldest_first =
        |list: Vec<&StoredSnapshot>| -> Vec<StoredSnapshot> { list.into_iter().rev().cloned().collect() };
    let kept = oldest_first(keep.iter().map(|kept| &kept.stored).collect());
    let removed = oldest_first(remove.iter().collect());
    context.out.line(snapshot_table::group_header(key))?;
    for (verb, snapshots, wide) in
        [("keep", kept, &[Column::Reasons, Column::Paths][..]), ("remove", removed, &[Column::Paths][..])]
    {
        if !snapshots.is_empty() {
            context.out.line(format_args!("{verb} {} snapshots:", snapshots.len()))?;
            let columns = if args.compact { &[] } else { wide };
            let reason = |stored: &StoredSnapshot| reasons.get(&stored.id).cloned().unwrap_or_default();
            snapshot_table::print(context, &snapshots, columns, reason)?;
            context.out.line("")?;
        }
    }
    Ok(())
}

/// Removes snapshots. A snapshot that cannot be removed is reported, and the others are removed.
fn remove_all(context: &Context, repo: &Repository, ids: &[Id]) -> Result<Outcome> {
    let _orderly = context.orderly();
    let removed = side_by_side(repo.store().connections(), ids, |&id| -> repo::Result<bool> {
        if context.progress.is_interrupted() {
            return Err(repo::Error::Interrupted);
        }
        context.check_lock()?;
        let removed = repo.remove_snapshot(id);
        if let Err(error) = &removed {
            context.out.warn(format_args!("error: snapshot {} could not be removed: {error}", id.short()));
        }
        Ok(removed.is_ok())
    });
    let removed = removed.into_iter().collect::<repo::Result<Vec<bool>>>()?;
    let failed = removed.into_iter().filter(|removed| !removed).count();
    if !ids.is_empty() {
        context.out.note(format_args!("{} of {} snapshots removed", ids.len() - failed, ids.len()))?;
    }
    Ok(match failed {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} snapshots could not be removed")),
    })
}
