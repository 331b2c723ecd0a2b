use super::*;
use crate::api::{BackupStatus, MoveStatus, VolumeSnapshotBackup};
use crate::controller::domain::backup::Request;
use crate::controller::domain::names::Kind;
use crate::controller::mover_job::observe as mover_observe;
use crate::controller::runtime::wait_status::{self, WaitReport};
use crate::controller::tenancy::authorization;
use crate::controller::testing::{self, KEYS, Played, World, config, object, secret};
use crate::id::Id;
use crate::kubernetes::snapshot_api::{ContentStatus, SnapshotStatus};
use crate::kubernetes::volumes::rebind;
use crate::work::{Discard, Failed, Saved};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

fn owner() -> Owner {
    Owner { kind: Kind::Backup, namespace: "shop".into(), name: "vsb-abcde".into(), uid: "u-1".into() }
}

/// The observation of a backup by Velero's plugin: a snapshot that is ready, of a claim of 1 GiB.
fn ready() -> Observed {
    let content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": "snapcontent-1"},
        "spec": {
            "driver": "csi", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"}, "volumeSnapshotClassName": "fast",
            "volumeSnapshotRef": {"namespace": "shop", "name": "snap", "uid": "s-1"},
        },
        "status": {"snapshotHandle": "handle", "readyToUse": true, "restoreSize": 1 << 30},
    });
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": "snap", "namespace": "shop", "uid": "s-1"},
        "spec": {"source": {"persistentVolumeClaimName": "data"}},
        "status": {"boundVolumeSnapshotContentName": "snapcontent-1", "readyToUse": true},
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop", "uid": "p-1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "sc", "resources": {"requests": {"storage": "1024Mi"}}},
    });
    Observed {
        common: Common {
            has_finalizer: true,
            admission: Admission::Admitted,
            secret: Some(secret(&KEYS)),
            ..Common::default()
        },
        request: Request {
            content: "snapcontent-1".into(),
            protected_namespace: "adp".into(),
            secret: "velero-1-volsync-restic".into(),
            velero_backup: Some("b1".into()),
        },
        content: Some(object(content)),
        snapshot: Some(object(snapshot)),
        claim: Some(object(claim)),
        ..Observed::default()
    }
}

impl Played for Observed {
    type Object = VolumeSnapshotBackup;

    fn owner() -> Owner {
        owner()
    }

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn object(status: BackupStatus) -> VolumeSnapshotBackup {
        VolumeSnapshotBackup { status: Some(status), ..VolumeSnapshotBackup::default() }
    }

    fn moved(status: &BackupStatus) -> &MoveStatus {
        &status.moved
    }

    fn create(&mut self, object: Object) {
        match object {
            Object::Content(mut it) => {
                it.status = Some(ContentStatus { ready_to_use: Some(true), ..ContentStatus::default() });
                self.exposed.content = Some(*it);
            }
            Object::Snapshot(mut it) => {
                it.status = Some(SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() });
                self.exposed.snapshot = Some(*it);
            }
            Object::Claim(mut it) => {
                it.metadata.uid = Some("claim-of-ours".into());
                self.exposed.claim = Some(*it);
            }
            Object::ConfigMap(it) => self.record = Some(*it),
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, managed: Managed) {
        match managed {
            Managed::Content => self.exposed.content = None,
            Managed::Snapshot => self.exposed.snapshot = None,
            Managed::Claim => self.exposed.claim = None,
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, change: &rebind::Change) {
        testing::change(self.exposed.volume.as_mut().expect("a volume"), change);
    }

    fn change_content(&mut self, change: ContentChange) {
        assert_eq!(change, ContentChange::Keep, "an exposed content is always retained, and never bound here");
        let content = self.exposed.content.as_mut().expect("a content");
        assert_eq!(content.spec.deletion_policy, "Retain");
        content.metadata.labels = None;
    }

    fn is_bare(&self) -> bool {
        self.exposed.content.is_none() && self.exposed.snapshot.is_none() && self.exposed.claim.is_none()
    }
}

fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut seen = ready();
    change(&mut seen);
    seen
}

