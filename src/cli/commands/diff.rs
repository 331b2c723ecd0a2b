//! The command `diff`: shows the differences between two snapshots.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::{render, select};
use crate::id::Id;
use crate::maintain::diff::{Change, Changed, Side, Totals, diff};
use crate::maintain::gaps::Gaps;
use crate::repo::{Index, Repository, SnapshotFilter, TreeReader};
use anyhow::Result;
use serde::Serialize;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo diff 1a2b3c4d latest
  vsm-mover -r /srv/repo diff --metadata 1a2b3c4d:/etc latest:/etc")]
pub struct Args {
    /// First snapshot: an id or the beginning of one, or `latest`; `:FOLDER` restricts it to a
    /// folder
    #[arg(value_name = "ID[:FOLDER]")]
    before: String,
    /// Second snapshot, in the same notation
    #[arg(value_name = "ID[:FOLDER]")]
    after: String,
    /// Also show metadata-only changes
    #[arg(long)]
    metadata: bool,
}

#[derive(Serialize)]
struct ChangeMessage<'p> {
    message_type: &'static str,
    path: &'p str,
    modifier: &'p str,
}

#[derive(Serialize)]
struct SideJson {
    files: u64,
    dirs: u64,
    others: u64,
    data_blobs: u64,
    tree_blobs: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Statistics {
    message_type: &'static str,
    source_snapshot: String,
    target_snapshot: String,
    changed_files: u64,
    added: SideJson,
    removed: SideJson,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let repo = context.open_to_read()?;
    let index = Index::load(&repo)?;
    let trees = TreeReader::new(&repo, &index);
    let (before, left) = find(&repo, &trees, &args.before)?;
    let (after, right) = find(&repo, &trees, &args.after)?;
    let _orderly = context.orderly();
    let gaps = [before, after].map(|id| Gaps::new(id, &context.progress));
    let (before, after) = (before.short(), after.short());
    context.out.note(format_args!("comparing snapshot {before} to {after}:"))?;
    context.out.note("")?;
    let metadata = if args.metadata { Metadata::Report } else { Metadata::Ignore };
    let tell = |path: &[u8], change| -> Result<()> {
        let Some(modifier) = modifier(change, metadata) else { return Ok(()) };
        let path = &render::path(path);
        if context.out.is_json() {
            let message = ChangeMessage { message_type: "change", path, modifier: &modifier };
            context.out.line(serde_json::to_string(&message)?)?;
        } else {
            context.out.line(format_args!("{modifier:<5}{path}"))?;
        }
        Ok(())
    };
    let totals = diff(&trees, &index, [left, right], gaps.each_ref(), tell)?;
    if context.out.is_json() {
        let (added, removed) = (totals.added.into(), totals.removed.into());
        context.out.json(&Statistics {
            message_type: "statistics",
            source_snapshot: before,
            target_snapshot: after,
            changed_files: totals.changed_files,
            added,
            removed,
        })?;
    } else {
        print_totals(context, &totals)?;
    }
    Ok(match context.progress.problem_count() {
        0 => Outcome::Complete,
        count => {
            Outcome::Incomplete(format!("{count} parts could not be read and were not compared, each listed above"))
        }
    })
}

fn find(repo: &Repository, trees: &TreeReader<'_>, name: &str) -> Result<(Id, Id)> {
    let (name, folder) = select::split_folder(name);
    let stored = repo.find_snapshot(name, &SnapshotFilter::default())?;
    Ok((stored.id, trees.folder(stored.tree()?, folder.as_bytes())?))
}

/// Whether metadata-only changes are reported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Metadata {
    Ignore,
    Report,
}

/// restic's letters; `None` for a change that is not reported.
fn modifier(change: Change, reported: Metadata) -> Option<String> {
    let Changed { ty, content, silent, metadata } = match change {
        Change::Added => return Some("+".into()),
        Change::Removed => return Some("-".into()),
        Change::Changed(changed) => changed,
    };
    let letters = [(ty, 'T'), (content, 'M'), (silent, '?'), (metadata && reported == Metadata::Report, 'U')];
    let text: String = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect();
    (!text.is_empty()).then_some(text)
}

impl From<Side> for SideJson {
    fn from(side: Side) -> SideJson {
        let Side { files, dirs, others, data_blobs, tree_blobs, bytes } = side;
        SideJson { files, dirs, others, data_blobs, tree_blobs, bytes }
    }
}

fn print_totals(context: &Context, totals: &Totals) -> Result<()> {
    let Totals { changed_files, added, removed } = totals;
    let both = |label: &str, added: u64, removed: u64, more: &str| {
        context.out.note(format_args!("{label:<13}{added:>5} new, {removed:>5} removed{more}"))
    };
    context.out.note("")?;
    both("Files:", added.files, removed.files, &format!(", {changed_files:>5} changed"))?;
    both("Dirs:", added.dirs, removed.dirs, "")?;
    both("Others:", added.others, removed.others, "")?;
    both("Data Blobs:", added.data_blobs, removed.data_blobs, "")?;
    both("Tree Blobs:", added.tree_blobs, removed.tree_blobs, "")?;
    context.out.note(format_args!("  Added:   {:<5}", render::bytes(added.bytes)))?;
    Ok(context.out.note(format_args!("  Removed: {:<5}", render::bytes(removed.bytes)))?)
}
