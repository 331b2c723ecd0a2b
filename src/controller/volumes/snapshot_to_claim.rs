//! A storage snapshot becomes a claim in another namespace: a content that names the snapshot on the storage system, a
//! VolumeSnapshot bound to it, and a claim that is made from that. Of no kind of ours does this room know anything.
//!
//! The content's policy is always `Retain`, whatever the original's: removing it must never remove what it points to.

use crate::api::snapshot::{
    ContentSource, ContentSpec, SnapshotSource, SnapshotSpec, VolumeSnapshot, VolumeSnapshotContent,
};
use crate::controller::domain::names::Naming;
use crate::controller::domain::quantity;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// On a content whose VolumeSnapshot is deleted; without it csi-snapshotter holds a content that is bound (`AnnVolumeSnapshotBeingDeleted` in
/// external-snapshotter's `pkg/utils`).
const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

/// What shall be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// All three objects are called so.
    pub naming: Naming,
    pub origin: Origin,
    pub claim: Claim,
}

/// The snapshot on the storage system.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    pub driver: String,
    pub handle: String,
    pub class: Option<String>,
    /// The mode of the volume that the snapshot is of, where it is recorded.
    pub volume_mode: Option<String>,
}

/// The claim that is made from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// `None`: the cluster's default.
    pub storage_class: Option<String>,
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// Bytes that the original requested; the claim has at least what the snapshot needs.
    pub size: u64,
}

/// What is there now.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub content: Option<VolumeSnapshotContent>,
    pub snapshot: Option<VolumeSnapshot>,
    pub claim: Option<PersistentVolumeClaim>,
    /// The claim's.
    pub volume: Option<PersistentVolume>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateContent(Box<VolumeSnapshotContent>),
    CreateSnapshot(Box<VolumeSnapshot>),
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Others have to do something first; what, for people.
    Wait(String),
    /// The claim is there, and is bound at the latest when a pod uses it.
    Ready,
    /// It will never be there.
    Failed(String),
}

/// The next step from what is there to what shall be there.
pub fn decide(wish: &Wish, seen: &Seen) -> Step {
    let taken = |kind: &str, meta: &ObjectMeta| {
        let there = meta.labels.as_ref();
        let ours =
            wish.naming.labels.iter().all(|(key, value)| there.and_then(|labels| labels.get(key)) == Some(value));
        (!ours).then(|| Step::Failed(format!("there is a {kind} {} that is not ours", wish.naming.name)))
    };
    let Some(content) = &seen.content else { return Step::CreateContent(Box::new(content(wish))) };
    if let Some(step) = taken("VolumeSnapshotContent", &content.metadata) {
        return step;
    }
    let Some(snapshot) = &seen.snapshot else { return Step::CreateSnapshot(Box::new(snapshot_of(wish))) };
    if let Some(step) = taken("VolumeSnapshot", &snapshot.metadata) {
        return step;
    }
    let status = content.status.clone().unwrap_or_default();
    let ready = snapshot.status.clone().unwrap_or_default();
    if status.ready_to_use != Some(true) || ready.ready_to_use != Some(true) {
        // The snapshot controller and the driver try again by themselves: an error is not the end.
        let error = status.error.or(ready.error).and_then(|error| error.message);
        let why = error.map_or_else(String::new, |error| format!("; its last error: {error}"));
        return Step::Wait(format!(
            "waiting for the VolumeSnapshot {}/{} to be ready{why}",
            wish.naming.namespace, wish.naming.name
        ));
    }
    let Some(claim) = &seen.claim else {
        let restore_size = status.restore_size.and_then(|bytes| u64::try_from(bytes).ok());
        let restore_size = restore_size.or(ready.restore_size.as_deref().and_then(quantity::bytes));
        return Step::CreateClaim(Box::new(claim_of(wish, restore_size.unwrap_or(0))));
    };
    if let Some(step) = taken("PersistentVolumeClaim", &claim.metadata) {
        return step;
    }
    match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Lost") => Step::Failed(format!("the volume of the claim {} is lost", wish.naming.name)),
        _ => Step::Ready,
    }
}

/// Whether a content that is to go, and whose VolumeSnapshot is gone, is held for ever. The snapshot controller binds the content first and
/// writes so to the VolumeSnapshot's status then: of one that is deleted in between it finds no content that it could tell.
pub fn is_forgotten(content: &VolumeSnapshotContent) -> bool {
    content.metadata.deletion_timestamp.is_some()
        && content.spec.volume_snapshot_ref.uid.is_some()
        && !content.annotations().contains_key(BEING_DELETED)
}

/// What the snapshot controller would have written to such a content.
pub fn let_go() -> Value {
    json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}})
}

fn content(wish: &Wish) -> VolumeSnapshotContent {
    let Origin { driver, handle, class, volume_mode } = wish.origin.clone();
    let spec = ContentSpec {
        deletion_policy: "Retain".into(),
        driver,
        source: ContentSource { snapshot_handle: Some(handle), volume_handle: None },
        source_volume_mode: volume_mode,
        volume_snapshot_class_name: class,
        volume_snapshot_ref: ObjectReference {
            api_version: Some("snapshot.storage.k8s.io/v1".into()),
            kind: Some("VolumeSnapshot".into()),
            namespace: Some(wish.naming.namespace.clone()),
            name: Some(wish.naming.name.clone()),
            ..ObjectReference::default()
        },
    };
    VolumeSnapshotContent { metadata: ObjectMeta { namespace: None, ..wish.naming.meta() }, spec, status: None }
}

