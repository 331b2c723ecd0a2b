//! Tests failures: each ends in a phase with a reason and a message that names the object at fault,
//! and leaves no managed object.

use crate::app::{App, BACKUP, FILES, PASSWORD, RESTORE, assert_whole, condition, message, reason, repository};
use crate::cluster::{Cluster, PROTECTED, files, setting, text, wait_for};
use crate::common::Random;
use crate::common::compare::{self, Options};
use crate::common::peers::Peer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Creates a copy of the backup location's base secret with changed keys; a key without a value is
/// omitted.
fn secret(name: &str, changes: &[(&str, Option<&str>)]) {
    let mut data = json!({
        "RESTIC_REPOSITORY": format!("s3:{}/velero", setting("S3_URL")), "RESTIC_PASSWORD": PASSWORD,
        "AWS_ACCESS_KEY_ID": setting("S3_KEY"), "AWS_SECRET_ACCESS_KEY": setting("S3_SECRET"),
    });
    for (key, value) in changes {
        let data = data.as_object_mut().expect("an object");
        match value {
            Some(value) => data.insert((*key).to_owned(), json!(value)),
            None => data.remove(*key),
        };
    }
    let labels = json!({"openshift.io/oadp-bsl-provider": "aws"});
    Cluster::admin().delete("Secret", PROTECTED, name);
    Cluster::admin().create(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": PROTECTED, "labels": labels}, "stringData": data,
    }));
}

/// The certificate of an authority that has signed no server certificate.
fn authority() -> String {
    let mut command = std::process::Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=nobody",
        "-keyout",
        "/dev/null",
    ]);
    let made = command.output().expect("openssl");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).expect("text")
}

fn using(mut object: Value, secret: &str) -> Value {
    object["spec"]["resticSecretRef"]["name"] = json!(secret);
    object
}

/// Creates an object, which must fail with this reason and these words in conditions that the
/// plugin reads, and leave nothing.
fn fails(app: &App, object: &Value, why: &str, words: &str) {
    app.cluster.create(object);
    has_failed(app, object, why, words);
}

fn has_failed(app: &App, object: &Value, why: &str, words: &str) {
    let ended = app.ended(text(object, "/kind"), text(object, "/metadata/name"));
    assert_eq!((text(&ended, "/status/phase"), reason(&ended, "Degraded")), ("Failed", why), "{ended:#}");
    assert_eq!((condition(&ended, "Reconciled"), reason(&ended, "Reconciled")), ("False", "Error"), "{ended:#}");
    let said = message(&ended, "Reconciled");
    assert!(said.contains(words), "{said}");
    assert!(text(&ended, "/status/snapshotHandle").is_empty(), "{ended:#}");
    app.assert_bare(&ended);
}

#[test]
fn an_unusable_store_fails_with_its_reason() {
    let app = App::new("fault-store");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let vsb = app.back_up("good", "b", "data");
    let content = text(&vsb, "/spec/volumeSnapshotContent/name").to_owned();
    // All cases run concurrently, because transient errors are retried with exponential backoff.
    let asked = std::cell::RefCell::new(Vec::new());
    let ask = |object: Value, why: &'static str, words: &'static str| {
        app.cluster.create(&object);
        asked.borrow_mut().push((object, why, words));
    };
    let both = |name: &str, base: &str, why: &'static str, words: &'static str| {
        ask(using(app.vsb(&format!("b-{name}"), "b", &content), &format!("fault-{name}")), why, words);
        let mut vsr = using(app.vsr(&format!("r-{name}"), name, &vsb), &format!("fault-{name}"));
        let (_, path) = text(&vsb, "/status/resticrepository").split_once("/velero/").expect("a bucket");
        vsr["spec"]["volumeSnapshotMoverBackupRef"]["resticrepository"] = json!(format!("{base}/{path}"));
        ask(vsr, why, words);
    };
    let own = format!("s3:{}/velero", setting("S3_URL"));
    secret("fault-password", &[("RESTIC_PASSWORD", Some("wrong"))]);
    both("password", &own, "WrongPassword", "password");
    secret("fault-keys", &[("RESTIC_PASSWORD", None), ("AWS_ACCESS_KEY_ID", Some(""))]);
    both("keys", &own, "Invalid", "lacks RESTIC_PASSWORD, AWS_ACCESS_KEY_ID");
    secret("fault-down", &[("RESTIC_REPOSITORY", Some("s3:http://10.89.0.1:9/velero"))]);
    both("down", "s3:http://10.89.0.1:9/velero", "StoreFailed", "10.89.0.1:9");
    let nowhere = format!("s3:{}/nowhere", setting("S3_URL"));
    secret("fault-bucket", &[("RESTIC_REPOSITORY", Some(&nowhere))]);
    both("bucket", &nowhere, "BucketMissing", "nowhere");
    // The cluster's own authority signed the apiserver's certificate, not this one.
    let ca = authority();
    secret(
        "fault-ca",
        &[("RESTIC_REPOSITORY", Some("s3:https://10.89.0.1:443/velero")), ("RESTIC_CUSTOM_CA", Some(&ca))],
    );
    both("ca", "s3:https://10.89.0.1:443/velero", "StoreFailed", "certificate");
    secret("fault-credentials", &[("AWS_SECRET_ACCESS_KEY", Some("wrong"))]);
    both("credentials", &own, "StoreFailed", "");
    ask(using(app.vsb("no-secret", "b", &content), "fault-absent"), "Invalid", "no secret \"fault-absent\"");
    for (object, why, words) in asked.take() {
        has_failed(&app, &object, why, words);
    }
    assert_whole(&app.repository(&vsb));
    app.remove();
}

