//! A restore: moves a snapshot in a repository into a fresh volume.
//!
//! The stages, each of which is one or more actions:
//!
//! 1. Add the finalizer.
//! 2. [Examine](examine) the request.
//! 3. Queue it, until it is admitted.
//! 4. Create a claim in the controller's namespace.
//! 5. Run a [mover](lifecycle) that fills the claim.
//! 6. [Publish](publish) the volume, as a storage snapshot or by rebinding it to the tenant's
//!    claim.
//! 7. Record the result.
//! 8. Delete all other managed objects, then record `Completed`.
//! 9. [Clean up](cleanup) after a failure or deletion, and remove the finalizer.

mod examine;
mod observe;
mod observed;
mod publish;

pub use observed::Observed;

use super::{Flow, observe as common_observe, teardown};
use crate::controller::action::{Action, Object};
use crate::controller::cluster::Result;
use crate::controller::config::{Config, Incomplete};
use crate::controller::dialect::Dialect;
use crate::controller::domain::direction::incomplete;
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::Stage;
use crate::controller::domain::restore::{Restore, Restored, Started, Update};
use crate::controller::mover_job::lifecycle::{self, Order};
use crate::controller::mover_job::mover::{Access, DEVICE_PATH, MOUNT_PATH, MoverSpec, MoverVolume};
use crate::controller::mover_job::{cleanup, status, teardown as mover_teardown};
use crate::controller::observed::{Admission, Common, VeleroState};
use crate::volume_mode::VolumeMode;
use crate::work::{self, Outcome, Reason, Task};
use examine::FreshClaim;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

impl Flow for Restore {
    type Observed = Observed;

