//! Rewrites snapshots: removes entries that match patterns, and changes the host or the time.
//!
//! The new snapshots do not reference the removed entries; packs hold their data until a prune. A
//! directory stays even if all its entries are removed.

use super::rewrite::{Change, Replace, Replacer, Rewrite, Unreadable, Verdict};
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::Summary;
use crate::format::text::lossy;
use crate::format::time::Time;
use crate::id::Id;
use crate::pattern::Patterns;
use crate::progress::{Phase, Progress};
use crate::repo::writer::Writer;
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use std::sync::Arc;

/// The tag of a rewritten snapshot, as in restic.
const TAG: &str = "rewrite";

/// The changes to be made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub exclude: Patterns,
    pub host: Option<String>,
    pub time: Option<Time>,
    pub replace: Replace,
}

/// The outcome for one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    Unchanged,
    /// A new snapshot has this id; `None` in a dry run.
    Rewritten(Option<Id>),
    /// Some of its data cannot be read or rewritten, which has been reported. The snapshot stays as
    /// it is.
    Failed,
}

/// Rewrites snapshots and reports the outcome for each. If the old snapshots are removed
/// (`forget`), the caller holds an exclusive lock.
pub fn rewrite(
    repo: &Arc<Repository>,
    snapshots: &[StoredSnapshot],
    options: &Options,
    progress: &Progress,
    tell: &mut dyn FnMut(&StoredSnapshot, Became),
) -> Result<()> {
    let index = Arc::new(Index::load(repo)?);
    let trees = TreeReader::new(repo, &index);
    let writer = Writer::beside(repo.clone(), index.clone(), TreeReader::KEPT, options.replace.write_mode())?;
    let mut rewrite = Rewrite::new(
        &trees,
        &writer,
        progress,
        LeaveOut { patterns: &options.exclude, files: 0, bytes: 0, unreadable: String::new() },
    );
    let mut became = Vec::with_capacity(snapshots.len());
    for stored in snapshots {
        let rewritten =
            stored.tree().and_then(|old| if options.exclude.is_empty() { Ok(Some(old)) } else { rewrite.tree(old) });
        let tree = match rewritten {
            Ok(tree) => tree.expect("patterns match entries, and the root is not an entry"),
            Err(error) if error.spares_others() => {
                let path = std::mem::take(&mut rewrite.change.unreadable);
                let at = if path.is_empty() { String::new() } else { format!(": {path}") };
                progress.problem(Phase::Read, format!("snapshot {}{at}", stored.id), error);
                (rewrite.change.files, rewrite.change.bytes) = (0, 0);
                tell(stored, Became::Failed);
                continue;
            }
            Err(error) => return Err(error),
        };
        let LeaveOut { files, bytes, .. } = rewrite.change;
        (rewrite.change.files, rewrite.change.bytes) = (0, 0);
        became.push((stored, tree, files, bytes));
    }
    drop(rewrite);
    // All the data that the new snapshots need is durable before the first snapshot is written.
    writer.finish()?;
    let replacer = Replacer::new(repo, options.replace, TAG)?;
    for (stored, tree, files, bytes) in became {
        let mut snapshot = stored.snapshot.clone();
        snapshot.tree = Some(tree);
        snapshot.hostname = options.host.clone().unwrap_or(snapshot.hostname);
        snapshot.time = options.time.unwrap_or(snapshot.time);
        if !options.exclude.is_empty() {
            let summary = snapshot.summary.unwrap_or_default();
            snapshot.summary = Some(Summary { total_files_processed: files, total_bytes_processed: bytes, ..summary });
        }
        if snapshot == stored.snapshot {
            tell(stored, Became::Unchanged);
            continue;
        }
        let id = replacer.put(stored, snapshot)?;
        tell(stored, Became::Rewritten(id));
    }
    Ok(())
}

/// Drops the entries that match the patterns, and counts the files that stay.
struct LeaveOut<'p> {
    patterns: &'p Patterns,
    files: u64,
    bytes: u64,
    /// The path of a directory that cannot be read.
    unreadable: String,
}

impl Change for LeaveOut<'_> {
    fn entry(&mut self, path: &[u8], node: &Node) -> Result<Verdict> {
        if self.patterns.matches(path) {
            return Ok(Verdict::Drop);
        }
        if node.ty == NodeType::File {
            self.files += 1;
            // A forged tree may claim any size.
            self.bytes = self.bytes.saturating_add(node.size);
        }
        Ok(Verdict::Keep)
    }

    fn unreadable(&mut self, path: &[u8], error: Error) -> Result<Unreadable> {
        self.unreadable = lossy(path);
        Err(error)
    }
}
