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

/// Whether a text can be the name of an object: a DNS subdomain by RFC 1123 of at most 253
/// characters, as the apiserver demands (`IsDNS1123Subdomain` in `k8s.io/apimachinery`). Such a
/// name is safe in a URL.
pub fn is_object_name(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &[u8]| {
        label.first().is_some_and(is_alphanumeric)
            && label.last().is_some_and(is_alphanumeric)
            && label.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
    };
    text.len() <= 253 && text.as_bytes().split(|byte| *byte == b'.').all(is_label)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_dns_subdomains() {
        let (longest, long) = ("a".repeat(253), "a".repeat(254));
        for name in ["a", "0", "a-b", "a.b", "snapcontent-1f.x-2", &longest] {
            assert!(is_object_name(name), "{name}");
        }
        for text in ["", ".", "..", "a.", ".a", "-a", "a-", "a..b", "A", "a_b", "a/b", "a b", "?x", "a%20", "ä", &long]
        {
            assert!(!is_object_name(text), "{text}");
        }
    }
}
