//! A restore: a snapshot in a repository becomes a fresh volume. What is there goes in, the one thing to be done next comes out.
//!
//! The order: the finalizer, the request looked at, a place in the queue, a fresh claim in the controller's own namespace, one
//! [mover](crate::controller::mover_job::job) that fills it. Then either its [snapshot](crate::controller::volumes::claim_to_snapshot) is handed over, as Velero's plugin wants it, or the
//! volume itself [goes](crate::controller::volumes::rebind) to a claim in the namespace of whoever asked. At last everything else is taken down.

use crate::api::ClaimData;
use crate::controller::domain::flow::{
    self, Act, Common, Config, ContentChange, Helper, Object, Stage, Velero, failed, status,
};
use crate::controller::domain::names::Subject;
use crate::controller::domain::quantity;
use crate::controller::mover_job::job::{self, Direction, Wanted};
use crate::controller::mover_job::lifecycle::{self, Order};
use crate::controller::runtime::rbac::Right;
use crate::controller::tenancy::authorization::{self, Reader, RunningRestore};
use crate::controller::tenancy::credentials::{self, Access, Rejected};
use crate::controller::volumes::claim_to_snapshot;
use crate::controller::volumes::rebind;
use crate::id::Id;
use crate::provenance::{Layout, Tag};
use crate::work::{self, Outcome, Pick, Reason, Task, VERSION, Work};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::BTreeMap;

const FILESYSTEM: &str = "Filesystem";
const BLOCK: &str = "Block";

/// What is wanted, in the words of whoever asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub protected_namespace: String,
    pub secret: String,
    /// The repository's location.
    pub repository: String,
    /// The claim that was backed up.
    pub claim: ClaimData,
    pub snapshot_class: Option<String>,
    /// The snapshot, by its id.
    pub snapshot: Option<String>,
    /// The VolumeSnapshotBackup that made it.
    pub made_by: Option<String>,
    /// The Velero backup that that was a part of.
    pub backup: Option<String>,
    /// The claim that the volume goes to, without a snapshot on the way.
    pub target: Option<Target>,
    /// A repository that is not there was that of an empty volume.
    pub absent_is_empty: bool,
    /// It was not made for this restore, but came with the backup of a namespace, or is older than this controller.
    pub copied: bool,
}

/// A claim in the namespace of whoever asked. What is not said is as it was backed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub name: String,
    pub storage_class: Option<String>,
    pub size: Option<String>,
    pub access_modes: Vec<String>,
    pub mode: Option<String>,
}

/// Everything that is there at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub common: Common,
    pub request: Request,
    /// The volume's mode, if one was recorded.
    pub mode: Option<String>,
    /// The Velero restore that it is a part of, if that is under way.
    pub restore: Option<RunningRestore>,
    /// Repositories that an administrator lets the namespace read.
    pub grants: Vec<String>,
    /// Other restores, as `namespace/name`, that Velero's plugin cannot tell from this one.
    pub rivals: Vec<String>,
    /// The classes that the request names and that are not there, for people.
    pub missing: Vec<String>,
    /// What the controller may not do of what it takes to fill the target.
    pub missing_rights: Vec<Right>,
    pub captured: claim_to_snapshot::Seen,
    pub volume: rebind::Seen,
}

/// What is known from the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub mode: String,
}

/// What a mover brought back, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Brought {
    pub restored: work::Restored,
    pub first_problems: Vec<String>,
    pub pod: String,
    /// The storage snapshot's handle and the name of its content, unless the volume itself was handed over.
    pub snapshot: Option<(String, String)>,
}

pub type Update = flow::Update<Known, Brought>;

