//! Tests the contract with the clients of VolumeSnapshotMover 1.2: the fields they read, in the
//! order in which they read them. Every version of an object in the apiserver is verified, because
//! a client may read any of them. The numbers are sections of the sheet on those clients.

use crate::app::{App, BACKUP, FILES, RESTORE, assert_whole, condition, message, reason};
use crate::cluster::{Cluster, text};
use crate::common::Random;
use serde_json::{Value, json};
use std::fs;

/// All versions of an object since it was created, oldest first.
fn history(app: &App, created: &Value) -> Vec<Value> {
    let (kind, name) = (text(created, "/kind"), text(created, "/metadata/name"));
    let plural = format!("{}s", kind.to_lowercase());
    let path = format!(
        "/apis/datamover.oadp.openshift.io/v1alpha1/namespaces/{}/{plural}?watch=1&timeoutSeconds=2&resourceVersion={}&fieldSelector=metadata.name%3D{name}",
        app.namespace,
        text(created, "/metadata/resourceVersion")
    );
    let events = app.cluster.text(&path);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    events.filter(|event| event["type"] == "MODIFIED").map(|event| event["object"].clone()).collect()
}

fn is_set(object: &Value, pointer: &str) -> bool {
    !text(object, pointer).is_empty()
}

/// The five fields that the plugin copies into the stored backup's annotations (5.2).
const FIVE: [&str; 5] = [
    "/status/resticrepository",
    "/status/sourcePVCData/name",
    "/status/sourcePVCData/size",
    "/status/sourcePVCData/storageClassName",
    "/status/volumeSnapshotClassName",
];

#[test]
fn a_backup_publishes_all_fields_for_the_plugin_before_it_completes() {
    let app = App::new("contract-backup");
    fs::write(app.bound("data", FILES).join("file"), Random(1).bytes(30 << 20)).expect("a file");
    let content = app.snapshot("snap", "data");
    let created = app.cluster.create(&app.vsb("vsb", "b", &content));
    // 13.6: if the class's deletion policy is `Delete`, Velero recreates the content under its name
    // while the mover runs, with another UID and a reference to a snapshot that does not exist.
    app.until(BACKUP, "vsb", |vsb| is_set(vsb, "/status/moverPod"));
    let old = app.cluster.get("VolumeSnapshotContent", "", &content).expect("the content");
    app.cluster
        .merge("VolumeSnapshotContent", "", &content, &json!({"spec": {"deletionPolicy": "Retain"}}))
        .expect("a patch");
    app.cluster.delete("VolumeSnapshot", &app.namespace, "snap");
    app.cluster.until_gone("VolumeSnapshot", &app.namespace, "snap");
    app.cluster.delete("VolumeSnapshotContent", "", &content);
    app.cluster.until_gone("VolumeSnapshotContent", "", &content);
    app.cluster.create(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": content},
        "spec": {
            "deletionPolicy": "Delete", "driver": old["spec"]["driver"], "source": {"snapshotHandle": old["status"]["snapshotHandle"]},
            "volumeSnapshotRef": {"namespace": "ns-x", "name": "name-x", "kind": "VolumeSnapshot", "apiVersion": "snapshot.storage.k8s.io/v1"},
        },
    }));
    let vsb = app.completed(BACKUP, "vsb");

    let all = history(&app, &created);
    let mut phases: Vec<&str> = all.iter().map(|it| text(it, "/status/phase")).collect();
    phases.dedup();
    let expected = ["", "InProgress", "SnapshotBackupDone", "Cleanup", "Completed"];
    assert!(phases == expected || phases == expected[1..], "{phases:?}");
    for it in &all {
        let phase = text(it, "/status/phase");
        // 5.2, 13.2: clients read the progress once both fields are set.
        assert!(phase.is_empty() || is_set(it, "/status/batchingStatus"), "{it:#}");
        assert!(phase.is_empty() || is_set(it, "/status/startTimestamp"), "{it:#}");
        // 13.1: all fields are set before `Completed`, or with it.
        if matches!(phase, "SnapshotBackupDone" | "Cleanup" | "Completed") {
            assert!(FIVE.iter().all(|field| is_set(it, field)), "{it:#}");
            assert_eq!((condition(it, "Reconciled"), reason(it, "Reconciled")), ("True", "Complete"), "{it:#}");
            assert!(is_set(it, "/status/completionTimestamp"), "{it:#}");
        }
        assert_ne!(condition(it, "Reconciled"), "False", "the plugin would treat this as the end: {it:#}");
    }
    assert!(all.len() < 20, "{} writes", all.len());
    // The canonical form of the claim's request, and a URL that restic opens.
    assert_eq!(text(&vsb, FIVE[2]), "64Mi");
    assert_whole(&app.repository(&vsb));
    // 13.12: Velero deletes the backup minutes later, and to delete it again is no error. The
    // repository stays.
    app.cluster.delete(BACKUP, &app.namespace, "vsb");
    app.cluster.until_gone(BACKUP, &app.namespace, "vsb");
    app.cluster.delete(BACKUP, &app.namespace, "vsb");
    assert_whole(&app.repository(&vsb));
    app.cluster.delete("VolumeSnapshotContent", "", &content);
    app.remove();
}

