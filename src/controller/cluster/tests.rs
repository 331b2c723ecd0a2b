use super::*;
use crate::api::{VolumeSnapshotBackup, VolumeSnapshotRestore};
use crate::controller::domain::backup::{Backup, Saved};
use crate::controller::domain::names::Kind;
use crate::controller::domain::record::{Progress, Stage};
use crate::controller::kinds;
use crate::controller::observed::{Admission, VeleroState};
use crate::controller::testing::apiserver::ApiServer;
use crate::controller::testing::{config, object};
use crate::id::Id;
use crate::work;
use http::Method;

const GROUP: &str = "/apis/datamover.oadp.openshift.io/v1alpha1/namespaces/app";
const HERE: &str = "/api/v1/namespaces/adp";
const JOBS: &str = "/apis/batch/v1/namespaces/adp/jobs";

fn cluster(server: &ApiServer) -> Cluster {
    Cluster { client: server.client(), namespace: "adp".into(), pod: "vsm-1".into() }
}

fn code(outcome: Result<()>) -> Option<u16> {
    match outcome {
        Ok(()) => None,
        Err(kube::Error::Api(status)) => Some(status.code),
        Err(error) => panic!("{error}"),
    }
}

fn put_backup(server: &ApiServer, uid: &str, labels: &Value, status: &Value) {
    let backup = json!({
        "apiVersion": "datamover.oadp.openshift.io/v1alpha1", "kind": "VolumeSnapshotBackup",
        "metadata": {"name": "b1", "namespace": "app", "uid": uid, "generation": 1, "labels": labels},
        "spec": {"protectedNamespace": "adp"}, "status": status,
    });
    server.put(&format!("{GROUP}/volumesnapshotbackups/b1"), backup);
}

async fn backup(cluster: &Cluster) -> VolumeSnapshotBackup {
    cluster.of("app").get("b1").await.expect("a backup")
}

fn secret() -> Object {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "adp"}});
    Object::Secret(Box::new(object(secret)))
}

#[tokio::test]
async fn creating_an_existing_object_is_not_an_error() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    assert_eq!(cluster.create(&secret()).await.expect("no error"), Created::New);
    assert_eq!(cluster.create(&secret()).await.expect("409 AlreadyExists is none"), Created::Existing);
    server.fails(Method::POST, "/secrets", 409, "Conflict", 1);
    assert_eq!(code(cluster.create(&secret()).await.map(drop)), Some(409));
    server.fails(Method::POST, "/secrets", 403, "Forbidden", 1);
    assert_eq!(code(cluster.create(&secret()).await.map(drop)), Some(403));
}

#[tokio::test]
async fn deleting_a_missing_object_is_not_an_error() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    let owner = Owner { kind: Kind::Backup, namespace: "app".into(), name: "b1".into(), uid: "u-1".into() };
    for managed in [
        Managed::Content,
        Managed::Snapshot,
        Managed::Claim,
        Managed::Secret,
        Managed::ConfigMap,
        Managed::Job,
        Managed::Target,
    ] {
        assert_eq!(code(cluster.delete(&owner, managed, "x").await), None, "{managed:?}: 404");
        server.fails(Method::DELETE, "/x", 403, "Forbidden", 1);
        assert_eq!(code(cluster.delete(&owner, managed, "x").await), Some(403), "{managed:?}");
    }
    let job = server.asked(&Method::DELETE, "/jobs/x");
    assert_eq!(job[0].body["propagationPolicy"], "Foreground", "a Job is deleted with its pods");
    assert_eq!(server.asked(&Method::DELETE, "/app/persistentvolumeclaims/x").len(), 2, "the target of a restore");
}

