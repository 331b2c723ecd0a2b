//! Writes the manifests that restore a volume on another cluster, as YAML for `kubectl apply`: the
//! VolumeSnapshotRestore, and the grant that lets its namespace read the repository.
//!
//! The types repeat those of [`crate::api`], which a mover does not contain; a test compares them.

use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::id::Id;
use crate::provenance::{Layout, OLD_SUFFIX, Tag, label_value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The label of a grant, a ConfigMap in the protected namespace. Its value is the namespace that
/// may read the repositories in the ConfigMap.
pub const GRANT_LABEL: &str = "datamover.oadp.openshift.io/grant-to";

/// The API group and version of our custom resources.
const API_VERSION: &str = "datamover.oadp.openshift.io/v1alpha1";

/// Bytes of a claim's name that are part of the names of its objects and files, so that these names
/// stay short enough with a suffix.
const NAME: usize = 160;

/// The volumes to restore, and the settings of their manifests.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The protected namespace, in which the controller runs.
    pub protected: String,
    /// The secret in that namespace with the location, the credentials and the password.
    pub secret: String,
    /// Use only snapshots of this Velero backup.
    pub backup: Option<String>,
    /// Use only snapshots that are not younger than this.
    pub until: Option<Time>,
    /// The namespace for volumes whose repositories name none.
    pub namespace: Option<String>,
}

/// A file of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The name of the file, at most 255 bytes.
    pub file: String,
    pub text: String,
    /// The namespace and name of the claim that the manifests create.
    pub claim: (String, String),
}

/// The reason why a repository has no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the repository has no snapshot that is asked for")]
    NoSnapshot,
    #[error("the path of the repository does not say whose volume it is; write a VolumeSnapshotRestore by hand")]
    Unknown,
    #[error("the path of the repository names no namespace; give one with --namespace")]
    NoNamespace,
    #[error("{name:?} cannot be the name of a {what} in Kubernetes")]
    Name { what: &'static str, name: String },
}

impl Plan {
    /// Makes the file that restores a volume: the grant, and the restore into a claim of the
    /// volume's own namespace. `snapshots` are all snapshots of the repository, oldest first; the
    /// newest one that the plan accepts is restored.
    pub fn manifest<'s>(
        &self,
        repository: &str,
        layout: &Layout,
        snapshots: impl DoubleEndedIterator<Item = (Id, &'s Snapshot)>,
    ) -> Result<Manifest, Unfit> {
        let (namespace, claim) = match layout {
            Layout::Volume { namespace, claim, .. } => (namespace.clone(), claim.clone()),
            Layout::Old { content, .. } => {
                (self.namespace.clone().ok_or(Unfit::NoNamespace)?, format!("{content}{OLD_SUFFIX}"))
            }
            Layout::Unknown => return Err(Unfit::Unknown),
        };
        let mut newest = snapshots.rev().filter(|(_, snapshot)| self.wants(layout, snapshot));
        let (id, snapshot) = newest.next().ok_or(Unfit::NoSnapshot)?;
        if !is_label(&namespace) {
            return Err(Unfit::Name { what: "namespace", name: namespace });
        }
        if !is_subdomain(&claim) {
            return Err(Unfit::Name { what: "claim", name: claim });
        }
        Ok(Volume { namespace: &namespace, claim: &claim, repository, id, snapshot }.manifest(self))
    }

    fn wants(&self, layout: &Layout, snapshot: &Snapshot) -> bool {
        let tags = &snapshot.tags;
        let until = self.until.is_none_or(|until| snapshot.time.instant() <= until.instant());
        let made_by = match layout {
            Layout::Old { backup, .. } => backup.as_deref(),
            _ => Tag::Velero.value(tags),
        };
        let backup = self.backup.as_deref().is_none_or(|wanted| made_by.map(label_value) == Some(label_value(wanted)));
        // Snapshots of other programs in the repository are not of the volume.
        let ours = matches!(layout, Layout::Old { .. }) || Tag::Backup.value(tags).is_some();
        until && backup && ours
    }
}

/// A volume to restore.
struct Volume<'v> {
    namespace: &'v str,
    /// The claim that the restore creates.
    claim: &'v str,
    repository: &'v str,
    id: Id,
    snapshot: &'v Snapshot,
}

/// The size of the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Size {
    /// The size that the backed-up claim requested.
    Recorded(String),
    /// The bytes of the block volume.
    Image(u64),
    /// An estimate of the GiB that the files need.
    Guessed(u64),
}