/// The folder of the S3 server with the repository that a status names.
fn folder(object: &Value) -> std::path::PathBuf {
    let url = text(object, "/status/resticrepository");
    files().join("s3").join(url.strip_prefix(&format!("s3:{}/", setting("S3_URL"))).expect("the cluster's store"))
}

#[test]
fn a_missing_repository_is_neither_recreated_nor_treated_as_empty() {
    let app = App::new("fault-gone");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let vsb = app.back_up("good", "b", "data");
    let content = text(&vsb, "/spec/volumeSnapshotContent/name").to_owned();
    let (there, aside) = (folder(&vsb), files().join("s3").join(format!("aside-{}", std::process::id())));
    fs::rename(&there, &aside).expect("the repository is moved away");
    fails(&app, &app.vsb("again", "b", &content), "RepositoryMissing", text(&vsb, "/status/resticrepository"));
    fails(&app, &app.vsr("restore", "r", &vsb), "RepositoryMissing", text(&vsb, "/status/resticrepository"));
    assert!(!there.join("config").exists(), "the repository was recreated");
    // VolumeSnapshotMover made no repository for an empty volume. An administrator confirms that
    // with an annotation, and the store has no object of the repository.
    let mut empty = app.vsr("empty", "e", &vsb);
    empty["metadata"]["annotations"] = json!({"datamover.oadp.openshift.io/absent-repository-is-empty-volume": "true"});
    app.cluster.create(&empty);
    let back = app.take_handle("empty", "empty", FILES);
    app.completed(RESTORE, "empty");
    assert_eq!(fs::read_dir(back).expect("a folder").count(), 0);
    // The annotation does not apply if only the config is missing.
    fs::rename(&aside, &there).expect("the repository is moved back");
    fs::rename(there.join("config"), &aside).expect("the config is moved away");
    empty["metadata"]["name"] = json!("damaged");
    empty["metadata"]["labels"]["velero.io/restore-name"] = json!("damaged");
    fails(&app, &empty, "RepositoryDamaged", "config");
    fs::rename(&aside, there.join("config")).expect("the config is moved back");
    app.remove();
}

#[test]
fn a_missing_or_ambiguous_snapshot_fails_the_restore() {
    let app = App::new("fault-pick");
    app.bound("data", FILES);
    let vsb = app.back_up("vsb", "b", "data");
    let mut none = app.vsr("none", "none", &vsb);
    none["metadata"]["labels"]["velero.io/vsb-name"] = json!("another");
    fails(&app, &none, "SnapshotMissing", "vsb:another");
    let mut unsaid = app.vsr("unsaid", "unsaid", &vsb);
    unsaid["metadata"]["labels"] = json!({});
    fails(&app, &unsaid, "Invalid", "snapshotID");
    let restic = app.repository(&vsb);
    restic
        .run(Peer::Restic019, ["tag", "--no-cache", "--add", "vsb:twice,backup:b", text(&vsb, "/status/snapshotID")])
        .ok();
    app.back_up("twice", "b", "data");
    let mut twice = app.vsr("twice", "twice", &vsb);
    twice["metadata"]["labels"]["velero.io/vsb-name"] = json!("twice");
    fails(&app, &twice, "SnapshotAmbiguous", "2 snapshots");
    app.remove();
}