/// The next thing to be done.
pub fn decide(subject: &Subject, seen: &Observed, config: &Config) -> Act<Update> {
    let common = &seen.common;
    if common.deleted || matches!(common.stage, Stage::Ended { .. }) {
        return lifecycle::end(subject, common, config, || take_down(subject, seen, config));
    }
    if common.stage == Stage::New && seen.request.copied {
        return failed(
            "Copied",
            "this restore was brought back with its namespace, or left by another controller, and is not carried out again; make a new one",
        );
    }
    if !common.finalizer {
        return Act::AddFinalizer;
    }
    match common.stage {
        Stage::Moved => return status(Update::Cleaning),
        Stage::Cleaning => {
            return take_down(subject, seen, config).unwrap_or_else(|| status(Update::Completed));
        }
        Stage::New | Stage::Queued | Stage::Started | Stage::Ended { .. } => {}
    }
    if common.velero == Velero::Failed {
        return status(Update::PartiallyFailed);
    }
    if let Some(rejected) = ambiguous(seen) {
        return *Box::from(rejected);
    }
    let fresh = match fresh(seen) {
        Ok(fresh) => fresh,
        Err(rejected) => return *Box::from(rejected),
    };
    match lifecycle::order(&common.mover) {
        Some(Ok(order)) => return follow(subject, seen, config, order, &fresh),
        Some(Err(why)) => return failed("MoverLost", why),
        None => {}
    }
    let order = match examine(subject, seen, config) {
        Ok(order) => order,
        Err(rejected) => return *Box::from(rejected),
    };
    match (common.stage, common.turn) {
        (Stage::New | Stage::Queued, true) => status(Update::Started(Known { mode: fresh.mode })),
        (Stage::New, false) => status(Update::Queued),
        (Stage::Queued, false) => Act::Wait("waiting for its turn".into()),
        _ => follow(subject, seen, config, order, &fresh),
    }
}

/// Velero's plugin finds a restore by the name of Velero's Restore and of the claim. If two have both, it takes one for the other
/// without a word, and an application gets the data of another one: so neither may end well.
fn ambiguous(seen: &Observed) -> Option<Rejected> {
    let rivals = seen.rivals.join(", ");
    (!rivals.is_empty()).then(|| Rejected {
        reason: "Ambiguous",
        message: format!(
            "Velero's plugin cannot tell this restore from {rivals}: the claims have one name and are in one Restore. Delete what is left of earlier restores, and restore one namespace at a time"
        ),
    })
}

/// The claim that is filled.
struct Fresh {
    storage_class: Option<String>,
    access_modes: Vec<String>,
    mode: String,
    size: String,
}

fn fresh(seen: &Observed) -> Result<Fresh, Rejected> {
    let Request { claim, target, .. } = &seen.request;
    let target = target.clone().unwrap_or_default();
    let size = target.size.unwrap_or_else(|| claim.size.clone());
    let Some(bytes) = quantity::bytes(&size) else {
        return Err(Rejected::invalid(format!("the volume's size is {size:?}, which is no size")));
    };
    let access_mode = || seen.common.option("DestinationAccessMode").unwrap_or_else(|| "ReadWriteOnce".into());
    Ok(Fresh {
        storage_class: storage_class(seen),
        access_modes: if target.access_modes.is_empty() { vec![access_mode()] } else { target.access_modes },
        mode: target.mode.or_else(|| seen.mode.clone()).unwrap_or_else(|| FILESYSTEM.into()),
        size: quantity::canonical(bytes),
    })
}

/// The class of the fresh claim; `None`: the cluster's default.
pub fn storage_class(seen: &Observed) -> Option<String> {
    let Request { claim, target, .. } = &seen.request;
    let asked = target.as_ref().and_then(|target| target.storage_class.clone());
    let before = Some(claim.storage_class_name.clone()).filter(|class| !class.is_empty());
    asked.or_else(|| seen.common.option("DestinationStorageClassName")).or(before)
}

