//! Our custom resources: `VolumeSnapshotBackup` and `VolumeSnapshotRestore`.
//!
//! They are a superset of those of VolumeSnapshotMover 1.2: every object that it accepted stays
//! valid, and every field keeps its name and meaning. The manifests in `manifests/base/crds` are
//! generated from these types; a test compares them. Each doc comment becomes the description of
//! its field, with its line breaks: keep it on one line.

mod backup;
mod restore;
mod shared;
#[cfg(test)]
mod tests;

pub use backup::{BackupSpec, BackupStatus, VolumeSnapshotBackup};
pub use restore::{BackupRef, RestoreSpec, RestoreStatus, RestoreTarget, VolumeSnapshotRestore};
pub use shared::{ClaimData, MoveStatus, NameRef, Problems, Progress, SyncData};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON;
use kube::CustomResourceExt;

/// The API group of our kinds.
pub const GROUP: &str = "datamover.oadp.openshift.io";

/// The CustomResourceDefinitions of our kinds, as a cluster needs them.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [VolumeSnapshotBackup::crd(), VolumeSnapshotRestore::crd()].map(|mut definition| {
        for version in &mut definition.spec.versions {
            let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
            let Some(schema) = schema else { continue };
            // VolumeSnapshotMover accepted objects without a spec.
            schema.required = None;
            if let Some(spec) = schema.properties.as_mut().and_then(|properties| properties.get_mut("spec")) {
                spec.default = Some(JSON(serde_json::json!({})));
            }
        }
        definition
    })
}
