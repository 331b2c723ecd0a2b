//! An application in its own namespace, and the actions of Velero's plugin on it. The objects
//! follow the sheet on the plugin and do not use the library's types.

use crate::cluster::{Cluster, PROTECTED, files, name, setting, text, wait_for};
use crate::common::peers::{Peer, Repo};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

pub const BACKUP: &str = "VolumeSnapshotBackup";
pub const RESTORE: &str = "VolumeSnapshotRestore";
/// The base secret that the OADP operator makes for a backup location.
pub const SECRET: &str = "default-volsync-restic";
pub const PASSWORD: &str = "correct horse";
/// The name of the cluster's CSI driver.
pub const DRIVER: &str = "csi.testbed.local";

const UID_LABEL: &str = "datamover.oadp.openshift.io/uid";

pub struct App {
    pub cluster: Cluster,
    pub namespace: String,
}

/// The request of a claim.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub mode: &'a str,
    pub size: &'a str,
    pub class: &'a str,
}

pub const FILES: Asked = Asked { mode: "Filesystem", size: "64Mi", class: "testbed" };
pub const DEVICE: Asked = Asked { mode: "Block", size: "64Mi", class: "testbed" };

impl App {
    /// Creates a namespace with a name that no earlier run used, because the content of buckets
    /// stays.
    pub fn new(name: &str) -> App {
        let namespace = &format!("{name}-{}", std::process::id());
        let app = App { cluster: Cluster::admin(), namespace: namespace.clone() };
        app.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        let account = || app.cluster.get("ServiceAccount", namespace, "default");
        wait_for(Duration::from_secs(60), account).expect("the namespace's account");
        app
    }

    /// Deletes the namespace with everything in it.
    pub fn remove(&self) {
        self.cluster.delete("Namespace", "", &self.namespace);
        self.cluster.until_gone("Namespace", "", &self.namespace);
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.cluster.get(kind, &self.namespace, name)
    }

    pub fn until(&self, kind: &str, name: &str, ready: impl Fn(&Value) -> bool) -> Value {
        self.cluster.until(kind, &self.namespace, name, ready)
    }