#[test]
fn missing_classes_are_reported_and_two_defaults_are_accepted() {
    let app = App::new("fault-classes");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let name = format!("second-{}", std::process::id());
    let storage = "storageclass.kubernetes.io/is-default-class";
    let snapshot = "snapshot.storage.kubernetes.io/is-default-class";
    app.cluster.create(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "csi.testbed.local",
        "metadata": {"name": name, "annotations": {storage: "true"}},
    }));
    app.cluster.create(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "driver": "csi.testbed.local", "deletionPolicy": "Delete",
        "metadata": {"name": name, "annotations": {snapshot: "true"}},
    }));
    let vsb = app.back_up("vsb", "b", "data");
    app.cluster.create(&app.vsr("vsr", "r", &vsb));
    let back = app.take_handle("vsr", "back", FILES);
    app.completed(RESTORE, "vsr");
    assert_eq!(fs::read(back.join("file")).expect("the file"), b"text");
    app.cluster.delete("StorageClass", "", &name);
    app.cluster.delete("VolumeSnapshotClass", "", &name);

    let mut storage = app.vsr("storage", "s", &vsb);
    storage["spec"]["volumeSnapshotMoverBackupRef"]["sourcePVCData"]["storageClassName"] = json!("nowhere");
    fails(&app, &storage, "Invalid", "no StorageClass nowhere");
    let mut snapshots = app.vsr("snapshots", "n", &vsb);
    snapshots["spec"]["volumeSnapshotMoverBackupRef"]["volumeSnapshotClassName"] = json!("nowhere");
    fails(&app, &snapshots, "Invalid", "no VolumeSnapshotClass nowhere");
    app.remove();
}

/// Fills a volume with data that takes a mover some seconds.
fn fill(volume: &Path) {
    for number in 0..6 {
        fs::write(volume.join(format!("{number}")), Random(number).bytes(32 << 20)).expect("a file");
    }
}

#[test]
fn a_cancelled_backup_leaves_no_object_lock_or_snapshot() {
    let app = App::new("fault-deleted");
    fill(&app.bound("data", FILES));
    let content = app.snapshot("snap", "data");
    let first = app.cluster.create(&app.vsb("first", "b", &content));
    let url = text(&app.completed(BACKUP, "first"), "/status/resticrepository").to_owned();
    let repo = repository(&url);
    let has = |vsb: &Value, kind: &str| app.managed_objects(vsb).iter().any(|it| it.starts_with(kind));
    type Reached<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let moments: [(&str, Reached<'_>); 8] = [
        ("created", Box::new(|_| true)),
        ("started", Box::new(|vsb| text(vsb, "/status/phase") == "InProgress")),
        ("content", Box::new(|vsb| has(vsb, "VolumeSnapshotContent "))),
        ("claim", Box::new(|vsb| has(vsb, "PersistentVolumeClaim "))),
        ("job", Box::new(|vsb| has(vsb, "Job "))),
        ("pod", Box::new(|vsb| !text(vsb, "/status/moverPod").is_empty())),
        (
            "done",
            Box::new(|vsb| {
                text(vsb, "/status/phase") == "SnapshotBackupDone" || text(vsb, "/status/phase") == "Cleanup"
            }),
        ),
        ("completed", Box::new(|vsb| text(vsb, "/status/phase") == "Completed")),
    ];
    for (moment, reached) in &moments {
        let made = app.cluster.create(&app.vsb(moment, "b", &content));
        app.until(BACKUP, moment, reached);
        app.cluster.delete(BACKUP, &app.namespace, moment);
        app.cluster.until_gone(BACKUP, &app.namespace, moment);
        assert_eq!(app.managed_objects(&made), Vec::<String>::new(), "{moment}");
        assert_whole(&repo);
        let tag = format!("vsb:{moment}");
        let left = repo.run(Peer::Restic019, ["snapshots", "--no-cache", "--json", "--tag", &tag]).ok().json();
        let kept = matches!(*moment, "done" | "completed");
        if moment != &"pod" {
            assert_eq!(left.as_array().map(Vec::len), Some(usize::from(kept)), "{moment}: {left}");
        }
    }
    // The first backup still exists, and so does its data: Velero deletes every
    // VolumeSnapshotBackup minutes after its success.
    app.assert_bare(&first);
    app.cluster.delete(BACKUP, &app.namespace, "first");
    app.cluster.until_gone(BACKUP, &app.namespace, "first");
    let left = repo.run(Peer::Restic019, ["snapshots", "--no-cache", "--json", "--tag", "vsb:first"]).ok().json();
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    app.remove();
}

/// The snapshot controller first binds a content and then records it in its VolumeSnapshot. If the
/// VolumeSnapshot is deleted in between, the snapshot controller finds no content and removes the
/// VolumeSnapshot's finalizers only: the content keeps csi-snapshotter's finalizer and is orphaned.
/// The test stops the snapshot controller and removes the finalizers in its place.
#[test]
fn a_content_that_the_snapshot_controller_orphans_is_deleted() {
    let app = App::new("fault-forgotten");
    fill(&app.bound("data", FILES));
    let content = app.snapshot("snap", "data");
    let vsb = app.cluster.create(&app.vsb("vsb", "b", &content));
    let helper = format!("vsm-vsb-{}", text(&vsb, "/metadata/uid"));
    app.cluster.until("VolumeSnapshot", PROTECTED, &helper, |snapshot| snapshot["status"]["readyToUse"] == true);
    let held = Held::new("snapshot-controller");
    app.cluster.delete(BACKUP, &app.namespace, "vsb");
    let going = |snapshot: &Value| !text(snapshot, "/metadata/deletionTimestamp").is_empty();
    app.cluster.until("VolumeSnapshot", PROTECTED, &helper, going);
    let released = json!({"metadata": {"finalizers": null}});
    app.cluster.merge("VolumeSnapshot", PROTECTED, &helper, &released).expect("its finalizers");
    app.cluster.until_gone(BACKUP, &app.namespace, "vsb");
    drop(held);
    assert_eq!(app.managed_objects(&vsb), Vec::<String>::new());
    app.remove();
}

/// A stopped daemon of the cluster; continues on drop.
struct Held(Pid);

impl Held {
    fn new(daemon: &str) -> Held {
        let file = files().join("pids").join(daemon);
        let pid = fs::read_to_string(file).expect("its process");
        let pid = pid.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a number");
        let held = Held(Pid::from_raw(pid).expect("a process"));
        kill_process(held.0, Signal::STOP).expect("it runs");
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).expect("the daemon exists");
    }
}

