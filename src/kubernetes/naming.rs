//! The metadata of managed objects: names, labels, annotations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Label of every managed object: the uid of its owner.
pub const UID_LABEL: &str = "datamover.oadp.openshift.io/uid";
/// Label of every managed object: the short name of its owner's kind.
pub const KIND_LABEL: &str = "datamover.oadp.openshift.io/kind";
/// Annotation of every managed object: its owner's namespace and name, which may be too long for a
/// label.
pub const OWNER_ANNOTATION: &str = "datamover.oadp.openshift.io/owner";
/// Label of every managed object, by the convention of Kubernetes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "vsm-controller");

/// The metadata of an object to create.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Naming {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Naming {
    pub fn meta(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels.clone()),
            annotations: Some(self.annotations.clone()),
            ..ObjectMeta::default()
        }
    }
}
