//! The actions of a reconciler: exactly one follows from each observation.

use crate::controller::domain::direction::{Direction, Update};
use crate::controller::domain::names::Owner;
use crate::controller::tenancy::Rejected;
use crate::kubernetes::deletion_policy::DeletionPolicy;
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::volumes::{rebind, snapshot_gc, snapshot_to_claim};
use crate::work::ReasonName;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::fmt;

/// One action.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<D: Direction> {
    AddFinalizer,
    RemoveFinalizer,
    /// Write the status.
    Record(Box<Update<D>>),
    Create(Object),
    /// Write a ConfigMap again: a mover's work, or the record of a repository.
    Rewrite(Box<ConfigMap>),
    /// Remove our finalizer from a mover's Job and its pods.
    Release {
        name: String,
    },
    Delete {
        managed: Managed,
        name: String,
    },
    /// Change a PersistentVolume.
    Volume {
        name: String,
        change: rebind::Change,
    },
    /// Change a VolumeSnapshotContent.
    Content {
        name: String,
        change: ContentChange,
    },
    /// Wait for another controller; the text names the object, for people.
    Wait(String),
    /// The request has ended and needs nothing any more.
    Nothing,
}

impl<D: Direction> Action<D> {
    pub fn record(update: Update<D>) -> Action<D> {
        Action::Record(Box::new(update))
    }

    pub fn fail(reason: impl Into<ReasonName>, message: impl Into<String>) -> Action<D> {
        Action::record(Update::failed(reason, message))
    }
}

impl<D: Direction> From<Rejected> for Action<D> {
    fn from(Rejected { reason, message }: Rejected) -> Action<D> {
        Action::fail(reason, message)
    }
}

/// An action that comes before, or instead of, the result of a function.
pub type Instead<D> = Box<Action<D>>;

impl<D: Direction> From<Rejected> for Instead<D> {
    fn from(rejected: Rejected) -> Instead<D> {
        Box::new(rejected.into())
    }
}

/// An object to create.
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
    /// Kind, namespace and name, for people.
    pub fn path(&self) -> String {
        let (kind, metadata) = (self.kind(), self.metadata());
        let name = metadata.name.as_deref().unwrap_or_default();
        match &metadata.namespace {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Object::Content(_) => "VolumeSnapshotContent",
            Object::Snapshot(_) => "VolumeSnapshot",
            Object::Claim(_) => "PersistentVolumeClaim",
            Object::Secret(_) => "Secret",
            Object::ConfigMap(_) => "ConfigMap",
            Object::Job(_) => "Job",
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Object::Content(it) => &it.metadata,
            Object::Snapshot(it) => &it.metadata,
            Object::Claim(it) => &it.metadata,
            Object::Secret(it) => &it.metadata,
            Object::ConfigMap(it) => &it.metadata,
            Object::Job(it) => &it.metadata,
        }
    }
}

/// The kind of a managed object. All but the target and the cluster-scoped content are in the
/// protected namespace; all but the target have the name of [`Owner::object_name`] or that of the
/// cleanup's mover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managed {
    Content,
    Snapshot,
    Claim,
    Secret,
    ConfigMap,
    Job,
    /// The claim that a restore creates in the tenant's namespace.
    Target,
}

impl fmt::Display for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Managed::Content => "VolumeSnapshotContent",
            Managed::Snapshot => "VolumeSnapshot",
            Managed::Claim | Managed::Target => "PersistentVolumeClaim",
            Managed::Secret => "Secret",
            Managed::ConfigMap => "ConfigMap",
            Managed::Job => "Job",
        })
    }
}

/// A change of a VolumeSnapshotContent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ContentChange {
    /// Unblock the deletion of a content that the snapshot controller has
    /// [lost](snapshot_to_claim::is_stuck).
    Unblock,
    /// Keep it beyond its backup for the [garbage collection](snapshot_gc) of its storage snapshot.
    Keep,
    /// Set its deletion policy.
    Policy(DeletionPolicy),
}

impl ContentChange {
    /// The change as a merge patch.
    pub fn patch(self) -> Value {
        match self {
            ContentChange::Unblock => snapshot_to_claim::unblock(),
            ContentChange::Keep => snapshot_gc::keep(),
            ContentChange::Policy(policy) => json!({"spec": {"deletionPolicy": policy.name()}}),
        }
    }
}

impl fmt::Display for ContentChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentChange::Unblock => f.write_str("unblocked its deletion"),
            ContentChange::Keep => f.write_str("kept for the garbage collection"),
            ContentChange::Policy(policy) => write!(f, "set its deletion policy to {}", policy.name()),
        }
    }
}

/// Deletes a managed object, or waits until it is deleted. `None` if none exists: an object of that
/// name with another owner stays.
pub fn delete<D: Direction>(
    metadata: Option<&ObjectMeta>,
    managed: Managed,
    owner: &Owner,
    name: &str,
) -> Option<Action<D>> {
    let metadata = metadata.filter(|it| it.labels.as_ref().is_some_and(|labels| owner.owns(labels)))?;
    Some(match metadata.deletion_timestamp {
        None => Action::Delete { managed, name: name.to_owned() },
        Some(_) => Action::Wait(format!("waiting for the {managed} {name} to be deleted")),
    })
}