    pub fn claim(&self, name: &str, asked: Asked<'_>, source: Option<&str>) {
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"], "volumeMode": asked.mode, "storageClassName": asked.class,
            "resources": {"requests": {"storage": asked.size}},
        });
        if let Some(snapshot) = source {
            spec["dataSource"] =
                json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot});
        }
        let meta = json!({"name": name, "namespace": self.namespace});
        self.cluster
            .create(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}));
    }

    /// Creates a claim, waits until it is bound, and returns the path of its volume.
    pub fn bound(&self, name: &str, asked: Asked<'_>) -> PathBuf {
        self.claim(name, asked, None);
        self.volume(name)
    }

    /// The path of a claim's volume in the driver: a folder, or the file behind a block device.
    pub fn volume(&self, claim: &str) -> PathBuf {
        let claim = self.until("PersistentVolumeClaim", claim, |claim| text(claim, "/status/phase") == "Bound");
        let volume = self.cluster.get("PersistentVolume", "", text(&claim, "/spec/volumeName")).expect("its volume");
        files().join("csi/volumes").join(text(&volume, "/spec/csi/volumeHandle")).join("contents")
    }

    /// Runs a shell command in a pod with the claim at `/data` or as the device `/dev/data`, and
    /// returns its output.
    pub fn run(&self, job: &str, claim: &str, asked: Asked<'_>, command: &str) -> String {
        let (mounts, place) = match asked.mode {
            "Block" => ("volumeDevices", json!([{"name": "data", "devicePath": "/dev/data"}])),
            _ => ("volumeMounts", json!([{"name": "data", "mountPath": "/data"}])),
        };
        let mut container = json!({
            "name": "main", "image": "testbed.local/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-ec", command],
        });
        container[mounts] = place;
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        let pod = json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes});
        self.cluster.create(&json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job, "namespace": self.namespace},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        }));
        let ended =
            self.until("Job", job, |job| condition(job, "Complete") == "True" || condition(job, "Failed") == "True");
        let pod = self.cluster.list("Pod", &self.namespace, &format!("batch.kubernetes.io/job-name={job}")).remove(0);
        let log = self.cluster.log(&self.namespace, name(&pod));
        assert_eq!(condition(&ended, "Complete"), "True", "{command}: {log}");
        log
    }

    /// Takes a snapshot of a claim and returns the name of its content.
    pub fn snapshot(&self, name: &str, claim: &str) -> String {
        self.snapshot_of_class(name, claim, "testbed");
        let ready = self.until("VolumeSnapshot", name, |it| it["status"]["readyToUse"] == true);
        text(&ready, "/status/boundVolumeSnapshotContentName").to_owned()
    }

    pub fn snapshot_of_class(&self, name: &str, claim: &str, class: &str) {
        let spec = json!({"volumeSnapshotClassName": class, "source": {"persistentVolumeClaimName": claim}});
        let meta = json!({"name": name, "namespace": self.namespace});
        self.cluster.create(
            &json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": meta, "spec": spec}),
        );
    }

    /// A VolumeSnapshotBackup as the plugin creates it for a content in a Velero backup.
    pub fn vsb(&self, name: &str, backup: &str, content: &str) -> Value {
        json!({
            "apiVersion": "datamover.oadp.openshift.io/v1alpha1", "kind": BACKUP,
            "metadata": {"name": name, "namespace": self.namespace, "labels": {
                "velero.io/backup-name": backup, "datamover.io/vsb-volumesnapshotcontent": content,
            }},
            "spec": {
                "volumeSnapshotContent": {"name": content}, "protectedNamespace": PROTECTED, "resticSecretRef": {"name": SECRET},
            },
        })
    }

    /// Takes a snapshot of a claim and backs it up; returns the completed VolumeSnapshotBackup.
    pub fn back_up(&self, name: &str, backup: &str, claim: &str) -> Value {
        let content = self.snapshot(name, claim);
        self.cluster.create(&self.vsb(name, backup, &content));
        self.completed(BACKUP, name)
    }

    /// Waits for the end of a backup or restore, which must be `Completed`.
    pub fn completed(&self, kind: &str, name: &str) -> Value {
        let ended = self.ended(kind, name);
        assert_eq!(text(&ended, "/status/phase"), "Completed", "{ended:#}");
        ended
    }

    /// Waits until a backup or restore has ended, with any result, and has no finalizer.
    pub fn ended(&self, kind: &str, name: &str) -> Value {
        self.until(kind, name, |it| {
            let ended = matches!(text(it, "/status/phase"), "Completed" | "Failed" | "PartiallyFailed");
            ended && it["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        })
    }

    /// A VolumeSnapshotRestore as the plugin creates it from the annotations of a stored backup.
    /// Names of Velero Restores are shared by all namespaces, so the name contains this one.
    pub fn vsr(&self, name: &str, restore: &str, vsb: &Value) -> Value {
        let status = &vsb["status"];
        json!({
            "apiVersion": "datamover.oadp.openshift.io/v1alpha1", "kind": RESTORE,
            "metadata": {"name": name, "namespace": self.namespace, "labels": {
                "velero.io/restore-name": format!("{}-{restore}", self.namespace), "velero.io/backup-name": vsb["metadata"]["labels"]["velero.io/backup-name"],
                "velero.io/persistent-volume-claim-name": status["sourcePVCData"]["name"], "velero.io/vsb-name": vsb["metadata"]["name"],
            }},
            "spec": {
                "resticSecretRef": vsb["spec"]["resticSecretRef"], "protectedNamespace": vsb["spec"]["protectedNamespace"],
                "volumeSnapshotMoverBackupRef": {
                    "sourcePVCData": status["sourcePVCData"], "resticrepository": status["resticrepository"],
                    "volumeSnapshotClassName": status["volumeSnapshotClassName"],
                },
            },
        })
    }

    /// A direct restore into a new claim of this namespace.
    pub fn direct(&self, name: &str, vsb: &Value, claim: &str, mode: Option<&str>) -> Value {
        let mut vsr = self.vsr(name, "", vsb);
        vsr["metadata"]["labels"] = json!({});
        vsr["spec"]["snapshotID"] = vsb["status"]["snapshotID"].clone();
        vsr["spec"]["target"] = json!({"name": claim});
        if let Some(mode) = mode {
            vsr["spec"]["target"]["volumeMode"] = json!(mode);
        }
        vsr
    }

    /// Uses the handle of a restore as the plugin does: creates its own content and a snapshot
    /// bound to it, deletes the content that the restore names, and creates a claim from the
    /// snapshot.
    pub fn take_handle(&self, restore: &str, claim: &str, asked: Asked<'_>) -> PathBuf {
        let vsr = self.until(RESTORE, restore, |vsr| {
            assert_ne!(text(vsr, "/status/phase"), "Failed", "{vsr:#}");
            !text(vsr, "/status/snapshotHandle").is_empty()
        });
        assert!(!text(&vsr, "/status/phase").is_empty(), "{vsr:#}");
        let theirs = text(&vsr, "/status/volumeSnapshotContentName");
        assert!(
            self.cluster.get("VolumeSnapshotContent", "", theirs).is_some(),
            "the content must exist until the plugin deletes it"
        );
        let content = format!("velero-{claim}-{}", text(&vsr, "/metadata/uid"));
        let reference = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "name": claim, "namespace": self.namespace,
        });
        self.cluster.create(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": content, "labels": {"velero.io/restore-name": "r"}},
            "spec": {
                "deletionPolicy": "Retain", "driver": DRIVER, "source": {"snapshotHandle": vsr["status"]["snapshotHandle"]},
                "volumeSnapshotRef": reference,
            },
        }));
        self.cluster.create(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"name": claim, "namespace": self.namespace}, "spec": {"source": {"volumeSnapshotContentName": content}},
        }));
        self.cluster.delete("VolumeSnapshotContent", "", theirs);
        self.claim(claim, asked, Some(claim));
        self.volume(claim)
    }

    /// The managed objects of a request, in the protected namespace and cluster-scoped.
    pub fn managed_objects(&self, object: &Value) -> Vec<String> {
        let selector = format!("{UID_LABEL}={}", text(object, "/metadata/uid"));
        let here = ["Job", "Pod", "PersistentVolumeClaim", "VolumeSnapshot", "Secret", "ConfigMap"];
        let kinds = here
            .map(|kind| (kind, PROTECTED))
            .into_iter()
            .chain([("VolumeSnapshotContent", ""), ("PersistentVolume", "")]);
        let found = kinds.flat_map(|(kind, namespace)| {
            let all = self.cluster.list(kind, namespace, &selector);
            all.into_iter().map(move |it| format!("{kind} {}", name(&it))).collect::<Vec<_>>()
        });
        found.collect()
    }

    /// Waits until a request has no managed objects.
    pub fn assert_bare(&self, object: &Value) {
        let none = || Some(()).filter(|()| self.managed_objects(object).is_empty());
        let gone = wait_for(Duration::from_secs(60), none);
        assert!(gone.is_some(), "left behind: {:?}", self.managed_objects(object));
    }

    /// The repository that a status names, for stock restic.
    pub fn repository(&self, object: &Value) -> Repo {
        let url = match text(object, "/status/resticrepository") {
            "" => text(object, "/spec/volumeSnapshotMoverBackupRef/resticrepository"),
            url => url,
        };
        repository(url)
    }
}