fn record_of(maker: Option<(&str, &str)>) -> ConfigMap {
    let maker = maker.map(|(name, uid)| Maker { name: name.into(), uid: uid.into() });
    repository::record("s3:http://s3/bkt/restic/c-1/shop/data", maker.as_ref(), "adp", None)
}

fn made() -> ConfigMap {
    record_of(None)
}

const MOVER: &str = "vsm-vsb-u-1";
const TIDY: &str = "vsm-vsb-u-1-tidy";

/// Applies actions until the request waits, as if each wait lasted, and returns the number of
/// writes of the status.
fn settle_slowly(world: &mut World<Observed>) -> usize {
    let mut writes = 0;
    for _ in 0..80 {
        let action = world.next();
        let slow = Duration::from_secs(60);
        let update = match (wait_status::settle(&world.seen.common, &action), &action) {
            (Some(settled), _) => settled,
            (None, Action::Wait(why)) => match wait_status::wait(&world.seen.common, slow, why) {
                WaitReport::Now(update) => update,
                WaitReport::No => return writes,
                WaitReport::Later(left) => panic!("{left:?}"),
            },
            (None, Action::Nothing) => return writes,
            (None, Action::Record(update)) => (**update).clone(),
            (None, _) => {
                world.apply(action);
                continue;
            }
        };
        writes += 1;
        world.record(&update);
    }
    panic!("it never settles: {:?}", world.next());
}

fn saved(problems: u64) -> Outcome {
    Outcome::Saved(Saved {
        snapshot: Id::of(b"s"),
        parent: None,
        files: 10,
        bytes: 1000,
        added_bytes: 100,
        problems,
        empty: false,
        found: false,
    })
}

