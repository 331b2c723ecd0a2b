//! The command `tag`: sets, adds or removes tags of snapshots.

use crate::cli::args::split_list;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::select::{self, Selection};
use crate::id::Id;
use crate::maintain::tag::{Change, change};
use crate::repo::LockMode;
use anyhow::{Result, bail};
use serde::Serialize;

#[derive(clap::Args)]
#[command(mut_arg("ids", |ids| ids.help("Snapshots to modify [default: all that the filters accept]")))]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo tag --add keep latest
  vsm-mover -r /srv/repo tag --set daily,prod 1a2b3c4d
  vsm-mover -r /srv/repo tag --tag old --remove old")]
pub struct Args {
    /// Replace all tags with these; the empty list removes all tags
    #[arg(long, value_name = "TAG[,TAG,...]", conflicts_with_all = ["add", "remove"])]
    set: Vec<String>,
    /// Add tags
    #[arg(long, value_name = "TAG[,TAG,...]")]
    add: Vec<String>,
    /// Remove tags
    #[arg(long, value_name = "TAG[,TAG,...]")]
    remove: Vec<String>,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Serialize)]
struct Changed {
    message_type: &'static str,
    old_snapshot_id: Id,
    new_snapshot_id: Id,
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    changed_snapshots: u64,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let tags = |lists: &[String]| lists.iter().flat_map(|list| split_list(list)).collect::<Vec<_>>();
    let wanted = if !args.set.is_empty() {
        Change::Set(tags(&args.set))
    } else if !args.add.is_empty() || !args.remove.is_empty() {
        Change::Edit { add: tags(&args.add), remove: tags(&args.remove) }
    } else {
        bail!("nothing to do; give --set, --add or --remove");
    };
    let repo = context.open_locked(LockMode::Exclusive)?;
    let (snapshots, missing) = args.selection.snapshots(context, &repo)?;
    // During a change both the old and the new snapshot exist, so a signal waits for its end.
    let _orderly = context.orderly();
    let mut changed_snapshots = 0;
    for stored in snapshots {
        if context.progress.is_interrupted() {
            return Err(crate::repo::Error::Interrupted.into());
        }
        context.check_lock()?;
        let Some(new) = change(&repo, &stored, &wanted)? else { continue };
        changed_snapshots += 1;
        if context.out.is_json() {
            let message_type = "changed";
            context.out.json(&Changed { message_type, old_snapshot_id: stored.id, new_snapshot_id: new })?;
        } else {
            context.out.note_at(2, format_args!("snapshot {} is now {}", stored.id.short(), new.short()))?;
        }
    }
    if context.out.is_json() {
        context.out.json(&Summary { message_type: "summary", changed_snapshots })?;
    } else if changed_snapshots == 0 {
        context.out.note("no snapshots were modified")?;
    } else {
        context.out.note(format_args!("modified {changed_snapshots} snapshots"))?;
    }
    Ok(select::outcome(missing))
}
