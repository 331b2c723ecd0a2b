//! A backup: moves a volume snapshot into the repository of its volume.
//!
//! The stages, each of which is one or more actions:
//!
//! 1. Add the finalizer.
//! 2. [Examine](examine) the request.
//! 3. Queue it, until it is admitted.
//! 4. [Expose](snapshot_to_claim) the snapshot as a claim in the controller's namespace.
//! 5. Record that this backup may create the repository, if it does not exist.
//! 6. Run a [mover](lifecycle) that reads the claim.
//! 7. Record the result.
//! 8. Delete all managed objects, then record `Completed`.
//! 9. [Clean up](cleanup) after a failure or deletion, and remove the finalizer.

mod examine;
mod observe;
mod observed;

pub use observed::{Creation, Observed, SnapshotFate};

use super::{Flow, observe as common_observe, teardown};
use crate::controller::action::{Action, ContentChange, Managed, Object};
use crate::controller::cluster::Result;
use crate::controller::config::{Config, Incomplete};
use crate::controller::dialect::Dialect;
use crate::controller::domain::backup::{Backup, Saved, Update};
use crate::controller::domain::direction::incomplete;
use crate::controller::domain::names::Owner;
use crate::controller::domain::record::Stage;
use crate::controller::mover_job::cleanup;
use crate::controller::mover_job::lifecycle::{self, Order};
use crate::controller::mover_job::mover::{Access, DEVICE_PATH, MOUNT_PATH, MoverSpec, MoverVolume};
use crate::controller::observed::{Admission, Common, VeleroState};
use crate::controller::tenancy::repository::{self, Maker, Standing};
use crate::kubernetes::volumes::snapshot_to_claim::{self, Goal};
use crate::volume_mode::VolumeMode;
use crate::work::{self, Outcome, Reason, Task, VERSION, Work};
use examine::Source;
use std::path::Path;

impl Flow for Backup {
    type Observed = Observed;