#[test]
fn a_backup_passes_all_stages_and_leaves_nothing() {
    let mut world =
        World::new(with(|seen| (seen.common.has_finalizer, seen.common.admission) = (false, Admission::Queued)));
    // Nothing is created for a queued request.
    while !matches!(world.next(), Action::Record(ref update) if **update == Update::Queued) {
        let action = world.next();
        world.apply(action);
    }
    let action = world.next();
    world.apply(action);
    assert_eq!(world.settle(), "queued: other requests fill the limit", "which is not recorded again");
    assert!(world.nothing_is_left() && world.seen.common.has_finalizer);
    world.seen.common.admission = Admission::Admitted;
    assert!(world.settle().contains("no pod yet"));
    let work = mover_observe::work_of(world.seen.common.mover.config_map.as_ref().unwrap()).unwrap();
    assert_eq!(work.repository, "s3:http://s3/bkt/restic/c-1/shop/data");
    let Task::Backup(task) = &work.task else { panic!() };
    assert_eq!((&*task.identity, &*task.lineage, task.initialize), ("vsb-uid:u-1", "pvc-uid:p-1", true));
    assert_eq!(
        task.tags,
        ["vsb:vsb-abcde", "backup:b1", "size:1Gi", "storage-class:sc", "access-mode:ReadWriteOnce"],
        "with everything that a restore needs to create the claim"
    );
    let given = world.seen.common.mover.secret.clone().unwrap().data.unwrap();
    let given: Vec<_> = given.keys().map(String::as_str).collect();
    assert_eq!(given, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RESTIC_PASSWORD", "ca.crt"], "and no command");
    world.pod(MOVER, "Running", 0, None, None);
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
    assert_eq!(repository::standing(world.seen.record.as_ref()), Standing::Made, "so that it is never created again");
    assert_eq!(
        world.phases,
        [
            "/Queued",
            "InProgress/Processing",
            "SnapshotBackupDone/Completed",
            "Cleanup/Completed",
            "Completed/Completed"
        ]
    );
    // The fields that the plugin reads at the end.
    let status = &world.status;
    let claim = status.source_pvc_data.as_ref().unwrap();
    assert_eq!((&*claim.name, &*claim.size, &*claim.storage_class_name), ("data", "1Gi", "sc"));
    assert_eq!((&*status.resticrepository, &*status.volume_snapshot_class_name), (&*work.repository, "fast"));
    assert_eq!(world.condition("Reconciled"), Some(("True".into(), "Complete".into(), "Reconcile complete".into())));
    assert_eq!(world.condition("Complete").unwrap().0, "True");
}

/// Each write is a watch event, which leads to another reconcile: a reconcile that always writes
/// would never end.
#[test]
fn a_slow_backup_records_each_wait_once() {
    let mut world =
        World::new(with(|seen| (seen.common.has_finalizer, seen.common.admission) = (false, Admission::Queued)));
    world.seen.content.as_mut().unwrap().status.as_mut().unwrap().ready_to_use = Some(false);
    assert_eq!(settle_slowly(&mut world), 1, "the snapshot is not ready");
    let (truth, reason, message) = world.condition("Progressing").unwrap();
    assert_eq!((&*truth, &*reason), ("False", "Waiting"));
    assert!(message.contains("to be ready"), "{message}");
    assert_eq!(settle_slowly(&mut world), 0);
    world.seen.content.as_mut().unwrap().status.as_mut().unwrap().ready_to_use = Some(true);
    assert_eq!(settle_slowly(&mut world), 1, "it is queued");
    assert_eq!(world.condition("Progressing").unwrap().1, "Queued");
    world.seen.common.admission = Admission::Admitted;
    assert_eq!(settle_slowly(&mut world), 2, "it is admitted, and its mover has no pod");
    assert!(world.condition("Progressing").unwrap().2.contains("no pod yet"));
    world.pod(MOVER, "Running", 0, None, None);
    assert_eq!(settle_slowly(&mut world), 1, "the mover runs");
    assert_eq!(world.condition("Progressing").unwrap().1, "Moving");
    assert_eq!(settle_slowly(&mut world), 0);
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    assert_eq!(settle_slowly(&mut world), 3, "moved, cleaning, completed");
    assert_eq!(world.condition("Progressing").unwrap().1, "Moved");
}

/// A failure keeps its reason in all conditions, even if the cleanup waited.
#[test]
fn a_wait_after_the_end_does_not_change_its_reason() {
    // The second reason is also that of a wait.
    for reason in [Reason::Invalid, Reason::Forbidden] {
        let mut world = World::new(ready());
        world.settle();
        world.pod(MOVER, "Running", 0, None, None);
        world.settle();
        world.record(&Update::failed(reason, "no"));
        assert_eq!(settle_slowly(&mut world), 1);
        assert_eq!(world.condition("Progressing").unwrap().2, "waiting for the mover to stop");
        assert_eq!(world.condition("Degraded").unwrap().1, reason.name());
        world.pod(MOVER, "Failed", 130, Some(saved(0)), None);
        assert_eq!(settle_slowly(&mut world), 1, "the wait is over");
        assert_eq!(world.condition("Progressing").unwrap().1, reason.name());
        assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
    }
}

#[test]
fn a_content_is_kept_after_a_complete_backup_if_its_class_allows_it() {
    let ends = |outcome: Outcome, snapshot_fate: SnapshotFate, finished: &str| {
        let mut world = World::new(ready());
        world.settle();
        world.pod(MOVER, "Succeeded", 0, Some(outcome), Some(finished));
        world.seen.snapshot_fate = snapshot_fate;
        assert_eq!(world.settle(), "");
        (world.status.moved.phase.clone(), world.seen.exposed.content.is_some())
    };
    assert_eq!(ends(saved(0), SnapshotFate::IsCollected, "Complete"), ("Completed".into(), true));
    assert_eq!(ends(saved(0), SnapshotFate::Stays, "Complete"), ("Completed".into(), false));
}

#[test]
fn one_of_two_first_backups_creates_the_repository() {
    let initialize = |world: &World<Observed>| {
        let work = mover_observe::work_of(world.seen.common.mover.config_map.as_ref().expect("a mover")).unwrap();
        let Task::Backup(task) = work.task else { panic!() };
        task.initialize
    };
    let mut world = World::new(with(|seen| seen.record = Some(record_of(Some(("other", "u-2"))))));
    world.seen.creation = Creation::Running;
    assert_eq!(world.settle(), "another backup creates the repository");
    assert!(world.seen.common.mover.config_map.is_none() && world.seen.exposed.claim.is_some());
    // The other backup has opened it, or has ended.
    world.seen.creation = Creation::Idle;
    world.settle();
    let ours = Standing::Begun(Maker { name: "vsb-abcde".into(), uid: "u-1".into() });
    assert_eq!((repository::standing(world.seen.record.as_ref()), initialize(&world)), (ours, true));
    // The repository was created.
    let mut world = World::new(with(|seen| seen.record = Some(made())));
    world.settle();
    assert!(!initialize(&world));
}

/// Velero's plugin reads the fields when it sees the end.
#[test]
fn all_fields_are_recorded_before_completed() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    world.settle_until("SnapshotBackupDone");
    assert!(!world.status.resticrepository.is_empty() && world.condition("Reconciled").unwrap().0 == "True");
}

