//! [`Directory`]: the entries of one directory in a folder or a bucket.

/// The entries of one directory, without those of the directories below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub directories: Vec<String>,
    /// Files with one of the names that the caller asked for.
    pub files: Vec<String>,
    /// Entries that may be directories but are not followed: symbolic links, and names that are not
    /// UTF-8.
    pub passed_over: Vec<String>,
}
