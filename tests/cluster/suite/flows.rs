//! Tests the main flows: the data of an application is backed up and restored, and no managed
//! object is left.

use crate::app::{
    App, BACKUP, DEVICE, FILES, RESTORE, assert_whole, condition, message, reason, repository, secret_for,
};
use crate::cluster::{PROTECTED, setting, text};
use crate::common::Random;
use crate::common::compare::{self, Options};
use crate::common::peers::{Peer, Run};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

/// Fills a volume with entries of many owners and types, which only root can make.
fn fill(volume: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(volume.join(name), bytes).expect("a file");
    let mode =
        |name: &str, mode| fs::set_permissions(volume.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    write("file", b"text\n");
    write("large", &Random(7).bytes(9 << 20));
    write("secret", b"of its owner alone");
    chown(volume.join("secret"), Some(1000), Some(2000)).expect("an owner");
    mode("secret", 0o400);
    write("setuid", b"#!/bin/sh\n");
    mode("setuid", 0o4755);
    fs::hard_link(volume.join("file"), volume.join("same file")).expect("a link");
    symlink("no/such/target", volume.join("link")).expect("a link");
    fs::create_dir(volume.join("closed")).expect("a directory");
    write("closed/inside", b"of an owner who closed the directory");
    for name in ["closed/inside", "closed"] {
        chown(volume.join(name), Some(1001), Some(1001)).expect("an owner");
    }
    mode("closed", 0o700);
    let made = |command: &mut Command| assert!(command.status().expect("a program").success(), "{command:?}");
    made(Command::new("mkfifo").arg(volume.join("fifo")));
    made(Command::new("mknod").arg(volume.join("null")).args(["c", "1", "3"]));
    xattr::set(volume.join("file"), "user.note", b"kept").expect("an attribute");
    // cap_net_bind_service, permitted and effective: `struct vfs_cap_data` of version 2.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(volume.join("setuid"), "security.capability", &capability).expect("an attribute");
    let sparse = fs::File::create(volume.join("sparse")).expect("a file");
    sparse.set_len(40 << 20).expect("a length");
}

fn assert_same(source: &Path, restored: &Path) {
    compare::assert_same(source, restored, Options { root: false, holes: false });
}

/// Demands that phases and batching statuses follow the order of the sheet. A poll may miss a step,
/// but no step comes back.
fn assert_in_order(seen: &[String], done: &str) {
    let order = [
        "/",
        "/Queued",
        "InProgress/Processing",
        &format!("{done}/Completed"),
        "Cleanup/Completed",
        "Completed/Completed",
    ];
    let place =
        |phase: &String| order.iter().position(|known| known == phase).unwrap_or_else(|| panic!("{phase} in {seen:?}"));
    let places: Vec<usize> = seen.iter().map(place).collect();
    assert!(places.is_sorted(), "{seen:?}");
}

/// Polls an object until it is completed, and returns its phases.
fn phases(app: &App, kind: &str, name: &str) -> Vec<String> {
    let seen = std::cell::RefCell::new(Vec::new());
    app.until(kind, name, |it| {
        let phase = format!("{}/{}", text(it, "/status/phase"), text(it, "/status/batchingStatus"));
        let mut seen = seen.borrow_mut();
        if seen.last() != Some(&phase) {
            seen.push(phase);
        }
        assert_ne!(text(it, "/status/phase"), "Failed", "{it:#}");
        text(it, "/status/phase") == "Completed"
    });
    seen.into_inner()
}

fn store_is_available() {
    let cluster = crate::cluster::Cluster::admin();
    if setting("LEVEL") == "velero" {
        let location = cluster.get("BackupStorageLocation", PROTECTED, "default").expect("a location");
        assert_eq!(text(&location, "/status/phase"), "Available", "{location:#}");
    }
}

#[test]
fn a_file_system_volume_is_backed_up_and_restored() {
    let app = App::new("flow-files");
    let volume = app.bound("data", FILES);
    fill(&volume);
    app.run("write", "data", FILES, "echo from a pod > /data/written; chown 12:34 /data/written; sync");
    let content = app.snapshot("snap", "data");
    app.cluster.create(&app.vsb("vsb-files", "b1", &content));
    assert_in_order(&phases(&app, BACKUP, "vsb-files"), "SnapshotBackupDone");
    let vsb = app.completed(BACKUP, "vsb-files");
    app.assert_bare(&vsb);

    // restic opens the repository that the status names, verifies every byte, and restores the same
    // tree.
    let repo = app.repository(&vsb);
    assert_whole(&repo);
    let out = repo.beside("out");
    let restored = repo.run(
        Peer::Restic019,
        ["restore", text(&vsb, "/status/snapshotID"), "--no-cache", "--target"]
            .map(Into::into)
            .into_iter()
            .chain([out.clone().into_os_string()]),
    );
    restored.ok();
    assert_same(&volume, &out.join("data"));
    let said = text(&vsb, "/status/restoreCommand");
    assert!(
        said.contains(text(&vsb, "/status/resticrepository")) && said.contains(text(&vsb, "/status/snapshotID")),
        "{said}"
    );
    store_is_available();

    // A second backup adds little data, and both snapshots exist.
    fs::write(volume.join("new"), "little").expect("a file");
    let second = app.back_up("vsb-second", "b2", "data");
    let added = second["status"]["progress"]["addedBytes"].as_i64().expect("a number");
    assert!(added < 100_000, "{added} of {}", second["status"]["progress"]["totalBytes"]);
    assert_eq!(
        repo.run(Peer::Restic019, ["snapshots", "--json", "--no-cache"]).ok().json().as_array().map(Vec::len),
        Some(2)
    );
    fs::remove_file(volume.join("new")).expect("the file exists");

    // A restore can use the first backup, although it is not the newest.
    app.cluster.create(&app.vsr("vsr-files", "r1", &vsb));
    let claimed = app.take_handle("vsr-files", "back", FILES);
    assert_in_order(&phases(&app, RESTORE, "vsr-files"), "SnapshotRestoreDone");
    let vsr = app.completed(RESTORE, "vsr-files");
    app.assert_bare(&vsr);
    assert_same(&volume, &claimed);
    assert_eq!(app.run("read", "back", FILES, "cat /data/written; stat -c %u:%g /data/written"), "from a pod\n12:34\n");
    assert_whole(&repo);
    app.remove();
}

#[test]
fn a_block_volume_is_backed_up_and_restored() {
    let app = App::new("flow-block");
    let device = app.bound("data", DEVICE);
    app.run("write", "data", DEVICE, "dd if=/dev/urandom of=/dev/data bs=1M seek=3 count=20 2>/dev/null; sync");
    let vsb = app.back_up("vsb-block", "b1", "data");
    app.assert_bare(&vsb);
    assert_eq!(text(&vsb, "/status/volumeMode"), "Block");
    let repo = app.repository(&vsb);
    assert_whole(&repo);
    let bytes = fs::read(&device).expect("the image");
    let dumped =
        repo.run(Peer::Restic019, ["dump", "--no-cache", text(&vsb, "/status/snapshotID"), "/dev/volume"]).ok();
    assert!(dumped.stdout() == bytes, "restic dumps other content");

    // The plugin's restore object has no field for the volume mode.
    app.cluster.create(&app.vsr("vsr-block", "r1", &vsb));
    let back = app.take_handle("vsr-block", "back", DEVICE);
    app.completed(RESTORE, "vsr-block");
    assert!(fs::read(back).expect("the image") == bytes, "the restored content differs");
    app.cluster.create(&app.direct("vsr-direct", &vsb, "mine", Some("Block")));
    let vsr = app.completed(RESTORE, "vsr-direct");
    app.assert_bare(&vsr);
    assert!(fs::read(app.volume("mine")).expect("the image") == bytes, "the restored content differs");
    app.remove();
}

/// A restore without the plugin, Velero and a VolumeSnapshot.
#[test]
fn a_direct_restore_fills_a_new_claim() {
    let app = App::new("flow-direct");
    let volume = app.bound("data", FILES);
    fill(&volume);
    let content = app.snapshot("snap", "data");
    // A backup created by hand, which belongs to no Velero backup.
    let mut vsb = app.vsb("by-hand", "", &content);
    vsb["metadata"]["labels"] = json!({});
    app.cluster.create(&vsb);
    let vsb = app.completed(BACKUP, "by-hand");
    for (vsr, class) in [("direct", "testbed"), ("waits", "testbed-wait")] {
        let mut restore = app.direct(vsr, &vsb, vsr, None);
        restore["spec"]["target"]["storageClassName"] = json!(class);
        app.cluster.create(&restore);
        let vsr_ended = app.completed(RESTORE, vsr);
        app.assert_bare(&vsr_ended);
        let restored = app.volume(vsr);
        assert_same(&volume, &restored);
        // The root, too: the mover writes to this volume itself.
        let (source, target) = (fs::metadata(&volume).expect("a root"), fs::metadata(&restored).expect("a root"));
        assert_eq!((source.mode(), source.uid(), source.gid()), (target.mode(), target.uid(), target.gid()));
        assert_eq!(app.run(&format!("read-{vsr}"), vsr, FILES, "cat /data/file"), "text\n");
        // The result is an ordinary volume, which is deleted with its claim.
        let claim = app.get("PersistentVolumeClaim", vsr).expect("the claim");
        let bound = text(&claim, "/spec/volumeName");
        let pv = app.cluster.get("PersistentVolume", "", bound).expect("the volume");
        assert_eq!(text(&pv, "/spec/persistentVolumeReclaimPolicy"), "Delete");
        app.cluster.delete("Job", &app.namespace, &format!("read-{vsr}"));
        app.cluster.delete("PersistentVolumeClaim", &app.namespace, vsr);
        app.cluster.until_gone("PersistentVolume", "", bound);
    }
    // A restore never writes to an existing claim.
    app.cluster.create(&app.direct("refused", &vsb, "data", None));
    let refused = app.ended(RESTORE, "refused");
    assert_eq!(text(&refused, "/status/phase"), "Failed", "{refused:#}");
    assert!(message(&refused, "Reconciled").contains(&format!("{}/data", app.namespace)), "{refused:#}");
    app.assert_bare(&refused);
    assert_same(&volume, &app.volume("data"));
    app.remove();
}

#[test]
fn an_empty_volume_is_recorded_as_empty() {
    let app = App::new("flow-empty");
    app.bound("data", FILES);
    let vsb = app.back_up("vsb-empty", "b1", "data");
    assert_eq!(vsb["status"]["emptyVolume"], true, "{vsb:#}");
    assert_whole(&app.repository(&vsb));
    app.cluster.create(&app.vsr("vsr-empty", "r1", &vsb));
    let back = app.take_handle("vsr-empty", "back", FILES);
    let vsr = app.completed(RESTORE, "vsr-empty");
    assert_eq!((&vsr["status"]["emptyVolume"], condition(&vsr, "Degraded")), (&json!(true), "False"), "{vsr:#}");
    assert_eq!(fs::read_dir(back).expect("a folder").count(), 0);
    app.remove();
}

/// VolSync's mover made these repositories for VolumeSnapshotMover 1.2: the volume's entries at the
/// root of the tree, host `volsync`, path `/data`, one repository for each volume of each backup.
/// The path does not identify the owner, so an administrator grants access.
#[test]
fn repositories_of_volsync_are_restored() {
    let app = App::new("flow-volsync");
    let source = app.bound("source", FILES);
    fill(&source);
    secret_for("old");
    for format in [1, 2] {
        let url = format!("s3:{}/old/{PROTECTED}/b1/snapcontent-{format}-pvc", setting("S3_URL"));
        let name = format!("volsync-{format}");
        let repo = repository(&url);
        if !repo.run(Peer::Restic019, ["cat", "config", "--no-cache"]).succeeded() {
            repo.init(Peer::Restic019, format).ok();
        }
        volsync(&repo, &source);
        let grant = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"old": url},
            "metadata": {"name": name, "namespace": PROTECTED, "labels": {"datamover.oadp.openshift.io/grant-to": app.namespace}},
        });
        let mut vsb = app.vsb(&name, "b1", "snapcontent-1");
        vsb["spec"]["resticSecretRef"]["name"] = json!("old-volsync-restic");
        vsb["status"] = json!({
            "resticrepository": url, "volumeSnapshotClassName": "testbed",
            "sourcePVCData": {"name": name, "size": "64Mi", "storageClassName": "testbed"},
        });
        let ask = |vsr: &str| app.cluster.create(&app.vsr(vsr, &format!("r-{vsr}"), &vsb));
        ask(&format!("early-{format}"));
        let denied = app.ended(RESTORE, &format!("early-{format}"));
        assert_eq!((text(&denied, "/status/phase"), reason(&denied, "Degraded")), ("Failed", "Denied"), "{denied:#}");
        app.cluster.apply(&grant);
        ask(&format!("vsr-{format}"));
        let back = app.take_handle(&format!("vsr-{format}"), &format!("back-{format}"), FILES);
        app.completed(RESTORE, &format!("vsr-{format}"));
        assert_same(&source, &back);
        app.cluster.delete("ConfigMap", PROTECTED, &name);
    }
    app.remove();
}

/// Makes a backup as VolSync's mover does, of `.` in `/data`, in its own mount namespace.
fn volsync(repo: &crate::common::peers::Repo, source: &Path) {
    let restic = repo.command(Peer::Restic019);
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-ec",
        "mkdir -p /data; mount --bind \"$1\" /data; cd /data; shift; exec \"$@\"",
        "sh",
    ]);
    command.arg(source).arg(restic.get_program()).args(["backup", "--no-cache", "--host", "volsync", "."]);
    command.envs(restic.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Run::of(&mut command).ok();
    let snapshots = repo.snapshots(Peer::Restic019);
    let newest: &Value = snapshots.last().expect("a snapshot");
    assert_eq!((&newest["paths"], &newest["hostname"]), (&json!(["/data"]), &json!("volsync")));
}
