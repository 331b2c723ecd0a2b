//! The words of every flow: what is seen, what is recorded of it, and the one thing to be done next.
//!
//! A flow is a function from what is seen to one [`Act`]. At each point the state is that of the cluster: a controller that was
//! killed goes on where the cluster is.

use crate::api::Progress;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::mover_job::job;
use crate::controller::volumes::rebind;
use crate::controller::volumes::snapshot_gc;
use crate::controller::volumes::snapshot_to_claim;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

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
    /// How long nothing may run of what has its turn.
    pub prepare: Duration,
    /// How long what was restored may take to be handed over: a storage system may upload a snapshot before it is ready.
    pub hand_over: Duration,
    /// How long a storage snapshot that may be freed has to be nobody's.
    pub free_after: Duration,
    /// Whether what could not be moved whole has failed.
    pub incomplete_fails: bool,
}

/// How far a backup or restore is, by what was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing has been recorded.
    #[default]
    New,
    /// It waits for its turn.
    Queued,
    /// It has its turn.
    Started,
    /// What came of it is recorded and may be used. From here on it only ends well.
    Moved,
    /// Its helpers are being removed.
    Cleaning,
    /// The end, whichever.
    Ended { completed: bool },
}

/// Velero's own Backup or Restore that something is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Velero {
    /// None, or one that nothing bad is known of.
    #[default]
    Fine,
    Failed,
}

/// What every flow sees of its object, its secret and its mover.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub finalizer: bool,
    pub deleted: bool,
    pub stage: Stage,
    /// What is recorded of how far the mover is.
    pub recorded: Option<Moving>,
    /// What the mover's log says now.
    pub progress: Option<Progress>,
    /// How long ago it had its turn, or its mover was last seen to get on.
    pub quiet_for: Option<Duration>,
    pub velero: Velero,
    /// Whether it is its turn.
    pub turn: bool,
    pub secret: Option<Secret>,
    /// Of the backup location that the secret belongs to.
    pub prefix: String,
    /// The options of the claim's storage class.
    pub options: BTreeMap<String, String>,
    pub mover: Mover,
    /// The mover that removes from the repository what the other one left.
    pub cleaner: Mover,
}

impl Common {
    /// What the options of the storage class say.
    pub fn option(&self, key: &str) -> Option<String> {
        self.options.get(key).filter(|value| !value.is_empty()).cloned()
    }
}

/// How far a mover is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moving {
    pub pod: String,
    pub progress: Progress,
}

impl Moving {
    /// Whether it is the same, but for when that was seen.
    pub fn says(&self, other: &Moving) -> bool {
        let timeless = |moving: &Moving| Progress { updated: None, ..moving.progress.clone() };
        self.pod == other.pod && timeless(self) == timeless(other)
    }
}

/// What is recorded next. `S` is what is known at the start, `D` what is known when the data has moved.
#[derive(Clone, Debug, PartialEq)]
pub enum Update<S, D> {
    Queued,
    Started(S),
    Moving(Moving),
    /// With everything that others need to know before they hear of an end.
    Moved(D),
    Cleaning,
    Completed,
    Failed {
        reason: String,
        message: String,
    },
    /// The Velero Backup or Restore that it is a part of has failed.
    PartiallyFailed,
    /// Nothing gets on: one word for it, and what it waits for.
    Waiting {
        reason: &'static str,
        why: String,
    },
    /// It came to its end, and nothing is waited for any more.
    Settled,
}

/// A mover's objects that are there now, all of one name.
#[derive(Clone, Debug, Default)]
pub struct Mover {
    pub secret: Option<Secret>,
    pub config_map: Option<ConfigMap>,
    pub job: Option<Job>,
    pub pods: Vec<Pod>,
}

/// An object to be created.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Content(Box<VolumeSnapshotContent>),
    Snapshot(Box<VolumeSnapshot>),
    Claim(Box<PersistentVolumeClaim>),
    Secret(Box<Secret>),
    ConfigMap(Box<ConfigMap>),
    Job(Box<Job>),
}

impl Object {
    /// As Kubernetes calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::Content(_) => "VolumeSnapshotContent",
            Object::Snapshot(_) => "VolumeSnapshot",
            Object::Claim(_) => "PersistentVolumeClaim",
            Object::Secret(_) => "Secret",
            Object::ConfigMap(_) => "ConfigMap",
            Object::Job(_) => "Job",
        }
    }
}

/// A helper by its kind. All but the last are in the protected namespace, and called after the subject, or the cleaner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    Content,
    Snapshot,
    Claim,
    Secret,
    ConfigMap,
    Job,
    /// The claim that a restore makes for whoever asked for it, in their namespace.
    Target,
}

/// The one thing to be done next. `S` is what is written to the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Act<S> {
    AddFinalizer,
    RemoveFinalizer,
    Status(Box<S>),
    Create(Object),
    /// A ConfigMap of ours says something else from now on: a mover's description, or a repository's record.
    Rewrite(Box<ConfigMap>),
    /// A mover's Job and pods need not be kept any more.
    Release {
        name: String,
    },
    Delete {
        helper: Helper,
        name: String,
    },
    /// Whose a volume is, and what becomes of it without a claim.
    Volume {
        name: String,
        change: rebind::Change,
    },
    /// What becomes of a content, and of the storage snapshot that it names.
    Content {
        name: String,
        change: ContentChange,
    },
    /// Others have to do something first; what, for people.
    Wait(String),
    /// Nothing will ever be to do.
    Nothing,
}

/// How a content is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ContentChange {
    /// It is [forgotten](snapshot_to_claim::is_forgotten) by the snapshot controller, and is to go.
    LetGo,
    /// It stays after its backup, so that its storage snapshot is [freed](snapshot_gc) later.
    Keep,
    /// What becomes of the storage snapshot when the content is deleted: `Retain` or `Delete`.
    Policy(&'static str),
}

impl ContentChange {
    /// As a merge patch.
    pub fn patch(self) -> Value {
        match self {
            ContentChange::LetGo => snapshot_to_claim::let_go(),
            ContentChange::Keep => snapshot_gc::keep(),
            ContentChange::Policy(policy) => json!({"spec": {"deletionPolicy": policy}}),
        }
    }
}

/// What is to be done before, or instead of, what was asked for.
pub type Instead<S, D> = Box<Act<Update<S, D>>>;

/// An act that is an update of the status.
pub fn status<S, D>(update: Update<S, D>) -> Act<Update<S, D>> {
    Act::Status(Box::new(update))
}

pub fn failed<S, D>(reason: &str, message: impl Into<String>) -> Act<Update<S, D>> {
    status(Update::Failed { reason: reason.to_owned(), message: message.into() })
}

/// What to say when Velero's own object has failed.
pub const VELERO_FAILED: &str = "Velero's own Backup or Restore, which this is a part of, has failed";

/// What to say of problems.
pub fn incomplete(count: u64, first: &[String]) -> String {
    let first = first.first().map_or_else(String::new, |problem| format!(", the first: {problem}"));
    format!("{count} entries could not be moved{first}")
}
