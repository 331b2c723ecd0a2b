//! The inputs of a restore, which every stage reads and none changes.

use super::options::Options;
use crate::progress::Progress;
use crate::repo::{Index, Repository};

/// One restore: the source of the data, the options, and the progress that problems are reported
/// to.
#[derive(Clone, Copy)]
pub struct Restoring<'r> {
    pub repo: &'r Repository,
    pub index: &'r Index,
    pub options: &'r Options,
    pub progress: &'r Progress,
}
