//! The part of an observation that is the same for all kinds of requests.

use crate::controller::domain::record::{Progress, Record, Stage};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use std::collections::BTreeMap;
use std::time::Duration;

/// The state of Velero's own Backup or Restore that a request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VeleroState {
    /// It has not failed, or the request belongs to none.
    #[default]
    Fine,
    Failed,
}

/// Whether a request may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Older requests fill the limit.
    #[default]
    Queued,
    Admitted,
}

/// The request, its secret and its movers.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub has_finalizer: bool,
    pub is_deleted: bool,
    pub record: Record,
    /// The progress in the mover's log.
    pub progress: Option<Progress>,
    /// How long ago the request was admitted or its mover made progress.
    pub stalled_for: Option<Duration>,
    pub velero: VeleroState,
    pub admission: Admission,
    pub secret: Option<Secret>,
    /// The prefix of the backup location that the secret belongs to.
    pub prefix: String,
    /// The options of the claim's storage class.
    pub options: BTreeMap<String, String>,
    pub mover: MoverObjects,
    /// The mover that removes what the other one left in the repository.
    pub cleanup: MoverObjects,
}

impl Common {
    pub fn stage(&self) -> Stage {
        self.record.stage
    }

    /// An option of the claim's storage class that is not empty.
    pub fn option(&self, key: &str) -> Option<String> {
        self.options.get(key).filter(|value| !value.is_empty()).cloned()
    }

    /// Whether the result is not recorded yet and the request is not being deleted.
    pub fn is_open(&self) -> bool {
        self.stage() < Stage::Moved && !self.is_deleted
    }
}

/// The existing objects of one mover, all of the same name.
#[derive(Clone, Debug, Default)]
pub struct MoverObjects {
    pub secret: Option<Secret>,
    pub config_map: Option<ConfigMap>,
    pub job: Option<Job>,
    pub pods: Vec<Pod>,
}
