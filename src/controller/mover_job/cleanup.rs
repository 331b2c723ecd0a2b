//! Cleanup of the repository after a request: removes the locks of movers that ended without a
//! report, and the snapshot of a backup that was cancelled.

use super::lifecycle::{self, Order};
use super::mover::MoverSpec;
use super::observe::{self, State};
use super::teardown;
use crate::controller::action::Action;
use crate::controller::config::Config;
use crate::controller::domain::direction::Direction;
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::{End, Stage};
use crate::controller::observed::Common;
use crate::work::{Discard, Outcome, Task};

/// The progress of the cleanup.
enum Cleanup<D: Direction> {
    /// Nothing is left in the repository.
    Done,
    /// The next action.
    Next(Box<Action<D>>),
    /// The cleanup is impossible, for this reason.
    Failed(String),
}

/// Why a lock or a snapshot of a request that ended early stays in its repository, if it does.
pub fn failure<D: Direction>(owner: &Owner, common: &Common, config: &Config) -> Option<String> {
    match clean::<D>(owner, common, config) {
        Cleanup::Failed(why) => Some(why),
        Cleanup::Done | Cleanup::Next(_) => None,
    }
}

/// A snapshot is removed only if the backup was cancelled: the snapshot of a backup that failed may
/// be the only copy of the data.
fn clean<D: Direction>(owner: &Owner, common: &Common, config: &Config) -> Cleanup<D> {
    let (Some(job), Some(order)) = (&common.mover.job, lifecycle::order(&common.mover)) else {
        return Cleanup::Done;
    };
    let is_cancelled = common.is_deleted && common.stage() < Stage::Moved;
    let identity = owner.identity().filter(|_| is_cancelled);
    let left = observe::leftovers(job, &common.mover.pods);
    let completed = common.stage() == Stage::Ended(End::Completed);
    if completed || !(left.unknown || identity.is_some() && left.snapshot) {
        return Cleanup::Done;
    }
    let Order { mut work, secrets } = match order {
        Ok(order) => order,
        Err(why) => return Cleanup::Failed(why),
    };
    work.task = Task::Discard(Discard { identity });
    work.gone.extend(observe::ended_hosts(job, &common.mover.pods));
    let naming = owner.naming(name(owner), &config.namespace);
    let spec = MoverSpec { naming, volume: None, work, secrets, settings: &config.mover };
    let wait = |why: String| Cleanup::Next(Box::new(Action::Wait(why)));
    match lifecycle::run(spec, &common.cleanup) {
        Err(action) => Cleanup::Next(action),
        Ok(State::Waiting { why }) => wait(why),
        Ok(State::Running { .. }) => wait("waiting for the cleanup of the repository".into()),
        Ok(State::Lost { why }) => Cleanup::Failed(why),
        Ok(State::Reported { report, .. }) => match report.outcome {
            Outcome::Discarded { .. } => Cleanup::Done,
            Outcome::Failed(failed) => Cleanup::Failed(format!("{}: {}", failed.reason, failed.message)),
            Outcome::Saved(_) | Outcome::Restored(_) => {
                Cleanup::Failed("the mover reported a task that it was not given".into())
            }
        },
    }
}

/// The name of the mover that cleans up.
pub fn name(owner: &Owner) -> String {
    format!("{}-tidy", owner.object_name())
}

/// Deletes the objects of both movers. Those of the cleanup are last: while they exist, its success
/// is known.
pub fn remove_movers<D: Direction>(common: &Common, owner: &Owner) -> Option<Action<D>> {
    teardown::remove(&common.mover, owner, &owner.object_name())
        .or_else(|| teardown::remove(&common.cleanup, owner, &name(owner)))
}

/// The last actions of every request: stop the mover, clean up the repository, delete all managed
/// objects (`remove`), remove the finalizer.
pub fn finish<D: Direction>(
    owner: &Owner,
    common: &Common,
    config: &Config,
    remove: impl FnOnce() -> Option<Action<D>>,
) -> Action<D> {
    if let Some(action) = teardown::stop(&common.mover, &owner.object_name()) {
        return action;
    }
    match clean(owner, common, config) {
        Cleanup::Next(action) => return *action,
        Cleanup::Done | Cleanup::Failed(_) => {}
    }
    match remove() {
        Some(action) => action,
        None if common.has_finalizer => Action::RemoveFinalizer,
        None => Action::Nothing,
    }
}