fn snapshot_of(wish: &Wish) -> VolumeSnapshot {
    let source = SnapshotSource {
        volume_snapshot_content_name: Some(wish.naming.name.clone()),
        persistent_volume_claim_name: None,
    };
    let spec = SnapshotSpec { source, volume_snapshot_class_name: wish.origin.class.clone() };
    VolumeSnapshot { metadata: wish.naming.meta(), spec, status: None }
}

fn claim_of(wish: &Wish, restore_size: u64) -> PersistentVolumeClaim {
    let Claim { storage_class, access_modes, volume_mode, size } = wish.claim.clone();
    let storage = Quantity(quantity::canonical(size.max(restore_size)));
    let spec = PersistentVolumeClaimSpec {
        storage_class_name: storage_class,
        access_modes: Some(access_modes),
        volume_mode: Some(volume_mode),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), storage)])),
            limits: None,
        }),
        data_source: Some(TypedLocalObjectReference {
            api_group: Some("snapshot.storage.k8s.io".into()),
            kind: "VolumeSnapshot".into(),
            name: wish.naming.name.clone(),
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    PersistentVolumeClaim { metadata: wish.naming.meta(), spec: Some(spec), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::snapshot::{ContentStatus, SnapshotError, SnapshotStatus};
    use k8s_openapi::api::core::v1::PersistentVolumeClaimStatus;

    fn wish() -> Wish {
        Wish {
            naming: Naming {
                name: "vsm-vsb-1".into(),
                namespace: "adp".into(),
                labels: BTreeMap::from([("uid".into(), "1".into())]),
                annotations: BTreeMap::new(),
            },
            origin: Origin {
                driver: "csi.example".into(),
                handle: "snap-0815".into(),
                class: None,
                volume_mode: Some("Block".into()),
            },
            claim: Claim {
                storage_class: None,
                access_modes: vec!["ReadOnlyMany".into()],
                volume_mode: "Block".into(),
                size: 1 << 30,
            },
        }
    }

    fn ready(seen: &mut Seen, restore_size: Option<i64>) {
        let content = seen.content.as_mut().unwrap();
        content.status = Some(ContentStatus { ready_to_use: Some(true), restore_size, ..ContentStatus::default() });
        let status = SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() };
        seen.snapshot.as_mut().unwrap().status = Some(status);
    }

    /// What was created is seen next time, and nothing is created twice.
    fn made(wish: &Wish) -> Seen {
        let mut seen = Seen::default();
        let Step::CreateContent(content) = decide(wish, &seen) else { panic!() };
        seen.content = Some(*content);
        let Step::CreateSnapshot(snapshot) = decide(wish, &seen) else { panic!() };
        seen.snapshot = Some(*snapshot);
        seen
    }

    #[test]
    fn a_content_a_snapshot_and_a_claim_come_one_after_the_other() {
        let wish = wish();
        let mut seen = made(&wish);
        let content = seen.content.clone().unwrap();
        assert_eq!(
            (&*content.spec.deletion_policy, content.spec.source.snapshot_handle.as_deref()),
            ("Retain", Some("snap-0815"))
        );
        assert_eq!(content.spec.source_volume_mode.as_deref(), Some("Block"));
        let back = &content.spec.volume_snapshot_ref;
        assert_eq!(
            (back.namespace.as_deref(), back.name.as_deref(), &back.uid),
            (Some("adp"), Some("vsm-vsb-1"), &None)
        );
        assert_eq!(
            (content.metadata.namespace, seen.snapshot.clone().unwrap().metadata.namespace),
            (None, Some("adp".into()))
        );
        assert!(matches!(decide(&wish, &seen), Step::Wait(_)));
        // The snapshot is larger than what the claim asked for.
        ready(&mut seen, Some(3 << 29));
        let Step::CreateClaim(claim) = decide(&wish, &seen) else { panic!() };
        let spec = claim.spec.clone().unwrap();
        assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "1536Mi");
        assert_eq!((spec.volume_mode.as_deref(), spec.storage_class_name), (Some("Block"), None));
        assert_eq!(spec.data_source.unwrap().name, "vsm-vsb-1");
        seen.claim = Some(*claim);
        assert_eq!(decide(&wish, &seen), Step::Ready);
    }

    #[test]
    fn without_a_restore_size_the_request_counts() {
        let wish = wish();
        let mut seen = made(&wish);
        ready(&mut seen, None);
        let Step::CreateClaim(claim) = decide(&wish, &seen) else { panic!() };
        assert_eq!(claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0, "1Gi");
    }

    #[test]
    fn errors_of_the_driver_are_told_and_waited_out() {
        let wish = wish();
        let mut seen = made(&wish);
        let error = Some(SnapshotError { message: Some("quota exceeded".into()), time: None });
        seen.content.as_mut().unwrap().status = Some(ContentStatus { error, ..ContentStatus::default() });
        let Step::Wait(why) = decide(&wish, &seen) else { panic!() };
        assert!(why.contains("quota exceeded"), "{why}");
    }

    #[test]
    fn what_is_not_ours_is_not_touched_and_a_lost_volume_is_the_end() {
        let wish = wish();
        let mut seen = made(&wish);
        seen.content.as_mut().unwrap().metadata.labels = None;
        let Step::Failed(why) = decide(&wish, &seen) else { panic!() };
        assert!(why.contains("VolumeSnapshotContent vsm-vsb-1"), "{why}");
        let mut seen = made(&wish);
        ready(&mut seen, None);
        let lost = PersistentVolumeClaimStatus { phase: Some("Lost".into()), ..PersistentVolumeClaimStatus::default() };
        let Step::CreateClaim(claim) = decide(&wish, &seen) else { panic!() };
        seen.claim = Some(PersistentVolumeClaim { status: Some(lost), ..*claim });
        assert!(matches!(decide(&wish, &seen), Step::Failed(_)));
    }
}
