//! Problems with single entries, which do not end a restore.

use super::path::display;
use crate::progress::{Phase, Progress};
use std::fmt::Display;
use std::sync::OnceLock;

/// Reported for an entry whose place is taken by a non-empty directory.
pub const IN_THE_WAY: &str =
    "a directory that is not empty is in its place; remove it, or restore into another directory";

/// Reported for an entry whose place was taken during the restore, and that must not replace the
/// other entry.
pub const ONE_NAME: &str = "its place was taken while this restore ran, by another process or by another entry of the snapshot (then \
                            two names of the snapshot are one name on this file system); restore it into another directory";

/// Reported for a file whose node has no list of blobs.
pub const NO_CONTENT: &str = "the snapshot lists no content for it";

/// Reports problems, from any thread.
pub struct Problems<'p> {
    progress: &'p Progress,
    first_refusal: OnceLock<String>,
}

impl<'p> Problems<'p> {
    pub fn new(progress: &'p Progress) -> Problems<'p> {
        Problems { progress, first_refusal: OnceLock::new() }
    }

    pub fn report(&self, path: &[u8], why: impl Display) {
        self.progress.problem(Phase::Restore, display(path), why);
    }

    /// Reports an entry that the target refused.
    pub fn refuse(&self, path: &[u8], why: impl Display) {
        let (item, why) = (display(path), why.to_string());
        self.first_refusal.get_or_init(|| format!("{item}: {why}"));
        self.progress.problem(Phase::Restore, item, why);
    }

    /// The first entry that the target refused, and the reason.
    pub fn first_refusal(&self) -> Option<&str> {
        self.first_refusal.get().map(String::as_str)
    }
}