    async fn observe<R>(observer: common_observe::Observer<'_, R>, common: Common) -> Result<Observed>
    where
        R: Dialect<Direction = Restore>,
    {
        observe::observe(observer, common).await
    }

    fn common(observed: &Observed) -> &Common {
        &observed.common
    }

    fn decide(owner: &Owner, seen: &Observed, config: &Config) -> Action<Restore> {
        let common = &seen.common;
        if common.is_deleted || matches!(common.stage(), Stage::Ended(_)) {
            return cleanup::finish(owner, common, config, || remove(owner, seen, config));
        }
        if common.stage() == Stage::New && seen.request.is_copied {
            return Action::fail(
                Reason::Copied,
                "this object was restored with its namespace, or created for another controller, and is not carried out",
            );
        }
        if !common.has_finalizer {
            return Action::AddFinalizer;
        }
        match common.stage() {
            Stage::Moved => return Action::record(Update::Cleaning),
            Stage::Cleaning => return remove(owner, seen, config).unwrap_or_else(|| Action::record(Update::Completed)),
            Stage::New | Stage::Queued | Stage::Started | Stage::Ended(_) => {}
        }
        if common.velero == VeleroState::Failed {
            return Action::record(Update::PartiallyFailed);
        }
        if let Some(rejected) = examine::ambiguity(seen) {
            return rejected.into();
        }
        let fresh = match FreshClaim::of(seen) {
            Ok(fresh) => fresh,
            Err(rejected) => return rejected.into(),
        };
        match lifecycle::order(&common.mover) {
            Some(Ok(order)) => return fill(owner, seen, config, order, &fresh),
            Some(Err(why)) => return Action::fail(Reason::MoverLost, why),
            None => {}
        }
        let order = match examine::order(owner, seen, config) {
            Ok(order) => order,
            Err(rejected) => return rejected.into(),
        };
        match (common.stage(), common.admission) {
            (Stage::New | Stage::Queued, Admission::Admitted) => {
                Action::record(Update::Started(Started { mode: fresh.mode }))
            }
            (Stage::New, Admission::Queued) => Action::record(Update::Queued),
            (Stage::Queued, Admission::Queued) => Action::Wait("queued: other requests fill the limit".into()),
            _ => fill(owner, seen, config, order, &fresh),
        }
    }
}

/// Creates the claim, runs the mover that fills it, and publishes the volume.
fn fill(owner: &Owner, seen: &Observed, config: &Config, order: Order, fresh: &FreshClaim) -> Action<Restore> {
    if let Some(action) = create_claim(owner, seen, config, fresh) {
        return action;
    }
    let spec = mover(owner, config, order, fresh.mode);
    let (report, pod) = match lifecycle::follow(spec, &seen.common, config) {
        Ok(reported) => reported,
        Err(action) => return *action,
    };
    let restored = match report.outcome {
        Outcome::Restored(restored) if restored.problems > 0 && config.incomplete == Incomplete::Fails => {
            return Action::fail(Reason::Incomplete, incomplete(restored.problems, &report.first_problems));
        }
        Outcome::Restored(restored) => restored,
        Outcome::Failed(error) if error.reason == Reason::OtherVolumeMode && mode_is_a_guess(seen, fresh) => {
            return Action::record(Update::Started(Started { mode: VolumeMode::Block }));
        }
        Outcome::Failed(error) => return Action::fail(error.reason, error.message),
        Outcome::Saved(_) | Outcome::Discarded { .. } => {
            return Action::fail(Reason::MoverLost, "the mover reported a task that it was not given");
        }
    };
    match publish::next(owner, seen, config) {
        Ok(snapshot) => {
            let first_problems = report.first_problems;
            Action::record(Update::Moved(Restored { restored, first_problems, pod, snapshot }))
        }
        Err(action) => action,
    }
}

/// Whether the volume mode was not requested and may be the other one.
fn mode_is_a_guess(seen: &Observed, fresh: &FreshClaim) -> bool {
    let is_requested = seen.request.target.as_ref().is_some_and(|target| target.mode.is_some());
    fresh.mode == VolumeMode::Filesystem && !is_requested
}

/// Creates the claim. `None`: it exists, or is not needed any more.
fn create_claim(owner: &Owner, seen: &Observed, config: &Config, fresh: &FreshClaim) -> Option<Action<Restore>> {
    let name = owner.object_name();
    let has_ended = seen.common.mover.job.as_ref().is_some_and(status::is_finished);
    match &seen.volume.claim {
        None if !has_ended => {
            let metadata = owner.naming(name, &config.namespace).meta();
            Some(Action::Create(Object::Claim(Box::new(fresh.claim(metadata)))))
        }
        Some(claim) if !owner.owns(claim.labels()) => {
            let message = format!("the claim {}/{name} exists and was not created for this request", config.namespace);
            Some(Action::fail(Reason::NotPrepared, message))
        }
        Some(claim) if mode_of(claim) != fresh.mode => {
            // The snapshot turned out to be of the other mode: start again with a new claim.
            let next = mover_teardown::remove(&seen.common.mover, owner, &name)
                .or_else(|| teardown::claim(Some(claim), seen.volume.volume.as_ref(), owner));
            Some(next.unwrap_or(Action::Wait("waiting for a claim to be deleted".into())))
        }
        _ => None,
    }
}

/// The mover that fills the claim.
fn mover<'s>(owner: &Owner, config: &'s Config, mut order: Order, mode: VolumeMode) -> MoverSpec<'s> {
    let name = owner.object_name();
    if let Task::Restore(work::Restore { target, .. }) = &mut order.work.task {
        *target = match mode {
            VolumeMode::Filesystem => MOUNT_PATH.into(),
            VolumeMode::Block => DEVICE_PATH.into(),
        };
    }
    MoverSpec {
        naming: owner.naming(name.clone(), &config.namespace),
        volume: Some(MoverVolume { claim: name, mode, access: Access::Writable }),
        work: order.work,
        secrets: order.secrets,
        settings: &config.mover,
    }
}

fn mode_of(claim: &PersistentVolumeClaim) -> VolumeMode {
    let mode = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    mode.and_then(VolumeMode::parse).unwrap_or_default()
}

/// Deletes the managed objects. A published volume stays, an unpublished one is deleted with them.
/// `None`: none is left.
fn remove(owner: &Owner, seen: &Observed, config: &Config) -> Option<Action<Restore>> {
    cleanup::remove_movers(&seen.common, owner)
        .or_else(|| publish::undo(owner, seen, config))
        .or_else(|| teardown::snapshot(seen.captured.snapshot.as_ref(), owner))
        .or_else(|| teardown::claim(seen.volume.claim.as_ref(), seen.volume.volume.as_ref(), owner))
}

#[cfg(test)]
mod tests;
