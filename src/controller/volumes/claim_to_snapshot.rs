//! A claim becomes a snapshot on the storage system that outlives it, and everything that was made on the way to it. Of no kind of
//! ours does this room know anything.

use crate::api::snapshot::{SnapshotSource, SnapshotSpec, VolumeSnapshot, VolumeSnapshotContent};
use crate::controller::domain::names::Naming;
use kube::ResourceExt;

pub const RETAIN: &str = "Retain";
pub const DELETE: &str = "Delete";

/// What shall be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The claim is called so, and the snapshot will be.
    pub naming: Naming,
    /// `None`: the driver's default.
    pub class: Option<String>,
}

/// What is there now.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub snapshot: Option<VolumeSnapshot>,
    /// What the snapshot is bound to.
    pub content: Option<VolumeSnapshotContent>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateSnapshot(Box<VolumeSnapshot>),
    /// What becomes of the storage snapshot when its content goes.
    Policy {
        content: String,
        policy: &'static str,
    },
    /// Others have to do something first; what, for people.
    Wait(String),
    /// The snapshot on the storage system, and the content that names it.
    Ready {
        handle: String,
        content: String,
    },
    /// It will never be there.
    Failed(String),
}

/// The next step from what is there to what shall be there. At the end the content can be deleted, and the storage snapshot stays:
/// so whoever is given the handle need not fear what is cleaned up here.
pub fn decide(wish: &Wish, seen: &Seen) -> Step {
    let Naming { name, namespace, labels, .. } = &wish.naming;
    let Some(snapshot) = &seen.snapshot else { return Step::CreateSnapshot(Box::new(snapshot_of(wish))) };
    if !labels.iter().all(|(key, value)| snapshot.labels().get(key) == Some(value)) {
        return Step::Failed(format!("there is a VolumeSnapshot {namespace}/{name} that is not ours"));
    }
    let status = snapshot.status.clone().unwrap_or_default();
    let content = seen.content.as_ref();
    let handle = content.and_then(|content| content.status.as_ref()?.snapshot_handle.clone());
    let (Some(content), Some(handle), Some(true)) = (content, handle, status.ready_to_use) else {
        // The snapshot controller and the driver try again by themselves: an error is not the end.
        let error = content.and_then(|content| content.status.as_ref()?.error.clone()).or(status.error);
        let why =
            error.and_then(|error| error.message).map_or_else(String::new, |it| format!("; its last error: {it}"));
        return Step::Wait(format!("waiting for the VolumeSnapshot {namespace}/{name} of what was restored{why}"));
    };
    if content.spec.deletion_policy != RETAIN {
        return Step::Policy { content: content.name_any(), policy: RETAIN };
    }
    Step::Ready { handle, content: content.name_any() }
}

/// What is to be done before the VolumeSnapshot may be deleted whose storage snapshot nobody was given, and which is to go with it.
pub fn undo(seen: &Seen) -> Option<Step> {
    let content = seen.content.as_ref().filter(|content| content.spec.deletion_policy != DELETE)?;
    Some(Step::Policy { content: content.name_any(), policy: DELETE })
}

fn snapshot_of(wish: &Wish) -> VolumeSnapshot {
    let source = SnapshotSource {
        persistent_volume_claim_name: Some(wish.naming.name.clone()),
        volume_snapshot_content_name: None,
    };
    let spec = SnapshotSpec { source, volume_snapshot_class_name: wish.class.clone() };
    VolumeSnapshot { metadata: wish.naming.meta(), spec, status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::snapshot::SnapshotStatus;
    use serde_json::{Value, from_value, json};
    use std::collections::BTreeMap;

    fn wish() -> Wish {
        let labels = BTreeMap::from([("uid".to_owned(), "1".to_owned())]);
        let naming = Naming { name: "vsm-vsr-1".into(), namespace: "adp".into(), labels, annotations: BTreeMap::new() };
        Wish { naming, class: Some("fast".into()) }
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
    fn a_claim_becomes_a_handle_that_outlives_it() {
        let mut seen = Seen::default();
        let Step::CreateSnapshot(snapshot) = decide(&wish(), &seen) else { panic!() };
        let source = snapshot.spec.source.clone();
        assert_eq!(source.persistent_volume_claim_name.as_deref(), Some("vsm-vsr-1"));
        assert_eq!(snapshot.spec.volume_snapshot_class_name.as_deref(), Some("fast"));
        seen.snapshot = Some(*snapshot);
        assert!(matches!(decide(&wish(), &seen), Step::Wait(_)));
        // Ready on the storage system, and not yet so for the snapshot controller.
        seen.content = Some(content("Delete", json!({"snapshotHandle": "h-1", "readyToUse": true})));
        assert!(matches!(decide(&wish(), &seen), Step::Wait(_)));
        let ready = SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() };
        seen.snapshot.as_mut().unwrap().status = Some(ready);
        let keep = Step::Policy { content: "snapcontent-1".into(), policy: RETAIN };
        assert_eq!(decide(&wish(), &seen), keep, "before anybody is told of it");
        seen.content.as_mut().unwrap().spec.deletion_policy = RETAIN.into();
        let ready = Step::Ready { handle: "h-1".into(), content: "snapcontent-1".into() };
        assert_eq!(decide(&wish(), &seen), ready);
        // And back, if nobody was.
        assert_eq!(undo(&seen), Some(Step::Policy { content: "snapcontent-1".into(), policy: DELETE }));
    }

    #[test]
    fn what_is_not_ours_is_not_taken_and_errors_are_told() {
        let foreign: VolumeSnapshot = from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "vsm-vsr-1"}, "spec": {"source": {}},
        }))
        .unwrap();
        assert!(matches!(decide(&wish(), &Seen { snapshot: Some(foreign), content: None }), Step::Failed(_)));
        let snapshot = Some(snapshot_of(&wish()));
        let content = Some(content("Delete", json!({"error": {"message": "quota exceeded"}})));
        let Step::Wait(why) = decide(&wish(), &Seen { snapshot, content }) else { panic!() };
        assert!(why.contains("quota exceeded"), "{why}");
    }
}
