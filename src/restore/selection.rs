//! Decides by the include and exclude patterns which paths are restored.

use super::options::Options;
use crate::pattern::Patterns;

/// Include and exclude patterns. Both lists may be given; an empty list filters nothing.
#[derive(Clone, Copy)]
pub struct Selection<'s> {
    include: &'s Patterns,
    exclude: &'s Patterns,
}

impl Selection<'_> {
    pub fn of(options: &Options) -> Selection<'_> {
        Selection { include: &options.include, exclude: &options.exclude }
    }

    /// Whether the entry (an absolute path) is selected.
    pub fn takes(&self, path: &[u8]) -> bool {
        (self.include.is_empty() || self.include.matches(path)) && !self.exclude.matches(path)
    }

    /// Whether an entry below the directory may be selected.
    pub fn leads_below(&self, path: &[u8]) -> bool {
        (self.include.is_empty() || self.include.may_match_below(path)) && !self.exclude.matches(path)
    }

    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}
