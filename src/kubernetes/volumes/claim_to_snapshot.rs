//! Takes a snapshot of a claim that outlives the claim, its VolumeSnapshot and its content: the
//! handle on the storage system is the result.

use crate::kubernetes::deletion_policy::DeletionPolicy;
use crate::kubernetes::naming::Naming;
use crate::kubernetes::snapshot_api::{SnapshotSource, SnapshotSpec, VolumeSnapshot, VolumeSnapshotContent};
use kube::ResourceExt;

/// The snapshot to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The metadata of the claim, and of the snapshot.
    pub naming: Naming,
    /// `None`: the driver's default.
    pub class: Option<String>,
}

/// The objects that exist.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub snapshot: Option<VolumeSnapshot>,
    /// The content that the snapshot is bound to.
    pub content: Option<VolumeSnapshotContent>,
}

/// A snapshot on the storage system.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageSnapshot {
    pub handle: String,
    /// The VolumeSnapshotContent that names it.
    pub content: String,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateSnapshot(Box<VolumeSnapshot>),
    /// Set the deletion policy of a content.
    Policy {
        content: String,
        policy: DeletionPolicy,
    },
    /// Wait for another controller; the text names the object, for people.
    Wait(String),
    /// The snapshot is ready and retained.
    Ready(StorageSnapshot),
    /// The goal cannot be reached.
    Failed(String),
}

/// The next step. At the end the content's policy is `Retain`: the cleanup deletes the content, and
/// the storage snapshot stays for the client that was given its handle.
pub fn decide(goal: &Goal, existing: &Existing) -> Step {
    let Naming { name, namespace, labels, .. } = &goal.naming;
    let Some(snapshot) = &existing.snapshot else { return Step::CreateSnapshot(Box::new(snapshot_of(goal))) };
    if !labels.iter().all(|(key, value)| snapshot.labels().get(key) == Some(value)) {
        return Step::Failed(format!(
            "the VolumeSnapshot {namespace}/{name} exists and was not created for this request"
        ));
    }
    let status = snapshot.status.clone().unwrap_or_default();
    let content = existing.content.as_ref();
    let handle = content.and_then(|content| content.status.as_ref()?.snapshot_handle.clone());
    let (Some(content), Some(handle), Some(true)) = (content, handle, status.ready_to_use) else {
        // The snapshot controller and the driver try again by themselves: an error is not the end.
        let error = content.and_then(|content| content.status.as_ref()?.error.clone()).or(status.error);
        let why =
            error.and_then(|error| error.message).map_or_else(String::new, |it| format!("; its last error: {it}"));
        return Step::Wait(format!("waiting for the VolumeSnapshot {namespace}/{name} of the restored volume{why}"));
    };
    if !DeletionPolicy::Retain.is(&content.spec.deletion_policy) {
        return Step::Policy { content: content.name_any(), policy: DeletionPolicy::Retain };
    }
    Step::Ready(StorageSnapshot { handle, content: content.name_any() })
}

/// The step before the deletion of a VolumeSnapshot whose handle no client was given: the storage
/// snapshot is then deleted with it.
pub fn undo(existing: &Existing) -> Option<Step> {
    let content =
        existing.content.as_ref().filter(|content| !DeletionPolicy::Delete.is(&content.spec.deletion_policy))?;
    Some(Step::Policy { content: content.name_any(), policy: DeletionPolicy::Delete })
}

fn snapshot_of(goal: &Goal) -> VolumeSnapshot {
    let source = SnapshotSource {
        persistent_volume_claim_name: Some(goal.naming.name.clone()),
        volume_snapshot_content_name: None,
    };
    let spec = SnapshotSpec { source, volume_snapshot_class_name: goal.class.clone() };
    VolumeSnapshot { metadata: goal.naming.meta(), spec, status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::snapshot_api::SnapshotStatus;
    use serde_json::{Value, from_value, json};
    use std::collections::BTreeMap;

    fn goal() -> Goal {
        let labels = BTreeMap::from([("uid".to_owned(), "1".to_owned())]);
        let naming = Naming { name: "vsm-vsr-1".into(), namespace: "adp".into(), labels, annotations: BTreeMap::new() };
        Goal { naming, class: Some("fast".into()) }
    }

    fn content(policy: &str, status: Value) -> VolumeSnapshotContent {
        from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": "snapcontent-1"},
            "spec": {"driver": "d", "deletionPolicy": policy, "source": {"volumeHandle": "v"}, "volumeSnapshotRef": {}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_handle_is_ready_only_when_its_content_is_retained() {
        let mut existing = Existing::default();
        let Step::CreateSnapshot(snapshot) = decide(&goal(), &existing) else { panic!() };
        let source = snapshot.spec.source.clone();
        assert_eq!(source.persistent_volume_claim_name.as_deref(), Some("vsm-vsr-1"));
        assert_eq!(snapshot.spec.volume_snapshot_class_name.as_deref(), Some("fast"));
        existing.snapshot = Some(*snapshot);
        assert!(matches!(decide(&goal(), &existing), Step::Wait(_)));
        // The snapshot is ready on the storage system, but the snapshot controller has not seen it.
        existing.content = Some(content("Delete", json!({"snapshotHandle": "h-1", "readyToUse": true})));
        assert!(matches!(decide(&goal(), &existing), Step::Wait(_)));
        let ready = SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() };
        existing.snapshot.as_mut().unwrap().status = Some(ready);
        let keep = Step::Policy { content: "snapcontent-1".into(), policy: DeletionPolicy::Retain };
        assert_eq!(decide(&goal(), &existing), keep, "before the handle is published");
        existing.content.as_mut().unwrap().spec.deletion_policy = DeletionPolicy::Retain.name().into();
        let ready = Step::Ready(StorageSnapshot { handle: "h-1".into(), content: "snapcontent-1".into() });
        assert_eq!(decide(&goal(), &existing), ready);
        // If the handle was not published, the policy is reset.
        assert_eq!(
            undo(&existing),
            Some(Step::Policy { content: "snapcontent-1".into(), policy: DeletionPolicy::Delete })
        );
    }

    #[test]
    fn a_foreign_snapshot_fails_and_an_error_of_the_driver_is_reported() {
        let foreign: VolumeSnapshot = from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "vsm-vsr-1"}, "spec": {"source": {}},
        }))
        .unwrap();
        assert!(matches!(decide(&goal(), &Existing { snapshot: Some(foreign), content: None }), Step::Failed(_)));
        let snapshot = Some(snapshot_of(&goal()));
        let content = Some(content("Delete", json!({"error": {"message": "quota exceeded"}})));
        let Step::Wait(why) = decide(&goal(), &Existing { snapshot, content }) else { panic!() };
        assert!(why.contains("quota exceeded"), "{why}");
    }
}
