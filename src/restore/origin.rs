//! Stage 1: finds the part of a snapshot to restore, by its path.

use super::error::Result;
use super::meta::Meta;
use crate::format::node::{Node, NodeType};
use crate::format::snapshot::VOLUME_NAME;
use crate::id::Id;
use crate::repo::{self, StoredSnapshot, TreeReader};

/// The part of the snapshot that becomes the content of the target.
pub enum Origin {
    /// The entries of this tree. A snapshot's root has no metadata.
    Dir { tree: Id, meta: Option<Meta> },
    /// This one entry.
    Entry(Box<Node>),
}

/// The directory that a path is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The snapshot's root.
    Snapshot,
    /// The root of the volume in the snapshot, whichever layout the snapshot has.
    Volume,
}

/// The part of the snapshot at `path`; the empty path is all of it.
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

/// The regular file for a device: the requested one, or the only entry of the requested directory.
pub fn single_file(trees: &TreeReader<'_>, origin: Origin) -> Result<Option<Node>> {
    let only = match origin {
        Origin::Entry(node) => Some(*node),
        Origin::Dir { tree, .. } => only_node(trees, tree)?,
    };
    Ok(only.filter(|node| node.ty == NodeType::File))
}

/// The directory that contains the volume, if the snapshot has that layout.
fn volume_root(trees: &TreeReader<'_>, tree: Id) -> Result<Option<Node>> {
    let is_volume = |node: &Node| node.ty == NodeType::Dir && node.name == VOLUME_NAME.as_bytes();
    Ok(only_node(trees, tree)?.filter(is_volume))
}

/// The only entry of a tree; `None` if the tree has none or several.
fn only_node(trees: &TreeReader<'_>, id: Id) -> Result<Option<Node>> {
    let mut tree = trees.open(id)?;
    let only = tree.next().transpose()?;
    Ok(if tree.next().transpose()?.is_none() { only } else { None })
}