#[test]
fn a_cancelled_restore_leaves_nothing() {
    let app = App::new("fault-undone");
    fill(&app.bound("data", FILES));
    let vsb = app.back_up("vsb", "b", "data");
    let has = |vsr: &Value, kind: &str| app.managed_objects(vsr).iter().any(|it| it.starts_with(kind));
    type Reached<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let moments: [(&str, Reached<'_>); 6] = [
        ("created", Box::new(|_| true)),
        ("started", Box::new(|vsr| text(vsr, "/status/phase") == "InProgress")),
        ("claim", Box::new(|vsr| has(vsr, "PersistentVolumeClaim "))),
        ("job", Box::new(|vsr| has(vsr, "Job "))),
        ("pod", Box::new(|vsr| !text(vsr, "/status/moverPod").is_empty())),
        ("volume", Box::new(|vsr| has(vsr, "VolumeSnapshot ") || has(vsr, "PersistentVolume "))),
    ];
    for (moment, reached) in &moments {
        for direct in [false, true] {
            let name = format!("{moment}-{direct}");
            let vsr = if direct { app.direct(&name, &vsb, &name, None) } else { app.vsr(&name, &name, &vsb) };
            let made = app.cluster.create(&vsr);
            app.until(RESTORE, &name, |vsr| reached(vsr) || text(vsr, "/status/phase") == "Completed");
            app.cluster.delete(RESTORE, &app.namespace, &name);
            app.cluster.until_gone(RESTORE, &app.namespace, &name);
            // The driver deletes a volume some time after its claim, and no object waits for that.
            let left = app.managed_objects(&made).into_iter().filter(|it| !it.starts_with("PersistentVolume "));
            assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "{name}");
            app.assert_bare(&made);
            // If the claim exists, the deletion came too late to cancel the restore.
            if let Some(claim) = app.get("PersistentVolumeClaim", &name) {
                assert!(direct && text(&claim, "/status/phase") == "Bound", "{claim:#}");
                compare::assert_same(&app.volume("data"), &app.volume(&name), Options { root: false, holes: false });
            }
        }
    }
    assert_whole(&app.repository(&vsb));
    app.remove();
}

