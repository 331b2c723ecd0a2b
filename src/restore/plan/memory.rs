//! The memory limits of a plan, and the memory for the states of its entries.

use crate::repo::{self, TreeReader};
use crate::restore::context::Restoring;
use crate::restore::error::Result;
use std::path::Path;

/// The memory limits of a plan.
#[derive(Clone, Copy)]
pub struct PlanBudget<'b> {
    /// Bytes of all its tables.
    pub total: u64,
    /// Bytes of the tables of files that are in memory at a time.
    pub table: u64,
    /// The directory that the other tables are spilled to.
    pub spill: Option<&'b Path>,
}

/// Limits of the size of a table in bytes: smaller tables would be too many, and larger ones bring
/// no gain.
const LEAST_TABLE: u64 = 2 << 20;
const MOST_TABLE: u64 = 32 << 20;

/// Bytes that the stages hold beside the plan from stage 3 on: the state of each directory, the
/// outcome of each file, and the state of each file of a table.
pub const DIR_STATE: usize = 1;
pub const FILE_OUTCOME: usize = 1;
pub const FILE_STATE: usize = 16;

impl PlanBudget<'_> {
    /// A table of files in memory gets an eighth of the remaining budget: the rest is for fetched
    /// data, and for the table while it grows.
    pub fn of<'r>(restoring: &Restoring<'r>) -> Result<PlanBudget<'r>> {
        let Restoring { repo, index, options, .. } = *restoring;
        let settings = repo.settings();
        let left = settings.budget.left(index.memory(), TreeReader::KEPT).map_err(repo::Error::from)?;
        let table = options.table_memory.unwrap_or_else(|| (left / 8).clamp(LEAST_TABLE, MOST_TABLE));
        Ok(PlanBudget { total: options.plan_memory, table, spill: settings.aside.as_deref() })
    }
}
