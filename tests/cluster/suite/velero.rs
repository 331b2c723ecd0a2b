//! Tests the controller beside the real Velero, which only level `velero` runs.

use crate::app::{App, BACKUP, FILES, RESTORE, assert_whole, secret_for};
use crate::cluster::{Cluster, PROTECTED, files, setting, text};
use serde_json::{Value, json};
use std::fs;

/// Creates a Velero object that has already ended, which Velero does not process.
fn ended(kind: &str, name: &str, spec: &Value, phase: &str) {
    Cluster::admin().create(&json!({
        "apiVersion": "velero.io/v1", "kind": kind, "metadata": {"name": name, "namespace": PROTECTED},
        "spec": spec, "status": {"phase": phase},
    }));
}

#[test]
fn requests_of_failed_velero_backups_and_restores_are_partially_failed() {
    let app = App::new("velero-failed");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let good = app.back_up("good", "not-known", "data");
    let content = text(&good, "/spec/volumeSnapshotContent/name").to_owned();
    for phase in ["Failed", "PartiallyFailed"] {
        let name = format!("{}-{}", app.namespace, phase.to_lowercase());
        ended("Backup", &name, &json!({"includedNamespaces": [app.namespace], "storageLocation": "default"}), phase);
        ended("Restore", &name, &json!({"backupName": name}), phase);
        let vsb = app.vsb(&phase.to_lowercase(), &name, &content);
        let mut vsr = app.vsr(&phase.to_lowercase(), "r", &good);
        vsr["metadata"]["labels"]["velero.io/restore-name"] = json!(name);
        for (kind, object) in [(BACKUP, vsb), (RESTORE, vsr)] {
            app.cluster.create(&object);
            let ended = app.ended(kind, &phase.to_lowercase());
            assert_eq!(text(&ended, "/status/phase"), "PartiallyFailed", "{ended:#}");
            assert!(text(&ended, "/status/moverPod").is_empty(), "a mover was started: {ended:#}");
            app.assert_bare(&ended);
        }
        for kind in ["Restore", "Backup"] {
            app.cluster.delete(kind, PROTECTED, &name);
        }
    }
    app.remove();
}

/// New repositories of a backup location with a prefix are below the prefix, and Velero still
/// accepts the location. Those of VolumeSnapshotMover are outside the prefix.
#[test]
fn repositories_are_below_the_prefix_of_a_location() {
    let app = App::new("velero-prefix");
    let bucket = format!("prefix-{}", std::process::id());
    secret_for(&bucket);
    let own = app.cluster.get("BackupStorageLocation", PROTECTED, "default").expect("a location");
    let mut location = json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": bucket, "namespace": PROTECTED},
        "spec": own["spec"],
    });
    location["spec"]["objectStorage"] = json!({"bucket": bucket, "prefix": "some/where"});
    location["spec"]["default"] = json!(false);
    location["spec"]["validationFrequency"] = json!("1s");
    app.cluster.create(&location);
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let content = app.snapshot("snap", "data");
    let mut vsb = app.vsb("vsb", "b", &content);
    vsb["spec"]["resticSecretRef"]["name"] = json!(format!("{bucket}-volsync-restic"));
    app.cluster.create(&vsb);
    let vsb = app.completed(BACKUP, "vsb");
    let base = format!("s3:{}/{bucket}/", setting("S3_URL"));
    let url = text(&vsb, "/status/resticrepository");
    assert!(url.starts_with(&format!("{base}some/where/restic/")), "{url}");
    assert_whole(&app.repository(&vsb));
    let seen =
        text(&app.cluster.get("BackupStorageLocation", PROTECTED, &bucket).expect("it"), "/status/lastValidationTime")
            .to_owned();
    let validated = app.cluster.until("BackupStorageLocation", PROTECTED, &bucket, |it| {
        !text(it, "/status/phase").is_empty() && text(it, "/status/lastValidationTime") > &*seen
    });
    assert_eq!(text(&validated, "/status/phase"), "Available", "{validated:#}");

    // VolumeSnapshotMover made one repository for each volume of a backup, at the location in the
    // secret.
    let old = format!("{PROTECTED}/b/snapcontent-old-pvc");
    let s3 = files().join("s3").join(&bucket);
    fs::create_dir_all(s3.join(&old).parent().expect("a folder")).expect("a folder");
    fs::rename(s3.join(url.strip_prefix(&base).expect("in the bucket")), s3.join(&old)).expect("moved");
    app.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"old": format!("{base}{old}")},
        "metadata": {"name": bucket, "namespace": PROTECTED, "labels": {"datamover.oadp.openshift.io/grant-to": app.namespace}},
    }));
    let mut vsr = app.direct("vsr", &vsb, "back", None);
    vsr["spec"]["volumeSnapshotMoverBackupRef"]["resticrepository"] = json!(format!("{base}{old}"));
    app.cluster.create(&vsr);
    app.completed(RESTORE, "vsr");
    assert_eq!(fs::read(app.volume("back").join("file")).expect("the file"), b"text");
    app.cluster.delete("ConfigMap", PROTECTED, &bucket);
    app.cluster.delete("BackupStorageLocation", PROTECTED, &bucket);
    app.remove();
}
