//! What every stage of a restore needs and none changes.

use super::options::Options;
use crate::progress::Progress;
use crate::repo::{Index, Repository};

/// One restore: where the data comes from, what was asked for, and where problems are reported.
#[derive(Clone, Copy)]
pub struct Restoring<'r> {
    pub repo: &'r Repository,
    pub index: &'r Index,
    pub options: &'r Options,
    pub progress: &'r Progress,
}
