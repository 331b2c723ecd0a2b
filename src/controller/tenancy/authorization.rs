//! Authorization of requests: which repositories a namespace may read, and which snapshots and
//! secrets a tenant may name.
//!
//! The authors of backups and restores are tenants. A field that a tenant writes is trusted only if
//! it agrees with another object that only the cluster, a driver or an administrator can write.

use super::repository::Refused;
use crate::kubernetes::snapshot_api::{VolumeSnapshot, VolumeSnapshotContent};
use crate::provenance::Layout;
use crate::store::location::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Why a request is denied. The text is for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "the VolumeSnapshotContent {content} is not bound to a VolumeSnapshot in namespace {namespace}: a backup is made of the snapshots of its own namespace"
    )]
    Content { content: String, namespace: String },
    #[error("protectedNamespace is {asked:?}, and this controller works in {own:?}")]
    ProtectedNamespace { asked: String, own: String },
    #[error(
        "the secret {secret} may not be used: it carries no label {PROVIDER_LABEL}, and VSM_ALLOWED_SECRETS does not list it"
    )]
    Secret { secret: String },
    #[error(transparent)]
    Location(#[from] Refused),
    #[error(
        "namespace {namespace} may not read the repository {repository}: it is not its own, no running Restore in the protected namespace restores it there, and no administrator granted it"
    )]
    Repository { namespace: String, repository: String },
    #[error(
        "the label velero.io/restore-name names a running Velero Restore that restores nothing to namespace {namespace}"
    )]
    Restore { namespace: String },
}

/// The label by which the OADP operator marks the secrets that a data mover may use.
pub const PROVIDER_LABEL: &str = "openshift.io/oadp-bsl-provider";

/// Checks that a content is bound to a snapshot in the tenant's namespace. A tenant can create a
/// VolumeSnapshot that names any content; only the snapshot controller or an administrator writes
/// the snapshot's uid to the content.
pub fn content_is_of(
    content: &VolumeSnapshotContent,
    snapshot: Option<&VolumeSnapshot>,
    namespace: &str,
) -> Result<(), Denied> {
    let back = &content.spec.volume_snapshot_ref;
    let bound = snapshot.is_some_and(|snapshot| {
        let bound = snapshot.status.as_ref().and_then(|status| status.bound_volume_snapshot_content_name.as_deref());
        back.namespace.as_deref() == Some(namespace)
            && snapshot.namespace().as_deref() == Some(namespace)
            && back.name == snapshot.metadata.name
            && back.uid.is_some()
            && back.uid == snapshot.metadata.uid
            && bound == content.metadata.name.as_deref()
    });
    if bound {
        return Ok(());
    }
    Err(Denied::Content { content: content.name_any(), namespace: namespace.to_owned() })
}

/// Checks that the protected namespace is the controller's own.
pub fn protected_namespace(asked: &str, own: &str) -> Result<(), Denied> {
    if asked == own {
        return Ok(());
    }
    Err(Denied::ProtectedNamespace { asked: asked.to_owned(), own: own.to_owned() })
}

/// Checks that movers may use a secret: the protected namespace has others, too.
pub fn secret(name: &str, labels: &BTreeMap<String, String>, allowed: &[String]) -> Result<(), Denied> {
    if labels.contains_key(PROVIDER_LABEL) || allowed.iter().any(|one| one == name) {
        return Ok(());
    }
    Err(Denied::Secret { secret: name.to_owned() })
}

/// A Velero Restore that is running in the protected namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningRestore {
    pub backup: String,
    /// Namespaces of the cluster by those of the backup.
    pub mapping: BTreeMap<String, String>,
    /// Namespaces of the backup; all of them if empty or `*`.
    pub included: Vec<String>,
    pub excluded: Vec<String>,
}

impl RunningRestore {
    /// Whether it restores one namespace of the backup to this one.
    fn restores(&self, from: &str, to: &str) -> bool {
        let included = self.included.is_empty() || self.included.iter().any(|one| one == "*" || one == from);
        let target = self.mapping.get(from).map_or(from, String::as_str);
        included && !self.excluded.iter().any(|one| one == from) && target == to
    }

