//! Tests disaster recovery: a lost cluster or an expired backup leaves only the bucket and its
//! password.

use crate::app::{App, Asked, DEVICE, FILES, PASSWORD, RESTORE, repository, secret_for};
use crate::cluster::{Cluster, PROTECTED, files, name, setting, text};
use crate::common::Random;
use crate::common::compare::{self, Options};
use crate::common::peers::Peer;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Creates a bucket for this run, and returns its name and that of its secret.
fn bucket(what: &str) -> (String, String) {
    let bucket = format!("{what}-{}", std::process::id());
    secret_for(&bucket);
    let secret = format!("{bucket}-volsync-restic");
    (bucket, secret)
}

fn succeeds(command: &mut Command) -> String {
    let out = command.output().expect("it starts");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Backs up a claim to a bucket, and returns the path of a copy of the volume outside the cluster.
fn keep(app: &App, secret: &str, claim: &str, asked: Asked<'_>, vsb: &str) -> PathBuf {
    let content = app.snapshot(vsb, claim);
    let mut made = app.vsb(vsb, "b1", &content);
    made["spec"]["resticSecretRef"]["name"] = json!(secret);
    app.cluster.create(&made);
    app.completed("VolumeSnapshotBackup", vsb);
    let copy = files().join(format!("{}-{claim}", app.namespace));
    succeeds(Command::new("rm").arg("-rf").arg(&copy));
    let from = if asked.mode == "Block" { app.volume(claim) } else { app.volume(claim).join(".") };
    succeeds(Command::new("cp").arg("-a").arg(from).arg(&copy));
    copy
}

#[test]
fn volumes_of_a_lost_cluster_are_restored_from_the_bucket_alone() {
    let app = App::new("lost");
    let (bucket, secret) = bucket("lost");
    let volume = app.bound("data", FILES);
    fs::write(volume.join("file"), Random(1).bytes(1 << 20)).expect("a file");
    keep(&app, &secret, "data", FILES, "first");
    fs::write(volume.join("later"), "in the second backup").expect("a file");
    let data = keep(&app, &secret, "data", FILES, "second");
    let device = app.bound("disk", DEVICE);
    fs::write(&device, Random(2).bytes(64 << 20)).expect("a device");
    let disk = keep(&app, &secret, "disk", DEVICE, "disk");

    // The cluster is lost: its requests, its volumes and its repository records. Its successor has
    // another ID.
    app.remove();
    let base = format!("s3:{}/{bucket}", setting("S3_URL"));
    for record in app.cluster.list("ConfigMap", PROTECTED, "app.kubernetes.io/managed-by=vsm-controller") {
        if text(&record, "/data/repository").starts_with(&base) {
            app.cluster.delete("ConfigMap", PROTECTED, name(&record));
        }
    }
    let restic = files().join("s3").join(&bucket).join("restic");
    let own = fs::read_dir(&restic).expect("a cluster").next().expect("one").expect("a folder").path();
    fs::rename(own, restic.join("another-cluster")).expect("another id");

    let meta = json!({"name": app.namespace});
    app.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}));
    let repo = repository(&base);
    let manifests = repo.beside("manifests");
    let asked = ["repositories", &base, "--protected-namespace", PROTECTED, "--secret", &secret, "--manifests"];
    let list = repo.run(Peer::Vsm, asked.map(Into::into).into_iter().chain([manifests.clone().into_os_string()])).ok();
    for told in ["another-cluster", "data", "disk", "first", "second", &app.namespace] {
        assert!(list.text().contains(told), "not listed: {told}\n{}", list.text());
    }
    succeeds(Command::new("kubectl").arg("apply").arg("-f").arg(&manifests));
    let restores = app.cluster.list(RESTORE, &app.namespace, "");
    assert_eq!(restores.len(), 2);
    for restore in &restores {
        app.completed(RESTORE, name(restore));
    }
    compare::assert_same(&data, &app.volume("data"), Options { root: true, holes: false });
    assert!(fs::read(&disk).expect("a copy") == fs::read(app.volume("disk")).expect("a device"), "the device differs");
    succeeds(Command::new("kubectl").args([
        "-n",
        PROTECTED,
        "delete",
        "configmap",
        "-l",
        &format!("datamover.oadp.openshift.io/grant-to={}", app.namespace),
    ]));
    for copy in [data, disk] {
        succeeds(Command::new("rm").arg("-rf").arg(copy));
    }
    app.remove();
}

/// Runs the Job of the shipped CronJob now, for another location.
#[test]
fn the_report_of_expired_data_lists_it_and_removes_nothing() {
    let cluster = Cluster::admin();
    let (bucket, secret) = bucket("expired");
    let prefix = "pre/fix";
    let place = files().join("s3").join(&bucket).join(prefix);
    fs::create_dir_all(place.join("backups/kept")).expect("a folder");
    fs::write(place.join("backups/kept/velero-backup.json"), "{}").expect("a file");
    let repo = repository(&format!("s3:{}/{bucket}/{prefix}/restic/c-1/shop/data", setting("S3_URL")));
    repo.init(Peer::Restic019, 2).ok();
    let from = repo.beside("file");
    fs::write(&from, PASSWORD).expect("a file");
    for (host, tags) in [("stays", "vsb-uid:1,backup:kept"), ("expires", "vsb-uid:2,backup:gone")] {
        let old = ["--tag", tags, "--host", host, "--time", "2024-02-29 12:00:00"];
        let parent: &Path = from.parent().expect("a folder");
        repo.backup(Peer::Restic019, parent, "file", &old);
    }
    let cron = cluster.get("CronJob", PROTECTED, "vsm-expired").expect("the CronJob of the overlay");
    let job = format!("expired-{}", std::process::id());
    let mut spec = cron["spec"]["jobTemplate"]["spec"].clone();
    let container = &mut spec["template"]["spec"]["containers"][0];
    for variable in container["env"].as_array_mut().expect("variables") {
        match variable.pointer_mut("/valueFrom/secretKeyRef/name") {
            Some(name) => *name = json!(secret),
            None => variable["value"] = json!(prefix),
        }
    }
    cluster.create(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job, "namespace": PROTECTED}, "spec": spec,
    }));
    let ended = |it: &Value| ["Complete", "Failed"].iter().any(|kind| crate::app::condition(it, kind) == "True");
    let ended = cluster.until("Job", PROTECTED, &job, ended);
    let pod = cluster.list("Pod", PROTECTED, &format!("batch.kubernetes.io/job-name={job}")).remove(0);
    let log = cluster.log(PROTECTED, name(&pod));
    assert_eq!(crate::app::condition(&ended, "Complete"), "True", "{log}");
    let snapshots = repo.snapshots(Peer::Restic019);
    assert_eq!(snapshots.len(), 2, "nothing was removed");
    for snapshot in &snapshots {
        let told = log.contains(&text(snapshot, "/id")[..8]);
        assert_eq!(told, snapshot["hostname"] == "expires", "{log}");
    }
    cluster.delete("Job", PROTECTED, &job);
}
