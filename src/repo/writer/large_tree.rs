//! Stores a large tree of a repository in another pack or in another repository.

use super::new_tree::NewTree;
use super::pipeline::Writer;
use crate::format::pack::PackedBlob;
use crate::repo::error::Result;
use crate::repo::trees::LargeTree;

/// The sealed form of a blob that is stored in another pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedForm {
    /// The existing form is kept, which is possible only within a repository.
    Keep,
    /// The plaintext is compressed and sealed again.
    Renew,
}

impl Writer {
    /// Stores a large tree of another repository, or of this one.
    pub fn store_large_tree(&self, tree: LargeTree, form: SealedForm) -> Result<()> {
        match form {
            SealedForm::Keep => {
                let blob = PackedBlob { offset: 0, ..tree.blob() };
                self.store_sealed_tree(blob, tree.into_sealed())
            }
            SealedForm::Renew => {
                let id = tree.blob().id;
                NewTree::of_plaintext(self, id, tree.into_plaintext())
            }
        }
    }
}
