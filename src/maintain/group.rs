//! Snapshots that belong together: of the same host, the same paths, the same tags, or any of
//! these.

use crate::repo::StoredSnapshot;
use serde::Serialize;
use std::collections::BTreeMap;

/// The values that the snapshots of a group have in common; what is no criterion is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GroupKey {
    pub hostname: String,
    /// Sorted.
    pub paths: Option<Vec<String>>,
    /// Sorted.
    pub tags: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub key: GroupKey,
    /// In the order they came.
    pub snapshots: Vec<StoredSnapshot>,
}

/// What the snapshots of a group have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCriteria {
    pub host: bool,
    pub paths: bool,
    pub tags: bool,
}

/// Groups snapshots; groups come in the order of their keys.
pub fn group(snapshots: Vec<StoredSnapshot>, by: GroupCriteria) -> Vec<Group> {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        (!list.is_empty()).then_some(list)
    };
    let mut groups: BTreeMap<GroupKey, Vec<StoredSnapshot>> = BTreeMap::new();
    for stored in snapshots {
        let key = GroupKey {
            hostname: if by.host { stored.snapshot.hostname.clone() } else { String::new() },
            paths: by.paths.then(|| sorted(&stored.snapshot.paths)).flatten(),
            tags: by.tags.then(|| sorted(&stored.snapshot.tags)).flatten(),
        };
        groups.entry(key).or_default().push(stored);
    }
    groups.into_iter().map(|(key, snapshots)| Group { key, snapshots }).collect()
}
