//! Deletion policies: whether storage is deleted with the object that names it. The fields are
//! `deletionPolicy` of a VolumeSnapshotContent and `persistentVolumeReclaimPolicy` of a
//! PersistentVolume.

/// The two policies that this controller sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The storage stays.
    Retain,
    /// The storage is deleted with the object.
    Delete,
}

impl DeletionPolicy {
    /// The name that Kubernetes uses.
    pub fn name(self) -> &'static str {
        match self {
            DeletionPolicy::Retain => "Retain",
            DeletionPolicy::Delete => "Delete",
        }
    }

    /// Whether a policy that was read from an object is this one.
    pub fn is(self, name: &str) -> bool {
        name == self.name()
    }
}