#[test]
fn claims_of_one_name_in_two_namespaces_are_never_confused() {
    let apps = [App::new("fault-twin-a"), App::new("fault-twin-b")];
    let vsbs = apps.each_ref().map(|app| {
        fs::write(app.bound("data", FILES).join("whose"), &app.namespace).expect("a file");
        app.back_up("vsb", "b", "data")
    });
    assert_ne!(vsbs[0]["status"]["resticrepository"], vsbs[1]["status"]["resticrepository"]);
    // The plugin cannot distinguish the two within one Velero restore: neither gets a handle.
    for (app, vsb) in apps.iter().zip(&vsbs) {
        let mut vsr = app.vsr("both", "", vsb);
        vsr["metadata"]["labels"]["velero.io/restore-name"] = json!(format!("both-{}", std::process::id()));
        app.cluster.create(&vsr);
    }
    for app in &apps {
        let ended = app.ended(RESTORE, "both");
        assert_eq!((text(&ended, "/status/phase"), reason(&ended, "Degraded")), ("Failed", "Ambiguous"), "{ended:#}");
        assert!(text(&ended, "/status/snapshotHandle").is_empty());
        app.cluster.delete(RESTORE, &app.namespace, "both");
    }
    for (app, vsb) in apps.iter().zip(&vsbs) {
        app.cluster.create(&app.vsr("alone", "alone", vsb));
        let back = app.take_handle("alone", "back", FILES);
        app.completed(RESTORE, "alone");
        assert_eq!(fs::read_to_string(back.join("whose")).expect("the file"), app.namespace);
        app.remove();
    }
}

/// The tests' deployment has a limit of ten of each kind.
#[test]
fn concurrency_stays_within_the_limit_and_all_backups_complete() {
    let app = App::new("fault-queue");
    fs::write(app.bound("data", FILES).join("file"), Random(1).bytes(1 << 20)).expect("a file");
    let content = app.snapshot("snap", "data");
    let names: Vec<String> = (0..11).map(|number| format!("vsb-{number:02}")).collect();
    for name in &names {
        app.cluster.create(&app.vsb(name, "b", &content));
    }
    let (mut most, mut queued) = (0, false);
    let done = wait_for(Duration::from_secs(300), || {
        let all = app.cluster.list(BACKUP, &app.namespace, "");
        let count = |status: &str| all.iter().filter(|vsb| text(vsb, "/status/batchingStatus") == status).count();
        most = most.max(count("Processing"));
        queued |= count("Queued") > 0;
        all.iter().all(|vsb| text(vsb, "/status/phase") == "Completed").then_some(())
    });
    assert!(done.is_some() && most <= 10 && queued, "at most {most} at a time, queued: {queued}");
    // Each of the eleven backups of one content has its own snapshot.
    let vsb = app.completed(BACKUP, "vsb-00");
    let repo = app.repository(&vsb);
    assert_eq!(
        repo.run(Peer::Restic019, ["snapshots", "--no-cache", "--json"]).ok().json().as_array().map(Vec::len),
        Some(11)
    );
    assert_whole(&repo);
    for name in &names {
        app.assert_bare(&app.completed(BACKUP, name));
    }
    app.remove();
}

#[test]
fn names_of_maximum_length_are_accepted() {
    let app = App::new(&"n".repeat(50));
    let long = |letter: &str| letter.repeat(253);
    fs::write(app.bound(&long("c"), FILES).join("file"), "text").expect("a file");
    let vsb = {
        let content = app.snapshot(&long("s"), &long("c"));
        let mut vsb = app.vsb(&long("v"), &"b".repeat(63), &content);
        vsb["metadata"]["labels"].as_object_mut().expect("labels").remove("datamover.io/vsb-volumesnapshotcontent");
        app.cluster.create(&vsb);
        app.completed(BACKUP, &long("v"))
    };
    assert_whole(&app.repository(&vsb));
    app.cluster.create(&app.direct(&long("r"), &vsb, &long("t"), None));
    app.completed(RESTORE, &long("r"));
    assert_eq!(fs::read(app.volume(&long("t")).join("file")).expect("the file"), b"text");
    app.remove();
}