/// Looks at the request.
fn examine(subject: &Subject, seen: &Observed, config: &Config) -> Result<Order, Rejected> {
    let Request { protected_namespace, secret, repository, claim, .. } = &seen.request;
    for (field, value) in [("sourcePVCData.name", &claim.name), ("resticrepository", repository)] {
        if value.is_empty() {
            return Err(Rejected::invalid(format!("spec.volumeSnapshotMoverBackupRef.{field} is empty")));
        }
    }
    let Access { base, secrets } = credentials::look(&seen.common, secret, protected_namespace, config)?;
    authorization::part_of(seen.restore.as_ref(), &subject.namespace)?;
    let (repository, layout) = base.locate(repository)?;
    let grants: Vec<String> = seen.grants.iter().filter_map(|it| Some(base.locate(it).ok()?.0)).collect();
    let reader = Reader {
        cluster: &config.cluster,
        protected: &config.namespace,
        namespace: &subject.namespace,
        restore: seen.restore.as_ref(),
        grants: &grants,
    };
    reader.may_read(&repository, &layout)?;
    if !seen.missing.is_empty() {
        let options = "the ConfigMap of options for the storage class, or spec.target, can name another";
        return Err(Rejected::invalid(format!("there is no {}; {options}", seen.missing.join(", and no "))));
    }
    if let Some(right) = seen.missing_rights.first() {
        let (namespace, file) = (&subject.namespace, right.granted_by());
        let message = format!(
            "the controller may not {right} in namespace {namespace}, and spec.target needs that: manifests/base/{file} grants it"
        );
        return Err(Rejected { reason: "Forbidden", message });
    }
    if let Some(why) = way(subject, seen, config).and_then(|way| rebind::occupied(&way, &seen.volume)) {
        return Err(Rejected::invalid(why));
    }
    let task = work::Restore {
        target: job::VOLUME.into(),
        pick: pick(&seen.request, &layout)?,
        absent_is_empty: seen.request.absent_is_empty,
    };
    let work = Work { version: VERSION, repository, task: Task::Restore(task), gone: vec![] };
    Ok(Order { work, secrets })
}

/// Which snapshot is meant. Only a repository of old, which holds one backup of one volume, has a newest one that is the right one.
fn pick(request: &Request, layout: &Layout) -> Result<Pick, Rejected> {
    if let Some(id) = &request.snapshot {
        let invalid = |_| Rejected::invalid(format!("spec.snapshotID is {id:?}, which is no id of a snapshot"));
        return id.parse::<Id>().map(Pick::Id).map_err(invalid);
    }
    if matches!(layout, Layout::Old { .. }) {
        return Ok(Pick::Newest);
    }
    let Some(made_by) = &request.made_by else {
        return Err(Rejected::invalid(
            "it is not said which snapshot is meant: name one by spec.snapshotID, or its VolumeSnapshotBackup by spec.volumeSnapshotBackupName",
        ));
    };
    let mut tags = vec![Tag::Backup.of(made_by)];
    tags.extend(request.backup.as_ref().map(|backup| Tag::Velero.of(backup)));
    Ok(Pick::Tagged(tags))
}

/// The claim is made, filled and handed over.
fn follow(subject: &Subject, seen: &Observed, config: &Config, mut order: Order, fresh: &Fresh) -> Act<Update> {
    let name = subject.object_name();
    let naming = || subject.naming(name.clone(), &config.namespace);
    let block = fresh.mode == BLOCK;
    let reported = seen.common.mover.job.as_ref().is_some_and(job::is_finished);
    match &seen.volume.claim {
        None if !reported => return Act::Create(Object::Claim(Box::new(claim(fresh, naming().meta())))),
        Some(claim) if !subject.owns(claim.labels()) => {
            return failed("NotPrepared", format!("there is a claim {}/{name} that is not ours", config.namespace));
        }
        Some(claim) if mode_of(claim) != fresh.mode => {
            // What is in the repository turned out to be of the other mode: once more from the start.
            let helpers = lifecycle::stop(&seen.common.mover, subject, &name)
                .or_else(|| lifecycle::remove_claim(Some(claim), seen.volume.volume.as_ref(), subject));
            return helpers.unwrap_or(Act::Wait("waiting for a claim to be gone".into()));
        }
        _ => {}
    }
    if let Task::Restore(task) = &mut order.work.task {
        task.target = if block { job::DEVICE } else { job::VOLUME }.into();
    }
    let wanted = Wanted {
        naming: naming(),
        direction: Direction::In,
        claim: Some(name.clone()),
        block,
        work: order.work,
        secrets: order.secrets,
        settings: &config.mover,
    };
    let (report, pod) = match lifecycle::follow(wanted, &seen.common, config) {
        Ok(reported) => reported,
        Err(act) => return *act,
    };
    let restored = match report.outcome {
        Outcome::Restored(restored) if restored.problems > 0 && config.incomplete_fails => {
            return failed("Incomplete", flow::incomplete(restored.problems, &report.first_problems));
        }
        Outcome::Restored(restored) => restored,
        // Nobody had to say what mode it was, so it may still be the other one.
        Outcome::Failed(error)
            if error.reason == Reason::OtherVolumeMode.name() && fresh.mode == FILESYSTEM && !asked_for_mode(seen) =>
        {
            return status(Update::Started(Known { mode: BLOCK.into() }));
        }
        Outcome::Failed(error) => return failed(&error.reason, error.message),
        other @ (Outcome::Saved(_) | Outcome::Discarded { .. }) => {
            return failed("MoverLost", format!("the mover reported what it was not asked for: {other:?}"));
        }
    };
    let brought =
        |snapshot| status(Update::Moved(Brought { restored, first_problems: report.first_problems, pod, snapshot }));
    let wait = |why| lifecycle::wait(&seen.common, config.hand_over, why);
    match way(subject, seen, config) {
        None => {
            let class = seen.request.snapshot_class.clone();
            match claim_to_snapshot::decide(&claim_to_snapshot::Wish { naming: naming(), class }, &seen.captured) {
                claim_to_snapshot::Step::CreateSnapshot(snapshot) => Act::Create(Object::Snapshot(snapshot)),
                claim_to_snapshot::Step::Policy { content: name, policy } => {
                    Act::Content { name, change: ContentChange::Policy(policy) }
                }
                claim_to_snapshot::Step::Wait(why) => wait(why),
                claim_to_snapshot::Step::Ready { handle, content } => brought(Some((handle, content))),
                claim_to_snapshot::Step::Failed(why) => failed("NotHandedOver", why),
            }
        }
        Some(way) => match rebind::decide(&way, &seen.volume) {
            None => brought(None),
            Some(rebind::Step::Wait(why)) => wait(why),
            Some(step) => on_the_way(step, &way),
        },
    }
}

