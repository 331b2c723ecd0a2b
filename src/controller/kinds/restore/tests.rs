use super::*;
use crate::api::{MoveStatus, RestoreStatus, VolumeSnapshotRestore};
use crate::controller::action::{ContentChange, Managed};
use crate::controller::cluster::rbac;
use crate::controller::domain::names::Kind;
use crate::controller::domain::restore::{Request, SourceClaim, Target};
use crate::controller::mover_job::observe as mover_observe;
use crate::controller::tenancy::authorization::RunningRestore;
use crate::controller::testing::{self, KEYS, Played, World, config, object, secret};
use crate::id::Id;
use crate::kubernetes::snapshot_api::{SnapshotStatus, VolumeSnapshotContent};
use crate::kubernetes::volumes::rebind;
use crate::work::{Failed, Pick, Restored};
use serde_json::json;
use std::time::Duration;

fn owner() -> Owner {
    Owner { kind: Kind::Restore, namespace: "shop".into(), name: "vsr-abcde".into(), uid: "u-1".into() }
}

const MOVER: &str = "vsm-vsr-u-1";
const TIDY: &str = "vsm-vsr-u-1-tidy";
const OWN: &str = "s3:http://s3/bkt/restic/c-1/shop/data";

/// The observation of a restore by Velero's plugin.
fn ready() -> Observed {
    Observed {
        common: Common {
            has_finalizer: true,
            admission: Admission::Admitted,
            secret: Some(secret(&KEYS)),
            ..Common::default()
        },
        request: Request {
            protected_namespace: "adp".into(),
            secret: "velero-1-volsync-restic".into(),
            repository: OWN.into(),
            claim: SourceClaim { name: "data".into(), size: "1Gi".into(), storage_class: "sc".into() },
            snapshot_class: Some("fast".into()),
            made_by: Some("vsb-abcde".into()),
            velero_backup: Some("b1".into()),
            ..Request::default()
        },
        ..Observed::default()
    }
}

fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut seen = ready();
    change(&mut seen);
    seen
}

fn direct() -> Observed {
    with(|seen| seen.request.target = Some(Target { name: "mine".into(), ..Target::default() }))
}

impl Played for Observed {
    type Object = VolumeSnapshotRestore;

    fn owner() -> Owner {
        owner()
    }

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn object(status: RestoreStatus) -> VolumeSnapshotRestore {
        VolumeSnapshotRestore { status: Some(status), ..VolumeSnapshotRestore::default() }
    }

    fn moved(status: &RestoreStatus) -> &MoveStatus {
        &status.moved
    }