#[test]
fn an_incomplete_backup_is_completed_and_degraded_unless_configured_otherwise() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 3, Some(saved(2)), Some("Failed"));
    world.settle();
    assert_eq!((&*world.status.moved.phase, world.status.moved.problems.as_ref().unwrap().count), ("Completed", 2));
    assert_eq!(world.condition("Degraded").unwrap().1, "Incomplete");
    assert_eq!(world.condition("Reconciled").unwrap().0, "True");
    let seen = {
        let mut world = World::new(ready());
        world.settle();
        world.pod(MOVER, "Failed", 3, Some(saved(2)), Some("Failed"));
        world.seen.record = Some(made());
        world.seen
    };
    let strict = Config { incomplete: Incomplete::Fails, ..config() };
    let Action::Record(update) = Backup::decide(&owner(), &seen, &strict) else { panic!() };
    assert!(matches!(*update, Update::Failed { reason, .. } if reason == Reason::Incomplete));
}

#[test]
fn a_failed_mover_fails_the_backup_and_leaves_nothing() {
    let mut world = World::new(ready());
    world.settle();
    let failed = Failed::new(Reason::WrongPassword, "no key opens");
    world.pod(MOVER, "Failed", 12, Some(Outcome::Failed(failed)), Some("Failed"));
    assert_eq!(world.settle(), "");
    assert_eq!(&*world.status.moved.phase, "Failed");
    let (truth, reason, message) = world.condition("Reconciled").unwrap();
    assert_eq!((&*truth, &*reason), ("False", "Error"));
    assert!(message.starts_with("no key opens (what to do: "), "{message}");
    assert_eq!(world.condition("Degraded").unwrap().1, "WrongPassword");
    // The mover released its lock: no cleanup is needed.
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
}

/// A read error may be transient: the Job starts another pod, `VSM_MOVER_RETRIES` times with its
/// back-off.
#[test]
fn a_volume_that_cannot_be_read_is_retried_by_the_job_and_then_fails_the_backup() {
    let unreadable = || {
        let message = "the source cannot be read: Input/output error (os error 5)";
        Some(Outcome::Failed(Failed::new(Reason::VolumeUnreadable, message)))
    };
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 1, unreadable(), None);
    let why = world.settle();
    assert!(why.contains("is started again") && why.contains("Input/output error"), "{why}");
    assert_eq!(&*world.status.moved.phase, "InProgress");
    world.pod(MOVER, "Failed", 1, unreadable(), Some("Failed"));
    assert_eq!(world.settle(), "");
    assert_eq!(&*world.status.moved.phase, "Failed");
    assert!(!world.phases.iter().any(|phase| phase.starts_with("Completed")), "{:?}", world.phases);
    assert_eq!(world.condition("Complete").unwrap().0, "False");
    let (truth, reason, message) = world.condition("Degraded").unwrap();
    assert_eq!((&*truth, &*reason), ("True", "VolumeUnreadable"));
    assert!(message.contains("Input/output error") && message.contains("(what to do: "), "{message}");
    assert_eq!((world.status.moved.snapshot_id.as_deref(), world.status.moved.empty_volume), (None, None));
    let record = repository::standing(world.seen.record.as_ref());
    assert!(matches!(record, Standing::Begun(_)), "nothing was saved, so the repository may not exist: {record:?}");
    assert!(world.nothing_is_left());
}

