//! The parent snapshot: which one, and what it says about a directory.

use super::{Options, ParentChoice, Source};
use crate::format::node::{Node, NodeType};
use crate::format::tree;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::{Error, Repository, Result, SnapshotFilter, StoredSnapshot, TreeReader};

/// The snapshot to compare with, if any. `paths` are the absolute paths of this backup.
pub fn find(
    repo: &Repository,
    options: &Options,
    paths: &[String],
    progress: &Progress,
) -> Result<Option<StoredSnapshot>> {
    let (host, by_paths, tags) = match &options.parent {
        _ if matches!(options.source, Source::Stream { .. }) => return Ok(None),
        ParentChoice::Force => return Ok(None),
        ParentChoice::Named(name) => return repo.find_snapshot(name, &SnapshotFilter::default()).map(Some),
        ParentChoice::Known(stored) => return Ok(Some((**stored).clone())),
        &ParentChoice::Group { host, paths, tags } => (host, paths, tags),
    };
    let filter = SnapshotFilter {
        hosts: if host { vec![options.hostname.clone()] } else { vec![] },
        tags: if tags { vec![options.tags.clone()] } else { vec![] },
        paths: if by_paths { paths.to_vec() } else { vec![] },
    };
    // A snapshot that cannot be read cannot be a parent, and is no reason not to make a new one.
    let (snapshots, errors) = repo.snapshots()?;
    for error in errors {
        progress.warning(&format!("a snapshot is not considered as the parent: {error}"));
    }
    Ok(snapshots
        .into_iter()
        .rfind(|stored| filter.accepts(&stored.snapshot) && stored.snapshot.time.instant() <= options.time.instant()))
}

/// The nodes of a directory in the parent.
#[derive(Default)]
pub struct ParentDir {
    nodes: Vec<Node>,
    sorted: bool,
}

impl ParentDir {
    /// Reads a directory of the parent.
    pub fn load(trees: &TreeReader<'_>, id: Id) -> Result<ParentDir> {
        let nodes = tree::parse(&trees.load(id)?).map_err(|source| Error::Tree { id, source })?;
        let sorted = nodes.is_sorted_by(|a, b| a.name < b.name);
        Ok(ParentDir { nodes, sorted })
    }

    /// The top of a parent whose root is the volume's own content, as if it had that below a directory called `name`.
    pub fn below(name: &str, root: Id) -> ParentDir {
        let mut node = Node::new(name, NodeType::Dir);
        node.subtree = Some(root);
        ParentDir { nodes: vec![node], sorted: true }
    }

    /// The node of a name. Other programs' trees are not always sorted.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        if self.sorted {
            let at = self.nodes.binary_search_by(|node| node.name[..].cmp(name)).ok()?;
            return Some(&self.nodes[at]);
        }
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// Whether a file is the one the parent has, by restic's rule: type, size, mtime, and unless told otherwise ctime and inode.
pub fn is_unchanged(options: &Options, now: &Node, before: &Node) -> bool {
    let ignore_ctime = options.ignore_ctime || options.ignore_inode;
    before.ty == NodeType::File
        && before.content.is_some()
        && now.size == before.size
        && now.mtime.instant() == before.mtime.instant()
        && (ignore_ctime || now.ctime.instant() == before.ctime.instant())
        && (options.ignore_inode || now.inode == before.inode)
}
