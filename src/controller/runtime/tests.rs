use super::health::Health;
use super::metrics::Metrics;
use super::{Context, watch};
use crate::api::VolumeSnapshotBackup;
use crate::controller::cluster::Cluster;
use crate::controller::testing::apiserver::ApiServer;
use crate::controller::testing::config;
use http::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BACKUPS: &str = "/apis/datamover.oadp.openshift.io/v1alpha1/namespaces/app/volumesnapshotbackups";
/// By the paused clock of the tests, which advances only when every task waits.
const HOUR: Duration = Duration::from_secs(3600);

fn path(name: &str) -> String {
    format!("{BACKUPS}/{name}")
}

/// A backup that names no content: it is given a finalizer, fails as `Invalid`, and is released.
fn put(server: &ApiServer, name: &str) {
    let backup = json!({
        "apiVersion": "datamover.oadp.openshift.io/v1alpha1", "kind": "VolumeSnapshotBackup",
        "metadata": {
            "name": name, "namespace": "app", "uid": format!("uid-of-{name}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"protectedNamespace": "adp"},
    });
    server.put(&path(name), backup);
}

fn is_done(server: &ApiServer, name: &str) -> bool {
    let backup = server.get(&path(name)).expect("a backup");
    backup["status"]["phase"] == "Failed" && backup["metadata"]["finalizers"] == json!([])
}

/// Runs the controller until the test ends.
async fn run(server: &ApiServer, test: impl Future<Output = ()>) -> Metrics {
    let (metrics, stop, health) = (Metrics::default(), CancellationToken::new(), Health::default());
    health.expect(1);
    let cluster = Cluster { client: server.client(), namespace: "adp".into(), pod: "vsm-1".into() };
    let context = Context::new(cluster, Arc::new(config()), metrics.clone(), stop.clone(), 10);
    let test = async {
        test.await;
        stop.cancel();
    };
    let both = async { tokio::join!(watch::requests::<VolumeSnapshotBackup>(context, &health), test) };
    tokio::time::timeout(HOUR, both).await.expect("it ends");
    metrics
}

fn conditions(body: &Value) -> Vec<(&str, &str)> {
    let all = body["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|it| (it["type"].as_str().unwrap(), it["reason"].as_str().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_write_is_reported_retried_and_does_not_stop_other_objects() {
    let server = ApiServer::default();
    put(&server, "b1");
    put(&server, "b2");
    // The write of the finalizer, in each of three reconciles.
    server.fails(Method::PATCH, "/b1", 403, "Forbidden", 3);
    let metrics = run(&server, async {
        server.until(|server| is_done(server, "b2")).await;
        assert!(!is_done(&server, "b1"));
        server.until(|server| is_done(server, "b1")).await;
    })
    .await;
    assert_eq!(
        server.asked(&Method::PATCH, "/b1").iter().filter(|it| !it.body["metadata"]["labels"].is_null()).count(),
        4
    );
    let said = server.asked(&Method::PATCH, "/b1/status");
    let forbidden = said.iter().filter(|it| conditions(&it.body).contains(&("Progressing", "Forbidden"))).count();
    assert_eq!(forbidden, 1, "it is recorded once: {said:?}");
    let text = metrics.answer().text;
    assert!(text.contains(r#"vsm_reconcile_errors_total{kind="vsb"} 3"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_status_write_does_not_end_the_retries() {
    let server = ApiServer::default();
    put(&server, "b1");
    server.fails(Method::PATCH, "/b1", 403, "Forbidden", 2);
    server.fails(Method::PATCH, "/b1/status", 403, "Forbidden", 2);
    run(&server, server.until(|server| is_done(server, "b1"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_retried_and_is_no_error() {
    let server = ApiServer::default();
    put(&server, "b1");
    server.fails(Method::PATCH, "/b1", 409, "Conflict", 1);
    server.fails(Method::PATCH, "/b1/status", 409, "Conflict", 2);
    let metrics = run(&server, server.until(|server| is_done(server, "b1"))).await;
    let text = metrics.answer().text;
    assert!(!text.contains("vsm_reconcile_errors_total{"), "{text}");
    let events = server.asked(&Method::POST, "/namespaces/app/events");
    assert_eq!(events.len(), 1, "an update that was not written has no Event: {events:?}");
    assert_eq!(events[0].body["reason"], "Invalid");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_expires_is_resumed_and_misses_no_event() {
    let server = ApiServer::default();
    put(&server, "b1");
    let lists = || {
        let all = server.asked(&Method::GET, "/v1alpha1/volumesnapshotbackups");
        all.iter().filter(|it| it.query.contains("limit=")).count()
    };
    run(&server, async {
        server.until(|server| is_done(server, "b1")).await;
        let before = lists();
        // Both without an await, so that the watch ends before the event.
        server.end_watches();
        put(&server, "b2");
        server.until(|server| is_done(server, "b2")).await;
        assert_eq!(lists(), before, "the watch resumes from its resource version");
        server.end_watches();
        put(&server, "b3");
        server.compact();
        server.until(|server| is_done(server, "b3")).await;
        assert!(lists() > before, "after 410 Gone all objects are listed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_to_a_failing_apiserver_are_retried() {
    let server = ApiServer::default();
    put(&server, "b1");
    server.fails(Method::GET, "/v1alpha1/volumesnapshotbackups", 500, "InternalError", 2);
    server.fails(Method::GET, "/b1", 503, "ServiceUnavailable", 2);
    run(&server, server.until(|server| is_done(server, "b1"))).await;
}

/// Both contents are kept and have been orphaned for months.
#[tokio::test(start_paused = true)]
async fn a_failed_collection_is_retried_and_does_not_block_another_one() {
    const CONTENTS: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
    let server = ApiServer::default();
    for name in ["c1", "c2"] {
        let content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {
                "name": name, "uid": format!("uid-of-{name}"),
                "labels": {"datamover.oadp.openshift.io/kept-to-free": "true"},
                "annotations": {"datamover.oadp.openshift.io/alone-since": "2026-01-01T00:00:00Z"},
            },
            "spec": {
                "driver": "csi", "deletionPolicy": "Retain", "source": {"snapshotHandle": format!("handle-of-{name}")},
                "volumeSnapshotRef": {"namespace": "adp", "name": name},
            },
        });
        server.put(&format!("{CONTENTS}/{name}"), content);
    }
    server.fails(Method::DELETE, "/c1", 403, "Forbidden", 1);
    let cluster = Cluster { client: server.client(), namespace: "adp".into(), pod: "vsm-1".into() };
    let stop = CancellationToken::new();
    let is_gone = |server: &ApiServer, name: &str| server.get(&format!("{CONTENTS}/{name}")).is_none();
    let test = async {
        server.until(|server| is_gone(server, "c2")).await;
        assert!(!is_gone(&server, "c1"));
        server.until(|server| is_gone(server, "c1")).await;
        stop.cancel();
    };
    let both = async { tokio::join!(watch::storage_snapshots(cluster, Arc::new(config()), stop.clone()), test) };
    tokio::time::timeout(HOUR, both).await.expect("it ends");
    let deleted = server.asked(&Method::DELETE, "/c1");
    assert_eq!(deleted.len(), 2, "a forbidden request is retried: {deleted:?}");
}
