//! Rewrites snapshots that need missing data, without that data.
//!
//! A file loses the parts that are in no index, and a directory that cannot be read becomes empty;
//! everything else is unchanged, byte for byte. This is the last resort: a new backup of the
//! original files restores more.

use crate::format::BlobType;
use crate::format::content::NewContent;
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::Snapshot;
use crate::format::text::lossy;
use crate::id::Id;
use crate::maintain::rewrite::{Change, Replace, Replacer, Rewrite, Unreadable, Verdict};
use crate::progress::Progress;
use crate::repo::writer::Writer;
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use std::path::Path;
use std::sync::Arc;

/// The tag of a repaired snapshot, as in restic.
const TAG: &str = "repaired";

/// The outcome for one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    Unchanged,
    /// A new snapshot has this id; `None` in a dry run.
    Repaired(Option<Id>),
    /// Nothing of the snapshot can be read.
    Nothing,
}

/// Repairs snapshots, and reports the outcome and the changes for each. If the old snapshots are
/// removed (`forget`), the caller holds an exclusive lock.
pub fn repair(
    repo: &Arc<Repository>,
    snapshots: &[StoredSnapshot],
    replace: Replace,
    progress: &Progress,
    tell: &mut dyn FnMut(&StoredSnapshot, &[String], Became),
) -> Result<()> {
    let index = Arc::new(Index::load(repo)?);
    let trees = TreeReader::new(repo, &index);
    let writer = Writer::beside(repo.clone(), index.clone(), TreeReader::KEPT, replace.write_mode())?;
    let mut rewrite = Rewrite::new(
        &trees,
        &writer,
        progress,
        Lost { index: &index, aside: repo.settings().aside.as_deref(), changes: Vec::new() },
    );
    let mut became = Vec::with_capacity(snapshots.len());
    for stored in snapshots {
        let tree = match stored.snapshot.tree {
            Some(tree) => rewrite.tree(tree)?,
            None => None,
        };
        became.push((stored, tree, std::mem::take(&mut rewrite.change.changes)));
    }
    drop(rewrite);
    // All the data that the new snapshots need is durable before the first snapshot is written.
    writer.finish()?;
    let replacer = Replacer::new(repo, replace, TAG)?;
    for (stored, tree, changes) in became {
        let became = match tree {
            Some(tree) if Some(tree) == stored.snapshot.tree => Became::Unchanged,
            Some(tree) => {
                let mut new = Snapshot { tree: Some(tree), ..stored.snapshot.clone() };
                if let Some(summary) = &mut new.summary {
                    // A restore reports this number. At least one is counted: if an earlier
                    // snapshot shares a changed tree, its changes were listed there.
                    let lost = u64::try_from(changes.len()).unwrap_or(u64::MAX).max(1);
                    summary.problems = summary.problems.saturating_add(lost);
                }
                Became::Repaired(replacer.put(stored, new)?)
            }
            None => {
                if replace.forget && !replace.dry_run {
                    repo.remove_snapshot(stored.id)?;
                }
                Became::Nothing
            }
        };
        tell(stored, &changes, became);
    }
    Ok(())
}

/// Drops the lost data from trees.
struct Lost<'l> {
    index: &'l Index,
    /// The directory that a long list of content is spilled to.
    aside: Option<&'l Path>,
    /// The changes in the current snapshot.
    changes: Vec<String>,
}

impl Change for Lost<'_> {
    fn entry(&mut self, path: &[u8], node: &Node) -> Result<Verdict> {
        match node.ty {
            NodeType::File => {}
            NodeType::Irregular | NodeType::Unknown => {
                self.changes.push(format!("{}: removed, its type is unknown", lossy(path)));
                return Ok(Verdict::Drop);
            }
            _ => return Ok(Verdict::Keep),
        }
        let there = |id| self.index.first(BlobType::Data, id).map(|location| location.blob.plain_length());
        let refused = |error| Error::aside(format!("the content of {}", lossy(path)), self.aside, error);
        let (mut count, mut kept, mut size) = (0, NewContent::default(), 0);
        for id in node.content.iter().flatten() {
            count += 1;
            if let Some(length) = there(id) {
                kept.push(id, self.aside).map_err(refused)?;
                size += length;
            }
        }
        if kept.len() == count && size == node.size && node.content.is_some() {
            return Ok(Verdict::Keep);
        }
        let what = if kept.len() == count { "its size corrected" } else { "lost parts of its content" };
        self.changes.push(format!("{}: {what}, {size} of {} bytes are left", lossy(path), node.size));
        let kept = Some(kept.finish().map_err(refused)?);
        Ok(Verdict::Change(Box::new(Node { content: kept, size, ..node.clone() })))
    }

    fn unreadable(&mut self, path: &[u8], error: Error) -> Result<Unreadable> {
        let root = path.is_empty();
        let became = if root { "it cannot be read" } else { "it is empty now, because it cannot be read" };
        let path = if root { "/".into() } else { lossy(path) };
        self.changes.push(format!("{path}: {became}: {error}"));
        Ok(if root { Unreadable::Drop } else { Unreadable::Empty })
    }

    fn is_the_same_everywhere(&self) -> bool {
        true
    }

    fn may_lose_fields(&self) -> bool {
        true
    }
}
