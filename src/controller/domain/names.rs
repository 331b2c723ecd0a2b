//! How the objects are called that are made for a backup or a restore, and how they are found again.
//!
//! Everything made for one object is called after its uid, which nobody chooses and no two have, so that neither a long name nor the
//! same name in two namespaces makes anything collide. `vsm-vsb-` and a uid are 44 characters: with what the Job controller appends
//! to a pod's name, that is within the 63 of a label or host name.

use crate::provenance::Tag;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// What the helper objects are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Backup,
    Restore,
}

impl Kind {
    /// The short name, part of the helpers' names and of their labels.
    pub fn short(self) -> &'static str {
        match self {
            Kind::Backup => "vsb",
            Kind::Restore => "vsr",
        }
    }
}

/// One backup or restore, as far as its helpers are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// How an object is called that is made for somebody.
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

/// On every helper: the uid of what it was made for.
pub const UID_LABEL: &str = "datamover.oadp.openshift.io/uid";
/// On every helper: the short name of the kind of what it was made for.
pub const KIND_LABEL: &str = "datamover.oadp.openshift.io/kind";
/// On every helper: whose it is, for people; too long for a label, and not to be selected by.
pub const OWNER_ANNOTATION: &str = "datamover.oadp.openshift.io/owner";
/// Says that the object is ours, by the convention of Kubernetes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "vsm-controller");
/// The longest value of a label.
const LABEL_VALUE: usize = 63;

impl Subject {
    /// The name of all its helpers; they are of different kinds.
    pub fn object_name(&self) -> String {
        format!("vsm-{}-{}", self.kind.short(), self.uid)
    }

    /// How one of its helpers is called; by the labels it is known to be ours.
    pub fn naming(&self, name: String, namespace: &str) -> Naming {
        let owner = format!("{}/{}", self.namespace, self.name);
        Naming {
            name,
            namespace: namespace.to_owned(),
            labels: self.labels(),
            annotations: BTreeMap::from([(OWNER_ANNOTATION.to_owned(), owner)]),
        }
    }

    /// The tag of the snapshot that a backup makes, and of no other.
    pub fn identity(&self) -> Option<String> {
        (self.kind == Kind::Backup).then(|| Tag::Identity.of(&self.uid))
    }

    /// The last is VolumeSnapshotMover's, which scripts select by; a name that no label holds is left out.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
            (UID_LABEL.to_owned(), self.uid.clone()),
            (KIND_LABEL.to_owned(), self.kind.short().to_owned()),
        ]);
        if self.name.len() <= LABEL_VALUE {
            labels.insert(format!("{}/{}", crate::api::GROUP, self.kind.short()), self.name.clone());
        }
        labels
    }

    /// Selects all its helpers.
    pub fn selector(&self) -> String {
        format!("{UID_LABEL}={}", self.uid)
    }

    /// Whether an object is one of its helpers: a name alone proves nothing.
    pub fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(UID_LABEL) == Some(&self.uid) && labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8f6c1d7e-1b0c-4b58-9d5a-2f7c7a9b1c3d";

    #[test]
    fn names_are_short_whatever_the_object_is_called() {
        for (kind, expected) in [(Kind::Backup, "vsm-vsb-"), (Kind::Restore, "vsm-vsr-")] {
            let long = Subject { kind, namespace: "n".repeat(63), name: "x".repeat(253), uid: UID.into() };
            assert_eq!(long.object_name(), format!("{expected}{UID}"));
            // `-abcde`, as the Job controller names pods.
            assert!(long.object_name().len() + 6 <= 63);
            assert!(long.labels().values().all(|value| value.len() <= 63), "{:?}", long.labels());
            let short = Subject { name: "vsb-abcde".into(), ..long };
            assert!(short.labels().values().any(|value| value == "vsb-abcde"));
        }
    }

    #[test]
    fn an_object_of_the_same_name_is_not_a_helper_without_the_labels() {
        let subject = Subject { kind: Kind::Backup, namespace: "a".into(), name: "b".into(), uid: UID.into() };
        assert!(subject.owns(&subject.labels()));
        let other = Subject { uid: "other".into(), ..subject.clone() };
        assert!(!subject.owns(&other.labels()) && !subject.owns(&BTreeMap::new()));
        let mut foreign = subject.labels();
        foreign.remove(MANAGED_BY.0);
        assert!(!subject.owns(&foreign));
    }
}
