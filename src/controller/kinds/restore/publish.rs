//! Publication of a restored volume: as a storage snapshot, for Velero's plugin, or by rebinding it
//! to a claim in the tenant's namespace.

use super::observed::Observed;
use crate::controller::action::{Action, ContentChange, Managed, Object};
use crate::controller::config::Config;
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::{End, Stage};
use crate::controller::domain::restore::Restore;
use crate::controller::mover_job::lifecycle;
use crate::kubernetes::volumes::claim_to_snapshot::{self, StorageSnapshot};
use crate::kubernetes::volumes::rebind;
use crate::work::Reason;

/// The next action of the publication; `Ok` when the volume is published, with its storage snapshot
/// if it has one.
pub fn next(owner: &Owner, seen: &Observed, config: &Config) -> Result<Option<StorageSnapshot>, Action<Restore>> {
    let wait = |why| lifecycle::wait(&seen.common, config.publish, why);
    let Some(goal) = rebinding(owner, seen, config) else {
        let naming = owner.naming(owner.object_name(), &config.namespace);
        let goal = claim_to_snapshot::Goal { naming, class: seen.request.snapshot_class.clone() };
        return match claim_to_snapshot::decide(&goal, &seen.captured) {
            claim_to_snapshot::Step::Ready(snapshot) => Ok(Some(snapshot)),
            claim_to_snapshot::Step::CreateSnapshot(snapshot) => Err(Action::Create(Object::Snapshot(snapshot))),
            claim_to_snapshot::Step::Policy { content, policy } => {
                Err(Action::Content { name: content, change: ContentChange::Policy(policy) })
            }
            claim_to_snapshot::Step::Wait(why) => Err(wait(why)),
            claim_to_snapshot::Step::Failed(why) => Err(Action::fail(Reason::NotHandedOver, why)),
        };
    };
    match rebind::decide(&goal, &seen.volume) {
        None => Ok(None),
        Some(rebind::Step::Wait(why)) => Err(wait(why)),
        Some(step) => Err(rebind_action(step, &goal)),
    }
}

/// The next action that takes back an unfinished publication. `None`: none is left.
pub fn undo(owner: &Owner, seen: &Observed, config: &Config) -> Option<Action<Restore>> {
    if matches!(seen.common.stage(), Stage::Moved | Stage::Cleaning | Stage::Ended(End::Completed)) {
        return None;
    }
    if let Some(claim_to_snapshot::Step::Policy { content, policy }) = claim_to_snapshot::undo(&seen.captured) {
        return Some(Action::Content { name: content, change: ContentChange::Policy(policy) });
    }
    let goal = rebinding(owner, seen, config)?;
    rebind::undo(&goal, &seen.volume).map(|step| rebind_action(step, &goal))
}

/// The rebinding to the target, if the request names one.
pub fn rebinding(owner: &Owner, seen: &Observed, config: &Config) -> Option<rebind::Goal> {
    let target = seen.request.target.as_ref()?;
    Some(rebind::Goal {
        from: owner.naming(owner.object_name(), &config.namespace),
        to: owner.naming(target.name.clone(), &owner.namespace),
        uid: owner.uid.clone(),
    })
}

fn rebind_action(step: rebind::Step, goal: &rebind::Goal) -> Action<Restore> {
    match step {
        rebind::Step::Volume { name, change } => Action::Volume { name, change },
        rebind::Step::CreateTarget(claim) => Action::Create(Object::Claim(claim)),
        rebind::Step::DeleteTarget => Action::Delete { managed: Managed::Target, name: goal.to.name.clone() },
        rebind::Step::Wait(why) => Action::Wait(why),
        rebind::Step::Failed(why) => Action::fail(Reason::NotHandedOver, why),
    }
}
