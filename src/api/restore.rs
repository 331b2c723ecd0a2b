//! `VolumeSnapshotRestore`: the request to restore a snapshot of a repository to a fresh volume.

// The attributes of all columns have the same keys.
#![allow(clippy::duplicated_attributes)]

use super::shared::{ClaimData, MoveStatus, NameRef, SyncData};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "datamover.oadp.openshift.io",
    version = "v1alpha1",
    kind = "VolumeSnapshotRestore",
    plural = "volumesnapshotrestores",
    singular = "volumesnapshotrestore",
    shortname = "vsr",
    doc = "Makes a fresh volume from a snapshot in a restic repository.",
    namespaced,
    status = "RestoreStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "PVC Name",
        type_ = "string",
        json_path = ".spec.volumeSnapshotMoverBackupRef.sourcePVCData.name"
    ),
    printcolumn(name = "VolumeSnapshotContent", type_ = "string", json_path = ".status.volumeSnapshotContentName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "BatchingStatus", type_ = "string", json_path = ".status.batchingStatus"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.progress.bytesDone", priority = 1),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.progress.totalBytes", priority = 1)
)]
#[x_kube(
    validation = ("self == oldSelf", "a restore cannot be changed; make another one"),
    validation = ("!(has(self.snapshotID) && has(self.volumeSnapshotBackupName))", "snapshotID and volumeSnapshotBackupName exclude each other")
)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// The secret in the protected namespace with the location, the credentials and the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restic_secret_ref: Option<NameRef>,
    /// The namespace of Velero and of the controller, in which the data is moved.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protected_namespace: String,
    /// The values that the backup recorded in its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_mover_backup_ref: Option<BackupRef>,
    /// The restic snapshot to restore: all 64 digits.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub snapshot_id: Option<String>,
    /// The VolumeSnapshotBackup to restore; by default that of the label `velero.io/vsb-name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_backup_name: Option<String>,
    /// A claim to create and fill in this object's namespace, without a storage snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RestoreTarget>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRef {
    #[serde(default, rename = "sourcePVCData", skip_serializing_if = "Option::is_none")]
    pub source_pvc_data: Option<ClaimData>,
    /// The repository's location.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resticrepository: String,
    /// The class for the snapshot of the restored volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub volume_snapshot_class_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// The name of the claim, which must not exist yet.
    #[x_kube(validation = ("size(self) >= 1 && size(self) <= 253", "a claim has a name of 1 to 253 characters"))]
    pub name: String,
    /// By default the class of the claim that was backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// By default the size of the claim that was backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// By default `ReadWriteOnce`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`; by default the mode of the volume that was backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self in ['Filesystem', 'Block']", "a volume mode is Filesystem or Block"))]
    pub volume_mode: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    #[serde(flatten)]
    pub moved: MoveStatus,
    /// The storage system's snapshot of the restored volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snapshot_handle: String,
    /// The VolumeSnapshotContent of that snapshot; the client that takes the handle may delete it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub volume_snapshot_content_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_destination_data: Option<SyncData>,
}
