//! Paths of entries, relative to the target and without a slash at either end; the target's own is
//! empty.

use crate::limits;

/// The path without the slash before it that patterns want.
pub fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// A path as messages show it. Of a path that exceeds what a system call takes, only the beginning
/// and the end are shown.
pub fn display(path: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy;
    if path.len() <= limits::PATH {
        return format!("/{}", text(path));
    }
    format!("/{}...{}", text(&path[..SHOWN]), text(&path[path.len() - SHOWN..]))
}
