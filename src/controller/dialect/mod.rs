//! The APIs that request backups and restores: each translates its objects to the neutral request
//! and record, and an update back to a status.

pub mod conditions;
pub mod vsm;

pub use conditions::Now;

use crate::controller::domain::direction::{Direction, Update};
use crate::controller::domain::names::{Kind, Owner};
use crate::controller::domain::record::Record;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A kind of object that requests a backup or a restore.
pub trait Dialect:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    type Direction: Direction;
    type Status: Serialize + Send + Sync;

    const KIND: Kind;
    /// The finalizer of an object that is being reconciled.
    const FINALIZER: &'static str;
    /// Labels that are set together with the finalizer.
    const LABELS: &'static [(&'static str, &'static str)];

    fn request(&self) -> <Self::Direction as Direction>::Request;
    fn record(&self) -> Record;
    /// The current status.
    fn status(&self) -> Self::Status;
    /// The status after an update.
    fn status_after(&self, update: &Update<Self::Direction>, now: &Now) -> Self::Status;

    /// Whether the object's mover may not have created the repository yet.
    fn may_create_repository(&self) -> bool {
        false
    }

    /// A label selector for the objects that Velero's plugin cannot distinguish from this one;
    /// `None` if it is unique.
    fn rivals(&self) -> Option<String> {
        None
    }

    /// The object as the owner of its managed objects.
    fn owner(&self) -> Owner {
        Owner {
            kind: Self::KIND,
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            uid: self.uid().unwrap_or_default(),
        }
    }
}
