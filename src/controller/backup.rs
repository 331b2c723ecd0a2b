//! A backup: a volume snapshot goes into its volume's repository. What is there goes in, the one thing to be done next comes out.
//!
//! The order: the finalizer, the request looked at, a place in the queue, the snapshot [exposed](super::expose) in the controller's
//! own namespace, one [mover](super::job), what came of it recorded, everything taken down. At each point the state is that of the
//! cluster: a controller that was killed goes on where the cluster is.

use crate::api::Progress;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::expose::{self, Claim, Origin, Wish};
use crate::controller::flow::{self, Act, Mover, Object};
use crate::controller::job::{self, Direction, State, Wanted};
use crate::controller::names::Subject;
use crate::controller::quantity;
use crate::controller::repository::{self, Base};
use crate::controller::trust;
use crate::work::{self, Discard, Outcome, Task, VERSION, Work};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tags of the snapshots that are made here.
const BACKUP_TAG: &str = "vsb";
const BACKUP_UID_TAG: &str = "vsb-uid";
const VELERO_TAG: &str = "backup";
const LINEAGE_TAG: &str = "pvc-uid";

/// What is wanted, in the words of whoever asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub content: String,
    pub protected_namespace: String,
    pub secret: String,
    /// The Velero backup that it is a part of.
    pub backup: Option<String>,
}

/// How far it is, by what was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing has been recorded, or only that it waits for its turn.
    #[default]
    New,
    /// It has its turn.
    Started,
    /// What came of the mover is recorded; the data is safe.
    Moved,
    /// Its helpers are being removed.
    Cleaning,
    /// The end, whichever.
    Ended { completed: bool },
}

/// The Velero backup that it is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Velero {
    /// None, or one that nothing bad is known of.
    #[default]
    Fine,
    Failed,
}

/// Everything that is there at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub finalizer: bool,
    pub deleted: bool,
    pub stage: Stage,
    /// What is recorded of how far the mover is.
    pub recorded: Option<Moving>,
    /// What the mover's log says now.
    pub progress: Option<Progress>,
    /// Since it has its turn.
    pub started: Option<Duration>,
    pub request: Request,
    pub velero: Velero,
    pub content: Option<VolumeSnapshotContent>,
    /// What the content points back to, looked for in the request's namespace.
    pub snapshot: Option<VolumeSnapshot>,
    /// What that was taken of.
    pub claim: Option<PersistentVolumeClaim>,
    pub secret: Option<Secret>,
    /// Of the backup location that the secret belongs to.
    pub prefix: String,
    /// The options of the claim's storage class.
    pub options: BTreeMap<String, String>,
    /// Whether it is its turn.
    pub turn: bool,
    /// Whether the volume's repository is known to have been made.
    pub repository_made: bool,
    pub exposed: expose::Seen,
    pub mover: Mover,
    /// The mover that removes what a backup leaves that was called off.
    pub cleaner: Mover,
}

/// What the controller is told by whoever runs it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The protected namespace.
    pub namespace: String,
    /// What tells this cluster from others that use the bucket.
    pub cluster: String,
    /// Secrets that may be used although they have no label.
    pub allowed_secrets: Vec<String>,
    pub mover: job::Settings,
    /// How long it may take from a backup's turn until its mover runs.
    pub prepare: Duration,
    /// Whether a backup that could not read everything has failed.
    pub incomplete_fails: bool,
}

/// The volume, as far as others want to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub claim: String,
    /// What the claim requests, as it says it.
    pub size: String,
    pub storage_class: String,
    pub snapshot_class: String,
    pub mode: String,
    pub repository: String,
}

/// How far a mover is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moving {
    pub pod: String,
    pub progress: Progress,
}

impl Moving {
    /// Whether it is the same, but for when that was seen.
    fn says(&self, other: &Moving) -> bool {
        let timeless = |moving: &Moving| Progress { updated: None, ..moving.progress.clone() };
        self.pod == other.pod && timeless(self) == timeless(other)
    }
}

