//! Reads trees (directories): as a whole, or node by node.

pub(super) mod large;
mod reader;
mod tree;
mod window;

pub use large::{LargeTree, is_large};
pub use reader::TreeReader;
pub use tree::Tree;