    fn create(&mut self, made: Object) {
        match made {
            Object::Claim(mut it) if it.metadata.namespace.as_deref() == Some("adp") => {
                it.metadata.uid = Some("c-1".into());
                let spec = json!({"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"uid": "c-1"}});
                let volume =
                    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": spec});
                self.volume.volume = Some(object(volume));
                self.volume.claim = Some(*it);
            }
            Object::Claim(mut it) => {
                it.metadata.uid = Some("c-2".into());
                self.volume.target = Some(*it);
            }
            Object::Snapshot(mut it) => {
                it.status = Some(SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() });
                self.captured.snapshot = Some(*it);
                let content = json!({
                    "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": "snapcontent-9"},
                    "spec": {"driver": "d", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"}, "volumeSnapshotRef": {}},
                    "status": {"snapshotHandle": "handle-9", "readyToUse": true},
                });
                self.captured.content = Some(object(content));
            }
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, managed: Managed) {
        match managed {
            Managed::Claim => {
                assert!(self.common.mover.pods.iter().all(status::has_ended), "a mover writes into it");
                self.volume.claim = None;
            }
            Managed::Snapshot => {
                self.captured.snapshot = None;
                // The snapshot controller deletes the content with it, unless it is retained.
                self.captured.content.take_if(|content| content.spec.deletion_policy == "Delete");
            }
            Managed::Target => self.volume.target = None,
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, change: &rebind::Change) {
        let volume = self.volume.volume.as_mut().expect("a volume");
        testing::change(volume, change);
        if let Some(target) = self.volume.target.as_mut().filter(|target| rebind::is_of(volume, target)) {
            target.status = Some(object(json!({"phase": "Bound"})));
        }
    }

    fn change_content(&mut self, change: ContentChange) {
        let ContentChange::Policy(policy) = change else { panic!("{change:?}") };
        self.captured.content.as_mut().expect("a content").spec.deletion_policy = policy.name().to_owned();
    }

    fn is_bare(&self) -> bool {
        self.volume.claim.is_none() && self.captured.snapshot.is_none()
    }
}

fn restored(problems: u64, empty: bool) -> Outcome {
    let snapshot = Some(Id::of(b"s"));
    Outcome::Restored(Restored { snapshot, files: 10, bytes: 1000, problems, empty })
}

fn task(world: &mut World<Observed>) -> (String, work::Restore) {
    let work = mover_observe::work_of(world.mover(MOVER).config_map.as_ref().unwrap()).unwrap();
    let Task::Restore(task) = work.task else { panic!() };
    (work.repository, task)
}

fn content(world: &World<Observed>) -> Option<&VolumeSnapshotContent> {
    world.seen.captured.content.as_ref()
}

#[test]
fn a_restore_publishes_a_handle_that_outlives_all_objects() {
    let mut world = World::new(with(|seen| seen.common.has_finalizer = false));
    assert!(world.settle().contains("no pod yet"));
    let (repository, job) = task(&mut world);
    assert_eq!(repository, OWN);
    assert_eq!(job.pick, Pick::Tagged(vec!["vsb:vsb-abcde".into(), "backup:b1".into()]));
    assert_eq!((job.target.to_str(), job.absent_is_empty), (Some("/data"), false));
    let claim = world.seen.volume.claim.clone().unwrap().spec.unwrap();
    assert_eq!(
        (claim.storage_class_name.as_deref(), claim.access_modes),
        (Some("sc"), Some(vec!["ReadWriteOnce".into()]))
    );
    world.pod(MOVER, "Running", 0, None, None);
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    // Phase, handle and content are one write.
    while world.status.moved.phase != "SnapshotRestoreDone" {
        assert!(world.status.snapshot_handle.is_empty());
        let action = world.next();
        world.apply(action);
    }
    assert_eq!(
        (&*world.status.snapshot_handle, &*world.status.volume_snapshot_content_name),
        ("handle-9", "snapcontent-9")
    );
    assert_eq!(content(&world).unwrap().spec.deletion_policy, "Retain");
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer && content(&world).is_some());
    let phases = ["InProgress/Processing", "SnapshotRestoreDone/Completed", "Cleanup/Completed", "Completed/Completed"];
    assert_eq!(world.phases, phases);
    assert_eq!(world.condition("Reconciled").unwrap().0, "True");
}

/// The plugin deletes the content as soon as it is named, during the cleanup.
#[test]
fn a_published_content_may_be_deleted_at_once() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    world.settle_until("SnapshotRestoreDone");
    world.seen.captured.content = None;
    // Velero's Restore may fail, the secret disappear, a rival appear: the request must not fail
    // any more.
    world.seen.common.velero = VeleroState::Failed;
    world.seen.common.secret = None;
    world.seen.rivals = vec!["other/vsr".into()];
    assert_eq!(world.settle(), "");
    assert_eq!(&*world.status.moved.phase, "Completed");
    assert!(world.nothing_is_left());
}

#[test]
fn a_restore_deleted_before_publication_leaves_no_storage_snapshot() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    // Stop right before the handle is recorded.
    while !matches!(world.next(), Action::Record(_)) {
        let action = world.next();
        world.apply(action);
    }
    assert_eq!(content(&world).unwrap().spec.deletion_policy, "Retain");
    world.seen.common.is_deleted = true;
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && content(&world).is_none() && !world.seen.common.has_finalizer);
    // After the publication the snapshot belongs to the plugin.
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    world.settle_until("SnapshotRestoreDone");
    world.seen.common.is_deleted = true;
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && content(&world).is_some_and(|it| it.spec.deletion_policy == "Retain"));
}

#[test]
fn a_block_volume_is_detected_unless_a_mode_was_requested() {
    let mut world = World::new(ready());
    world.settle();
    let other = || Some(Outcome::Failed(Failed::new(Reason::OtherVolumeMode, "of a Block volume")));
    world.pod(MOVER, "Failed", 13, other(), Some("Failed"));
    assert!(world.settle().contains("no pod yet"));
    assert_eq!(mode_of(world.seen.volume.claim.as_ref().unwrap()), VolumeMode::Block);
    assert_eq!(task(&mut world).1.target.to_str(), Some(DEVICE_PATH));
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert_eq!((&*world.status.moved.phase, world.status.moved.volume_mode.as_deref()), ("Completed", Some("Block")));
    // The other mode is tried once.
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 13, other(), Some("Failed"));
    world.settle();
    world.pod(MOVER, "Failed", 13, other(), Some("Failed"));
    assert_eq!(world.settle(), "");
    assert_eq!(world.condition("Degraded").unwrap().1, "OtherVolumeMode");
    // A requested mode that is wrong is a failure.
    let mut world = World::new(direct());
    world.seen.request.target.as_mut().unwrap().mode = Some(VolumeMode::Filesystem);
    world.settle();
    world.pod(MOVER, "Failed", 13, other(), Some("Failed"));
    world.settle();
    assert!(world.nothing_is_left());
    assert_eq!(&*world.status.moved.phase, "Failed");
}

