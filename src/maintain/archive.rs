//! What the formats of archives have in common: entries in the order of the tree, as one stream of
//! bytes without seeking back.

use crate::format::node::Node;

/// What begins an entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Begun {
    pub bytes: Vec<u8>,
    /// What the archive holds in another form than the snapshot.
    pub warnings: Vec<String>,
    /// What of the entry the archive lacks.
    pub losses: Vec<String>,
}

/// A format of archives.
pub trait Archive {
    /// Begins an entry, or says why the archive cannot hold it. `path` is relative; a directory's
    /// ends with a slash. A file's content follows, which has as many bytes as its node says.
    fn begin(&mut self, path: &[u8], node: &Node) -> Result<Begun, String>;

    /// A piece of a file's content in the form of the archive.
    fn content<'b>(&'b mut self, bytes: &'b [u8]) -> &'b [u8];

    /// What follows the content of a file.
    fn end(&mut self) -> Vec<u8>;

    /// Ends the archive, and says what of all entries the format cannot hold.
    fn finish<E>(self, write: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Vec<String>, E>;
}