#[test]
fn a_restore_publishes_phase_handle_and_content_in_one_write() {
    let app = App::new("contract-restore");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let vsb = app.back_up("vsb", "b", "data");
    let created = app.cluster.create(&app.vsr("vsr", "r", &vsb));
    // 13.4, 13.8: the plugin deletes the content and binds the claim before the restore is
    // completed.
    app.take_handle("vsr", "back", FILES);
    app.completed(RESTORE, "vsr");
    let all = history(&app, &created);
    let mut phases: Vec<&str> = all.iter().map(|it| text(it, "/status/phase")).collect();
    phases.dedup();
    let expected = ["", "InProgress", "SnapshotRestoreDone", "Cleanup", "Completed"];
    assert!(phases == expected || phases == expected[1..], "{phases:?}");
    for it in &all {
        let phase = text(it, "/status/phase");
        let handed = is_set(it, "/status/snapshotHandle");
        assert_eq!(handed, is_set(it, "/status/volumeSnapshotContentName"), "{it:#}");
        assert_eq!(handed, matches!(phase, "SnapshotRestoreDone" | "Cleanup" | "Completed"), "{it:#}");
        assert!(phase.is_empty() || is_set(it, "/status/batchingStatus"), "{it:#}");
        assert_ne!(condition(it, "Reconciled"), "False", "{it:#}");
    }
    assert!(all.len() < 20, "{} writes", all.len());
    // 13.5: a failed restore sets phase and condition in one write, and has no handle.
    let mut bad = app.vsr("bad", "bad", &vsb);
    bad["metadata"]["labels"]["velero.io/vsb-name"] = json!("another");
    let created = app.cluster.create(&bad);
    app.ended(RESTORE, "bad");
    for it in history(&app, &created) {
        assert_eq!(text(&it, "/status/phase") == "Failed", condition(&it, "Reconciled") == "False", "{it:#}");
        assert!(!is_set(&it, "/status/snapshotHandle"));
    }
    // 13.7: a restore object that was itself backed up and restored, with its finalizer and labels,
    // does not run again.
    let mut copy = app.vsr("copy", "copy", &vsb);
    copy["metadata"]["finalizers"] = json!(["oadp.openshift.io/oadp-datamover"]);
    app.cluster.create(&copy);
    let copy = app.ended(RESTORE, "copy");
    assert_eq!((text(&copy, "/status/phase"), reason(&copy, "Degraded")), ("Failed", "Copied"), "{copy:#}");
    assert!(message(&copy, "Reconciled").contains("create a new VolumeSnapshotRestore"), "{copy:#}");
    // A live restore object is excluded from backups.
    let label = "/metadata/labels/velero.io~1exclude-from-backup";
    assert_eq!(text(&app.get(RESTORE, "vsr").expect("the restore"), label), "true");
    app.remove();
}

/// 1, 11: the table of `oc get vsb,vsr`, and the short names.
#[test]
fn kubectl_tables_match_volume_snapshot_mover_1_2() {
    let app = App::new("contract-table");
    app.bound("data", FILES);
    let vsb = app.back_up("vsb", "b", "data");
    app.cluster.create(&app.direct("vsr", &vsb, "mine", None));
    let vsr = app.completed(RESTORE, "vsr");
    let columns = ["Name", "PVC Name", "VolumeSnapshotContent", "Phase", "BatchingStatus", "Age"];
    for (plural, object) in [("volumesnapshotbackups", &vsb), ("volumesnapshotrestores", &vsr)] {
        let path = format!("/apis/datamover.oadp.openshift.io/v1alpha1/namespaces/{}/{plural}", app.namespace);
        let table = app.cluster.table(&path);
        let all = table["columnDefinitions"].as_array().expect("columns");
        let shown: Vec<&str> = all.iter().filter(|it| it["priority"] == 0).map(|it| text(it, "/name")).collect();
        assert_eq!(shown, columns);
        let row = &table["rows"][0]["cells"];
        assert_eq!((&row[0], &row[1]), (&object["metadata"]["name"], &json!("data")));
        assert_eq!((&row[3], &row[4]), (&json!("Completed"), &json!("Completed")));
    }
    let path = "/apis/datamover.oadp.openshift.io/v1alpha1";
    let known = Cluster::admin().request("GET", path, None, "application/json").expect("the kinds");
    let all = known["resources"].as_array().expect("resources").iter();
    // The apiserver lists them in the order of their creation.
    let short: std::collections::BTreeSet<&str> =
        all.filter_map(|it| it["shortNames"].as_array()).flatten().filter_map(Value::as_str).collect();
    assert_eq!(short.into_iter().collect::<Vec<_>>(), ["vsb", "vsr"]);
    app.remove();
}
