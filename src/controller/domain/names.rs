//! Requests as the owners of managed objects: names and labels of the objects that are created for
//! them.
//!
//! Every managed object is named after the uid of its request, which no tenant can choose, so that
//! neither a long name nor the same name in two namespaces collides. `vsm-vsb-` and a uid are 44
//! characters: with the Job controller's suffix for pods this fits into the 63 of a label or a host
//! name.

use crate::kubernetes::naming::{KIND_LABEL, MANAGED_BY, Naming, OWNER_ANNOTATION, UID_LABEL};
use crate::provenance::Tag;
use std::collections::BTreeMap;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Backup,
    Restore,
}

impl Kind {
    /// The short name as kubectl knows it: part of the names and labels of managed objects.
    pub fn short(self) -> &'static str {
        match self {
            Kind::Backup => "vsb",
            Kind::Restore => "vsr",
        }
    }
}

/// A request as the owner of its managed objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// The longest value of a label (`apimachinery`, LabelValueMaxLength).
const LABEL_VALUE: usize = 63;

impl Owner {
    /// The name of all managed objects, which are of different kinds.
    pub fn object_name(&self) -> String {
        format!("vsm-{}-{}", self.kind.short(), self.uid)
    }

    /// The metadata of a managed object of this name.
    pub fn naming(&self, name: String, namespace: &str) -> Naming {
        let owner = format!("{}/{}", self.namespace, self.name);
        Naming {
            name,
            namespace: namespace.to_owned(),
            labels: self.labels(),
            annotations: BTreeMap::from([(OWNER_ANNOTATION.to_owned(), owner)]),
        }
    }

    /// The tag of the one snapshot that a backup makes.
    pub fn identity(&self) -> Option<String> {
        (self.kind == Kind::Backup).then(|| Tag::Identity.of(&self.uid))
    }

    /// The last label is VolumeSnapshotMover's, by which scripts select. It is omitted if the
    /// owner's name is too long for a label.
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

    /// A label selector for all managed objects.
    pub fn selector(&self) -> String {
        format!("{UID_LABEL}={}", self.uid)
    }

    /// Whether an object with these labels is managed for this owner. Its name proves nothing.
    pub fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(UID_LABEL) == Some(&self.uid) && labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8f6c1d7e-1b0c-4b58-9d5a-2f7c7a9b1c3d";

    #[test]
    fn names_and_labels_fit_for_the_longest_owner() {
        for (kind, expected) in [(Kind::Backup, "vsm-vsb-"), (Kind::Restore, "vsm-vsr-")] {
            let long = Owner { kind, namespace: "n".repeat(63), name: "x".repeat(253), uid: UID.into() };
            assert_eq!(long.object_name(), format!("{expected}{UID}"));
            // `-abcde`, as the Job controller names pods.
            assert!(long.object_name().len() + 6 <= 63);
            assert!(long.labels().values().all(|value| value.len() <= 63), "{:?}", long.labels());
            let short = Owner { name: "vsb-abcde".into(), ..long };
            assert!(short.labels().values().any(|value| value == "vsb-abcde"));
        }
    }

    #[test]
    fn an_object_of_the_same_name_is_not_managed_without_the_labels() {
        let owner = Owner { kind: Kind::Backup, namespace: "a".into(), name: "b".into(), uid: UID.into() };
        assert!(owner.owns(&owner.labels()));
        let other = Owner { uid: "other".into(), ..owner.clone() };
        assert!(!owner.owns(&other.labels()) && !owner.owns(&BTreeMap::new()));
        let mut foreign = owner.labels();
        foreign.remove(MANAGED_BY.0);
        assert!(!owner.owns(&foreign));
    }
}
