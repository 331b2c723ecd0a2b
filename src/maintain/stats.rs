//! How much there is, counted in one of four ways.

use super::blobs::BlobSet;
use super::gaps::Gaps;
use super::walk::Walk;
use crate::crypto::OVERHEAD;
use crate::format::node::{Node, NodeType};
use crate::format::{BlobType, Version};
use crate::hash::Sha256;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::{Error, Index, Repository, Result, StoredSnapshot, TreeReader};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What a restore of every snapshot would write; files with several links once per snapshot.
    RestoreSize,
    /// Files that differ in content.
    FilesByContents,
    /// Blobs, once for each path that they are in.
    BlobsPerFile,
    /// Blobs, each once, as they are stored.
    RawData,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub total_size: u64,
    pub files: u64,
    pub blobs: u64,
    pub snapshots: u64,
    /// Of raw data in a repository of version 2.
    pub compression: Option<Compression>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compression {
    /// Bytes that all blobs would take if none were compressed.
    pub uncompressed_size: u64,
    /// How many times smaller the compressed blobs are than they were.
    pub ratio: f64,
    /// How much of the data is compressed, and how much space that saves, in percent.
    pub progress: f64,
    pub space_saving: f64,
}

/// Counts what is in the snapshots. What cannot be read is reported and not counted.
pub fn count(
    repo: &Repository,
    index: &Index,
    snapshots: &[StoredSnapshot],
    mode: Mode,
    progress: &Progress,
) -> Result<Stats> {
    let trees = TreeReader::new(repo, index);
    let mut seen = Seen::default();
    let blobs = BlobSet::new(index);
    let mut stats = Stats { snapshots: snapshots.len() as u64, ..Stats::default() };
    progress.files_total.store(snapshots.len() as u64, Ordering::Relaxed);
    for stored in snapshots {
        let gaps = Gaps::new(stored.id, progress);
        if let Some(root) = gaps.or_report(b"", stored.tree())? {
            if mode == Mode::RawData {
                collect(&trees, root, &blobs, b"", &gaps)?;
            } else {
                seen.links.clear();
                count_entries(&mut stats, &mut seen, &trees, index, root, mode, &gaps)?;
            }
        }
        progress.files_done.fetch_add(1, Ordering::Relaxed);
    }
    if mode == Mode::RawData {
        add_raw(&mut stats, &blobs, repo.config().version);
    }
    Ok(stats)
}

fn count_entries(
    stats: &mut Stats,
    seen: &mut Seen,
    trees: &TreeReader<'_>,
    index: &Index,
    root: Id,
    mode: Mode,
    gaps: &Gaps<'_>,
) -> Result<()> {
    let mut walk = Walk::readable(trees, root, gaps)?;
    while let Some(node) = walk.next_readable(gaps)? {
        gaps.check_interrupted()?;
        match mode {
            Mode::RestoreSize => add_restored(stats, seen, &node),
            Mode::FilesByContents => add_contents(stats, seen, &node),
            Mode::BlobsPerFile => add_references(stats, seen, index, walk.path(), &node, gaps)?,
            // Counted by `collect`, which looks at each tree once.
            Mode::RawData => {}
        }
        if node.ty == NodeType::Dir {
            walk.enter_readable(&node, gaps)?;
        }
    }
    Ok(())
}

/// What was counted before, by the rules of the modes.
#[derive(Default)]
struct Seen {
    /// Files with several links in this snapshot.
    links: HashSet<(u64, u64)>,
    contents: HashSet<Id>,
    paths: HashSet<Id>,
    references: HashSet<Id>,
}

fn add_restored(stats: &mut Stats, seen: &mut Seen, node: &Node) {
    stats.files += 1;
    let linked = node.links > 1 && node.ty != NodeType::Dir;
    if !linked || seen.links.insert((node.device_id, node.inode)) {
        add_size(stats, node.size);
    }
}

/// Sizes that a forged tree claims may exceed any number.
fn add_size(stats: &mut Stats, size: u64) {
    stats.total_size = stats.total_size.saturating_add(size);
}

/// A name for the content of a file.
fn contents_id(node: &Node) -> Id {
    let mut hash = Sha256::new();
    node.content
        .iter()
        .flat_map(|content| content.windows(1024))
        .for_each(|ids| ids.iter().for_each(|id| hash.update(&id.0)));
    Id(hash.finish())
}