    /// Whether it restores anything to a namespace.
    pub fn reaches(&self, to: &str) -> bool {
        self.mapping.values().any(|target| target == to) || (!self.mapping.contains_key(to) && self.restores(to, to))
    }
}

/// Checks that a restore may have the label of a running Velero Restore: Velero's plugin treats the
/// result as a part of that Restore.
pub fn part_of(restore: Option<&RunningRestore>, namespace: &str) -> Result<(), Denied> {
    if restore.is_none_or(|restore| restore.reaches(namespace)) {
        return Ok(());
    }
    Err(Denied::Restore { namespace: namespace.to_owned() })
}

/// A tenant that wants to read a repository.
pub struct Reader<'r> {
    /// The id of this cluster.
    pub cluster: &'r str,
    /// The protected namespace.
    pub protected: &'r str,
    /// The tenant's namespace.
    pub namespace: &'r str,
    /// The Velero Restore that the tenant's restore is labelled with, if it is running.
    pub restore: Option<&'r RunningRestore>,
    /// [Cleaned](super::repository::Base::locate) locations that an administrator lets the
    /// namespace read.
    pub grants: &'r [String],
}

impl Reader<'_> {
    /// Checks that the namespace may read a repository: its own of this cluster; any that a running
    /// Velero Restore restores to it; any that an administrator granted.
    pub fn may_read(&self, repository: &str, layout: &Layout) -> Result<(), Denied> {
        let Reader { cluster, protected, namespace, restore, grants } = *self;
        let granted = || grants.iter().any(|granted| granted == repository);
        let allowed = match layout {
            Layout::Volume { cluster: of, namespace: from, .. } => {
                let own = of == cluster && from == namespace;
                own || restore.is_some_and(|restore| restore.restores(from, namespace))
            }
            // The path names no namespace. It must at least belong to the backup that is being
            // restored.
            Layout::Old { protected: of, backup, .. } => {
                let same = |restore: &RunningRestore| backup.as_ref().is_none_or(|backup| *backup == restore.backup);
                of == protected && restore.is_some_and(|restore| same(restore) && restore.reaches(namespace))
            }
            Layout::Unknown => false,
        };
        if allowed || granted() {
            return Ok(());
        }
        Err(Denied::Repository { namespace: namespace.to_owned(), repository: repository.to_owned() })
    }
}

/// The key of a secret that has certificates as PEM.
pub const CA_KEY: &str = "RESTIC_CUSTOM_CA";

/// The keys that every secret must have.
const NEEDED: Needed = &[&["RESTIC_REPOSITORY"], &["RESTIC_PASSWORD"]];

