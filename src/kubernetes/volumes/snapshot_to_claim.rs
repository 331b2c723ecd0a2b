//! Exposes a storage snapshot as a claim in another namespace, by static provisioning: a
//! VolumeSnapshotContent that names the snapshot on the storage system, a VolumeSnapshot bound to
//! it, and a claim with that as its data source.
//!
//! The content's deletion policy is always `Retain`, whatever the original's: deleting it must
//! never delete the storage snapshot.

use crate::kubernetes::deletion_policy::DeletionPolicy;
use crate::kubernetes::naming::Naming;
use crate::kubernetes::quantity;
use crate::kubernetes::snapshot_api::{
    ContentSource, ContentSpec, SnapshotSource, SnapshotSpec, VolumeSnapshot, VolumeSnapshotContent,
};
use crate::volume_mode::VolumeMode;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Annotation of a content whose VolumeSnapshot is deleted. Without it csi-snapshotter does not
/// delete a bound content (`AnnVolumeSnapshotBeingDeleted` in external-snapshotter's `pkg/utils`).
const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

/// The objects to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The metadata of all three.
    pub naming: Naming,
    pub source: SourceSnapshot,
    pub claim: Claim,
}

/// The snapshot on the storage system.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSnapshot {
    pub driver: String,
    pub handle: String,
    pub class: Option<String>,
    /// The mode of the volume that the snapshot was taken of, if it is recorded.
    pub volume_mode: Option<String>,
}

/// The claim to provision from the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// `None`: the cluster's default.
    pub storage_class: Option<String>,
    pub access_modes: Vec<String>,
    pub volume_mode: VolumeMode,
    /// Bytes that the original requested. The claim requests more if the snapshot needs more.
    pub size: u64,
}

/// The objects that exist.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub content: Option<VolumeSnapshotContent>,
    pub snapshot: Option<VolumeSnapshot>,
    pub claim: Option<PersistentVolumeClaim>,
    /// The volume of the claim.
    pub volume: Option<PersistentVolume>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateContent(Box<VolumeSnapshotContent>),
    CreateSnapshot(Box<VolumeSnapshot>),
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Wait for another controller; the text names the object, for people.
    Wait(String),
    /// The claim exists, and is bound at the latest when a pod uses it.
    Ready,
    /// The goal cannot be reached.
    Failed(String),
}

pub fn decide(goal: &Goal, existing: &Existing) -> Step {
    let taken = |kind: &str, meta: &ObjectMeta| {
        let there = meta.labels.as_ref();
        let ours =
            goal.naming.labels.iter().all(|(key, value)| there.and_then(|labels| labels.get(key)) == Some(value));
        (!ours).then(|| {
            Step::Failed(format!("the {kind} {} exists and was not created for this request", goal.naming.name))
        })
    };
    let Some(content) = &existing.content else { return Step::CreateContent(Box::new(content(goal))) };
    if let Some(step) = taken("VolumeSnapshotContent", &content.metadata) {
        return step;
    }
    let Some(snapshot) = &existing.snapshot else { return Step::CreateSnapshot(Box::new(snapshot_of(goal))) };
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
            goal.naming.namespace, goal.naming.name
        ));
    }
    let Some(claim) = &existing.claim else {
        let restore_size = status.restore_size.and_then(|bytes| u64::try_from(bytes).ok());
        let restore_size = restore_size.or(ready.restore_size.as_deref().and_then(quantity::bytes));
        return Step::CreateClaim(Box::new(claim_of(goal, restore_size.unwrap_or(0))));
    };
    if let Some(step) = taken("PersistentVolumeClaim", &claim.metadata) {
        return step;
    }
    match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Lost") => Step::Failed(format!("the volume of the claim {} is lost", goal.naming.name)),
        _ => Step::Ready,
    }
}

/// Whether a content that is being deleted is held forever, because the snapshot controller does
/// not know that its VolumeSnapshot is deleted. That controller binds the content first and writes
/// the VolumeSnapshot's status then; for a VolumeSnapshot that is deleted in between it finds no
/// content.
pub fn is_stuck(content: &VolumeSnapshotContent) -> bool {
    content.metadata.deletion_timestamp.is_some()
        && content.spec.volume_snapshot_ref.uid.is_some()
        && !content.annotations().contains_key(BEING_DELETED)
}

/// The annotation that the snapshot controller would have written to a [stuck](is_stuck) content,
/// as a merge patch.
pub fn unblock() -> Value {
    json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}})
}

fn content(goal: &Goal) -> VolumeSnapshotContent {
    let SourceSnapshot { driver, handle, class, volume_mode } = goal.source.clone();
    let spec = ContentSpec {
        deletion_policy: DeletionPolicy::Retain.name().into(),
        driver,
        source: ContentSource { snapshot_handle: Some(handle), volume_handle: None },
        source_volume_mode: volume_mode,
        volume_snapshot_class_name: class,
        volume_snapshot_ref: ObjectReference {
            api_version: Some("snapshot.storage.k8s.io/v1".into()),
            kind: Some("VolumeSnapshot".into()),
            namespace: Some(goal.naming.namespace.clone()),
            name: Some(goal.naming.name.clone()),
            ..ObjectReference::default()
        },
    };
    VolumeSnapshotContent { metadata: ObjectMeta { namespace: None, ..goal.naming.meta() }, spec, status: None }
}

