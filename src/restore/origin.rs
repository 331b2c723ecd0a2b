//! Stage 1: the part of a snapshot that is to be restored, found by its path.

use super::error::Result;
use super::meta::Meta;
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::VOLUME_NAME;
use crate::id::Id;
use crate::repo::{self, StoredSnapshot, TreeReader};

/// What becomes the content of the target.
pub enum Origin {
    /// The entries of this tree. A snapshot's root has no metadata.
    Dir { tree: Id, meta: Option<Meta> },
    /// This one entry.
    Entry(Box<Node>),
}

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// At the snapshot's root.
    Snapshot,
    /// At the root of the volume in it, whichever shape the snapshot has.
    Volume,
}

/// The part of the snapshot that the path names; the empty path is all of it.
pub fn find(trees: &TreeReader<'_>, stored: &StoredSnapshot, path: &[u8], base: Base) -> Result<Origin> {
    let root = stored.tree()?;
    let top = match base {
        Base::Volume if stored.snapshot.is_volume() => volume_root(trees, root)?,
        Base::Volume | Base::Snapshot => None,
    };
    let tree = match &top {
        None => root,
        Some(top) => top.subtree.ok_or_else(|| repo::Error::Inconsistent {
            path: format!("/{VOLUME_NAME}"),
            why: "the snapshot names no tree for the root of its volume; restore another snapshot".into(),
        })?,
    };
    Ok(match trees.find(tree, path)?.or(top) {
        None => Origin::Dir { tree, meta: None },
        Some(node) => match node.subtree {
            Some(tree) if node.ty == NodeType::Dir => Origin::Dir { tree, meta: Some(Meta::of(node)) },
            _ => Origin::Entry(Box::new(node)),
        },
    })
}

/// The regular file that a device can take: the one asked for, or the only thing there is.
pub fn single_file(trees: &TreeReader<'_>, origin: Origin) -> Result<Option<Node>> {
    let only = match origin {
        Origin::Entry(node) => Some(*node),
        Origin::Dir { tree, .. } => only_node(trees, tree)?,
    };
    Ok(only.filter(|node| node.ty == NodeType::File))
}

/// The directory that a volume snapshot has its volume in.
fn volume_root(trees: &TreeReader<'_>, tree: Id) -> Result<Option<Node>> {
    let is_volume = |node: &Node| node.ty == NodeType::Dir && node.name == VOLUME_NAME.as_bytes();
    Ok(only_node(trees, tree)?.filter(is_volume))
}

/// The entry of a tree that has no other.
fn only_node(trees: &TreeReader<'_>, id: Id) -> Result<Option<Node>> {
    let mut tree = trees.open(id)?;
    let only = tree.next().transpose()?;
    Ok(if tree.next().transpose()?.is_none() { only } else { None })
}
