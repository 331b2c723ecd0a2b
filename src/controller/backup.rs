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
use crate::controller::repository::{self, Base, Refused};
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
    /// Nothing has been recorded.
    #[default]
    New,
    /// It waits for its turn.
    Queued,
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
    /// How long ago it had its turn, or its mover was last seen to get on.
    pub quiet_for: Option<Duration>,
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
    /// How long nothing may run of a backup that has its turn.
    pub prepare: Duration,
    /// Whether a backup that could not read everything has failed.
    pub incomplete_fails: bool,
}

/// The volume, as far as others want to know of it.
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
    if seen.deleted || matches!(seen.stage, Stage::Ended { .. }) {
        return end(subject, seen, config);
    }
    if !seen.finalizer {
        return Act::AddFinalizer;
    }
    match seen.stage {
        Stage::Moved => return status(Update::Cleaning),
        Stage::Cleaning => return take_down(seen, subject).unwrap_or_else(|| status(Update::Completed)),
        Stage::New | Stage::Queued | Stage::Started | Stage::Ended { .. } => {}
    }
    if seen.velero == Velero::Failed {
        return status(Update::PartiallyFailed);
    }
    let source = match examine(subject, seen, config) {
        Ok(source) => source,
        Err(act) => return *act,
    };
    match (seen.stage, seen.turn) {
        (Stage::New | Stage::Queued, true) => status(Update::Started),
        (Stage::New, false) => status(Update::Queued),
        (Stage::Queued, false) => Act::Wait("waiting for its turn".into()),
        _ => move_out(subject, seen, config, &source),
    }
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
    let base = base(seen.secret.as_ref()?.data.as_ref()?, &seen.prefix).ok()?;
    Some(base.of_volume(&config.cluster, &subject.namespace, &seen.claim.as_ref()?.name_any()))
}

/// Where repositories may be, by what a secret says.
fn base(data: &BTreeMap<String, ByteString>, prefix: &str) -> Result<Base, Refused> {
    let location = data.get("RESTIC_REPOSITORY").map(|location| String::from_utf8_lossy(&location.0));
    Base::new(location.unwrap_or_default().trim(), prefix)
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
    let base = base(&data, &seen.prefix).map_err(|error| denied(error.into()))?;
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
    let name = claim.name_any();
    let Some(size) = quantity::bytes(&requested) else {
        return Err(invalid(format!("the claim {name} requests {requested:?}, which is no size")));
    };
    let mode = spec.volume_mode.unwrap_or_else(|| "Filesystem".into());
    let storage_class = spec.storage_class_name.unwrap_or_default();
    let options = |key: &str| seen.options.get(key).filter(|value| !value.is_empty()).cloned();
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
    let late = seen.quiet_for.is_some_and(|quiet| quiet > config.prepare);
    let waits = |why: String| {
        if late {
            failed("NotPrepared", format!("{why}; that took longer than {} s", config.prepare.as_secs()))
        } else {
            Act::Wait(why)
        }
    };
    let wish = Wish {
        naming: subject.naming(name.clone(), &config.namespace),
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
        naming: subject.naming(name.clone(), &config.namespace),
        direction: Direction::Out,
        claim: Some(name),
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
            // Before all else: from now on a bucket that lost it must not look like that of a new volume.
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

/// Takes everything down and lets go; what is left in the repository goes before.
fn end(subject: &Subject, seen: &Observed, config: &Config) -> Act<Update> {
    if let Some(act) = flow::stop_running(&seen.mover, &subject.object_name()) {
        return act;
    }
    match tidy(subject, seen, config) {
        Tidied::Not(act) => return *act,
        Tidied::Yes | Tidied::Failed(_) => {}
    }
    match take_down(seen, subject) {
        Some(act) => act,
        None if seen.finalizer => Act::RemoveFinalizer,
        None => Act::Nothing,
    }
}

/// Whether the repository is rid of what a backup left that did not come to its end.
enum Tidied {
    /// There is nothing, or nothing any more.
    Yes,
    /// This is to be done before.
    Not(Box<Act<Update>>),
    /// It cannot be; why.
    Failed(String),
}

/// Why a lock or a snapshot of a backup that ended early stays in its repository, if it does: nobody will remove it.
pub fn untidied(subject: &Subject, seen: &Observed, config: &Config) -> Option<String> {
    match tidy(subject, seen, config) {
        Tidied::Failed(why) => Some(why),
        Tidied::Yes | Tidied::Not(_) => None,
    }
}

/// Locks of movers that ended without a word go. A snapshot goes only if the backup was called off: one of a backup that
/// failed may be all there is.
fn tidy(subject: &Subject, seen: &Observed, config: &Config) -> Tidied {
    let (Some(job), Some(config_map)) = (&seen.mover.job, &seen.mover.config_map) else { return Tidied::Yes };
    let called_off = seen.deleted && seen.stage < Stage::Moved;
    let left = job::left(job, &seen.mover.pods);
    if seen.stage == (Stage::Ended { completed: true }) || !(left.unknown || called_off && left.snapshot) {
        return Tidied::Yes;
    }
    let mut work = match job::described(config_map) {
        Ok(work) => work,
        Err(why) => return Tidied::Failed(why),
    };
    work.task = Task::Discard(Discard { identity: called_off.then(|| identity(subject)) });
    work.gone.extend(job::gone(job, &seen.mover.pods));
    let wanted = Wanted {
        naming: subject.naming(cleaner(subject), &config.namespace),
        direction: Direction::None,
        claim: None,
        block: false,
        work,
        secrets: seen.mover.secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default(),
        settings: &config.mover,
    };
    let wait = |why: String| Tidied::Not(Box::new(Act::Wait(why)));
    match flow::run(wanted, &seen.cleaner) {
        Err(act) => Tidied::Not(act),
        Ok(State::Waiting { why }) => wait(why),
        Ok(State::Running { .. }) => wait("waiting for the repository to be tidied".into()),
        Ok(State::Lost { why }) => Tidied::Failed(why),
        Ok(State::Reported { report, .. }) => match report.outcome {
            Outcome::Discarded { .. } => Tidied::Yes,
            other => Tidied::Failed(format!("{other:?}")),
        },
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