fn snapshot_of(goal: &Goal) -> VolumeSnapshot {
    let source = SnapshotSource {
        volume_snapshot_content_name: Some(goal.naming.name.clone()),
        persistent_volume_claim_name: None,
    };
    let spec = SnapshotSpec { source, volume_snapshot_class_name: goal.source.class.clone() };
    VolumeSnapshot { metadata: goal.naming.meta(), spec, status: None }
}

fn claim_of(goal: &Goal, restore_size: u64) -> PersistentVolumeClaim {
    let Claim { storage_class, access_modes, volume_mode, size } = goal.claim.clone();
    let storage = Quantity(quantity::canonical(size.max(restore_size)));
    let spec = PersistentVolumeClaimSpec {
        storage_class_name: storage_class,
        access_modes: Some(access_modes),
        volume_mode: Some(volume_mode.name().into()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), storage)])),
            limits: None,
        }),
        data_source: Some(TypedLocalObjectReference {
            api_group: Some("snapshot.storage.k8s.io".into()),
            kind: "VolumeSnapshot".into(),
            name: goal.naming.name.clone(),
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    PersistentVolumeClaim { metadata: goal.naming.meta(), spec: Some(spec), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::snapshot_api::{ContentStatus, SnapshotError, SnapshotStatus};
    use k8s_openapi::api::core::v1::PersistentVolumeClaimStatus;

    fn goal() -> Goal {
        Goal {
            naming: Naming {
                name: "vsm-vsb-1".into(),
                namespace: "adp".into(),
                labels: BTreeMap::from([("uid".into(), "1".into())]),
                annotations: BTreeMap::new(),
            },
            source: SourceSnapshot {
                driver: "csi.example".into(),
                handle: "snap-0815".into(),
                class: None,
                volume_mode: Some("Block".into()),
            },
            claim: Claim {
                storage_class: None,
                access_modes: vec!["ReadOnlyMany".into()],
                volume_mode: VolumeMode::Block,
                size: 1 << 30,
            },
        }
    }

    fn ready(existing: &mut Existing, restore_size: Option<i64>) {
        let content = existing.content.as_mut().unwrap();
        content.status = Some(ContentStatus { ready_to_use: Some(true), restore_size, ..ContentStatus::default() });
        let status = SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() };
        existing.snapshot.as_mut().unwrap().status = Some(status);
    }

    /// The content and the snapshot, created one after the other.
    fn made(goal: &Goal) -> Existing {
        let mut existing = Existing::default();
        let Step::CreateContent(content) = decide(goal, &existing) else { panic!() };
        existing.content = Some(*content);
        let Step::CreateSnapshot(snapshot) = decide(goal, &existing) else { panic!() };
        existing.snapshot = Some(*snapshot);
        existing
    }

    #[test]
    fn a_content_a_snapshot_and_a_claim_are_created_in_this_order() {
        let goal = goal();
        let mut existing = made(&goal);
        let content = existing.content.clone().unwrap();
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
            (content.metadata.namespace, existing.snapshot.clone().unwrap().metadata.namespace),
            (None, Some("adp".into()))
        );
        assert!(matches!(decide(&goal, &existing), Step::Wait(_)));
        // The snapshot is larger than the claim requested.
        ready(&mut existing, Some(3 << 29));
        let Step::CreateClaim(claim) = decide(&goal, &existing) else { panic!() };
        let spec = claim.spec.clone().unwrap();
        assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "1536Mi");
        assert_eq!((spec.volume_mode.as_deref(), spec.storage_class_name), (Some("Block"), None));
        assert_eq!(spec.data_source.unwrap().name, "vsm-vsb-1");
        existing.claim = Some(*claim);
        assert_eq!(decide(&goal, &existing), Step::Ready);
    }

    #[test]
    fn without_a_restore_size_the_request_counts() {
        let goal = goal();
        let mut existing = made(&goal);
        ready(&mut existing, None);
        let Step::CreateClaim(claim) = decide(&goal, &existing) else { panic!() };
        assert_eq!(claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0, "1Gi");
    }

    #[test]
    fn a_driver_error_is_reported_and_does_not_end_the_wait() {
        let goal = goal();
        let mut existing = made(&goal);
        let error = Some(SnapshotError { message: Some("quota exceeded".into()), time: None });
        existing.content.as_mut().unwrap().status = Some(ContentStatus { error, ..ContentStatus::default() });
        let Step::Wait(why) = decide(&goal, &existing) else { panic!() };
        assert!(why.contains("quota exceeded"), "{why}");
    }

    #[test]
    fn a_foreign_object_and_a_lost_volume_fail() {
        let goal = goal();
        let mut existing = made(&goal);
        existing.content.as_mut().unwrap().metadata.labels = None;
        let Step::Failed(why) = decide(&goal, &existing) else { panic!() };
        assert!(why.contains("VolumeSnapshotContent vsm-vsb-1"), "{why}");
        let mut existing = made(&goal);
        ready(&mut existing, None);
        let lost = PersistentVolumeClaimStatus { phase: Some("Lost".into()), ..PersistentVolumeClaimStatus::default() };
        let Step::CreateClaim(claim) = decide(&goal, &existing) else { panic!() };
        existing.claim = Some(PersistentVolumeClaim { status: Some(lost), ..*claim });
        assert!(matches!(decide(&goal, &existing), Step::Failed(_)));
    }
}
