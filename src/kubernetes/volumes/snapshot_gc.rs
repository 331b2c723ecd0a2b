//! Garbage collection of storage snapshots: deletes the snapshot behind a backup if its class
//! allows that, once no VolumeSnapshotContent but ours refers to it.
//!
//! The snapshot is not deleted when the backup completes: until it is orphaned, the backup's own
//! content is kept as a reference to it. The policy `Retain` of that content does no harm. Velero
//! deletes a content and creates it again when it finalizes a backup, so one observation of an
//! orphan proves nothing: the snapshot must have been orphaned for a while.

use crate::kubernetes::deletion_policy::DeletionPolicy;
use crate::kubernetes::naming::{KIND_LABEL, UID_LABEL};
use crate::kubernetes::snapshot_api::VolumeSnapshotContent;
use crate::kubernetes::volumes::snapshot_to_claim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::time::Duration;

/// Annotation of a VolumeSnapshotClass by which an administrator allows the garbage collection.
const OPT_IN: &str = "datamover.oadp.openshift.io/free-storage-snapshots";
/// Label of a content that is kept beyond its backup.
const KEPT: (&str, &str) = ("datamover.oadp.openshift.io/kept-to-free", "true");
/// Annotation of a kept content: since when no other content refers to its snapshot.
const ALONE_SINCE: &str = "datamover.oadp.openshift.io/alone-since";

/// The next step for a kept content.
#[derive(Clone, Debug, PartialEq)]
pub enum Collect {
    /// Apply this merge patch.
    Patch(Value),
    /// Delete the content; its policy decides whether the snapshot is deleted with it.
    Delete,
    /// Decide again after this time.
    Later(Duration),
    /// Decide again when another content changes.
    Nothing,
}

/// Whether a VolumeSnapshotClass allows the garbage collection.
pub fn is_allowed(class: &DynamicObject) -> bool {
    class.annotations().get(OPT_IN).is_some_and(|value| value == "true")
}

/// Turns a managed content of a backup into a kept one, as a merge patch.
pub fn keep() -> Value {
    json!({"metadata": {"labels": {KEPT.0: KEPT.1, UID_LABEL: null, KIND_LABEL: null}}})
}

/// A label selector for kept contents.
pub fn selector() -> String {
    format!("{}={}", KEPT.0, KEPT.1)
}

fn is_kept(content: &VolumeSnapshotContent) -> bool {
    content.labels().get(KEPT.0).is_some_and(|value| value == KEPT.1)
}

/// Whether two contents refer to the same snapshot on a storage system.
pub fn share_snapshot(one: &VolumeSnapshotContent, other: &VolumeSnapshotContent) -> bool {
    let handle = |content: &VolumeSnapshotContent| {
        let bound = content.status.as_ref().and_then(|status| status.snapshot_handle.clone());
        bound.or_else(|| content.spec.source.snapshot_handle.clone())
    };
    one.spec.driver == other.spec.driver && handle(one).is_some() && handle(one) == handle(other)
}