/// The next attempt knows which pods have ended, and the cleanup follows the last one.
#[test]
fn a_mover_without_a_report_is_run_again() {
    let mut world = World::new(ready());
    world.settle();
    for run in 0..3 {
        world.pod(MOVER, "Failed", 137, None, Some("Failed"));
        let why = world.settle();
        assert_eq!(why.contains("no pod yet"), run < 2 || world.seen.common.cleanup.job.is_some(), "run {run}: {why}");
        if run < 2 {
            let work = mover_observe::work_of(world.seen.common.mover.config_map.as_ref().unwrap()).unwrap();
            assert_eq!(work.gone, ["vsm-vsb-u-1-0"]);
        }
    }
    assert_eq!((&*world.status.moved.phase, &*world.condition("Degraded").unwrap().1), ("Failed", "MoverLost"));
    let work = mover_observe::work_of(world.seen.common.cleanup.config_map.as_ref().unwrap()).unwrap();
    assert_eq!(
        work.task,
        Task::Discard(Discard { identity: None }),
        "its snapshot, if there is one, may be the only copy"
    );
    assert_eq!(work.gone, ["vsm-vsb-u-1-0"]);
    world.pod(TIDY, "Succeeded", 0, Some(Outcome::Discarded { snapshots: 0 }), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
}

#[test]
fn a_backup_deleted_while_it_runs_stops_its_mover_and_leaves_nothing() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Running", 0, None, None);
    world.settle();
    world.seen.common.is_deleted = true;
    assert_eq!(world.settle(), "waiting for the mover to stop");
    assert!(world.seen.exposed.claim.is_some(), "a pod uses it");
    // It had saved the snapshot, and was killed before its report.
    world.pod(MOVER, "Failed", 137, None, None);
    assert!(world.settle().contains("no pod yet") && world.seen.common.cleanup.job.is_some());
    let work = mover_observe::work_of(world.seen.common.cleanup.config_map.as_ref().unwrap()).unwrap();
    assert_eq!(work.task, Task::Discard(Discard { identity: Some("vsb-uid:u-1".into()) }));
    world.pod(TIDY, "Succeeded", 0, Some(Outcome::Discarded { snapshots: 1 }), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
    // A completed backup keeps its data.
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    world.settle();
    world.seen.common.is_deleted = true;
    assert_eq!((world.next(), world.settle()), (Action::Nothing, String::new()));
}

#[test]
fn a_failed_cleanup_is_reported_and_does_not_block_the_end() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 137, None, None);
    world.seen.common.is_deleted = true;
    world.settle();
    let failed = Failed::new(Reason::StoreFailed, "no route");
    assert_eq!(cleanup::failure::<Backup>(&owner(), &world.seen.common, &config()), None);
    world.pod(TIDY, "Failed", 1, Some(Outcome::Failed(failed)), Some("Failed"));
    assert!(cleanup::failure::<Backup>(&owner(), &world.seen.common, &config()).unwrap().contains("no route"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.common.has_finalizer);
}

/// An incomplete snapshot is better than none.
#[test]
fn a_backup_that_failed_as_incomplete_keeps_its_snapshot() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 3, Some(saved(2)), Some("Failed"));
    world.record(&Update::failed(Reason::Incomplete, "2 entries"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && world.seen.common.cleanup.job.is_none());
}

#[test]
fn a_backup_deleted_before_it_started_loses_its_finalizer() {
    let mut world = World::new(with(|seen| seen.common.is_deleted = true));
    assert_eq!(world.next(), Action::RemoveFinalizer);
    world.settle();
    assert_eq!(world.next(), Action::Nothing);
}