#[test]
fn a_restore_to_a_target_rebinds_the_volume_and_takes_no_snapshot() {
    let mut world = World::new(direct());
    world.settle();
    assert!(world.seen.volume.target.is_none(), "an application may use a claim as soon as it exists");
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert_eq!(&*world.status.moved.phase, "Completed");
    assert!(world.status.snapshot_handle.is_empty() && content(&world).is_none());
    let target = world.seen.volume.target.clone().unwrap();
    assert_eq!((target.name_any(), target.namespace()), ("mine".into(), Some("shop".into())));
    assert!(rebind::is_of(world.seen.volume.volume.as_ref().unwrap(), &target) && world.nothing_is_left());
    // The target stays when the request is deleted.
    world.seen.common.is_deleted = true;
    world.settle();
    assert!(world.seen.volume.target.is_some());
}

#[test]
fn a_restore_to_a_target_deleted_at_any_step_leaves_nothing() {
    for steps in 0..8 {
        let mut world = World::new(direct());
        world.settle();
        world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
        for _ in 0..steps {
            let action = world.next();
            if matches!(action, Action::Record(_)) {
                break;
            }
            world.apply(action);
        }
        world.seen.common.is_deleted = true;
        assert_eq!(world.settle(), "");
        assert!(world.nothing_is_left() && world.seen.volume.target.is_none(), "after {steps} steps");
        assert!(!rebind::is_kept(world.seen.volume.volume.as_ref().unwrap()), "after {steps} steps");
    }
}

#[test]
fn an_existing_claim_is_never_restored_into() {
    let mut world = World::new(direct());
    let there = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mine", "namespace": "shop", "uid": "x"}});
    world.seen.volume.target = Some(object(there));
    world.settle();
    assert_eq!(world.condition("Degraded").unwrap().1, "Invalid");
    assert!(world.condition("Degraded").unwrap().2.contains("shop/mine"));
    assert!(world.seen.volume.target.is_some() && world.nothing_is_left());
}

#[test]
fn an_impossible_request_fails_with_a_reason() {
    type Change = fn(&mut Observed);
    let elsewhere = |seen: &mut Observed| {
        seen.restore = Some(RunningRestore { included: vec!["bank".into()], ..RunningRestore::default() });
    };
    let forbidden = |seen: &mut Observed| {
        seen.request.target = Some(Target { name: "mine".into(), ..Target::default() });
        seen.missing_rights = rbac::of_targets().collect();
    };
    let cases: [(&str, &str, Change); 16] = [
        ("Forbidden", "create persistentvolumeclaims in namespace shop, and spec.target needs", forbidden),
        ("Denied", "restores nothing to namespace shop", elsewhere),
        ("Invalid", "sourcePVCData.name", |seen| seen.request.claim.name.clear()),
        ("Invalid", "which is not a size", |seen| seen.request.claim.size = "much".into()),
        ("Invalid", "which is not a size", |seen| seen.request.claim.size.clear()),
        ("Invalid", "resticrepository", |seen| seen.request.repository.clear()),
        ("Denied", "kube-system", |seen| seen.request.protected_namespace = "kube-system".into()),
        ("Invalid", "no secret", |seen| seen.common.secret = None),
        ("Denied", "not in the bucket", |seen| seen.request.repository = "s3:http://evil/bkt/x".into()),
        ("Denied", "folder", |seen| seen.request.repository = "/etc".into()),
        ("Denied", "may not read", |seen| seen.request.repository = "s3:http://s3/bkt/restic/c-1/bank/data".into()),
        ("Denied", "may not read", |seen| seen.request.repository = "s3:http://s3/bkt/adp/b1/snap-pvc".into()),
        ("Invalid", "does not name a snapshot", |seen| seen.request.made_by = None),
        ("Invalid", "not an id of a snapshot", |seen| seen.request.snapshot = Some("latest".into())),
        ("Invalid", "no StorageClass sc", |seen| seen.missing_classes = vec!["StorageClass sc".into()]),
        ("Ambiguous", "bank/vsr-1", |seen| seen.rivals = vec!["bank/vsr-1".into()]),
    ];
    for (reason, text, change) in cases {
        let mut world = World::new(with(change));
        world.settle();
        let (status, why, message) = world.condition("Degraded").unwrap_or_default();
        assert_eq!((&*status, &*why, &*world.status.moved.phase), ("True", reason, "Failed"), "{text}: {message}");
        assert!(message.contains(text), "{text}: {message}");
        assert_eq!(world.condition("Reconciled").unwrap().0, "False", "in the same write");
        assert!(world.nothing_is_left());
    }
}

