use super::*;
use crate::api::BackupStatus;
use crate::api::snapshot::{ContentStatus, SnapshotStatus};
use crate::controller::compat;
use crate::controller::flow::Helper;
use crate::controller::names::Kind;
use crate::id::Id;
use crate::work::{Failed, Report, Saved};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, from_value, json};

fn subject() -> Subject {
    Subject { kind: Kind::Backup, namespace: "shop".into(), name: "vsb-abcde".into(), uid: "u-1".into() }
}

fn config() -> Config {
    Config { namespace: "adp".into(), cluster: "c-1".into(), prepare: Duration::from_secs(1800), ..Config::default() }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    from_value(value).expect("an object")
}

fn secret(data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.labels_mut().insert(trust::PROVIDER_LABEL.into(), "aws".into());
    secret
}

const KEYS: [(&str, &str); 6] = [
    ("RESTIC_REPOSITORY", "s3:http://s3/bkt"),
    ("RESTIC_PASSWORD", "pw"),
    ("AWS_ACCESS_KEY_ID", "id"),
    ("AWS_SECRET_ACCESS_KEY", "key"),
    ("RESTIC_PASSWORD_COMMAND", "/bin/sh"),
    ("RESTIC_CUSTOM_CA", "PEM"),
];

/// What a plugin's backup finds: a snapshot that is ready, of a claim of 1 GiB.
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
        finalizer: true,
        request: Request {
            content: "snapcontent-1".into(),
            protected_namespace: "adp".into(),
            secret: "velero-1-volsync-restic".into(),
            backup: Some("b1".into()),
        },
        content: Some(object(content)),
        snapshot: Some(object(snapshot)),
        claim: Some(object(claim)),
        secret: Some(secret(&KEYS)),
        turn: true,
        ..Observed::default()
    }
}

/// The cluster, played: what is created is there, what is deleted is gone, and the drivers are quick.
struct World {
    seen: Observed,
    status: BackupStatus,
    phases: Vec<String>,
}

impl World {
    fn new(seen: Observed) -> World {
        World { seen, status: BackupStatus::default(), phases: vec![] }
    }

    fn act(&self) -> Act<Update> {
        decide(&subject(), &self.seen, &config())
    }

    /// Does what is to be done until others have to do something, and says what.
    fn settle(&mut self) -> String {
        for _ in 0..60 {
            match self.act() {
                Act::Wait(why) => return why,
                Act::Nothing => return String::new(),
                act => self.apply(act),
            }
        }
        panic!("it never settles: {:?}", self.act());
    }

    fn apply(&mut self, act: Act<Update>) {
        let seen = &mut self.seen;
        match act {
            Act::AddFinalizer => seen.finalizer = true,
            Act::RemoveFinalizer => seen.finalizer = false,
            Act::Status(update) => {
                let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
                self.status = compat::apply(&self.status, &update, Some(1), &now);
                let phase = format!("{}/{}", self.status.moved.phase, self.status.moved.batching_status);
                if self.phases.last() != Some(&phase) {
                    self.phases.push(phase);
                }
                seen.stage = compat::stage(&self.status);
                seen.recorded = compat::recorded(&self.status);
            }
            Act::Create(Object::Content(mut it)) => {
                it.status = Some(ContentStatus { ready_to_use: Some(true), ..ContentStatus::default() });
                seen.exposed.content = Some(*it);
            }
            Act::Create(Object::Snapshot(mut it)) => {
                it.status = Some(SnapshotStatus { ready_to_use: Some(true), ..SnapshotStatus::default() });
                seen.exposed.snapshot = Some(*it);
            }
            Act::Create(Object::Claim(it)) => seen.exposed.claim = Some(*it),
            Act::Create(Object::ConfigMap(it)) if it.name_any().starts_with("vsm-repository-") => {
                seen.repository_made = true;
            }
            Act::Create(Object::Secret(it)) => {
                let name = it.name_any();
                self.mover(&name).secret = Some(*it);
            }
            Act::Create(Object::ConfigMap(it)) => {
                let name = it.name_any();
                self.mover(&name).config_map = Some(*it);
            }
            Act::Create(Object::Job(mut it)) => {
                let name = it.name_any();
                it.metadata.uid = Some(format!("job-of-{name}"));
                self.mover(&name).job = Some(*it);
            }
            Act::Describe(it) => {
                let name = it.name_any();
                self.mover(&name).config_map = Some(*it);
            }
            Act::Release { name } => {
                let mover = self.mover(&name);
                let deleted = mover.job.as_ref().is_none_or(|job| job.metadata.deletion_timestamp.is_some());
                assert!(deleted, "a Job is only let go when it is to go");
                (mover.job, mover.pods) = (None, vec![]);
            }
            Act::Delete { helper, name } => match helper {
                Helper::Content => seen.exposed.content = None,
                Helper::Snapshot => seen.exposed.snapshot = None,
                Helper::Claim => seen.exposed.claim = None,
                Helper::Secret => self.mover(&name).secret = None,
                Helper::ConfigMap => self.mover(&name).config_map = None,
                Helper::Job => {
                    let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
                    self.mover(&name).job.as_mut().expect("a Job").metadata.deletion_timestamp = Some(now);
                }
            },
            Act::Wait(_) | Act::Nothing => unreachable!("nothing to apply"),
        }
    }