/// The process IDs of a program in a pod, on this machine.
pub fn processes(pod_uid: &str, program: &str) -> Vec<i32> {
    let read = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| read(*pid, "cgroup").contains(pod_uid) && read(*pid, "comm").trim() == program).collect()
}

/// Creates a bucket, and its base secret as the OADP operator creates it for a backup location.
pub fn secret_for(bucket: &str) {
    std::fs::create_dir_all(files().join("s3").join(bucket)).expect("a bucket");
    let labels = json!({"openshift.io/oadp-bsl-provider": "aws", "openshift.io/oadp-bsl-name": bucket});
    Cluster::admin().apply(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": format!("{bucket}-volsync-restic"), "namespace": PROTECTED, "labels": labels},
        "stringData": {
            "RESTIC_REPOSITORY": format!("s3:{}/{bucket}", setting("S3_URL")), "RESTIC_PASSWORD": PASSWORD,
            "AWS_ACCESS_KEY_ID": setting("S3_KEY"), "AWS_SECRET_ACCESS_KEY": setting("S3_SECRET"),
        },
    }));
}

/// A repository in the cluster's store.
pub fn repository(url: &str) -> Repo {
    let mut repo = Repo::at(url);
    repo.set("AWS_ACCESS_KEY_ID", setting("S3_KEY")).set("AWS_SECRET_ACCESS_KEY", setting("S3_SECRET"));
    repo.set("RESTIC_PASSWORD", PASSWORD);
    repo
}

/// Demands that `restic check --read-data` succeeds and that no lock is left.
pub fn assert_whole(repo: &Repo) {
    repo.run(Peer::Restic019, ["check", "--read-data", "--no-cache"]).ok();
    assert_eq!(repo.run(Peer::Restic019, ["list", "locks", "--no-lock"]).ok().text(), "", "a lock is left");
}

/// The status of a condition, or an empty text.
pub fn condition<'v>(object: &'v Value, kind: &str) -> &'v str {
    field(object, kind, "status")
}

/// The reason of a condition, or an empty text.
pub fn reason<'v>(object: &'v Value, kind: &str) -> &'v str {
    field(object, kind, "reason")
}

/// The message of a condition, or an empty text.
pub fn message<'v>(object: &'v Value, kind: &str) -> &'v str {
    field(object, kind, "message")
}

fn field<'v>(object: &'v Value, kind: &str, field: &str) -> &'v str {
    let all = object["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|condition| condition["type"] == kind));
    found.map_or("", |condition| text(condition, &format!("/{field}")))
}