#[test]
fn the_snapshot_is_picked_by_id_by_tags_or_from_an_old_repository() {
    let pick = |change: fn(&mut Observed)| {
        let mut world = World::new(with(change));
        world.settle();
        task(&mut world).1.pick
    };
    assert_eq!(pick(|seen| seen.request.velero_backup = None), Pick::Tagged(vec!["vsb:vsb-abcde".into()]));
    let id = || "7".repeat(64);
    assert_eq!(pick(|seen| seen.request.snapshot = Some("7".repeat(64))), Pick::Id(id().parse().unwrap()));
    // An old repository that a running Velero Restore restores here.
    let old = |seen: &mut Observed| {
        seen.request.repository = "s3:http://s3/bkt/adp/b1/snapcontent-1-pvc".into();
        seen.restore = Some(RunningRestore { backup: "b1".into(), ..RunningRestore::default() });
    };
    assert_eq!(pick(old), Pick::Newest);
    // A grant, in another notation of the location.
    let granted = |seen: &mut Observed| {
        seen.request.repository = "s3:http://s3/bkt/restic/c-1/bank/data".into();
        seen.grants = vec!["s3:http://S3/bkt//restic/c-1/bank/data/".into()];
    };
    assert!(matches!(pick(granted), Pick::Tagged(_)));
    let mut world = World::new(with(|seen| seen.request.absent_is_empty = true));
    world.settle();
    assert!(task(&mut world).1.absent_is_empty);
}

#[test]
fn a_restore_that_was_restored_itself_is_not_carried_out() {
    let mut world = World::new(with(|seen| seen.request.is_copied = true));
    assert_eq!(world.settle(), "");
    assert_eq!((&*world.status.moved.phase, &*world.condition("Degraded").unwrap().1), ("Failed", "Copied"));
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
}

#[test]
fn an_incomplete_restore_is_completed_and_degraded() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 3, Some(restored(2, false)), Some("Failed"));
    world.settle();
    assert_eq!((&*world.status.moved.phase, world.status.moved.problems.as_ref().unwrap().count), ("Completed", 2));
    assert_eq!(world.condition("Degraded").unwrap().1, "Incomplete");
}

#[test]
fn an_incomplete_restore_fails_if_configured_to() {
    let strict = Config { incomplete: Incomplete::Fails, ..config() };
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 3, Some(restored(40, false)), Some("Failed"));
    match Restore::decide(&owner(), &world.seen, &strict) {
        Action::Record(update) => match *update {
            Update::Failed { reason, message } => {
                assert!(reason == Reason::Incomplete && message.contains("40 entries"), "{message}");
            }
            update => panic!("{update:?}"),
        },
        action => panic!("{action:?}"),
    }
}

/// The cleanup removes the lock of the mover.
#[test]
fn a_mover_without_a_report_is_cleaned_up_after_the_last_attempt() {
    let mut world = World::new(ready());
    world.settle();
    for _ in 0..3 {
        world.pod(MOVER, "Failed", 137, None, Some("Failed"));
        world.settle();
    }
    assert_eq!((&*world.status.moved.phase, &*world.condition("Degraded").unwrap().1), ("Failed", "MoverLost"));
    let work = mover_observe::work_of(world.mover(TIDY).config_map.as_ref().unwrap()).unwrap();
    assert_eq!(work.task, Task::Discard(work::Discard { identity: None }));
    world.pod(TIDY, "Succeeded", 0, Some(Outcome::Discarded { snapshots: 0 }), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left());
}

/// A storage system may take hours to upload a snapshot.
#[test]
fn the_deadline_of_a_snapshot_is_longer_than_that_of_a_mover() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(restored(0, false)), Some("Complete"));
    let action = world.next();
    world.apply(action);
    world.seen.captured.snapshot.as_mut().unwrap().status = None;
    world.seen.common.stalled_for = Some(Duration::from_secs(7200));
    assert!(world.settle().contains("waiting for the VolumeSnapshot"));
    world.seen.common.stalled_for = Some(Duration::from_secs(40_000));
    world.settle();
    assert_eq!(world.condition("Degraded").unwrap().1, "NotPrepared");
    let mut world = World::new(ready());
    world.settle();
    world.seen.common.stalled_for = Some(Duration::from_secs(7200));
    world.settle();
    assert_eq!(world.condition("Degraded").unwrap().1, "NotPrepared");
}
