//! A backup's request and its result.

use super::direction::{self, Direction};
use crate::volume_mode::VolumeMode;
use crate::work;
use std::fmt;

/// A volume's snapshot moves into a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup;

pub type Update = direction::Update<Backup>;

impl Direction for Backup {
    type Request = Request;
    type Started = Volume;
    type Moved = Saved;
}

/// The request of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The VolumeSnapshotContent to back up.
    pub content: String,
    pub protected_namespace: String,
    /// The secret in the protected namespace that has the location, credentials and password.
    pub secret: String,
    /// The Velero Backup that the request belongs to.
    pub velero_backup: Option<String>,
}

/// The volume, which is recorded at the start for clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub claim: String,
    /// The size that the claim requests, as a quantity in canonical form.
    pub size: String,
    pub storage_class: String,
    pub snapshot_class: String,
    pub mode: VolumeMode,
    /// The location of its repository.
    pub repository: String,
}

/// The snapshot that a mover made, and the pod that it ran in.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub saved: work::Saved,
    pub first_problems: Vec<String>,
    pub pod: String,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Volume { claim, size, mode, repository, .. } = self;
        write!(f, "claim {claim} of {size}, {mode}, into {repository}")
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work::Saved { snapshot, files, bytes, problems, .. } = &self.saved;
        write!(f, "snapshot {snapshot}, {files} files, {bytes} bytes, {problems} problems, by pod {}", self.pod)
    }
}