    fn mover(&mut self, name: &str) -> &mut Mover {
        if name.ends_with("-tidy") { &mut self.seen.cleaner } else { &mut self.seen.mover }
    }

    /// The Job's pod is in this state; a report makes the Job end.
    fn pod(&mut self, name: &str, phase: &str, code: i32, outcome: Option<Outcome>, finished: Option<&str>) {
        let mover = self.mover(name);
        let job = mover.job.as_mut().expect("a Job");
        let uid = job.uid().expect("a uid");
        let report =
            outcome.map(|outcome| Report { version: VERSION, job: uid.clone(), outcome, first_problems: vec![] });
        let message = report.map(|report| String::from_utf8(report.encode()).expect("JSON"));
        let ended = json!([{
            "name": "mover", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"terminated": {"exitCode": code, "message": message}},
        }]);
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid, "controller": true});
        let pod: Pod = object(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{name}-{}", mover.pods.len()), "ownerReferences": [owner]},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": phase, "containerStatuses": if phase == "Running" { json!([]) } else { ended }},
        }));
        mover.pods.retain(|pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) != Some("Running"));
        mover.pods.push(pod);
        if let Some(kind) = finished {
            let mut with: Value = serde_json::to_value(&*job).expect("JSON");
            with["status"] = json!({"conditions": [{"type": kind, "status": "True"}]});
            mover.job = Some(object::<Job>(with));
        }
    }

    fn nothing_is_left(&self) -> bool {
        let empty = |mover: &Mover| mover.job.is_none() && mover.secret.is_none() && mover.config_map.is_none();
        let exposed = &self.seen.exposed;
        empty(&self.seen.mover)
            && empty(&self.seen.cleaner)
            && exposed.content.is_none()
            && exposed.snapshot.is_none()
            && exposed.claim.is_none()
    }

    fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let condition = self.status.moved.conditions.iter().find(|condition| condition.type_ == kind)?;
        Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    }
}

const MOVER: &str = "vsm-vsb-u-1";
const TIDY: &str = "vsm-vsb-u-1-tidy";

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
fn a_backup_goes_its_way() {
    let mut world = World::new(Observed { finalizer: false, turn: false, ..ready() });
    // In the queue nothing is made for it.
    while !matches!(world.act(), Act::Status(ref update) if **update == Update::Queued) {
        let act = world.act();
        world.apply(act);
    }
    let act = world.act();
    world.apply(act);
    assert_eq!(world.settle(), "waiting for its turn", "and it is not recorded again");
    assert!(world.nothing_is_left() && world.seen.finalizer);
    world.seen.turn = true;
    assert!(world.settle().contains("no pod yet"));
    let work = job::described(world.seen.mover.config_map.as_ref().unwrap()).unwrap();
    assert_eq!(work.repository, "s3:http://s3/bkt/restic/c-1/shop/data");
    let Task::Backup(task) = &work.task else { panic!() };
    assert_eq!((&*task.identity, &*task.lineage, task.initialize), ("vsb-uid:u-1", "pvc-uid:p-1", true));
    assert_eq!(task.tags, ["vsb:vsb-abcde", "backup:b1"]);
    let given = world.seen.mover.secret.clone().unwrap().data.unwrap();
    let given: Vec<_> = given.keys().map(String::as_str).collect();
    assert_eq!(given, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RESTIC_PASSWORD", "ca.crt"], "and no command");
    world.pod(MOVER, "Running", 0, None, None);
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.finalizer && world.seen.repository_made);
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
    // What the plugin reads at the end.
    let status = &world.status;
    let claim = status.source_pvc_data.as_ref().unwrap();
    assert_eq!((&*claim.name, &*claim.size, &*claim.storage_class_name), ("data", "1Gi", "sc"));
    assert_eq!((&*status.resticrepository, &*status.volume_snapshot_class_name), (&*work.repository, "fast"));
    assert_eq!(world.condition("Reconciled"), Some(("True".into(), "Complete".into(), "Reconcile complete".into())));
    assert_eq!(world.condition("Complete").unwrap().0, "True");
}

