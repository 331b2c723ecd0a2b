//! The command `snapshots`: lists snapshots, optionally in groups or only the latest ones.

use crate::cli::args::{GroupBy, group_by};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::select::{self, Selection, SnapshotJson};
use crate::cli::snapshot_table::{self, Column};
use crate::maintain::group::{Group, GroupCriteria, GroupKey, group};
use crate::repo::StoredSnapshot;
use anyhow::Result;
use serde::Serialize;

#[derive(clap::Args)]
#[command(mut_arg("ids", |ids| ids.help("Snapshots to list [default: all that the filters accept]")))]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo snapshots
  vsm-mover -r /srv/repo snapshots --host server --latest 1
  vsm-mover -r /srv/repo snapshots --group-by host,tags --compact")]
pub struct Args {
    /// Use a compact format without paths
    #[arg(short, long)]
    compact: bool,
    /// Only show the latest N snapshots of each host and paths
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    latest: usize,
    /// Group snapshots by host, paths and/or tags
    #[arg(short, long, value_name = "KEYS", value_parser = group_by, default_value = "", hide_default_value = true)]
    group_by: GroupBy,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Serialize)]
struct GroupJson<'s> {
    group_key: &'s GroupKey,
    snapshots: Vec<SnapshotJson<'s>>,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let repo = context.open_to_read()?;
    let (snapshots, missing) = args.selection.snapshots(context, &repo)?;
    let GroupBy { host, paths, tags } = args.group_by;
    let mut groups = group(snapshots, GroupCriteria { host, paths, tags });
    for group in &mut groups {
        keep_latest(&mut group.snapshots, args.latest);
    }
    if context.out.is_json() {
        print_json(context, &groups, args.group_by)?;
        return Ok(select::outcome(missing));
    }
    for group in &groups {
        if args.group_by.is_grouped() {
            context.out.line(snapshot_table::group_header(&group.key))?;
        }
        let columns: &[Column] = if args.compact { &[] } else { &[Column::Paths] };
        snapshot_table::print(context, &group.snapshots, columns, |_| String::new())?;
    }
    Ok(select::outcome(missing))
}

fn print_json(context: &Context, groups: &[Group], by: GroupBy) -> Result<()> {
    if by.is_grouped() {
        let groups: Vec<GroupJson<'_>> = groups
            .iter()
            .map(|Group { key, snapshots }| GroupJson { group_key: key, snapshots: json(snapshots) })
            .collect();
        return Ok(context.out.json(&groups)?);
    }
    let all: Vec<SnapshotJson<'_>> = groups.iter().flat_map(|group| json(&group.snapshots)).collect();
    Ok(context.out.json(&all)?)
}

fn json(snapshots: &[StoredSnapshot]) -> Vec<SnapshotJson<'_>> {
    snapshots.iter().map(SnapshotJson::from).collect()
}

/// Keeps the latest `count` snapshots of each host and paths, still oldest first.
fn keep_latest(snapshots: &mut Vec<StoredSnapshot>, count: usize) {
    if count == 0 {
        return;
    }
    let mut seen = std::collections::HashMap::new();
    snapshots.reverse();
    snapshots.retain(|stored| {
        let mut paths = stored.snapshot.paths.clone();
        paths.sort();
        let seen = seen.entry((stored.snapshot.hostname.clone(), paths)).or_insert(0);
        *seen += 1;
        *seen <= count
    });
    snapshots.reverse();
}
