//! A large tree of a repository, stored in another pack or in another repository.

use super::new_tree::NewTree;
use super::pipeline::Writer;
use crate::format::pack::PackedBlob;
use crate::repo::error::Result;
use crate::repo::trees::LargeTree;

impl Writer {
    /// Stores a large tree of another repository, or of this one, whose sealed form may stay.
    pub fn store_large_tree(&self, tree: LargeTree, stays_sealed: bool) -> Result<()> {
        if stays_sealed {
            let blob = PackedBlob { offset: 0, ..tree.blob() };
            return self.store_sealed_tree(blob, tree.into_sealed());
        }
        let id = tree.blob().id;
        NewTree::of_plaintext(self, id, tree.into_plaintext())
    }
}