/// An object of the same name with another uid is another object.
#[tokio::test]
async fn finalizers_are_written_only_to_the_object_that_was_read() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    put_backup(&server, "u-1", &json!({}), &json!({}));
    let read = backup(&cluster).await;
    put_backup(&server, "u-2", &json!({}), &json!({}));
    let other = backup(&cluster).await;
    assert_eq!(code(cluster.add_finalizer(&read).await), Some(409));
    // Another uid is a conflict even at the current resource version.
    let mut forged = read.clone();
    forged.metadata.resource_version = other.metadata.resource_version.clone();
    assert_eq!(code(cluster.add_finalizer(&forged).await), Some(409));
    assert!(backup(&cluster).await.finalizers().is_empty());
    assert_eq!(code(cluster.add_finalizer(&other).await), None);
    let now = backup(&cluster).await;
    assert_eq!(now.finalizers(), [VolumeSnapshotBackup::FINALIZER]);
    assert_eq!(code(cluster.remove_finalizer(&other).await), None, "it had none when it was read");
    assert_eq!(code(cluster.remove_finalizer(&now).await), None);
    assert!(backup(&cluster).await.finalizers().is_empty());
}

fn moved(problems: u64) -> Update<Backup> {
    let saved = work::Saved {
        snapshot: Id::of(b"s"),
        parent: None,
        files: 1,
        bytes: 1,
        added_bytes: 1,
        problems,
        empty: false,
        found: false,
    };
    Update::Moved(Saved { saved, first_problems: vec![], pod: "p-1".into() })
}

#[tokio::test]
async fn a_status_write_removes_fields_that_are_no_longer_set() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    let before = json!({
        "phase": "InProgress", "batchingStatus": "Processing", "moverPod": "p-0", "emptyVolume": true,
        "problems": {"count": 2, "first": ["a: denied"]}, "ofAnotherRelease": 7,
        "progress": {"totalBytes": 9, "bytesDone": 1, "totalFiles": 9, "filesDone": 1},
    });
    put_backup(&server, "u-1", &json!({}), &before);
    let updated = cluster.update(&backup(&cluster).await, &moved(0)).await.expect("an answer");
    let status = server.get(&format!("{GROUP}/volumesnapshotbackups/b1")).expect("a backup")["status"].clone();
    assert_eq!((&status["problems"], &status["emptyVolume"]), (&Value::Null, &Value::Null), "{status}");
    assert_eq!((&status["moverPod"], &status["ofAnotherRelease"]), (&json!("p-1"), &json!(7)));
    assert_eq!(updated.status.map(|status| status.moved.problems), Some(None));
}

#[tokio::test]
async fn a_newer_status_is_not_overwritten() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    put_backup(&server, "u-1", &json!({}), &json!({}));
    let read = backup(&cluster).await;
    put_backup(&server, "u-1", &json!({}), &json!({"phase": "Completed"}));
    let outcome = cluster.update(&read, &moved(0)).await.map(drop);
    assert_eq!(code(outcome), Some(409));
    assert_eq!(backup(&cluster).await.record().phase, "Completed");
}

#[tokio::test]
async fn a_record_is_rewritten_only_at_the_version_that_was_read() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "adp"}, "data": {"a": "1"},
    });
    server.put(&format!("{HERE}/configmaps/m"), map);
    let read: ConfigMap = cluster.here().get("m").await.expect("a ConfigMap");
    let mut newer = read.clone();
    newer.data = Some(BTreeMap::from([("a".into(), "2".into())]));
    assert_eq!(code(cluster.rewrite(&newer).await), None);
    assert_eq!(code(cluster.rewrite(&read).await), Some(409));
    assert_eq!(server.get(&format!("{HERE}/configmaps/m")).expect("a ConfigMap")["data"]["a"], "2");
}