fn asked_for_mode(seen: &Observed) -> bool {
    seen.request.target.as_ref().is_some_and(|target| target.mode.is_some())
}

/// The way of the volume, if it goes to a claim.
fn way(subject: &Subject, seen: &Observed, config: &Config) -> Option<rebind::Wish> {
    let target = seen.request.target.as_ref()?;
    Some(rebind::Wish {
        from: subject.naming(subject.object_name(), &config.namespace),
        to: subject.naming(target.name.clone(), &subject.namespace),
        uid: subject.uid.clone(),
    })
}

fn on_the_way(step: rebind::Step, way: &rebind::Wish) -> Act<Update> {
    match step {
        rebind::Step::Volume { name, change } => Act::Volume { name, change },
        rebind::Step::CreateTarget(claim) => Act::Create(Object::Claim(claim)),
        rebind::Step::DeleteTarget => Act::Delete { helper: Helper::Target, name: way.to.name.clone() },
        rebind::Step::Wait(why) => Act::Wait(why),
        rebind::Step::Failed(why) => failed("NotHandedOver", why),
    }
}

fn claim(fresh: &Fresh, metadata: ObjectMeta) -> PersistentVolumeClaim {
    let spec = PersistentVolumeClaimSpec {
        storage_class_name: fresh.storage_class.clone(),
        access_modes: Some(fresh.access_modes.clone()),
        volume_mode: Some(fresh.mode.clone()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(fresh.size.clone()))])),
            limits: None,
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
}

fn mode_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or(FILESYSTEM)
}

/// Takes down the helpers. What was handed over stays; what was not goes with them. `None`: nothing is left.
fn take_down(subject: &Subject, seen: &Observed, config: &Config) -> Option<Act<Update>> {
    let handed_over = matches!(seen.common.stage, Stage::Moved | Stage::Cleaning | Stage::Ended { completed: true });
    let back = || {
        if handed_over {
            return None;
        }
        if let Some(claim_to_snapshot::Step::Policy { content: name, policy }) = claim_to_snapshot::undo(&seen.captured)
        {
            return Some(Act::Content { name, change: ContentChange::Policy(policy) });
        }
        let way = way(subject, seen, config)?;
        rebind::undo(&way, &seen.volume).map(|step| on_the_way(step, &way))
    };
    lifecycle::stop_all(&seen.common, subject)
        .or_else(back)
        .or_else(|| lifecycle::remove_snapshot(seen.captured.snapshot.as_ref(), subject))
        .or_else(|| lifecycle::remove_claim(seen.volume.claim.as_ref(), seen.volume.volume.as_ref(), subject))
}

#[cfg(test)]
mod tests;
