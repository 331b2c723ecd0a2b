//! The observation of a backup.

use crate::controller::domain::backup::Request;
use crate::controller::observed::Common;
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::volumes::snapshot_to_claim;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};

/// The objects that exist at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub common: Common,
    pub request: Request,
    /// The content that the request names.
    pub content: Option<VolumeSnapshotContent>,
    /// The snapshot that the content refers back to, in the request's namespace.
    pub snapshot: Option<VolumeSnapshot>,
    /// The claim that the snapshot was taken of.
    pub claim: Option<PersistentVolumeClaim>,
    /// The record of the volume's repository.
    pub record: Option<ConfigMap>,
    pub creation: Creation,
    pub exposed: snapshot_to_claim::Existing,
    pub snapshot_fate: SnapshotFate,
}

/// Whether the backup that the repository's record names may still create the repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Creation {
    #[default]
    Idle,
    Running,
}

/// The fate of the storage snapshot after the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotFate {
    #[default]
    Stays,
    /// Its class allows the [garbage collection](crate::kubernetes::volumes::snapshot_gc).
    IsCollected,
}