/// The next step for a kept content among all contents. `after`: how long it must have been the
/// only reference.
pub fn decide(content: &VolumeSnapshotContent, all: &[VolumeSnapshotContent], now: &Time, after: Duration) -> Collect {
    if content.metadata.deletion_timestamp.is_some() {
        return if snapshot_to_claim::is_stuck(content) {
            Collect::Patch(snapshot_to_claim::unblock())
        } else {
            Collect::Nothing
        };
    }
    let others: Vec<_> = all.iter().filter(|it| it.uid() != content.uid() && share_snapshot(it, content)).collect();
    let since = content.annotations().get(ALONE_SINCE);
    let deletes = DeletionPolicy::Delete.is(&content.spec.deletion_policy);
    if !others.is_empty() {
        if since.is_some() || deletes {
            let annotations = json!({"annotations": {ALONE_SINCE: null}});
            return Collect::Patch(
                json!({"metadata": annotations, "spec": {"deletionPolicy": DeletionPolicy::Retain.name()}}),
            );
        }
        // One kept content is enough for a snapshot.
        let first = others.iter().any(|other| is_kept(other) && other.name_any() < content.name_any());
        return if first { Collect::Delete } else { Collect::Nothing };
    }
    // A time that cannot be parsed was not written by us: the time starts now.
    let Some(since) = since.and_then(|since| since.parse().ok().map(Time)) else {
        return Collect::Patch(json!({"metadata": {"annotations": {ALONE_SINCE: now}}}));
    };
    let alone: Duration = now.0.duration_since(since.0).try_into().unwrap_or_default();
    match after.checked_sub(alone) {
        Some(left) if !left.is_zero() => Collect::Later(left),
        _ if deletes => Collect::Delete,
        _ => Collect::Patch(json!({"spec": {"deletionPolicy": DeletionPolicy::Delete.name()}})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::{epoch, merge, object};
    use k8s_openapi::jiff::{SignedDuration, Timestamp};

    const AFTER: Duration = Duration::from_secs(600);

    fn content(name: &str, handle: &str) -> VolumeSnapshotContent {
        object(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": name, "uid": name, "labels": {UID_LABEL: "u-1", KIND_LABEL: "vsb"}},
            "spec": {
                "driver": "csi", "deletionPolicy": "Retain", "source": {"snapshotHandle": handle},
                "volumeSnapshotRef": {"namespace": "adp", "name": name},
            },
        }))
    }

    /// A content as a driver creates it for a volume.
    fn source(name: &str, handle: &str) -> VolumeSnapshotContent {
        let mut source = content(name, handle);
        source.spec.source = object(json!({"volumeHandle": "v"}));
        source.status = Some(object(json!({"snapshotHandle": handle})));
        source
    }

    fn patched(content: &VolumeSnapshotContent, patch: &Value) -> VolumeSnapshotContent {
        let mut patched = serde_json::to_value(content).unwrap();
        merge(&mut patched, patch);
        object(patched)
    }

    fn kept(name: &str, handle: &str) -> VolumeSnapshotContent {
        patched(&content(name, handle), &keep())
    }

    fn at(seconds: i64) -> Time {
        Time(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds))
    }

    #[test]
    fn a_kept_content_is_not_managed() {
        assert!(is_kept(&kept("a", "h")) && !is_kept(&content("a", "h")));
        assert_eq!(kept("a", "h").labels().len(), 1);
    }

    #[test]
    fn a_snapshot_is_deleted_after_it_has_been_orphaned_for_a_while() {
        let mut ours = kept("a", "h");
        let mut steps = vec![];
        for now in [0, 300, 600, 600] {
            let step = decide(&ours, &[ours.clone()], &at(now), AFTER);
            if let Collect::Patch(patch) = &step {
                ours = patched(&ours, patch);
            }
            steps.push(step);
        }
        let marked = Collect::Patch(json!({"metadata": {"annotations": {ALONE_SINCE: epoch()}}}));
        let policy = Collect::Patch(json!({"spec": {"deletionPolicy": "Delete"}}));
        assert_eq!(steps, [marked, Collect::Later(Duration::from_secs(300)), policy, Collect::Delete]);
        ours.metadata.deletion_timestamp = Some(epoch());
        assert_eq!(decide(&ours, &[], &at(9999), AFTER), Collect::Nothing);
        ours.spec.volume_snapshot_ref.uid = Some("bound".into());
        let Collect::Patch(patch) = decide(&ours, &[], &at(9999), AFTER) else { panic!() };
        assert_eq!(decide(&patched(&ours, &patch), &[], &at(9999), AFTER), Collect::Nothing);
    }

    #[test]
    fn a_referenced_snapshot_is_not_deleted() {
        let ours = kept("b", "h");
        for other in [source("snapcontent-1", "h"), content("content-of-another-backup", "h")] {
            let all = [ours.clone(), other];
            assert_eq!(decide(&ours, &all, &at(9999), AFTER), Collect::Nothing);
            // A reference that returns before the last step starts the wait again.
            let alone =
                json!({"metadata": {"annotations": {ALONE_SINCE: epoch()}}, "spec": {"deletionPolicy": "Delete"}});
            let late = patched(&ours, &alone);
            let Collect::Patch(patch) = decide(&late, &all, &at(9999), AFTER) else { panic!() };
            assert_eq!(patched(&late, &patch).spec, ours.spec);
            assert!(patched(&late, &patch).annotations().is_empty());
        }
        let strangers = [source("s", "other"), patched(&source("t", "h"), &json!({"spec": {"driver": "another"}}))];
        assert!(matches!(decide(&ours, &strangers, &at(0), AFTER), Collect::Patch(_)));
    }

    /// Two backups of one content.
    #[test]
    fn one_content_is_kept_for_a_snapshot() {
        let all = [kept("a", "h"), kept("b", "h")];
        assert_eq!(decide(&all[0], &all, &at(0), AFTER), Collect::Nothing);
        assert_eq!(decide(&all[1], &all, &at(0), AFTER), Collect::Delete, "with its policy Retain");
        assert_eq!(all[1].spec.deletion_policy, "Retain");
    }

    #[test]
    fn a_class_allows_it_by_an_annotation() {
        let class = |annotations: Value| -> DynamicObject {
            object(json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
                "metadata": {"name": "c", "annotations": annotations},
            }))
        };
        assert!(is_allowed(&class(json!({OPT_IN: "true"}))));
        assert!(!is_allowed(&class(json!({OPT_IN: "false"}))) && !is_allowed(&class(json!({}))));
    }
}
