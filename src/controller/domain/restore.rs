//! A restore's request and its result.

use super::direction::{self, Direction};
use crate::kubernetes::volumes::claim_to_snapshot::StorageSnapshot;
use crate::volume_mode::VolumeMode;
use crate::work;
use std::fmt;

/// A snapshot in a repository moves into a fresh volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore;

pub type Update = direction::Update<Restore>;

impl Direction for Restore {
    type Request = Request;
    type Started = Started;
    type Moved = Restored;
}

/// The request of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub protected_namespace: String,
    /// The secret in the protected namespace that has the location, credentials and password.
    pub secret: String,
    /// The location of the repository.
    pub repository: String,
    pub claim: SourceClaim,
    /// The class for the snapshot of the restored volume.
    pub snapshot_class: Option<String>,
    /// The id of the restic snapshot.
    pub snapshot: Option<String>,
    /// The VolumeSnapshotBackup that made the snapshot.
    pub made_by: Option<String>,
    /// The Velero Backup that the VolumeSnapshotBackup belonged to.
    pub velero_backup: Option<String>,
    /// The Velero Restore that the request belongs to.
    pub velero_restore: Option<String>,
    /// The claim to create, if the volume is not to become a storage snapshot.
    pub target: Option<Target>,
    /// Treat a missing repository as that of an empty volume.
    pub absent_is_empty: bool,
    /// The object was restored from a backup of its namespace, or is older than this controller.
    pub is_copied: bool,
}

/// The claim that was backed up. Empty fields are unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceClaim {
    pub name: String,
    /// A quantity.
    pub size: String,
    pub storage_class: String,
}

/// A claim in the tenant's namespace. Fields without a value are those of the claim that was backed
/// up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub name: String,
    pub storage_class: Option<String>,
    pub size: Option<String>,
    pub access_modes: Vec<String>,
    pub mode: Option<VolumeMode>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub mode: VolumeMode,
}

/// The data that a mover restored, and the storage snapshot of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    pub restored: work::Restored,
    pub first_problems: Vec<String>,
    pub pod: String,
    /// `None` if the volume was rebound to the target.
    pub snapshot: Option<StorageSnapshot>,
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a volume of mode {}", self.mode)
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work::Restored { files, bytes, problems, .. } = &self.restored;
        write!(f, "{files} files, {bytes} bytes, {problems} problems, by pod {}", self.pod)
    }
}
