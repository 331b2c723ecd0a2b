//! The observation of a restore.

use crate::controller::cluster::rbac::Right;
use crate::controller::domain::restore::Request;
use crate::controller::observed::Common;
use crate::controller::tenancy::authorization::RunningRestore;
use crate::kubernetes::volumes::{claim_to_snapshot, rebind};

/// The objects that exist at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub common: Common,
    pub request: Request,
    /// The Velero Restore that the request belongs to, if it is running.
    pub restore: Option<RunningRestore>,
    /// Repositories that an administrator lets the namespace read.
    pub grants: Vec<String>,
    /// Other restores, as `namespace/name`, that Velero's plugin cannot distinguish from this one.
    pub rivals: Vec<String>,
    /// The classes that the request names and that do not exist, as text for the user.
    pub missing_classes: Vec<String>,
    /// Rights that the controller lacks to restore into the target.
    pub missing_rights: Vec<Right>,
    pub captured: claim_to_snapshot::Existing,
    pub volume: rebind::Existing,
}