/// The plugin must find everything in place before it hears of the end.
#[test]
fn the_five_fields_come_before_completed() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    while world.status.moved.phase != "SnapshotBackupDone" {
        let act = world.act();
        world.apply(act);
    }
    assert!(!world.status.resticrepository.is_empty() && world.condition("Reconciled").unwrap().0 == "True");
}

#[test]
fn an_incomplete_backup_is_completed_and_degraded_unless_told_otherwise() {
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
        world.seen.repository_made = true;
        world.seen
    };
    let strict = Config { incomplete_fails: true, ..config() };
    let Act::Status(update) = decide(&subject(), &seen, &strict) else { panic!() };
    assert!(matches!(*update, Update::Failed { reason, .. } if reason == "Incomplete"));
}

#[test]
fn a_movers_failure_is_told_and_everything_goes() {
    let mut world = World::new(ready());
    world.settle();
    let failed = Failed { reason: "WrongPassword".into(), message: "no key opens".into() };
    world.pod(MOVER, "Failed", 12, Some(Outcome::Failed(failed)), Some("Failed"));
    assert_eq!(world.settle(), "");
    assert_eq!(&*world.status.moved.phase, "Failed");
    assert_eq!(world.condition("Reconciled"), Some(("False".into(), "Error".into(), "no key opens".into())));
    assert_eq!(world.condition("Degraded").unwrap().1, "WrongPassword");
    // It released its lock itself: nothing is to be tidied.
    assert!(world.nothing_is_left() && !world.seen.finalizer);
}

/// Killed without a word: run again, told who is gone; and in the end, tidied after.
#[test]
fn a_mover_that_is_lost_is_run_again() {
    let mut world = World::new(ready());
    world.settle();
    for run in 0..3 {
        world.pod(MOVER, "Failed", 137, None, Some("Failed"));
        let why = world.settle();
        assert_eq!(why.contains("no pod yet"), run < 2 || world.seen.cleaner.job.is_some(), "run {run}: {why}");
        if run < 2 {
            let work = job::described(world.seen.mover.config_map.as_ref().unwrap()).unwrap();
            assert_eq!(work.gone, ["vsm-vsb-u-1-0"]);
        }
    }
    assert_eq!((&*world.status.moved.phase, &*world.condition("Degraded").unwrap().1), ("Failed", "MoverLost"));
    let work = job::described(world.seen.cleaner.config_map.as_ref().unwrap()).unwrap();
    assert_eq!(
        work.task,
        Task::Discard(Discard { identity: None }),
        "its snapshot, if there is one, may be all there is"
    );
    assert_eq!(work.gone, ["vsm-vsb-u-1-0"]);
    world.pod(TIDY, "Succeeded", 0, Some(Outcome::Discarded { snapshots: 0 }), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.finalizer);
}

#[test]
fn one_that_is_deleted_while_it_runs_stops_its_mover_and_leaves_nothing() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Running", 0, None, None);
    world.settle();
    world.seen.deleted = true;
    assert_eq!(world.settle(), "waiting for the mover to stop");
    assert!(world.seen.exposed.claim.is_some(), "a pod uses it");
    // It had made the snapshot, and was killed before it could say so.
    world.pod(MOVER, "Failed", 137, None, None);
    assert!(world.settle().contains("no pod yet") && world.seen.cleaner.job.is_some());
    let work = job::described(world.seen.cleaner.config_map.as_ref().unwrap()).unwrap();
    assert_eq!(work.task, Task::Discard(Discard { identity: Some("vsb-uid:u-1".into()) }));
    world.pod(TIDY, "Succeeded", 0, Some(Outcome::Discarded { snapshots: 1 }), Some("Complete"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.finalizer);
    // One that had its end keeps its data.
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Succeeded", 0, Some(saved(0)), Some("Complete"));
    world.settle();
    world.seen.deleted = true;
    assert_eq!((world.act(), world.settle()), (Act::Nothing, String::new()));
}

/// What could not be removed is told, and does not keep everything else from going.
#[test]
fn a_repository_that_cannot_be_tidied_is_told() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 137, None, None);
    world.seen.deleted = true;
    world.settle();
    let failed = Failed { reason: "StoreFailed".into(), message: "no route".into() };
    assert_eq!(untidied(&subject(), &world.seen, &config()), None);
    world.pod(TIDY, "Failed", 1, Some(Outcome::Failed(failed)), Some("Failed"));
    assert!(untidied(&subject(), &world.seen, &config()).unwrap().contains("no route"));
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && !world.seen.finalizer);
}

