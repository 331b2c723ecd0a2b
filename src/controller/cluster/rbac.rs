//! The rights (RBAC) that the controller needs. A test compares them with the manifests that grant
//! them, and the controller asks the apiserver for them at its start: an administrator may have
//! chosen another service account.

use crate::kubernetes::leader_election::LEASE;
use Scope::{Everywhere, Here};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use std::fmt;

/// The namespaces in which a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All namespaces, or a cluster-scoped resource.
    Everywhere,
    /// The controller's own namespace.
    Here,
}

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub scope: Scope,
    pub group: &'static str,
    /// With the subresource after a slash.
    pub resource: &'static str,
    pub verb: &'static str,
    /// The only object for which it is needed.
    pub name: Option<&'static str>,
}

const OURS: &str = "datamover.oadp.openshift.io";
const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

/// Scope, group, resource, the only object if there is one, verbs.
type Row = (Scope, &'static str, &'static str, Option<&'static str>, &'static [&'static str]);

/// The rights for each resource.
const TABLE: [Row; 24] = [
    (Everywhere, OURS, "volumesnapshotbackups", None, &["get", "list", "watch", "patch"]),
    (Everywhere, OURS, "volumesnapshotbackups/status", None, &["patch"]),
    (Everywhere, OURS, "volumesnapshotrestores", None, &["get", "list", "watch", "patch"]),
    (Everywhere, OURS, "volumesnapshotrestores/status", None, &["patch"]),
    (Everywhere, SNAPSHOTS, "volumesnapshotcontents", None, &["get", "list", "watch", "create", "patch", "delete"]),
    (Everywhere, SNAPSHOTS, "volumesnapshots", None, &["get"]),
    (Everywhere, SNAPSHOTS, "volumesnapshotclasses", None, &["get"]),
    (Everywhere, "", "persistentvolumeclaims", None, &["get"]),
    (Everywhere, "", "persistentvolumes", None, &["get", "patch"]),
    (Everywhere, "storage.k8s.io", "storageclasses", None, &["get"]),
    (Everywhere, "", "namespaces", Some("kube-system"), &["get"]),
    (Everywhere, "", "events", None, &["create"]),
    (Here, SNAPSHOTS, "volumesnapshots", None, &["list", "watch", "create", "delete"]),
    (Here, "", "persistentvolumeclaims", None, &["list", "watch", "create", "delete"]),
    (Here, "", "secrets", None, &["get", "create", "delete"]),
    (Here, "", "configmaps", None, &["get", "list", "create", "patch", "delete"]),
    (Here, "batch", "jobs", None, &["get", "list", "watch", "create", "patch", "delete"]),
    (Here, "", "pods", None, &["get", "list", "watch", "patch"]),
    (Here, "", "pods/log", None, &["get"]),
    (Here, "velero.io", "backups", None, &["get"]),
    (Here, "velero.io", "restores", None, &["get"]),
    (Here, "velero.io", "backupstoragelocations", None, &["get"]),
    // A right to create cannot be limited by a name.
    (Here, "coordination.k8s.io", "leases", None, &["create"]),
    (Here, "coordination.k8s.io", "leases", Some(LEASE), &["get", "update"]),
];

/// The rights to restore into a claim in a tenant's namespace, which an administrator may withhold.
const TARGETS: [Row; 1] = [(Everywhere, "", "persistentvolumeclaims", None, &["create", "delete"])];

/// All rights.
pub fn all() -> impl Iterator<Item = Right> {
    each(&TABLE).chain(of_targets())
}

/// The rights that a restore needs only if it names a target.
pub fn of_targets() -> impl Iterator<Item = Right> {
    each(&TARGETS)
}

fn each(rows: &'static [Row]) -> impl Iterator<Item = Right> {
    rows.iter().flat_map(|(scope, group, resource, name, verbs)| {
        verbs.iter().map(|verb| Right { scope: *scope, group, resource, verb, name: *name })
    })
}

impl Right {
    /// The only namespace in which it is needed.
    pub fn namespace<'n>(&self, here: &'n str) -> Option<&'n str> {
        (self.scope == Here).then_some(here)
    }

    /// The file below `manifests/base` that grants it.
    pub fn granted_by(&self) -> &'static str {
        if of_targets().any(|right| right == *self) { "direct-restore.yaml" } else { "rbac.yaml" }
    }

    /// The question to the apiserver whether it is granted in a namespace, or in all.
    pub fn question(&self, namespace: Option<&str>) -> SelfSubjectAccessReview {
        let (resource, part) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        let attributes = ResourceAttributes {
            namespace: namespace.map(str::to_owned),
            group: Some(self.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(part.to_owned()).filter(|part| !part.is_empty()),
            verb: Some(self.verb.to_owned()),
            name: self.name.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
        SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() }
    }
}

