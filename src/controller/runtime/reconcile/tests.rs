use super::*;
use crate::api::VolumeSnapshotBackup;
use crate::controller::testing::apiserver::ApiServer;
use crate::controller::testing::config;
use http::Method;
use serde_json::{Value, json};

const BACKUPS: &str = "/apis/datamover.oadp.openshift.io/v1alpha1/namespaces/app/volumesnapshotbackups";
/// In the clock of the tests, which stands while anything can be done.
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

/// Runs the controller until this is done.
async fn run(server: &ApiServer, test: impl Future<Output = ()>) -> Metrics {
    let (metrics, stop, health) = (Metrics::default(), CancellationToken::new(), Health::default());
    health.expect(1);
    let cluster = Cluster { client: server.client(), namespace: "adp".into(), pod: "vsm-1".into() };
    let context = Context::new(cluster, Arc::new(config()), metrics.clone(), stop.clone(), 10);
    let test = async {
        test.await;
        stop.cancel();
    };
    let both = async { tokio::join!(requests::<VolumeSnapshotBackup>(context, &health), test) };
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
    // The write of its finalizer, also when the change of its status is heard of.
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
    assert_eq!(forbidden, 1, "it is written once: {said:?}");
    let text = metrics.answer().text;
    assert!(text.contains(r#"vsm_reconcile_errors_total{kind="vsb"} 3"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_may_not_be_written_does_not_end_the_retries() {
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
    assert_eq!(events.len(), 1, "what was not written is not told: {events:?}");
    assert_eq!(events[0].body["reason"], "Invalid");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_expires_is_begun_again_and_misses_nothing() {
    let server = ApiServer::default();
    put(&server, "b1");
    let lists = || {
        let all = server.asked(&Method::GET, "/v1alpha1/volumesnapshotbackups");
        all.iter().filter(|it| it.query.contains("limit=")).count()
    };
    run(&server, async {
        server.until(|server| is_done(server, "b1")).await;
        let before = lists();
        // Both in one step, so that the change is not heard of before the watch ends.
        server.end_watches();
        put(&server, "b2");
        server.until(|server| is_done(server, "b2")).await;
        assert_eq!(lists(), before, "the watch goes on from the version it had");
        server.end_watches();
        put(&server, "b3");
        server.compact();
        server.until(|server| is_done(server, "b3")).await;
        assert!(lists() > before, "after 410 Gone all are listed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_apiserver_that_fails_for_a_while_is_asked_again() {
    let server = ApiServer::default();
    put(&server, "b1");
    server.fails(Method::GET, "/v1alpha1/volumesnapshotbackups", 500, "InternalError", 2);
    server.fails(Method::GET, "/b1", 503, "ServiceUnavailable", 2);
    run(&server, server.until(|server| is_done(server, "b1"))).await;
}

/// Both contents are kept and were named by no other for months; `snapshot_gc::decide` says what is done.
#[tokio::test(start_paused = true)]
async fn a_kept_content_is_deleted_whatever_becomes_of_another_one() {
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
    let both = async { tokio::join!(storage_snapshots(cluster, Arc::new(config()), stop.clone()), test) };
    tokio::time::timeout(HOUR, both).await.expect("it ends");
    let deleted = server.asked(&Method::DELETE, "/c1");
    assert_eq!(deleted.len(), 2, "what is forbidden is tried again: {deleted:?}");
}
