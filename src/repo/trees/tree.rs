//! Opens a tree, and reads it node by node.

use super::large::is_large;
use crate::format::BlobType;
use crate::format::content::JsonRef;
use crate::format::node::Node;
use crate::format::tree::{Nodes, ReadError};
use crate::id::Id;
use crate::limits;
use crate::repo::error::{Error, Result};
use crate::repo::index::{Index, Location};
use crate::repo::repository::Repository;

/// The nodes of a tree, in its order. After an error that concerns one node, the other nodes
/// follow.
pub struct Tree {
    id: Id,
    is_large: bool,
    nodes: Nodes<'static>,
}

impl Tree {
    pub fn id(&self) -> Id {
        self.id
    }

    /// Whether the tree is read piece by piece, because it is too large for memory.
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Whether no other node follows, not even after an error.
    pub fn is_over(&self) -> bool {
        self.nodes.is_over()
    }

    /// The JSON of the last node, also of one that cannot be decoded.
    pub fn raw(&self) -> JsonRef<'_> {
        self.nodes.raw()
    }
}

impl Iterator for Tree {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Result<Node>> {
        let id = self.id;
        let next = self.nodes.next();
        let failed = |error| match error {
            ReadError::Format(source) => Error::Tree { id, source },
            ReadError::Source(source) => Error::aside_lost(format!("tree {id}"), source),
            ReadError::Aside(source) => Error::aside(format!("tree {id}"), self.nodes.aside(), source),
            ReadError::TooLarge { size } => {
                Error::BlobTooLarge { ty: BlobType::Tree, id, size, max: limits::TREE_BLOB }
            }
        };
        next.map(|next| next.map_err(failed))
    }
}

impl Repository {
    /// Opens a single tree to be read node by node; [`TreeReader`](super::TreeReader) reads many.
    pub fn open_tree(&self, index: &Index, id: Id) -> Result<Tree> {
        open(self, index, id, |location| self.load_copy(location), |_| ())
    }
}

/// Opens the first copy of a tree that can be read: a small one as a whole, and a large one after
/// `prepare` with its pack.
pub(super) fn open(
    repo: &Repository,
    index: &Index,
    id: Id,
    small: impl Fn(&Location) -> Result<Vec<u8>>,
    prepare: impl Fn(Id),
) -> Result<Tree> {
    let mut failure = Error::BlobMissing { ty: BlobType::Tree, id };
    for location in index.find(BlobType::Tree, id) {
        let is_large = is_large(&location.blob);
        let opened = if is_large {
            prepare(location.pack);
            repo.open_large(&location)
        } else {
            small(&location).map(Nodes::new)
        };
        match opened {
            Ok(nodes) => return Ok(Tree { id, is_large, nodes }),
            Err(error) => failure = failure.or_hope(error),
        }
    }
    Err(failure)
}
