//! The interface of an archive format (tar, zip): it turns the entries of a tree, in order, into
//! one stream of bytes without seeking.

use crate::format::node::Node;

/// The header bytes of an entry, and the properties that the archive cannot store as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Begun {
    pub bytes: Vec<u8>,
    /// Properties that the archive stores in another form than the snapshot.
    pub warnings: Vec<String>,
    /// Properties that the archive cannot store.
    pub losses: Vec<String>,
}

/// An archive format.
pub trait Archive {
    /// Begins an entry, or returns why the archive cannot hold it. `path` is relative; the path of
    /// a directory ends with a slash. The content of a file follows and has as many bytes as its
    /// node says.
    fn begin(&mut self, path: &[u8], node: &Node) -> Result<Begun, String>;

    /// Encodes a piece of a file's content.
    fn content<'b>(&'b mut self, bytes: &'b [u8]) -> &'b [u8];

    /// Ends the content of a file, and returns the bytes that follow it.
    fn end(&mut self) -> Vec<u8>;

    /// Ends the archive. Returns a warning for each property of entries that the format cannot
    /// store.
    fn finish<E>(self, write: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Vec<String>, E>;
}