/// Whether the apiserver's answer denies a right. A missing answer denies it, too.
pub fn is_denied(status: Option<&SubjectAccessReviewStatus>) -> bool {
    status.is_none_or(|status| !status.allowed)
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = self.name {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    const MANIFESTS: [(&str, &str); 2] = [
        ("rbac.yaml", include_str!("../../../manifests/base/rbac.yaml")),
        ("direct-restore.yaml", include_str!("../../../manifests/base/direct-restore.yaml")),
    ];

    /// Scope, group, resource, verb, name.
    type Plain = (Scope, String, String, String, Option<String>);

    fn plain(right: Right) -> Plain {
        let Right { scope, group, resource, verb, name } = right;
        (scope, group.into(), resource.into(), verb.into(), name.map(str::to_owned))
    }

    fn granted(manifest: &str) -> BTreeSet<Plain> {
        let mut granted = BTreeSet::new();
        for document in manifest.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(document).expect("YAML");
            let scope = match object["kind"].as_str().expect("a kind") {
                "ClusterRole" => Everywhere,
                "Role" => Here,
                _ => continue,
            };
            let texts = |rule: &Value, key: &str| -> Vec<String> {
                let all =
                    rule[key].as_array().map(|all| all.iter().map(|one| one.as_str().unwrap().to_owned()).collect());
                all.unwrap_or_default()
            };
            for rule in object["rules"].as_array().expect("rules") {
                let names: Vec<Option<String>> = texts(rule, "resourceNames").into_iter().map(Some).collect();
                let names = if names.is_empty() { vec![None] } else { names };
                for group in texts(rule, "apiGroups") {
                    for resource in texts(rule, "resources") {
                        for verb in texts(rule, "verbs") {
                            granted.extend(
                                names
                                    .iter()
                                    .map(|name| (scope, group.clone(), resource.clone(), verb.clone(), name.clone())),
                            );
                        }
                    }
                }
            }
        }
        granted
    }

    #[test]
    fn the_manifests_grant_exactly_the_rights() {
        assert!(granted(MANIFESTS[0].1).len() > 50, "the manifest is read");
        for (file, manifest) in MANIFESTS {
            let needed: BTreeSet<Plain> = all().filter(|right| right.granted_by() == file).map(plain).collect();
            assert_eq!(needed, granted(manifest), "{file}");
        }
    }

    #[test]
    fn a_right_is_asked_for_in_its_scope() {
        let question = |verb: &str, resource: &str, scope: Scope| {
            let right = all().find(|it| (it.verb, it.resource, it.scope) == (verb, resource, scope)).unwrap();
            (right.to_string(), right.question(right.namespace("adp")).spec.resource_attributes.unwrap())
        };
        let (text, asked) = question("get", "pods/log", Here);
        assert_eq!((asked.resource.as_deref(), asked.subresource.as_deref()), (Some("pods"), Some("log")));
        assert_eq!(
            (asked.namespace.as_deref(), asked.group.as_deref(), &*text),
            (Some("adp"), Some(""), "get pods/log")
        );
        let (text, asked) = question("get", "volumesnapshots", Everywhere);
        assert_eq!((asked.namespace, &*text), (None, "get volumesnapshots.snapshot.storage.k8s.io"));
        let (text, asked) = question("get", "namespaces", Everywhere);
        assert_eq!((asked.name.as_deref(), &*text), (Some("kube-system"), "get namespaces kube-system"));
    }

    #[test]
    fn a_missing_answer_denies_a_right() {
        let status = |allowed| SubjectAccessReviewStatus { allowed, ..SubjectAccessReviewStatus::default() };
        assert!(is_denied(None) && is_denied(Some(&status(false))) && !is_denied(Some(&status(true))));
    }
}