impl Size {
    /// Only this controller records the size of the claim in snapshots. For other snapshots the
    /// size of the files is a lower bound, because a file system needs a part of its volume and
    /// files grow: the guess adds a quarter, and rounds up to whole GiB.
    fn of(snapshot: &Snapshot) -> Size {
        let bytes = snapshot.summary.as_ref().map_or(0, |summary| summary.total_bytes_processed);
        match Tag::Size.value(&snapshot.tags) {
            Some(size) => Size::Recorded(size.to_owned()),
            None if snapshot.is_device() && bytes > 0 => Size::Image(bytes),
            None => Size::Guessed((bytes.saturating_add(bytes / 4) >> 30) + 1),
        }
    }

    /// The size as a Kubernetes quantity.
    fn quantity(&self) -> String {
        match self {
            Size::Recorded(size) => size.clone(),
            Size::Image(bytes) => bytes.to_string(),
            Size::Guessed(gib) => format!("{gib}Gi"),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<S: Serialize> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    #[serde(flatten)]
    content: S,
}

#[derive(Serialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Grant<'v> {
    data: Granted<'v>,
}

#[derive(Serialize)]
struct Granted<'v> {
    repository: &'v str,
}

#[derive(Serialize)]
struct Restore<'v> {
    spec: Spec<'v>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'v> {
    protected_namespace: &'v str,
    restic_secret_ref: Named<'v>,
    volume_snapshot_mover_backup_ref: BackupRef<'v>,
    #[serde(rename = "snapshotID")]
    snapshot_id: String,
    target: Target<'v>,
}

#[derive(Serialize)]
struct Named<'v> {
    name: &'v str,
}

#[derive(Serialize)]
struct BackupRef<'v> {
    resticrepository: &'v str,
    #[serde(rename = "sourcePVCData")]
    source: Source<'v>,
}

/// The recorded claim. The controller applies its options for storage classes to it, so that
/// another class can replace a missing one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Source<'v> {
    name: &'v str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<&'v str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_class_name: Option<&'v str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target<'v> {
    name: &'v str,
    size: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    access_modes: Vec<&'v str>,
    volume_mode: &'static str,
}

impl Volume<'_> {
    fn manifest(&self, plan: &Plan) -> Manifest {
        let Volume { namespace, claim, repository, id, snapshot } = *self;
        let short = claim[..claim.len().min(NAME)].trim_end_matches(['-', '.']);
        let name = format!("{short}-{}", id.short());
        let size = Size::of(snapshot);
        let tags = &snapshot.tags;
        let grant = Object {
            api_version: "v1",
            kind: "ConfigMap",
            metadata: Metadata {
                name: format!(
                    "vsm-grant-{}",
                    &Id::of(format!("{namespace} {repository}").as_bytes()).to_string()[..32]
                ),
                namespace: plan.protected.clone(),
                labels: BTreeMap::from([(GRANT_LABEL, namespace.to_owned())]),
            },
            content: Grant { data: Granted { repository } },
        };
        let restore = Object {
            api_version: API_VERSION,
            kind: "VolumeSnapshotRestore",
            metadata: Metadata { name: name.clone(), namespace: namespace.to_owned(), labels: BTreeMap::new() },
            content: Restore {
                spec: Spec {
                    protected_namespace: &plan.protected,
                    restic_secret_ref: Named { name: &plan.secret },
                    volume_snapshot_mover_backup_ref: BackupRef {
                        resticrepository: repository,
                        source: Source {
                            name: claim,
                            size: Tag::Size.value(tags),
                            storage_class_name: Tag::StorageClass.value(tags),
                        },
                    },
                    snapshot_id: id.to_string(),
                    target: Target {
                        name: claim,
                        size: size.quantity(),
                        access_modes: Tag::AccessMode.values(tags).collect(),
                        volume_mode: snapshot.volume_mode().name(),
                    },
                },
            },
        };
        let yaml = |object: Result<String, _>| object.expect("plain data");
        let text = format!(
            "{}{}---\n{}",
            self.introduction(&size),
            yaml(serde_saphyr::to_string(&grant)),
            yaml(serde_saphyr::to_string(&restore))
        );
        let claim = (namespace.to_owned(), claim.to_owned());
        Manifest { file: format!("{namespace}.{name}.yaml"), text, claim }
    }

    /// Comments for the user who applies the manifests.
    fn introduction(&self, size: &Size) -> String {
        let Snapshot { time, tags, summary, .. } = self.snapshot;
        let mut text = format!("# {}/{} as it was at {}", self.namespace, self.claim, Time { nanos: 0, ..*time });
        if let Some(backup) = Tag::Velero.value(tags) {
            // Unlike a label's value, a tag may contain a line feed.
            write!(text, ", of the Velero backup {}", backup.escape_debug()).expect("memory");
        }
        text.push('\n');
        let problems = summary.as_ref().map_or(0, |summary| summary.problems);
        if problems > 0 {
            writeln!(text, "# Incomplete: {problems} entries could not be read when it was backed up.")
                .expect("memory");
        }
        if let Size::Guessed(_) = size {
            text.push_str(
                "# The size is a guess by the size of the files, because the backup did not record it. Do not reduce it.\n",
            );
        }
        text
    }
}