    async fn observe<R>(observer: common_observe::Observer<'_, R>, common: Common) -> Result<Observed>
    where
        R: Dialect<Direction = Backup>,
    {
        observe::observe(observer, common).await
    }

    fn common(observed: &Observed) -> &Common {
        &observed.common
    }

    fn decide(owner: &Owner, seen: &Observed, config: &Config) -> Action<Backup> {
        let common = &seen.common;
        if common.is_deleted || matches!(common.stage(), Stage::Ended(_)) {
            return cleanup::finish(owner, common, config, || remove(seen, owner));
        }
        if !common.has_finalizer {
            return Action::AddFinalizer;
        }
        match common.stage() {
            Stage::Moved => return Action::record(Update::Cleaning),
            Stage::Cleaning => return remove(seen, owner).unwrap_or_else(|| Action::record(Update::Completed)),
            Stage::New | Stage::Queued | Stage::Started | Stage::Ended(_) => {}
        }
        if common.velero == VeleroState::Failed {
            return Action::record(Update::PartiallyFailed);
        }
        match lifecycle::order(&common.mover) {
            Some(Ok(order)) => return run_mover(owner, seen, config, order),
            Some(Err(why)) => return Action::fail(Reason::MoverLost, why),
            None => {}
        }
        let source = match examine::source(owner, seen, config) {
            Ok(source) => source,
            Err(action) => return *action,
        };
        match (common.stage(), common.admission) {
            (Stage::New | Stage::Queued, Admission::Admitted) => Action::record(Update::Started(source.volume)),
            (Stage::New, Admission::Queued) => Action::record(Update::Queued),
            (Stage::Queued, Admission::Queued) => Action::Wait("queued: other requests fill the limit".into()),
            _ => prepare(owner, seen, config, source),
        }
    }
}

/// Exposes the snapshot, records the creation of the repository, and creates the mover.
fn prepare(owner: &Owner, seen: &Observed, config: &Config, source: Source) -> Action<Backup> {
    let naming = owner.naming(owner.object_name(), &config.namespace);
    let goal = Goal { naming, source: source.snapshot, claim: source.claim };
    match snapshot_to_claim::decide(&goal, &seen.exposed) {
        snapshot_to_claim::Step::CreateContent(content) => return Action::Create(Object::Content(content)),
        snapshot_to_claim::Step::CreateSnapshot(snapshot) => return Action::Create(Object::Snapshot(snapshot)),
        snapshot_to_claim::Step::CreateClaim(claim) => return Action::Create(Object::Claim(claim)),
        snapshot_to_claim::Step::Wait(why) => return lifecycle::wait(&seen.common, config.prepare, why),
        snapshot_to_claim::Step::Failed(why) => return Action::fail(Reason::NotExposed, why),
        snapshot_to_claim::Step::Ready => {}
    }
    let repository = source.volume.repository;
    let initialize = match repository::standing(seen.record.as_ref()) {
        Standing::Made => false,
        Standing::Begun(maker) if maker.uid == owner.uid => true,
        Standing::Begun(_) if seen.creation == Creation::Running => {
            return lifecycle::wait(&seen.common, config.prepare, "another backup creates the repository".into());
        }
        Standing::Begun(_) | Standing::Unknown => {
            let maker = Maker { name: owner.name.clone(), uid: owner.uid.clone() };
            return record(seen, config, &repository, Some(&maker));
        }
    };
    let path = match source.volume.mode {
        VolumeMode::Filesystem => MOUNT_PATH,
        VolumeMode::Block => DEVICE_PATH,
    };
    let task = work::Backup {
        source: path.into(),
        hostname: source.volume.claim,
        tags: source.tags,
        identity: owner.identity().expect("a backup has one"),
        lineage: source.lineage,
        initialize,
    };
    let work = Work { version: VERSION, repository, task: Task::Backup(task), gone: vec![] };
    run_mover(owner, seen, config, Order { work, secrets: source.secrets })
}

/// Writes the record of a repository over the record that was read, if there was one.
fn record(seen: &Observed, config: &Config, repository: &str, maker: Option<&Maker>) -> Action<Backup> {
    let object = Box::new(repository::record(repository, maker, &config.namespace, seen.record.as_ref()));
    if seen.record.is_none() { Action::Create(Object::ConfigMap(object)) } else { Action::Rewrite(object) }
}

/// Runs the mover until it reports, and records its result.
fn run_mover(owner: &Owner, seen: &Observed, config: &Config, order: Order) -> Action<Backup> {
    let name = owner.object_name();
    let repository = order.work.repository.clone();
    let is_device = matches!(&order.work.task, Task::Backup(task) if task.source == Path::new(DEVICE_PATH));
    let mode = if is_device { VolumeMode::Block } else { VolumeMode::Filesystem };
    let spec = MoverSpec {
        naming: owner.naming(name.clone(), &config.namespace),
        volume: Some(MoverVolume { claim: name, mode, access: Access::ReadOnly }),
        work: order.work,
        secrets: order.secrets,
        settings: &config.mover,
    };
    let (report, pod) = match lifecycle::follow(spec, &seen.common, config) {
        Ok(reported) => reported,
        Err(action) => return *action,
    };
    match report.outcome {
        // This record comes first: a bucket that loses the repository must not look like the bucket
        // of a new volume.
        Outcome::Saved(_) if repository::standing(seen.record.as_ref()) != Standing::Made => {
            record(seen, config, &repository, None)
        }
        Outcome::Saved(saved) if saved.problems > 0 && config.incomplete == Incomplete::Fails => {
            Action::fail(Reason::Incomplete, incomplete(saved.problems, &report.first_problems))
        }
        Outcome::Saved(saved) => {
            Action::record(Update::Moved(Saved { saved, first_problems: report.first_problems, pod }))
        }
        Outcome::Failed(error) => Action::fail(error.reason, error.message),
        Outcome::Restored(_) | Outcome::Discarded { .. } => {
            Action::fail(Reason::MoverLost, "the mover reported a task that it was not given")
        }
    }
}

/// Deletes the managed objects. `None`: none is left.
fn remove(seen: &Observed, owner: &Owner) -> Option<Action<Backup>> {
    let or_keep = |action| match action {
        Action::Delete { managed: Managed::Content, name } if seen.snapshot_fate == SnapshotFate::IsCollected => {
            Action::Content { name, change: ContentChange::Keep }
        }
        action => action,
    };
    cleanup::remove_movers(&seen.common, owner).or_else(|| teardown::exposed(&seen.exposed, owner).map(or_keep))
}

#[cfg(test)]
mod tests;
