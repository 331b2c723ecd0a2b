//! A backup: a volume snapshot goes into its volume's repository. What is there goes in, the one thing to be done next comes out.
//!
//! The order: the finalizer, the request looked at, a place in the queue, the snapshot [exposed](crate::controller::volumes::snapshot_to_claim) in the controller's
//! own namespace, one [mover](crate::controller::mover_job::job), what came of it recorded, everything taken down. At each point the state is that of the
//! cluster: a controller that was killed goes on where the cluster is.

use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::domain::flow::{
    self, Act, Common, Config, ContentChange, Helper, Object, Stage, Velero, failed, status,
};
use crate::controller::domain::names::Subject;
use crate::controller::domain::quantity;
use crate::controller::mover_job::job::{self, Direction, Wanted};
use crate::controller::mover_job::lifecycle::{self, Order};
use crate::controller::tenancy::authorization;
use crate::controller::tenancy::credentials::{self, Access, Rejected};
use crate::controller::tenancy::repository::{self, Maker, Standing};
use crate::controller::volumes::snapshot_to_claim::{self, Claim, Origin, Wish};
use crate::provenance::Tag;
use crate::work::{self, Outcome, Task, VERSION, Work};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::path::Path;

/// What is wanted, in the words of whoever asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub content: String,
    pub protected_namespace: String,
    pub secret: String,
    /// The Velero backup that it is a part of.
    pub backup: Option<String>,
}

/// Everything that is there at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub common: Common,
    pub request: Request,
    pub content: Option<VolumeSnapshotContent>,
    /// What the content points back to, looked for in the request's namespace.
    pub snapshot: Option<VolumeSnapshot>,
    /// What that was taken of.
    pub claim: Option<PersistentVolumeClaim>,
    /// What is on record of the volume's repository.
    pub record: Option<ConfigMap>,
    /// Whether another backup, which that names, is about to make it.
    pub being_made: bool,
    pub exposed: snapshot_to_claim::Seen,
    /// Whether the storage snapshot may be freed when it is nobody's any more.
    pub frees: bool,
}

/// The volume, as far as others want to know of it; known from the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub claim: String,
    /// What the claim requests, as a quantity in canonical form.
    pub size: String,
    pub storage_class: String,
    pub snapshot_class: String,
    pub mode: String,
    pub repository: String,
}

/// What a mover brought into the repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Brought {
    pub saved: work::Saved,
    pub first_problems: Vec<String>,
    pub pod: String,
}

pub type Update = flow::Update<Volume, Brought>;

/// The next thing to be done.
pub fn decide(subject: &Subject, seen: &Observed, config: &Config) -> Act<Update> {
    let common = &seen.common;
    if common.deleted || matches!(common.stage, Stage::Ended { .. }) {
        return lifecycle::end(subject, common, config, || take_down(seen, subject));
    }
    if !common.finalizer {
        return Act::AddFinalizer;
    }
    match common.stage {
        Stage::Moved => return status(Update::Cleaning),
        Stage::Cleaning => return take_down(seen, subject).unwrap_or_else(|| status(Update::Completed)),
        Stage::New | Stage::Queued | Stage::Started | Stage::Ended { .. } => {}
    }
    if common.velero == Velero::Failed {
        return status(Update::PartiallyFailed);
    }
    match lifecycle::order(&common.mover) {
        Some(Ok(order)) => return follow(subject, seen, config, order),
        Some(Err(why)) => return failed("MoverLost", why),
        None => {}
    }
    let source = match examine(subject, seen, config) {
        Ok(source) => source,
        Err(act) => return *act,
    };
    match (common.stage, common.turn) {
        (Stage::New | Stage::Queued, true) => status(Update::Started(source.volume)),
        (Stage::New, false) => status(Update::Queued),
        (Stage::Queued, false) => Act::Wait("waiting for its turn".into()),
        _ => prepare(subject, seen, config, source),
    }
}

/// What a request turned out to mean.
struct Source {
    volume: Volume,
    origin: Origin,
    claim: Claim,
    tags: Vec<String>,
    lineage: String,
    secrets: BTreeMap<String, ByteString>,
}

