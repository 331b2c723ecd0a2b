//! The part of an observation that is the same for both directions. Only objects that can matter at
//! a request's stage are read.

use crate::controller::cluster::{self, Cluster, Result, find};
use crate::controller::config::Config;
use crate::controller::dialect::Dialect;
use crate::controller::domain::record::Stage;
use crate::controller::mover_job::observe::State;
use crate::controller::mover_job::{cleanup, observe, status};
use crate::controller::observed::{Admission, Common, MoverObjects, VeleroState};
use crate::controller::tenancy::authorization::RunningRestore;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

/// The label of a secret that names its backup location.
const LOCATION_LABEL: &str = "openshift.io/oadp-bsl-name";

/// Phases of a running Velero Restore (`pkg/apis/velero/v1`, RestorePhase).
const RUNNING: [&str; 5] = [
    "InProgress",
    "WaitingForPluginOperations",
    "WaitingForPluginOperationsPartiallyFailed",
    "Finalizing",
    "FinalizingPartiallyFailed",
];

/// Reads the objects around one request.
pub struct Observer<'r, R> {
    pub cluster: &'r Cluster,
    pub request: &'r R,
    pub config: &'r Config,
}

impl<R: Dialect> Observer<'_, R> {
    /// The request and its movers.
    pub async fn common(&self, admission: Admission) -> Result<Common> {
        let owner = self.request.owner();
        let record = self.request.record();
        let last = record.last_progress();
        let stalled_for = last.and_then(|last| cluster::now().0.duration_since(last.0).try_into().ok());
        let mut common = Common {
            has_finalizer: self.request.finalizers().iter().any(|one| one == R::FINALIZER),
            is_deleted: self.request.meta().deletion_timestamp.is_some(),
            stalled_for,
            record,
            admission,
            ..Common::default()
        };
        if common.stage() >= Stage::Started {
            common.mover = self.cluster.mover(&owner, &owner.object_name()).await?;
        }
        if common.is_deleted || matches!(common.stage(), Stage::Ended(_)) {
            common.cleanup = self.cluster.mover(&owner, &cleanup::name(&owner)).await?;
        }
        if let Some(job) = &common.mover.job
            && let State::Running { pod } = observe::state(job, &common.mover.pods)
        {
            common.progress = self.cluster.progress(&pod).await;
        }
        Ok(common)
    }

    /// The secret that a request names, and the prefix of its backup location.
    pub async fn secret(&self, name: &str, common: &mut Common) -> Result<()> {
        if !name.is_empty() {
            common.secret = find(self.cluster.here::<Secret>(), name).await?;
        }
        let location = common.secret.as_ref().and_then(|secret| secret.labels().get(LOCATION_LABEL).cloned());
        let location = self.cluster.velero("BackupStorageLocation", location).await?;
        common.prefix = location.as_ref().and_then(|it| text(it, "/spec/objectStorage/prefix")).unwrap_or_default();
        Ok(())
    }
}

/// Whether a mover exists that has not ended.
pub fn is_running(mover: &MoverObjects) -> bool {
    mover.job.as_ref().is_some_and(|job| !status::is_finished(job))
}

/// The state of Velero's Backup or Restore.
pub fn velero_state(velero: Option<&DynamicObject>) -> VeleroState {
    let phase = velero.and_then(|it| text(it, "/status/phase"));
    let has_failed = matches!(phase.as_deref(), Some("Failed" | "PartiallyFailed"));
    if has_failed { VeleroState::Failed } else { VeleroState::Fine }
}

/// A Velero Restore, if it is running.
pub fn running_restore(restore: &DynamicObject) -> Option<RunningRestore> {
    let phase = text(restore, "/status/phase")?;
    if !RUNNING.contains(&&*phase) {
        return None;
    }
    let names = |pointer: &str| {
        let list = restore.data.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let mapping = restore.data.pointer("/spec/namespaceMapping").and_then(Value::as_object).into_iter().flatten();
    Some(RunningRestore {
        backup: text(restore, "/spec/backupName").unwrap_or_default(),
        mapping: mapping.filter_map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned()))).collect(),
        included: names("/spec/includedNamespaces"),
        excluded: names("/spec/excludedNamespaces"),
    })
}

fn text(object: &DynamicObject, pointer: &str) -> Option<String> {
    object.data.pointer(pointer)?.as_str().map(str::to_owned)
}