/// The API group of Velero is not installed: the apiserver answers in plain text, and that is no
/// error.
#[tokio::test]
async fn a_failure_of_velero_is_observed_and_velero_is_optional() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    put_backup(&server, "u-1", &json!({"velero.io/backup-name": "night"}), &json!({}));
    let read = backup(&cluster).await;
    server.fails(Method::GET, "/backups/night", 404, "", 1);
    let seen = kinds::observe(&cluster, &read, Admission::Queued, &config()).await.expect("no error");
    assert_eq!(seen.common.velero, VeleroState::Fine);
    let velero = json!({
        "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "night", "namespace": "adp"},
        "status": {"phase": "PartiallyFailed"},
    });
    server.put("/apis/velero.io/v1/namespaces/adp/backups/night", velero);
    let seen = kinds::observe(&cluster, &read, Admission::Queued, &config()).await.expect("no error");
    assert_eq!(seen.common.velero, VeleroState::Failed);
    // A request that is denied is an error, and not a missing object.
    server.fails(Method::GET, "/backups/night", 403, "Forbidden", 1);
    assert_eq!(code(kinds::observe(&cluster, &read, Admission::Queued, &config()).await.map(drop)), Some(403));
}

#[tokio::test]
async fn a_running_mover_is_observed_and_its_log_is_optional() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    put_backup(&server, "u-1", &json!({}), &json!({"phase": "InProgress", "batchingStatus": "Processing"}));
    let read = backup(&cluster).await;
    let name = read.owner().object_name();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "adp", "uid": "j-1"},
        "spec": {"template": {"spec": {"containers": [], "restartPolicy": "Never"}}}, "status": {"active": 1},
    });
    server.put(&format!("{JOBS}/{name}"), job);
    let mut labels = json!({"batch.kubernetes.io/job-name": name});
    for term in read.owner().selector().split(',') {
        let (key, value) = term.split_once('=').expect("an equality");
        labels[key] = value.into();
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p-1", "namespace": "adp", "labels": labels,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "j-1", "controller": true}],
        },
        "spec": {"containers": [], "nodeName": "n"}, "status": {"phase": "Running"},
    });
    server.put(&format!("{HERE}/pods/p-1"), pod);
    server.fails(Method::GET, "/pods/p-1/log", 403, "Forbidden", 1);
    let seen = kinds::observe(&cluster, &read, Admission::Queued, &config()).await.expect("no error");
    assert_eq!((seen.common.stage(), seen.common.mover.pods.len()), (Stage::Started, 1));
    assert!(seen.common.mover.job.is_some() && seen.common.progress.is_none());
    let line = json!({"message_type": "status", "total_files": 4, "files_done": 1, "total_bytes": 8, "bytes_done": 2});
    server.put(&format!("{HERE}/pods/p-1/log"), line);
    let seen = kinds::observe(&cluster, &read, Admission::Queued, &config()).await.expect("no error");
    let expected = Progress { total_files: 4, files_done: 1, total_bytes: 8, bytes_done: 2, ..Progress::default() };
    assert_eq!(seen.common.progress, Some(expected));
    assert!(server.asked(&Method::GET, "/pods/p-1/log")[0].query.contains("tailLines=5"));
}

/// Hundreds of requests may be queued.
#[tokio::test]
async fn no_managed_object_of_a_queued_restore_is_read() {
    let server = ApiServer::default();
    let cluster = cluster(&server);
    let restore = json!({
        "apiVersion": "datamover.oadp.openshift.io/v1alpha1", "kind": "VolumeSnapshotRestore",
        "metadata": {"name": "r1", "namespace": "app", "uid": "u-2"},
        "spec": {"protectedNamespace": "adp"}, "status": {"batchingStatus": "Queued"},
    });
    server.put(&format!("{GROUP}/volumesnapshotrestores/r1"), restore);
    let read: VolumeSnapshotRestore = cluster.of("app").get("r1").await.expect("a restore");
    let seen = kinds::observe(&cluster, &read, Admission::Queued, &config()).await.expect("no error");
    assert_eq!(seen.common.stage(), Stage::Queued);
    for kind in [JOBS, "/pods", "/persistentvolumeclaims", "/volumesnapshots"] {
        assert!(server.asked(&Method::GET, &format!("{kind}/{}", read.owner().object_name())).is_empty(), "{kind}");
    }
}