/// The repository that is or will be written to, as far as that is known; nothing is judged here.
pub fn repository(subject: &Subject, seen: &Observed, config: &Config) -> Option<String> {
    if let Some(Ok(order)) = lifecycle::order(&seen.common.mover) {
        return Some(order.work.repository);
    }
    let access = credentials::look(&seen.common, &seen.request.secret, &config.namespace, config).ok()?;
    Some(access.base.of_volume(&config.cluster, &subject.namespace, &seen.claim.as_ref()?.name_any()))
}

/// Looks at the request. `Err` is what is to be done instead of it.
fn examine(subject: &Subject, seen: &Observed, config: &Config) -> Result<Source, Box<Act<Update>>> {
    let Request { content: wanted, protected_namespace, secret, backup } = &seen.request;
    let invalid = |message: String| Err(Rejected::invalid(message).into());
    if wanted.is_empty() {
        return invalid("spec.volumeSnapshotContent.name is empty: nothing is named that could be moved".into());
    }
    authorization::protected_namespace(protected_namespace, &config.namespace).map_err(Rejected::from)?;
    let Some(content) = &seen.content else {
        return invalid(format!("there is no VolumeSnapshotContent {wanted}"));
    };
    authorization::content_is_of(content, seen.snapshot.as_ref(), &subject.namespace).map_err(Rejected::from)?;
    let Access { base, secrets } = credentials::look(&seen.common, secret, protected_namespace, config)?;
    let ready = content.status.clone().unwrap_or_default();
    let Some(handle) = ready.snapshot_handle.filter(|_| ready.ready_to_use != Some(false)) else {
        return Err(Box::new(Act::Wait(format!("waiting for the VolumeSnapshotContent {wanted} to be ready"))));
    };
    let Some(claim) = &seen.claim else {
        return invalid(format!("the claim that the VolumeSnapshotContent {wanted} was taken of is gone"));
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let requested = spec.resources.and_then(|it| it.requests).and_then(|it| it.get("storage").cloned());
    let requested = requested.map(|it| it.0).unwrap_or_default();
    let name = claim.name_any();
    let Some(size) = quantity::bytes(&requested) else {
        return invalid(format!("the claim {name} requests {requested:?}, which is no size"));
    };
    let mode = spec.volume_mode.unwrap_or_else(|| "Filesystem".into());
    let storage_class = spec.storage_class_name.unwrap_or_default();
    let options = |key: &str| seen.common.option(key);
    let access_modes = spec.access_modes.unwrap_or_default();
    let mut tags = vec![Tag::Backup.of(&subject.name)];
    tags.extend(backup.as_ref().map(|backup| Tag::Velero.of(backup)));
    // What it takes to make the claim anew, when nothing is left but the repository.
    tags.push(Tag::Size.of(&quantity::canonical(size)));
    tags.extend(Some(&*storage_class).filter(|class| !class.is_empty()).map(|class| Tag::StorageClass.of(class)));
    tags.extend(access_modes.iter().map(|mode| Tag::AccessMode.of(mode)));
    Ok(Source {
        volume: Volume {
            repository: base.of_volume(&config.cluster, &subject.namespace, &name),
            claim: name,
            size: quantity::canonical(size),
            storage_class: storage_class.clone(),
            snapshot_class: content.spec.volume_snapshot_class_name.clone().unwrap_or_default(),
            mode: mode.clone(),
        },
        origin: Origin {
            driver: content.spec.driver.clone(),
            handle,
            class: content.spec.volume_snapshot_class_name.clone(),
            volume_mode: content.spec.source_volume_mode.clone(),
        },
        claim: Claim {
            storage_class: options("SourceStorageClassName").or(Some(storage_class).filter(|it| !it.is_empty())),
            access_modes: options("SourceAccessMode").map_or(access_modes, |mode| vec![mode]),
            volume_mode: mode,
            size,
        },
        tags,
        lineage: Tag::Lineage.of(&claim.uid().unwrap_or_default()),
        secrets,
    })
}

/// Everything that a mover needs: the snapshot as a claim, and its order.
fn prepare(subject: &Subject, seen: &Observed, config: &Config, source: Source) -> Act<Update> {
    let wish = Wish {
        naming: subject.naming(subject.object_name(), &config.namespace),
        origin: source.origin,
        claim: source.claim,
    };
    match snapshot_to_claim::decide(&wish, &seen.exposed) {
        snapshot_to_claim::Step::CreateContent(content) => return Act::Create(Object::Content(content)),
        snapshot_to_claim::Step::CreateSnapshot(snapshot) => return Act::Create(Object::Snapshot(snapshot)),
        snapshot_to_claim::Step::CreateClaim(claim) => return Act::Create(Object::Claim(claim)),
        snapshot_to_claim::Step::Wait(why) => return lifecycle::wait(&seen.common, config.prepare, why),
        snapshot_to_claim::Step::Failed(why) => return failed("NotExposed", why),
        snapshot_to_claim::Step::Ready => {}
    }
    let repository = source.volume.repository;
    let initialize = match repository::standing(seen.record.as_ref()) {
        Standing::Made => false,
        Standing::Begun(maker) if maker.uid == subject.uid => true,
        Standing::Begun(_) if seen.being_made => {
            return lifecycle::wait(&seen.common, config.prepare, "another backup makes the repository".into());
        }
        Standing::Begun(_) | Standing::Unknown => {
            let maker = Maker { name: subject.name.clone(), uid: subject.uid.clone() };
            return record(seen, config, &repository, Some(&maker));
        }
    };
    let block = source.volume.mode == "Block";
    let task = work::Backup {
        source: if block { job::DEVICE } else { job::VOLUME }.into(),
        hostname: source.volume.claim,
        tags: source.tags,
        identity: subject.identity().expect("a backup has one"),
        lineage: source.lineage,
        initialize,
    };
    let work = Work { version: VERSION, repository, task: Task::Backup(task), gone: vec![] };
    follow(subject, seen, config, Order { work, secrets: source.secrets })
}

/// A repository's record is written, unless somebody else did meanwhile.
fn record(seen: &Observed, config: &Config, repository: &str, maker: Option<&Maker>) -> Act<Update> {
    let object = Box::new(repository::record(repository, maker, &config.namespace, seen.record.as_ref()));
    if seen.record.is_none() { Act::Create(Object::ConfigMap(object)) } else { Act::Rewrite(object) }
}

/// The mover is run until it reports, and what it reported is recorded.
fn follow(subject: &Subject, seen: &Observed, config: &Config, order: Order) -> Act<Update> {
    let name = subject.object_name();
    let repository = order.work.repository.clone();
    let block = matches!(&order.work.task, Task::Backup(task) if task.source == Path::new(job::DEVICE));
    let wanted = Wanted {
        naming: subject.naming(name.clone(), &config.namespace),
        direction: Direction::Out,
        claim: Some(name),
        block,
        work: order.work,
        secrets: order.secrets,
        settings: &config.mover,
    };
    let (report, pod) = match lifecycle::follow(wanted, &seen.common, config) {
        Ok(reported) => reported,
        Err(act) => return *act,
    };
    match report.outcome {
        // Before all else: from now on a bucket that lost it must not look like that of a new volume.
        Outcome::Saved(_) if repository::standing(seen.record.as_ref()) != Standing::Made => {
            record(seen, config, &repository, None)
        }
        Outcome::Saved(saved) if saved.problems > 0 && config.incomplete_fails => {
            failed("Incomplete", flow::incomplete(saved.problems, &report.first_problems))
        }
        Outcome::Saved(saved) => status(Update::Moved(Brought { saved, first_problems: report.first_problems, pod })),
        Outcome::Failed(error) => failed(&error.reason, error.message),
        other @ (Outcome::Restored(_) | Outcome::Discarded { .. }) => {
            failed("MoverLost", format!("the mover reported what it was not asked for: {other:?}"))
        }
    }
}

/// Takes down the helpers. `None`: nothing is left.
fn take_down(seen: &Observed, subject: &Subject) -> Option<Act<Update>> {
    let kept = |act| match act {
        Act::Delete { helper: Helper::Content, name } if seen.frees => {
            Act::Content { name, change: ContentChange::Keep }
        }
        act => act,
    };
    lifecycle::stop_all(&seen.common, subject).or_else(|| lifecycle::withdraw(&seen.exposed, subject).map(kept))
}

#[cfg(test)]
mod tests;
