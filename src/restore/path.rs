//! Paths of entries, relative to the target and without a slash at either end; the target's own
//! path is empty.

use crate::limits;

/// Strips the leading slash, which only patterns need.
pub fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// A path for messages. If it is longer than a system call accepts, only its beginning and end are
/// shown.
pub fn display(path: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy;
    if path.len() <= limits::PATH {
        return format!("/{}", text(path));
    }
    format!("/{}...{}", text(&path[..SHOWN]), text(&path[path.len() - SHOWN..]))
}