/// What is recorded next.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    Queued,
    Started,
    Moving(Moving),
    /// With everything that others need to know before they hear of an end.
    Moved {
        volume: Volume,
        saved: Box<work::Saved>,
        first_problems: Vec<String>,
        pod: String,
    },
    Cleaning,
    Completed,
    Failed {
        reason: String,
        message: String,
    },
    /// The Velero backup that it is a part of has failed.
    PartiallyFailed,
}

/// The next thing to be done.
pub fn decide(subject: &Subject, seen: &Observed, config: &Config) -> Act<Update> {
    if let Stage::Ended { completed } = seen.stage {
        return end(subject, seen, config, !completed);
    }
    if seen.deleted {
        return end(subject, seen, config, seen.stage < Stage::Moved);
    }
    if !seen.finalizer {
        return Act::AddFinalizer;
    }
    match seen.stage {
        // The repository is known to be there from now on: a lost config must not look like a new volume.
        Stage::Moved => return status(Update::Cleaning),
        Stage::Cleaning => return take_down(seen, subject).unwrap_or_else(|| status(Update::Completed)),
        Stage::New | Stage::Started | Stage::Ended { .. } => {}
    }
    if seen.velero == Velero::Failed {
        return status(Update::PartiallyFailed);
    }
    let source = match examine(subject, seen, config) {
        Ok(source) => source,
        Err(act) => return *act,
    };
    if seen.stage == Stage::New {
        return status(if seen.turn { Update::Started } else { Update::Queued });
    }
    move_out(subject, seen, config, &source)
}

fn status(update: Update) -> Act<Update> {
    Act::Status(Box::new(update))
}

fn failed(reason: &str, message: impl Into<String>) -> Act<Update> {
    status(Update::Failed { reason: reason.to_owned(), message: message.into() })
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

/// The repository of the volume that is backed up, as far as that is known; nothing is judged here.
pub fn repository(subject: &Subject, seen: &Observed, config: &Config) -> Option<String> {
    let data = seen.secret.as_ref()?.data.as_ref()?;
    let base = String::from_utf8_lossy(&data.get("RESTIC_REPOSITORY")?.0).trim().to_owned();
    let base = Base::new(&base, &seen.prefix).ok()?;
    Some(base.of_volume(&config.cluster, &subject.namespace, &seen.claim.as_ref()?.name_any()))
}

/// Looks at the request. `Err` is what is to be done instead of it.
fn examine(subject: &Subject, seen: &Observed, config: &Config) -> Result<Source, Box<Act<Update>>> {
    let Request { content: wanted, protected_namespace, secret: secret_name, backup } = &seen.request;
    let denied = |error: trust::Denied| Box::new(failed("Denied", error.to_string()));
    let invalid = |message: String| Box::new(failed("Invalid", message));
    if wanted.is_empty() {
        return Err(invalid("spec.volumeSnapshotContent.name is empty: nothing is named that could be moved".into()));
    }
    trust::protected_namespace(protected_namespace, &config.namespace).map_err(denied)?;
    let Some(content) = &seen.content else {
        return Err(invalid(format!("there is no VolumeSnapshotContent {wanted}")));
    };
    trust::content_is_of(content, seen.snapshot.as_ref(), &subject.namespace).map_err(denied)?;
    let Some(secret) = &seen.secret else {
        return Err(invalid(format!("there is no secret {secret_name:?} in namespace {}", config.namespace)));
    };
    trust::secret(secret_name, secret.labels(), &config.allowed_secrets).map_err(denied)?;
    let data = secret.data.clone().unwrap_or_default();
    let bytes = data.iter().map(|(key, value)| (key.clone(), &value.0)).collect();
    let missing = trust::missing_keys::<&Vec<u8>>(&bytes);
    if !missing.is_empty() {
        return Err(invalid(format!("the secret {secret_name} lacks {}, or has it empty", missing.join(", "))));
    }
    let base = String::from_utf8_lossy(&data["RESTIC_REPOSITORY"].0).trim().to_owned();
    let base = Base::new(&base, &seen.prefix).map_err(|error| denied(error.into()))?;
    let ready = content.status.clone().unwrap_or_default();
    let Some(handle) = ready.snapshot_handle.filter(|_| ready.ready_to_use != Some(false)) else {
        return Err(Box::new(Act::Wait(format!("waiting for the VolumeSnapshotContent {wanted} to be ready"))));
    };
    let Some(claim) = &seen.claim else {
        return Err(invalid(format!("the claim that the VolumeSnapshotContent {wanted} was taken of is gone")));
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let requested = spec.resources.and_then(|it| it.requests).and_then(|it| it.get("storage").cloned());
    let requested = requested.map(|it| it.0).unwrap_or_default();
    let size = quantity::bytes(&requested).unwrap_or(0);
    let mode = spec.volume_mode.unwrap_or_else(|| "Filesystem".into());
    let storage_class = spec.storage_class_name.unwrap_or_default();
    let options = |key: &str| seen.options.get(key).filter(|value| !value.is_empty()).cloned();
    let name = claim.name_any();
    let mut tags = vec![format!("{BACKUP_TAG}:{}", subject.name)];
    tags.extend(backup.as_ref().map(|backup| format!("{VELERO_TAG}:{backup}")));
    let secrets = trust::SECRET_KEYS.into_iter().filter_map(|key| Some((key.to_owned(), data.get(key)?.clone())));
    let ca = data.get(trust::CA_KEY).filter(|ca| !ca.0.is_empty()).map(|ca| ("ca.crt".to_owned(), ca.clone()));
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
            access_modes: options("SourceAccessMode")
                .map_or_else(|| spec.access_modes.unwrap_or_default(), |mode| vec![mode]),
            volume_mode: mode,
            size,
        },
        tags,
        lineage: format!("{LINEAGE_TAG}:{}", claim.uid().unwrap_or_default()),
        secrets: secrets.chain(ca).collect(),
    })
}