/// Whether a name is a label of RFC 1123, as required for namespaces.
fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_part(name)
}

/// Whether a name is a subdomain of RFC 1123, as required for claims. Kubernetes limits the length
/// of the whole name and not of its parts.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_part)
}

fn is_part(name: &str) -> bool {
    let inner = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
    !name.is_empty() && name.as_bytes().iter().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const URL: &str = "s3:http://s3/bkt/restic/c-1/shop/data";

    fn snapshot(tags: &[&str], bytes: u64, problems: u64) -> Snapshot {
        let text = json!({"time": "2024-02-29T23:59:59.5Z", "tree": null, "paths": ["/data"], "tags": tags,
            "summary": {"total_bytes_processed": bytes, "problems": problems}});
        Snapshot::decode(text.to_string().as_bytes()).unwrap()
    }

    fn plan() -> Plan {
        Plan { protected: "adp".into(), secret: "velero-1-volsync-restic".into(), ..Plan::default() }
    }

    fn volume(namespace: &str, claim: &str) -> Layout {
        Layout::Volume { cluster: "c-1".into(), namespace: namespace.into(), claim: claim.into() }
    }

    fn manifest(namespace: &str, claim: &str, snapshot: &Snapshot) -> Result<Manifest, Unfit> {
        plan().manifest(URL, &volume(namespace, claim), [(Id::of(b"s"), snapshot)].into_iter())
    }

    fn documents(manifest: &Manifest) -> Vec<Value> {
        serde_saphyr::from_multiple(&manifest.text).unwrap()
    }

    #[test]
    fn a_manifest_restores_a_volume_with_its_recorded_properties() {
        let tags = ["vsb:v", "backup:b1", "size:1e3", "storage-class:true", "access-mode:ReadWriteMany"];
        let written = manifest("shop", "data", &snapshot(&tags, 7, 0)).unwrap();
        // The SHA-256 of `s`, by `sha256sum`.
        let id = "043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89";
        assert_eq!(written.file, "shop.data-043a7187.yaml");
        assert!(written.text.starts_with("# shop/data as it was at 2024-02-29T23:59:59Z, of the Velero backup b1\n"));
        let [grant, restore] = &documents(&written)[..] else { panic!("{}", written.text) };
        assert_eq!(grant["metadata"]["namespace"], "adp");
        assert_eq!(grant["metadata"]["labels"], json!({"datamover.oadp.openshift.io/grant-to": "shop"}));
        assert_eq!(grant["data"], json!({"repository": URL}));
        assert_eq!(restore["metadata"], json!({"name": "data-043a7187", "namespace": "shop"}));
        // Strings stay strings, although these could be a number and a boolean in YAML.
        let expected = json!({
            "protectedNamespace": "adp", "resticSecretRef": {"name": "velero-1-volsync-restic"}, "snapshotID": id,
            "volumeSnapshotMoverBackupRef": {
                "resticrepository": URL, "sourcePVCData": {"name": "data", "size": "1e3", "storageClassName": "true"},
            },
            "target": {"name": "data", "size": "1e3", "accessModes": ["ReadWriteMany"], "volumeMode": "Filesystem"},
        });
        assert_eq!(restore["spec"], expected);
    }

    /// The apiserver would drop fields that the custom resource does not define.
    #[cfg(feature = "controller")]
    #[test]
    fn the_custom_resources_define_every_field() {
        let written = manifest("shop", "data", &snapshot(&["vsb:v", "size:10Gi", "storage-class:fast"], 7, 0)).unwrap();
        let [grant, restore] = &documents(&written)[..] else { panic!("{}", written.text) };
        let again: crate::api::VolumeSnapshotRestore = serde_json::from_value(restore.clone()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), *restore);
        let again: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(grant.clone()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), *grant);
        assert_eq!(API_VERSION, <crate::api::VolumeSnapshotRestore as kube::Resource>::api_version(&()));
    }

    #[test]
    fn a_size_that_is_not_recorded_is_that_of_the_image_or_a_guess() {
        let gib = 1_u64 << 30;
        for (tags, bytes, size, mode) in [
            (&["vsb:v", "size:5Gi", "vsm:device"][..], 3 * gib, "5Gi", "Block"),
            (&["vsb:v", "vsm:device"], 3 * gib + 512, "3221225984", "Block"),
            (&["vsb:v"], 0, "1Gi", "Filesystem"),
            (&["vsb:v"], gib, "2Gi", "Filesystem"),
            (&["vsb:v"], 4 * gib, "6Gi", "Filesystem"),
        ] {
            let written = manifest("shop", "data", &snapshot(tags, bytes, 0)).unwrap();
            let target = documents(&written)[1]["spec"]["target"].clone();
            assert_eq!((&target["size"], &target["volumeMode"]), (&json!(size), &json!(mode)), "{tags:?} {bytes}");
            assert_eq!(written.text.contains("is a guess"), mode == "Filesystem");
        }
        assert!(
            manifest("shop", "data", &snapshot(&["vsb:v"], 1, 3)).unwrap().text.contains("# Incomplete: 3 entries")
        );
    }

    #[test]
    fn the_newest_snapshot_that_the_plan_accepts_is_restored() {
        let at = |time: &str, tags: &[&str]| Snapshot { time: Time::parse(time).unwrap(), ..snapshot(tags, 1, 0) };
        let long = "b".repeat(80);
        let label = label_value(&long);
        let all = [
            at("2024-01-01T00:00:00Z", &["vsb:v1", "backup:b1"]),
            at("2024-01-02T00:00:00Z", &["vsb:v2", "backup:b2"]),
            at("2024-01-03T00:00:00Z", &["vsb:v3", "backup:b2"]),
            at("2024-01-04T00:00:00Z", &["vsb:v4", &Tag::Velero.of(&label)]),
            at("2024-01-05T00:00:00Z", &["not-ours", "backup:b1"]),
        ];
        let number = |index: usize| Id::of(&[u8::try_from(index).unwrap()]);
        let taken = |plan: &Plan, layout: &Layout| {
            let listed = all.iter().enumerate().map(|(index, snapshot)| (number(index), snapshot));
            let written = plan.manifest(URL, layout, listed)?;
            let id = documents(&written)[1]["spec"]["snapshotID"].clone();
            Ok((0..all.len()).find(|index| id == number(*index).to_string().as_str()).unwrap())
        };
        let asking = |backup: Option<&str>, until: Option<&str>| Plan {
            backup: backup.map(Into::into),
            until: until.map(|time| Time::parse(time).unwrap()),
            ..plan()
        };
        let data = volume("shop", "data");
        for (backup, until, expected) in [
            (None, None, Ok(3)),
            (Some("b1"), None, Ok(0)),
            (Some("b2"), None, Ok(2)),
            (Some(&*long), None, Ok(3)),
            (Some("b3"), None, Err(Unfit::NoSnapshot)),
            (None, Some("2024-01-02T00:00:00Z"), Ok(1)),
            (Some("b1"), Some("2023-01-02T00:00:00Z"), Err(Unfit::NoSnapshot)),
        ] {
            assert_eq!(taken(&asking(backup, until), &data), expected, "{backup:?} {until:?}");
        }
        // An old repository is one volume of one backup, regardless of the tags of its snapshots.
        let old = Layout::Old { protected: "adp".into(), backup: Some("b9".into()), content: "content-1".into() };
        assert_eq!(taken(&plan(), &old), Err(Unfit::NoNamespace));
        assert_eq!(taken(&plan(), &Layout::Unknown), Err(Unfit::Unknown));
        let somewhere = |backup| Plan { namespace: Some("lab".into()), ..asking(backup, None) };
        assert_eq!(taken(&somewhere(Some("b9")), &old), Ok(4));
        assert_eq!(taken(&somewhere(Some("b1")), &old), Err(Unfit::NoSnapshot));
        let written = somewhere(None).manifest(URL, &old, [(number(0), &all[0])].into_iter()).unwrap();
        assert_eq!(written.claim, ("lab".to_owned(), "content-1-pvc".to_owned()));
    }

    /// Paths and tags come from a bucket, which an attacker may be able to write to.
    #[test]
    fn names_that_kubernetes_refuses_are_refused() {
        let plain = snapshot(&["vsb:v", "backup:b\nkind: Evil"], 1, 0);
        for (namespace, claim) in [
            ("", "data"),
            ("Shop", "data"),
            ("sh.op", "data"),
            ("..", "data"),
            ("-shop", "data"),
            (&*"n".repeat(64), "data"),
            ("shop", ""),
            ("shop", ".."),
            ("shop", "a..b"),
            ("shop", "a/b"),
            ("shop", "data\n"),
            ("shop", &*"c".repeat(254)),
        ] {
            assert!(matches!(manifest(namespace, claim, &plain), Err(Unfit::Name { .. })), "{namespace:?} {claim:?}");
        }
        let long = format!("{}.{}", "a".repeat(159), "b".repeat(93));
        let written = manifest(&"n".repeat(63), &long, &plain).unwrap();
        assert!(written.file.len() <= 255, "{}", written.file.len());
        let documents = documents(&written);
        assert_eq!(documents[1]["metadata"]["name"], format!("{}-043a7187", "a".repeat(159)));
        assert_eq!(documents[1]["spec"]["target"]["name"], long.as_str());
        assert_eq!(documents.len(), 2);
        assert!(documents.iter().all(|document| document["kind"] != "Evil"), "{}", written.text);
    }
}