/// One that could not read everything is better than none.
#[test]
fn an_incomplete_backup_that_counts_as_failed_keeps_its_snapshot() {
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Failed", 3, Some(saved(2)), Some("Failed"));
    let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    let update = Update::Failed { reason: "Incomplete".into(), message: "2 entries".into() };
    world.status = compat::apply(&world.status, &update, Some(1), &now);
    world.seen.stage = compat::stage(&world.status);
    assert_eq!(world.settle(), "");
    assert!(world.nothing_is_left() && world.seen.cleaner.job.is_none());
}

#[test]
fn one_that_is_deleted_before_anything_is_let_go() {
    let mut world = World::new(Observed { deleted: true, ..ready() });
    assert_eq!(world.act(), Act::RemoveFinalizer);
    world.settle();
    assert_eq!(world.act(), Act::Nothing);
}

#[test]
fn requests_that_cannot_be_carried_out_fail_with_a_reason() {
    type Change = fn(&mut Observed);
    let cases: [(&str, &str, Change); 11] = [
        ("Invalid", "is empty", |seen| seen.request.content.clear()),
        ("Invalid", "no VolumeSnapshotContent snapcontent-1", |seen| seen.content = None),
        ("Denied", "kube-system", |seen| seen.request.protected_namespace = "kube-system".into()),
        ("Denied", "not bound to a VolumeSnapshot in namespace shop", |seen| seen.snapshot = None),
        ("Invalid", "no secret", |seen| seen.secret = None),
        ("Denied", trust::PROVIDER_LABEL, |seen| seen.secret.as_mut().unwrap().metadata.labels = None),
        ("Invalid", "AWS_SECRET_ACCESS_KEY", |seen| seen.secret = Some(secret(&KEYS[..3]))),
        ("Denied", "folder", |seen| {
            let mut data = KEYS;
            data[0].1 = "/etc";
            seen.secret = Some(secret(&data));
        }),
        ("Invalid", "is gone", |seen| seen.claim = None),
        ("Invalid", "which is no size", |seen| {
            let spec = seen.claim.as_mut().unwrap().spec.as_mut().unwrap();
            spec.resources = None;
        }),
        ("Denied", "leaves its bucket", |seen| seen.prefix = "../other".into()),
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
fn what_is_not_ready_is_waited_for_and_not_for_ever() {
    let mut world = World::new(ready());
    world.seen.content.as_mut().unwrap().status.as_mut().unwrap().ready_to_use = Some(false);
    assert!(world.settle().contains("to be ready"));
    let mut world = World::new(ready());
    world.settle();
    world.seen.quiet_for = Some(Duration::from_secs(3600));
    world.settle();
    assert_eq!(world.condition("Degraded").unwrap().1, "NotPrepared");
    // Once it runs it may take as long as it takes.
    let mut world = World::new(ready());
    world.settle();
    world.pod(MOVER, "Running", 0, None, None);
    world.seen.quiet_for = Some(Duration::from_secs(360_000));
    assert_eq!(world.settle(), "the mover runs");
}

#[test]
fn a_failed_velero_backup_ends_it_and_options_are_heeded() {
    let mut world = World::new(Observed { velero: Velero::Failed, ..ready() });
    world.settle();
    assert_eq!(&*world.status.moved.phase, "PartiallyFailed");
    let mut world = World::new(ready());
    world.seen.options = BTreeMap::from([
        ("SourceStorageClassName".to_owned(), "shallow".to_owned()),
        ("SourceAccessMode".to_owned(), "ReadOnlyMany".to_owned()),
    ]);
    world.seen.claim.as_mut().unwrap().spec.as_mut().unwrap().volume_mode = Some("Block".into());
    world.seen.repository_made = true;
    world.settle();
    let claim = world.seen.exposed.claim.clone().unwrap().spec.unwrap();
    assert_eq!(claim.storage_class_name.as_deref(), Some("shallow"));
    assert_eq!((claim.access_modes, claim.volume_mode), (Some(vec!["ReadOnlyMany".into()]), Some("Block".into())));
    let work = job::described(world.seen.mover.config_map.as_ref().unwrap()).unwrap();
    let Task::Backup(task) = work.task else { panic!() };
    assert!(!task.initialize && task.source.to_str() == Some(job::DEVICE));
}
