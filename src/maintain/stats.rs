//! Counts the files, blobs and bytes of snapshots in one of four ways.

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

/// The ways of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The bytes that a restore of every snapshot would write; hard links count once per snapshot.
    RestoreSize,
    /// Files that differ in content.
    FilesByContents,
    /// Blobs, once for each path that they are in.
    BlobsPerFile,
    /// Each blob once, with its stored size.
    RawData,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub total_size: u64,
    pub files: u64,
    pub blobs: u64,
    pub snapshots: u64,
    /// Only for raw data in a repository of version 2.
    pub compression: Option<Compression>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compression {
    /// Bytes that all blobs would take if none were compressed.
    pub uncompressed_size: u64,
    /// The plaintext size of the compressed blobs divided by their stored size.
    pub ratio: f64,
    /// The share of the data that is compressed, in percent.
    pub progress: f64,
    /// The share of the space that compression saves, in percent.
    pub space_saving: f64,
}

/// Counts the content of snapshots. Data that cannot be read is reported and not counted.
pub fn count(
    repo: &Repository,
    index: &Index,
    snapshots: &[StoredSnapshot],
    mode: Mode,
    progress: &Progress,
) -> Result<Stats> {
    let (trees, blobs) = (TreeReader::new(repo, index), BlobSet::new(index));
    let mut counter = Counter { index, trees, mode, tally: Tally::default(), blobs };
    progress.files_total.store(snapshots.len() as u64, Ordering::Relaxed);
    for stored in snapshots {
        let gaps = Gaps::new(stored.id, progress);
        if let Some(root) = gaps.or_report(b"", stored.tree())? {
            counter.add_snapshot(root, &gaps)?;
        }
        progress.files_done.fetch_add(1, Ordering::Relaxed);
    }
    let Counter { tally, blobs, .. } = counter;
    let mut stats = Stats { snapshots: snapshots.len() as u64, ..tally.stats };
    if mode == Mode::RawData {
        add_raw(&mut stats, &blobs, repo.config().version);
    }
    Ok(stats)
}

struct Counter<'c> {
    index: &'c Index,
    trees: TreeReader<'c>,
    mode: Mode,
    tally: Tally,
    /// The blobs of the snapshots; only used by [`Mode::RawData`].
    blobs: BlobSet<'c>,
}

impl Counter<'_> {
    fn add_snapshot(&mut self, root: Id, gaps: &Gaps<'_>) -> Result<()> {
        if self.mode == Mode::RawData {
            return collect(&self.trees, root, &self.blobs, b"", gaps);
        }
        self.tally.links.clear();
        let mut walk = Walk::readable(&self.trees, root, gaps)?;
        while let Some(node) = walk.next_readable(gaps)? {
            gaps.check_interrupted()?;
            match self.mode {
                Mode::RestoreSize => self.tally.add_restored(&node),
                Mode::FilesByContents => self.tally.add_contents(&node),
                Mode::BlobsPerFile => self.tally.add_references(self.index, walk.path(), &node, gaps)?,
                // Counted by `collect`, which visits each tree once.
                Mode::RawData => {}
            }
            if node.ty == NodeType::Dir {
                walk.enter_readable(&node, gaps)?;
            }
        }
        Ok(())
    }
}

/// The sums, and the items that were already counted, by the rules of the modes.
#[derive(Default)]
struct Tally {
    stats: Stats,
    /// Files with several links in this snapshot.
    links: HashSet<(u64, u64)>,
    contents: HashSet<Id>,
    paths: HashSet<Id>,
    references: HashSet<Id>,
}

impl Tally {
    fn add_restored(&mut self, node: &Node) {
        self.stats.files += 1;
        let linked = node.links > 1 && node.ty != NodeType::Dir;
        if !linked || self.links.insert((node.device_id, node.inode)) {
            self.add_size(node.size);
        }
    }

    fn add_contents(&mut self, node: &Node) {
        if self.contents.insert(contents_id(node)) {
            self.stats.files += 1;
            self.add_size(node.size);
        }
    }

    fn add_references(&mut self, index: &Index, path: &[u8], node: &Node, gaps: &Gaps<'_>) -> Result<()> {
        if !self.contents.insert(contents_id(node)) {
            return Ok(());
        }
        let path_id = Id::of(path);
        for id in node.content.iter().flatten() {
            self.stats.files += u64::from(self.paths.insert(path_id));
            let reference = Id::of(&[path_id.0, id.0].concat());
            if self.references.insert(reference) {
                let ty = BlobType::Data;
                let location = index.first(ty, id).ok_or(Error::BlobMissing { ty, id });
                if let Some(location) = gaps.or_report(path, location)? {
                    self.add_size(location.blob.plain_length());
                    self.stats.blobs += 1;
                }
            }
        }
        Ok(())
    }

    /// Adds a size. A forged tree may claim any size, so the sum saturates.
    fn add_size(&mut self, size: u64) {
        self.stats.total_size = self.stats.total_size.saturating_add(size);
    }
}

/// Identifies the content of a file: the hash of its list of blobs.
fn contents_id(node: &Node) -> Id {
    let mut hash = Sha256::new();
    node.content
        .iter()
        .flat_map(|content| content.windows(1024))
        .for_each(|ids| ids.iter().for_each(|id| hash.update(&id.0)));
    Id(hash.finish())
}

/// Adds all blobs of a tree and of the trees below it; trees that are already in the set are
/// skipped. Data that cannot be read is reported with `path`, the path of the directory.
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
        assert_eq!(count(Mode::FilesByContents), (4 + 9, 3, 0), "all entries without content count as one");
        assert_eq!(count(Mode::BlobsPerFile), (4 + 3 + 3, 2, 3), "a blob that is twice in a file counts once");
        let (_, _, blobs) = count(Mode::RawData);
        assert_eq!(blobs, 3 + 3, "three data blobs; two roots and an empty tree");
    }
}