/// One key of each group is required.
type Needed = &'static [&'static [&'static str]];

/// The keys that a secret of a service must have.
fn needed(service: &Service) -> Needed {
    match service {
        Service::S3(_) => &[&["AWS_ACCESS_KEY_ID"], &["AWS_SECRET_ACCESS_KEY"]],
        Service::Azure => {
            &[&["AZURE_ACCOUNT_NAME"], &["AZURE_ACCOUNT_KEY", "AZURE_ACCOUNT_SAS", "AZURE_CLIENT_SECRET"]]
        }
        Service::Google => &[&["GOOGLE_APPLICATION_CREDENTIALS"]],
    }
}

/// The keys of a secret that a mover is given. No other key reaches a pod, in particular no command
/// to run.
pub fn given(service: &Service) -> &'static [&'static str] {
    match service {
        Service::S3(_) => &[
            "RESTIC_PASSWORD",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_DEFAULT_REGION",
        ],
        Service::Azure => &[
            "RESTIC_PASSWORD",
            "AZURE_ACCOUNT_NAME",
            "AZURE_ACCOUNT_KEY",
            "AZURE_ACCOUNT_SAS",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_CLOUD_NAME",
            "AZURE_ENDPOINT_SUFFIX",
            "AZURE_TENANT_ID",
        ],
        Service::Google => &["RESTIC_PASSWORD", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_PROJECT_ID"],
    }
}

/// The required keys that a secret lacks or has empty, for people. Those of the service are checked
/// if the service is known.
pub fn missing_keys<V: AsRef<[u8]>>(data: &BTreeMap<String, V>, service: Option<&Service>) -> Vec<String> {
    let has = |key: &&str| data.get(*key).is_some_and(|value| !value.as_ref().is_empty());
    let needed = NEEDED.iter().chain(service.map_or(&[][..], needed));
    needed.filter(|keys| !keys.iter().any(has)).map(|keys| keys.join(" or ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::location::Endpoint;
    use serde_json::{Value, from_value, json};

    fn content(back: Value) -> VolumeSnapshotContent {
        from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "snapcontent-1"},
            "spec": {"driver": "d", "deletionPolicy": "Retain", "source": {"snapshotHandle": "h"}, "volumeSnapshotRef": back},
        }))
        .unwrap()
    }

    fn snapshot(namespace: &str, uid: &str, bound: Value) -> VolumeSnapshot {
        from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"name": "snap", "namespace": namespace, "uid": uid},
            "spec": {"source": {}}, "status": {"boundVolumeSnapshotContentName": bound},
        }))
        .unwrap()
    }

    #[test]
    fn a_content_must_point_back_to_a_snapshot_of_the_namespace() {
        let good = json!({"namespace": "shop", "name": "snap", "uid": "u1"});
        let of = |back: Value, snapshot: Option<VolumeSnapshot>| {
            content_is_of(&content(back), snapshot.as_ref(), "shop").is_ok()
        };
        let there = || Some(snapshot("shop", "u1", json!("snapcontent-1")));
        assert!(of(good.clone(), there()));
        assert!(!of(good.clone(), None), "no snapshot");
        assert!(
            !of(good.clone(), Some(snapshot("shop", "u2", json!("snapcontent-1")))),
            "recreated under the same name"
        );
        assert!(!of(good.clone(), Some(snapshot("shop", "u1", json!("snapcontent-2")))), "bound to another content");
        assert!(!of(good.clone(), Some(snapshot("shop", "u1", Value::Null))), "not bound");
        assert!(!of(good, Some(snapshot("other", "u1", json!("snapcontent-1")))));
        assert!(!of(json!({"namespace": "bank", "name": "snap", "uid": "u1"}), there()), "of another namespace");
        assert!(!of(json!({"namespace": "shop", "name": "other", "uid": "u1"}), there()));
        assert!(!of(json!({"namespace": "shop", "name": "snap"}), there()), "no uid: not yet bound, or never");
        assert!(!of(json!({}), there()));
    }

    #[test]
    fn secrets_need_the_label_or_the_list() {
        let labelled = BTreeMap::from([(PROVIDER_LABEL.to_owned(), "aws".to_owned())]);
        assert!(secret("any", &labelled, &[]).is_ok());
        assert!(secret("mine", &BTreeMap::new(), &["mine".into()]).is_ok());
        let denied = secret("cloud-credentials", &BTreeMap::new(), &["mine".into()]).unwrap_err();
        assert!(denied.to_string().contains("cloud-credentials"));
        assert!(protected_namespace("openshift-adp", "openshift-adp").is_ok());
        assert!(
            protected_namespace("", "openshift-adp").is_err()
                && protected_namespace("kube-system", "openshift-adp").is_err()
        );
        let data = |keys: &[(&str, &str)]| keys.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let some: BTreeMap<String, Vec<u8>> =
            data(&[("RESTIC_REPOSITORY", "s3:x/y"), ("RESTIC_PASSWORD", ""), ("AWS_ACCESS_KEY_ID", "k")]);
        assert_eq!(missing_keys(&some, None), ["RESTIC_PASSWORD"]);
        let s3 = Service::S3(Endpoint { tls: true, host: "x".into() });
        assert_eq!(missing_keys(&some, Some(&s3)), ["RESTIC_PASSWORD", "AWS_SECRET_ACCESS_KEY"]);
        let common = ["RESTIC_REPOSITORY", "RESTIC_PASSWORD", "AZURE_ACCOUNT_NAME"].map(|key| (key, "x"));
        let azure = data(&[&common[..], &[("AZURE_ACCOUNT_KEY", "")]].concat());
        let one_of = "AZURE_ACCOUNT_KEY or AZURE_ACCOUNT_SAS or AZURE_CLIENT_SECRET";
        assert_eq!(missing_keys(&azure, Some(&Service::Azure)), [one_of]);
        let azure = data(&[&common[..], &[("AZURE_ACCOUNT_SAS", "s")]].concat());
        assert!(missing_keys(&azure, Some(&Service::Azure)).is_empty());
        assert_eq!(missing_keys(&azure, Some(&Service::Google)), ["GOOGLE_APPLICATION_CREDENTIALS"]);
        for service in [s3, Service::Azure, Service::Google] {
            assert!(needed(&service).iter().flat_map(|keys| *keys).all(|key| given(&service).contains(key)));
        }
    }

    fn volume(cluster: &str, namespace: &str) -> Layout {
        Layout::Volume { cluster: cluster.into(), namespace: namespace.into(), claim: "data".into() }
    }

    #[test]
    fn a_namespace_reads_its_own_restored_and_granted_repositories() {
        let restore = RunningRestore {
            backup: "b1".into(),
            mapping: BTreeMap::from([("bank".to_owned(), "bank-copy".to_owned())]),
            included: vec!["bank".into(), "shop".into(), "secret".into()],
            excluded: vec!["secret".into()],
        };
        let grants = ["other".to_owned(), "url".to_owned()];
        let old = |backup: Option<&str>, protected: &str| Layout::Old {
            protected: protected.into(),
            backup: backup.map(Into::into),
            content: "c".into(),
        };
        let cases = [
            // namespace, with the restore, layout, allowed
            ("shop", false, volume("here", "shop"), true),
            ("shop", false, volume("elsewhere", "shop"), false),
            ("shop", true, volume("elsewhere", "shop"), true),
            ("shop", false, volume("here", "bank"), false),
            ("shop", true, volume("here", "bank"), false),
            ("bank-copy", false, volume("here", "bank"), false),
            ("bank-copy", true, volume("here", "bank"), true),
            // A namespace that is mapped to another name is not restored under its own.
            ("bank", true, volume("elsewhere", "bank"), false),
            ("secret", true, volume("elsewhere", "secret"), false),
            ("third", true, volume("here", "shop"), false),
            ("shop", true, old(Some("b1"), "adp"), true),
            ("shop", true, old(None, "adp"), true),
            ("bank-copy", true, old(Some("b1"), "adp"), true),
            ("shop", true, old(Some("b2"), "adp"), false),
            ("shop", true, old(Some("b1"), "other"), false),
            ("shop", false, old(Some("b1"), "adp"), false),
            ("bank", true, old(Some("b1"), "adp"), false),
            ("third", true, old(Some("b1"), "adp"), false),
            ("shop", true, Layout::Unknown, false),
            ("lab", false, Layout::Unknown, true),
            ("lab", false, volume("here", "bank"), true),
        ];
        for (namespace, with_restore, layout, allowed) in cases {
            let reader = Reader {
                cluster: "here",
                protected: "adp",
                namespace,
                restore: with_restore.then_some(&restore),
                grants: if namespace == "lab" { &grants } else { &grants[..1] },
            };
            assert_eq!(reader.may_read("url", &layout).is_ok(), allowed, "{namespace} {with_restore} {layout:?}");
        }
    }

    /// An empty list of namespaces, or a star, is all of them.
    #[test]
    fn a_restore_of_everything_reaches_every_namespace() {
        for included in [vec![], vec!["*".to_owned()]] {
            let restore = RunningRestore { backup: "b1".into(), included, ..RunningRestore::default() };
            assert!(restore.restores("shop", "shop") && restore.reaches("shop") && !restore.restores("shop", "bank"));
        }
    }
}
