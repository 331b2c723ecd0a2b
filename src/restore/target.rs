//! The target directory during a restore: the state that the stages share and change.

use super::context::Restoring;
use super::dir_states::{DirState, DirStates};
use super::inodes::Claims;
use super::meta::Refusals;
use super::options::Options;
use super::plan::Plan;
use super::problems::Problems;
use super::workers::Workers;
use crate::progress::Progress;
use std::sync::atomic::AtomicU64;

pub struct Target<'t> {
    pub plan: &'t Plan,
    pub options: &'t Options,
    pub progress: &'t Progress,
    dirs: DirStates,
    /// The inodes that are assigned to entries of the snapshot.
    pub claims: Claims,
    pub problems: Problems<'t>,
    /// Entries that were removed, or would be in a dry run.
    pub deleted: AtomicU64,
    /// Metadata that the system refused.
    pub refusals: Refusals<'t>,
    /// The threads that work on the target.
    pub workers: Workers<'t>,
}

impl<'t> Target<'t> {
    /// A target of which nothing is known yet.
    pub fn new(restoring: &Restoring<'t>, plan: &'t Plan) -> Target<'t> {
        let Restoring { repo, options, progress, .. } = *restoring;
        Target {
            plan,
            options,
            progress,
            dirs: DirStates::new(plan.dirs.len()),
            claims: Claims::default(),
            problems: Problems::new(progress),
            deleted: AtomicU64::new(0),
            refusals: Refusals::new(progress, options.unprivileged),
            workers: Workers::new(repo.settings().budget.threads, progress),
        }
    }

    /// The state of a directory, by its number in the plan.
    pub fn dir(&self, number: u32) -> &DirState {
        self.dirs.of(number)
    }

    /// Marks all directories as new, because the target does not exist.
    pub fn set_all_fresh(&self) {
        self.dirs.iter().for_each(DirState::set_fresh);
    }
}