/// The data's way: exposed, moved, recorded.
fn move_out(subject: &Subject, seen: &Observed, config: &Config, source: &Source) -> Act<Update> {
    let name = subject.object_name();
    let late = seen.started.is_some_and(|since| since > config.prepare);
    let waits = |why: String| {
        if late {
            failed("NotPrepared", format!("{why}; that took longer than {} s", config.prepare.as_secs()))
        } else {
            Act::Wait(why)
        }
    };
    let wish = Wish {
        name: name.clone(),
        namespace: config.namespace.clone(),
        labels: subject.labels(),
        annotations: subject.annotations(),
        origin: source.origin.clone(),
        claim: source.claim.clone(),
    };
    match expose::decide(&wish, &seen.exposed) {
        expose::Step::CreateContent(content) => return Act::Create(Object::Content(content)),
        expose::Step::CreateSnapshot(snapshot) => return Act::Create(Object::Snapshot(snapshot)),
        expose::Step::CreateClaim(claim) => return Act::Create(Object::Claim(claim)),
        expose::Step::Wait(why) => return waits(why),
        expose::Step::Failed(why) => return failed("NotExposed", why),
        expose::Step::Ready => {}
    }
    let block = source.volume.mode == "Block";
    let task = work::Backup {
        source: if block { job::DEVICE } else { job::VOLUME }.into(),
        hostname: source.volume.claim.clone(),
        tags: source.tags.clone(),
        identity: identity(subject),
        lineage: source.lineage.clone(),
        initialize: !seen.repository_made,
    };
    let repository = source.volume.repository.clone();
    let work = Work { version: VERSION, repository, task: Task::Backup(task), gone: vec![] };
    let wanted = Wanted {
        name: name.clone(),
        namespace: config.namespace.clone(),
        labels: subject.labels(),
        annotations: subject.annotations(),
        direction: Direction::Out,
        claim: Some(name.clone()),
        block,
        work,
        secrets: source.secrets.clone(),
        settings: &config.mover,
    };
    let state = match flow::run(wanted, &seen.mover) {
        Ok(state) => state,
        Err(act) => return *act,
    };
    match state {
        State::Waiting { why } => waits(why),
        State::Running { pod } => {
            let moving = Moving { pod, progress: seen.progress.clone().unwrap_or_default() };
            if seen.recorded.as_ref().is_some_and(|recorded| recorded.says(&moving)) {
                return Act::Wait("the mover runs".into());
            }
            status(Update::Moving(moving))
        }
        State::Lost { why } => failed("MoverLost", why),
        State::Reported { report, pod } => match report.outcome {
            Outcome::Saved(_) if !seen.repository_made => {
                let record = repository::record(&source.volume.repository, &config.namespace);
                Act::Create(Object::ConfigMap(Box::new(record)))
            }
            Outcome::Saved(saved) if saved.problems > 0 && config.incomplete_fails => {
                failed("Incomplete", incomplete(saved.problems, &report.first_problems))
            }
            Outcome::Saved(saved) => status(Update::Moved {
                volume: source.volume.clone(),
                saved: Box::new(saved),
                first_problems: report.first_problems,
                pod,
            }),
            Outcome::Failed(error) => failed(&error.reason, error.message),
            other => failed("MoverLost", format!("the mover reported what it was not asked for: {other:?}")),
        },
    }
}

