//! Deletion of the managed volumes and snapshots of a request.

use crate::controller::action::{self, Action, ContentChange, Managed};
use crate::controller::domain::direction::Direction;
use crate::controller::domain::names::Owner;
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::volumes::{rebind, snapshot_to_claim};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

/// Deletes an [exposed](snapshot_to_claim) snapshot: the claim, the VolumeSnapshot, the content.
/// `None`: none is left.
pub fn exposed<D: Direction>(existing: &snapshot_to_claim::Existing, owner: &Owner) -> Option<Action<D>> {
    claim(existing.claim.as_ref(), existing.volume.as_ref(), owner)
        .or_else(|| snapshot(existing.snapshot.as_ref(), owner))
        .or_else(|| content(existing.content.as_ref(), owner))
}

/// Deletes a claim, and its volume with it.
pub fn claim<D: Direction>(
    claim: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
    owner: &Owner,
) -> Option<Action<D>> {
    let name = owner.object_name();
    let delete = action::delete(claim.map(|it| &it.metadata), Managed::Claim, owner, &name)?;
    // The storage class may retain volumes: this one would be orphaned.
    let retained =
        volume.filter(|volume| claim.is_some_and(|claim| rebind::is_of(volume, claim)) && rebind::is_kept(volume));
    Some(match retained {
        Some(volume) => Action::Volume { name: volume.name_any(), change: rebind::Change::Free },
        None => delete,
    })
}

pub fn snapshot<D: Direction>(snapshot: Option<&VolumeSnapshot>, owner: &Owner) -> Option<Action<D>> {
    action::delete(snapshot.map(|it| &it.metadata), Managed::Snapshot, owner, &owner.object_name())
}

/// Deletes a content whose VolumeSnapshot is deleted.
fn content<D: Direction>(content: Option<&VolumeSnapshotContent>, owner: &Owner) -> Option<Action<D>> {
    let name = owner.object_name();
    let delete = action::delete(content.map(|it| &it.metadata), Managed::Content, owner, &name)?;
    let is_stuck = content.is_some_and(snapshot_to_claim::is_stuck);
    Some(if is_stuck { Action::Content { name, change: ContentChange::Unblock } } else { delete })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::domain::backup::Backup;
    use crate::controller::domain::names::Kind;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::{from_value, json};

    fn owner() -> Owner {
        Owner { kind: Kind::Backup, namespace: "a".into(), name: "b".into(), uid: "1".into() }
    }

    fn owned() -> ObjectMeta {
        owner().naming("n".into(), "adp").meta()
    }

    fn next(existing: &snapshot_to_claim::Existing) -> Option<Action<Backup>> {
        exposed(existing, &owner())
    }

    #[test]
    fn an_exposed_snapshot_is_deleted_in_reverse_order() {
        let mut existing = snapshot_to_claim::Existing {
            content: Some(VolumeSnapshotContent { metadata: owned(), ..VolumeSnapshotContent::default() }),
            snapshot: Some(VolumeSnapshot { metadata: owned(), ..VolumeSnapshot::default() }),
            claim: Some(PersistentVolumeClaim { metadata: owned(), ..PersistentVolumeClaim::default() }),
            volume: None,
        };
        let deleted = |existing: &snapshot_to_claim::Existing| match next(existing) {
            Some(Action::Delete { managed, .. }) => Some(managed),
            _ => None,
        };
        assert_eq!(deleted(&existing), Some(Managed::Claim));
        existing.claim = None;
        assert_eq!(deleted(&existing), Some(Managed::Snapshot));
        existing.snapshot = None;
        assert_eq!(deleted(&existing), Some(Managed::Content));
        // An object of the name without the labels is foreign.
        existing.content = Some(VolumeSnapshotContent::default());
        assert_eq!(next(&existing), None);
    }

    #[test]
    fn only_a_bound_content_without_the_annotation_is_unblocked() {
        let step = |uid: Option<&str>, annotation: Option<&str>| {
            let mut meta = json!({
                "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
                "annotations": {"snapshot.storage.kubernetes.io/volumesnapshot-being-deleted": annotation},
            });
            meta["annotations"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let mut content: VolumeSnapshotContent = from_value(json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                "metadata": meta, "spec": {"volumeSnapshotRef": {"uid": uid}},
            }))
            .unwrap();
            content.metadata.labels = owned().labels;
            next(&snapshot_to_claim::Existing { content: Some(content), ..Default::default() })
        };
        let unblock = Action::Content { name: owner().object_name(), change: ContentChange::Unblock };
        assert_eq!(step(Some("u"), None), Some(unblock));
        assert!(matches!(step(Some("u"), Some("yes")), Some(Action::Wait(_))));
        assert!(matches!(step(None, None), Some(Action::Wait(_))));
    }
}
