//! The storage snapshot behind a backup is freed if its class says so: not when the backup is completed, but when nothing names the
//! snapshot any more. Until then the backup's own content is kept, whose policy `Retain` harms nothing, so that it is not forgotten.
//!
//! Velero takes a content away and makes it anew when it finalises a backup: one look at which nobody is there proves nothing, and so
//! it has to stay like that for a while.

use crate::api::snapshot::VolumeSnapshotContent;
use crate::controller::domain::names::{KIND_LABEL, UID_LABEL};
use crate::controller::volumes::snapshot_to_claim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::time::Duration;

/// The annotation of a VolumeSnapshotClass by which an administrator allows it.
const OPT_IN: &str = "datamover.oadp.openshift.io/free-storage-snapshots";
/// On a content that is kept to be the last one.
const KEPT: (&str, &str) = ("datamover.oadp.openshift.io/kept-to-free", "true");
/// On such a content: since when no other one names its snapshot.
const ALONE_SINCE: &str = "datamover.oadp.openshift.io/alone-since";

/// What is to be done with a content that is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is changed so.
    Patch(Value),
    /// It goes, and its snapshot with it if its policy says so by now.
    Delete,
    /// Nothing, until so much time has passed.
    Later(Duration),
    /// Nothing, until another content changes.
    Nothing,
}

/// Whether a class allows it.
pub fn is_allowed(class: &DynamicObject) -> bool {
    class.annotations().get(OPT_IN).is_some_and(|value| value == "true")
}

/// What makes a content of a backup one that is kept: it is no helper any more.
pub fn keep() -> Value {
    json!({"metadata": {"labels": {KEPT.0: KEPT.1, UID_LABEL: null, KIND_LABEL: null}}})
}

/// Selects the contents that are kept.
pub fn selector() -> String {
    format!("{}={}", KEPT.0, KEPT.1)
}

fn is_kept(content: &VolumeSnapshotContent) -> bool {
    content.labels().get(KEPT.0).is_some_and(|value| value == KEPT.1)
}

/// Whether two contents name one snapshot on a storage system.
pub fn name_the_same(one: &VolumeSnapshotContent, other: &VolumeSnapshotContent) -> bool {
    let handle = |content: &VolumeSnapshotContent| {
        let bound = content.status.as_ref().and_then(|status| status.snapshot_handle.clone());
        bound.or_else(|| content.spec.source.snapshot_handle.clone())
    };
    one.spec.driver == other.spec.driver && handle(one).is_some() && handle(one) == handle(other)
}

/// What is to be done with a content that is kept, all contents being known. `after` is how long it has to be alone.
pub fn decide(content: &VolumeSnapshotContent, all: &[VolumeSnapshotContent], now: &Time, after: Duration) -> Step {
    if content.metadata.deletion_timestamp.is_some() {
        return if snapshot_to_claim::is_forgotten(content) {
            Step::Patch(snapshot_to_claim::let_go())
        } else {
            Step::Nothing
        };
    }
    let others: Vec<_> = all.iter().filter(|it| it.uid() != content.uid() && name_the_same(it, content)).collect();
    let since = content.annotations().get(ALONE_SINCE);
    let deletes = content.spec.deletion_policy == "Delete";
    if !others.is_empty() {
        if since.is_some() || deletes {
            let annotations = json!({"annotations": {ALONE_SINCE: null}});
            return Step::Patch(json!({"metadata": annotations, "spec": {"deletionPolicy": "Retain"}}));
        }
        // Of several that are kept for one snapshot, one is enough.
        let first = others.iter().any(|other| is_kept(other) && other.name_any() < content.name_any());
        return if first { Step::Delete } else { Step::Nothing };
    }
    // What nobody can read was not written by us, and counts from now.
    let Some(since) = since.and_then(|since| since.parse().ok().map(Time)) else {
        return Step::Patch(json!({"metadata": {"annotations": {ALONE_SINCE: now}}}));
    };
    let alone: Duration = now.0.duration_since(since.0).try_into().unwrap_or_default();
    match after.checked_sub(alone) {
        Some(left) if !left.is_zero() => Step::Later(left),
        _ if deletes => Step::Delete,
        _ => Step::Patch(json!({"spec": {"deletionPolicy": "Delete"}})),
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

    /// As a driver makes it of a volume.
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
    fn what_is_kept_is_no_helper() {
        assert!(is_kept(&kept("a", "h")) && !is_kept(&content("a", "h")));
        assert_eq!(kept("a", "h").labels().len(), 1);
    }

    #[test]
    fn a_snapshot_is_freed_when_it_has_been_nobodys_for_long() {
        let mut ours = kept("a", "h");
        let mut steps = vec![];
        for now in [0, 300, 600, 600] {
            let step = decide(&ours, &[ours.clone()], &at(now), AFTER);
            if let Step::Patch(patch) = &step {
                ours = patched(&ours, patch);
            }
            steps.push(step);
        }
        let marked = Step::Patch(json!({"metadata": {"annotations": {ALONE_SINCE: epoch()}}}));
        let policy = Step::Patch(json!({"spec": {"deletionPolicy": "Delete"}}));
        assert_eq!(steps, [marked, Step::Later(Duration::from_secs(300)), policy, Step::Delete]);
        ours.metadata.deletion_timestamp = Some(epoch());
        assert_eq!(decide(&ours, &[], &at(9999), AFTER), Step::Nothing);
        ours.spec.volume_snapshot_ref.uid = Some("bound".into());
        let Step::Patch(patch) = decide(&ours, &[], &at(9999), AFTER) else { panic!() };
        assert_eq!(decide(&patched(&ours, &patch), &[], &at(9999), AFTER), Step::Nothing);
    }

    #[test]
    fn what_somebody_names_is_not_freed() {
        let ours = kept("b", "h");
        for other in [source("snapcontent-1", "h"), content("helper-of-another-backup", "h")] {
            let all = [ours.clone(), other];
            assert_eq!(decide(&ours, &all, &at(9999), AFTER), Step::Nothing);
            // It came back when all but the last step was done: once more from the start.
            let alone =
                json!({"metadata": {"annotations": {ALONE_SINCE: epoch()}}, "spec": {"deletionPolicy": "Delete"}});
            let late = patched(&ours, &alone);
            let Step::Patch(patch) = decide(&late, &all, &at(9999), AFTER) else { panic!() };
            assert_eq!(patched(&late, &patch).spec, ours.spec);
            assert!(patched(&late, &patch).annotations().is_empty());
        }
        let strangers = [source("s", "other"), patched(&source("t", "h"), &json!({"spec": {"driver": "another"}}))];
        assert!(matches!(decide(&ours, &strangers, &at(0), AFTER), Step::Patch(_)));
    }

    /// Two backups of one content.
    #[test]
    fn one_content_is_kept_for_a_snapshot() {
        let all = [kept("a", "h"), kept("b", "h")];
        assert_eq!(decide(&all[0], &all, &at(0), AFTER), Step::Nothing);
        assert_eq!(decide(&all[1], &all, &at(0), AFTER), Step::Delete, "with its policy Retain");
        assert_eq!(all[1].spec.deletion_policy, "Retain");
    }

    #[test]
    fn an_administrator_allows_it() {
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
