//! `VolumeSnapshotBackup`: the request to move a volume snapshot into a repository.

// The attributes of all columns have the same keys.
#![allow(clippy::duplicated_attributes)]

use super::shared::{ClaimData, MoveStatus, NameRef, SyncData};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "datamover.oadp.openshift.io",
    version = "v1alpha1",
    kind = "VolumeSnapshotBackup",
    plural = "volumesnapshotbackups",
    singular = "volumesnapshotbackup",
    shortname = "vsb",
    doc = "Moves the data of a volume snapshot into a restic repository.",
    namespaced,
    status = "BackupStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "PVC Name", type_ = "string", json_path = ".status.sourcePVCData.name"),
    printcolumn(name = "VolumeSnapshotContent", type_ = "string", json_path = ".spec.volumeSnapshotContent.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "BatchingStatus", type_ = "string", json_path = ".status.batchingStatus"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.progress.bytesDone", priority = 1),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.progress.totalBytes", priority = 1),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".status.snapshotID", priority = 1)
)]
#[x_kube(validation = ("self == oldSelf", "a backup cannot be changed; make another one"))]
#[serde(rename_all = "camelCase")]
pub struct BackupSpec {
    /// The content to move; only `name` is used. Its VolumeSnapshot must be in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_content: Option<ObjectReference>,
    /// The namespace of Velero and of the controller, in which the data is moved.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protected_namespace: String,
    /// The secret in the protected namespace with the location, the credentials and the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restic_secret_ref: Option<NameRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    #[serde(flatten)]
    pub moved: MoveStatus,
    /// Not written any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    #[serde(default, rename = "sourcePVCData", skip_serializing_if = "Option::is_none")]
    pub source_pvc_data: Option<ClaimData>,
    /// The repository's location, which stock restic can open.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resticrepository: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub volume_snapshot_class_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_source_data: Option<SyncData>,
    /// The command that restores the data without this controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_command: Option<String>,
}