fn add_contents(stats: &mut Stats, seen: &mut Seen, node: &Node) {
    if seen.contents.insert(contents_id(node)) {
        stats.files += 1;
        add_size(stats, node.size);
    }
}

fn add_references(
    stats: &mut Stats,
    seen: &mut Seen,
    index: &Index,
    path: &[u8],
    node: &Node,
    gaps: &Gaps<'_>,
) -> Result<()> {
    if !seen.contents.insert(contents_id(node)) {
        return Ok(());
    }
    let path_id = Id::of(path);
    for id in node.content.iter().flatten() {
        stats.files += u64::from(seen.paths.insert(path_id));
        let reference = Id::of(&[path_id.0, id.0].concat());
        if seen.references.insert(reference) {
            let ty = BlobType::Data;
            let location = index.first(ty, id).ok_or(Error::BlobMissing { ty, id });
            if let Some(location) = gaps.or_report(path, location)? {
                add_size(stats, location.blob.plain_length());
                stats.blobs += 1;
            }
        }
    }
    Ok(())
}

/// Adds all blobs of the tree of the directory `path`, and of what is below it; trees that are in
/// the set are known. What cannot be read is reported as a part of that directory.
pub fn collect(trees: &TreeReader<'_>, root: Id, blobs: &BlobSet<'_>, path: &[u8], gaps: &Gaps<'_>) -> Result<()> {
    let mut stack = vec![root];
    while let Some(id) = stack.pop() {
        gaps.check_interrupted()?;
        if gaps.or_report(path, blobs.insert(BlobType::Tree, id))? != Some(true) {
            continue;
        }
        let Some(tree) = gaps.or_report(path, trees.open(id))? else { continue };
        for node in tree {
            let Some(node) = gaps.or_report(path, node)? else { continue };
            stack.extend(node.subtree);
            for id in node.content.iter().flatten() {
                gaps.or_report(path, blobs.insert(BlobType::Data, id))?;
            }
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "ratios for people")]
fn add_raw(stats: &mut Stats, blobs: &BlobSet<'_>, version: Version) {
    let (mut all, mut compressed, mut compressed_plain) = (0, 0, 0);
    for location in blobs.iter() {
        let sealed_plain = location.blob.plain_length() + OVERHEAD as u64;
        stats.blobs += 1;
        stats.total_size += u64::from(location.blob.length);
        all += sealed_plain;
        if location.blob.uncompressed != 0 {
            compressed += u64::from(location.blob.length);
            compressed_plain += sealed_plain;
        }
    }
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    stats.compression = (version == Version::V2).then(|| Compression {
        uncompressed_size: all,
        ratio: ratio(compressed_plain, compressed),
        progress: ratio(compressed_plain, all) * 100.0,
        space_saving: if all == 0 { 0.0 } else { (1.0 - ratio(stats.total_size, all)) * 100.0 },
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::testing::Fixture;

    #[test]
    fn the_modes_count_different_things() {
        let fixture = Fixture::new();
        let linked = |name| Node { links: 2, inode: 7, ..fixture.file(name, &["link"]) };
        let nodes = [linked("a"), linked("b"), fixture.file("c", &["one", "two", "one"]), fixture.dir("d", &[])];
        let root = fixture.tree(&nodes);
        fixture.snapshot(root);
        let inner = fixture.tree(&[fixture.dir("x", &nodes)]);
        fixture.snapshot(inner);
        let repo = fixture.repo();
        let index = Index::load(&repo).unwrap();
        let (snapshots, _) = repo.snapshots().unwrap();
        let count = |mode| {
            let Stats { total_size, files, blobs, .. } =
                count(&repo, &index, &snapshots, mode, &Progress::silent()).unwrap();
            (total_size, files, blobs)
        };
        assert_eq!(count(Mode::RestoreSize), (2 * (4 + 9), 4 + 5, 0), "links once in each snapshot");
        assert_eq!(count(Mode::FilesByContents), (4 + 9, 3, 0), "all without content are one");
        assert_eq!(count(Mode::BlobsPerFile), (4 + 3 + 3, 2, 3), "a blob twice in a file is one");
        let (_, _, blobs) = count(Mode::RawData);
        assert_eq!(blobs, 3 + 3, "three data blobs; two roots and an empty tree");
    }
}