/// Velero deletes its content of a class with policy `Retain`, and with it the last reference to
/// the snapshot on the storage system.
#[test]
fn an_unreferenced_storage_snapshot_is_deleted_if_its_class_allows_it() {
    let app = App::new("fault-free");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    let take = |class: &str, annotations: Value| {
        let name = format!("{class}-{}", std::process::id());
        app.cluster.create(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "driver": "csi.testbed.local", "deletionPolicy": "Retain",
            "metadata": {"name": name, "annotations": annotations},
        }));
        app.snapshot_of_class(class, "data", &name);
        let ready = app.until("VolumeSnapshot", class, |it| it["status"]["readyToUse"] == true);
        let content = text(&ready, "/status/boundVolumeSnapshotContentName").to_owned();
        app.cluster.create(&app.vsb(class, "b", &content));
        app.assert_bare(&app.completed(BACKUP, class));
        app.cluster.delete("VolumeSnapshotClass", "", &name);
        let handle = app.cluster.get("VolumeSnapshotContent", "", &content).expect("the source");
        (content, text(&handle, "/status/snapshotHandle").to_owned())
    };
    let kept = take("kept", json!({}));
    let freed = take("freed", json!({"datamover.oadp.openshift.io/free-storage-snapshots": "true"}));
    let is_there = |handle: &str| files().join("csi/snapshots").join(handle).exists();
    let named = |handle: &str| {
        let all = app.cluster.list("VolumeSnapshotContent", "", "");
        all.iter().filter(|it| it["status"]["snapshotHandle"] == handle).count()
    };
    assert_eq!((named(&kept.1), named(&freed.1)), (1, 2), "the source, and the controller's content");
    // VSM_FREE_SNAPSHOTS_AFTER of the tests' controller is 5 s.
    std::thread::sleep(Duration::from_secs(10));
    assert!(is_there(&freed.1), "deleted although its source content still exists");
    for (name, (content, handle)) in [("kept", &kept), ("freed", &freed)] {
        app.cluster.delete("VolumeSnapshot", &app.namespace, name);
        app.cluster.until_gone("VolumeSnapshot", &app.namespace, name);
        app.cluster.delete("VolumeSnapshotContent", "", content);
        app.cluster.until_gone("VolumeSnapshotContent", "", content);
        assert!(is_there(handle), "{name}: deleted with its source content");
    }
    let gone = wait_for(Duration::from_secs(60), || (!is_there(&freed.1) && named(&freed.1) == 0).then_some(()));
    assert!(gone.is_some(), "the storage snapshot was not deleted, or {} contents name it", named(&freed.1));
    assert!(is_there(&kept.1) && named(&kept.1) == 0, "deleted without the annotation of its class");
    app.remove();
}

#[test]
fn a_snapshot_larger_than_its_claim_or_of_unknown_size_is_backed_up() {
    let app = App::new("fault-size");
    fs::write(app.bound("data", FILES).join("file"), "text").expect("a file");
    for (name, size, helper) in [("larger", 100 << 20, "100Mi"), ("unknown", 0, "64Mi")] {
        let class = format!("{name}-{}", std::process::id());
        app.cluster.create(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "driver": "csi.testbed.local", "deletionPolicy": "Delete",
            "metadata": {"name": class}, "parameters": {"size": size.to_string()},
        }));
        app.snapshot_of_class(name, "data", &class);
        let ready = app.until("VolumeSnapshot", name, |it| it["status"]["readyToUse"] == true);
        let content = text(&ready, "/status/boundVolumeSnapshotContentName");
        let told = app.cluster.get("VolumeSnapshotContent", "", content).expect("a content");
        assert_eq!(told["status"]["restoreSize"].as_i64().unwrap_or(0), size, "{told:#}");
        let vsb = app.cluster.create(&app.vsb(name, "b", content));
        let claim = format!("vsm-vsb-{}", text(&vsb, "/metadata/uid"));
        let claim = app.cluster.until("PersistentVolumeClaim", PROTECTED, &claim, |_| true);
        assert_eq!(text(&claim, "/spec/resources/requests/storage"), helper);
        let vsb = app.completed(BACKUP, name);
        assert_eq!(vsb["status"]["sourcePVCData"]["size"], "64Mi", "the request of the claim");
        app.cluster.create(&app.direct(name, &vsb, name, None));
        app.completed(RESTORE, name);
        assert_eq!(fs::read(app.volume(name).join("file")).expect("the file"), b"text");
        app.cluster.delete("VolumeSnapshotClass", "", &class);
    }
    app.remove();
}