/// The tag that no other backup's snapshot has.
fn identity(subject: &Subject) -> String {
    format!("{BACKUP_UID_TAG}:{}", subject.uid)
}

/// What to say of problems.
pub fn incomplete(count: u64, first: &[String]) -> String {
    let first = first.first().map_or_else(String::new, |problem| format!(", the first: {problem}"));
    format!("{count} entries could not be read{first}")
}

/// Takes everything down and lets go. With `discard`, what a backup may have left in its repository goes before.
fn end(subject: &Subject, seen: &Observed, config: &Config, discard: bool) -> Act<Update> {
    if let Some(act) = flow::stop_running(&seen.mover, &subject.object_name()) {
        return act;
    }
    // Only a mover that was started can have left anything, and its pods say so as long as they are kept.
    if discard && let Some(act) = clean(subject, seen, config) {
        return act;
    }
    match take_down(seen, subject) {
        Some(act) => act,
        None if seen.finalizer => Act::RemoveFinalizer,
        None => Act::Nothing,
    }
}

/// Removes what a backup that did not come to its end left in the repository. `None`: nothing is left, or it could not be removed.
fn clean(subject: &Subject, seen: &Observed, config: &Config) -> Option<Act<Update>> {
    let (job, config_map) = (seen.mover.job.as_ref()?, seen.mover.config_map.as_ref()?);
    if !job::left_something(job, &seen.mover.pods) {
        return None;
    }
    let mut work = job::described(config_map)?;
    work.task = Task::Discard(Discard { identity: Some(identity(subject)) });
    work.gone.extend(job::gone(job, &seen.mover.pods));
    let wanted = Wanted {
        name: cleaner(subject),
        namespace: config.namespace.clone(),
        labels: subject.labels(),
        annotations: subject.annotations(),
        direction: Direction::None,
        claim: None,
        block: false,
        work,
        secrets: seen.mover.secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default(),
        settings: &config.mover,
    };
    let state = match flow::run(wanted, &seen.cleaner) {
        Ok(state) => state,
        Err(act) => return Some(*act),
    };
    match state {
        State::Waiting { why } => Some(Act::Wait(why)),
        State::Running { .. } => Some(Act::Wait("waiting for the repository to be tidied".into())),
        // What could not be removed then, is removed by nobody: a lock until it is stale, a snapshot that nobody asked for.
        State::Reported { .. } | State::Lost { .. } => None,
    }
}

/// The name of the mover that tidies up.
pub fn cleaner(subject: &Subject) -> String {
    format!("{}-tidy", subject.object_name())
}

/// Takes down the helpers, the cleaner after the mover: as long as there is the one, the other is seen to have done its work.
/// `None`: nothing is left.
fn take_down(seen: &Observed, subject: &Subject) -> Option<Act<Update>> {
    flow::stop(&seen.mover, subject, &subject.object_name())
        .or_else(|| flow::stop(&seen.cleaner, subject, &cleaner(subject)))
        .or_else(|| flow::withdraw(&seen.exposed, subject))
}

#[cfg(test)]
mod tests;