#[test]
fn an_impossible_request_fails_with_a_reason() {
    type Change = fn(&mut Observed);
    let cases: [(&str, &str, Change); 11] = [
        ("Invalid", "is empty", |seen| seen.request.content.clear()),
        ("Invalid", "no VolumeSnapshotContent snapcontent-1", |seen| seen.content = None),
        ("Denied", "kube-system", |seen| seen.request.protected_namespace = "kube-system".into()),
        ("Denied", "not bound to a VolumeSnapshot in namespace shop", |seen| seen.snapshot = None),
        ("Invalid", "no secret", |seen| seen.common.secret = None),
        ("Denied", authorization::PROVIDER_LABEL, |seen| seen.common.secret.as_mut().unwrap().metadata.labels = None),
        ("Invalid", "AWS_SECRET_ACCESS_KEY", |seen| seen.common.secret = Some(secret(&KEYS[..3]))),
        ("Denied", "folder", |seen| {
            let mut data = KEYS;
            data[0].1 = "/etc";
            seen.common.secret = Some(secret(&data));
        }),
        ("Invalid", "is deleted", |seen| seen.claim = None),
        ("Invalid", "which is not a size", |seen| {
            let spec = seen.claim.as_mut().unwrap().spec.as_mut().unwrap();
            spec.resources = None;
        }),
        ("Denied", "leaves its bucket", |seen| seen.common.prefix = "../other".into()),
    ];
    for (reason, text, change) in cases {
        let mut seen = ready();
        change(&mut seen);
        let mut world = World::new(seen);
        world.settle();
        let (status, why, message) = world.condition("Degraded").unwrap_or_default();
        assert_eq!((&*status, &*why, &*world.status.moved.phase), ("True", reason, "Failed"), "{text}: {message}");
        assert!(message.contains(text), "{text}: {message}");
        assert!(world.nothing_is_left());
    }
}

#[test]
fn a_wait_has_a_deadline_until_the_mover_runs() {
    let mut world = World::new(ready());
    world.seen.content.as_mut().unwrap().status.as_mut().unwrap().ready_to_use = Some(false);
    assert!(world.settle().contains("to be ready"));
    let mut world = World::new(ready());
    world.settle();
    world.seen.common.stalled_for = Some(Duration::from_secs(3600));
    world.settle();
    assert_eq!(world.condition("Degraded").unwrap().1, "NotPrepared");
    // A running mover has no deadline here.
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Running", 0, None, None);
    world.seen.common.stalled_for = Some(Duration::from_secs(360_000));
    assert_eq!(world.settle(), "the mover runs");
}

#[test]
fn a_failed_velero_backup_fails_it_and_storage_class_options_apply() {
    let mut world = World::new(with(|seen| seen.common.velero = VeleroState::Failed));
    world.settle();
    assert_eq!(&*world.status.moved.phase, "PartiallyFailed");
    let mut world = World::new(ready());
    world.seen.common.options = BTreeMap::from([
        ("SourceStorageClassName".to_owned(), "shallow".to_owned()),
        ("SourceAccessMode".to_owned(), "ReadOnlyMany".to_owned()),
    ]);
    world.seen.claim.as_mut().unwrap().spec.as_mut().unwrap().volume_mode = Some("Block".into());
    world.seen.record = Some(made());
    world.settle();
    let claim = world.seen.exposed.claim.clone().unwrap().spec.unwrap();
    assert_eq!(claim.storage_class_name.as_deref(), Some("shallow"));
    assert_eq!((claim.access_modes, claim.volume_mode), (Some(vec!["ReadOnlyMany".into()]), Some("Block".into())));
    let work = mover_observe::work_of(world.seen.common.mover.config_map.as_ref().unwrap()).unwrap();
    let Task::Backup(task) = work.task else { panic!() };
    assert!(!task.initialize && task.source.to_str() == Some(DEVICE_PATH));
}

/// A namespace may be deleted while it is backed up.
#[test]
fn a_running_mover_does_not_need_the_source_objects() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Running", 0, None, None);
    world.settle();
    let seen = &mut world.seen;
    (seen.content, seen.snapshot, seen.claim, seen.common.secret) = (None, None, None, None);
    assert_eq!(world.settle(), "the mover runs");
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert_eq!(&*world.status.moved.phase, "Completed");
    assert_eq!(&*world.status.resticrepository, "s3:http://s3/bkt/restic/c-1/shop/data");
    assert!(world.nothing_is_left());
}

/// The storage class may retain volumes.
#[test]
fn a_retained_volume_is_deleted_with_its_managed_claim() {
    let mut world = World::new(ready());
    world.settle();
    let spec = json!({"persistentVolumeReclaimPolicy": "Retain", "claimRef": {"uid": "claim-of-ours"}});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": spec});
    world.seen.exposed.volume = Some(object::<PersistentVolume>(volume));
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    world.settle();
    assert!(!rebind::is_kept(world.seen.exposed.volume.as_ref().unwrap()) && world.nothing_is_left());
}
