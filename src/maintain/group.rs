//! Snapshots that belong together: of the same host, the same paths, the same tags, or any of these.

use crate::repo::StoredSnapshot;
use serde::Serialize;
use std::collections::BTreeMap;

/// What the snapshots of a group have in common; what was not asked for is empty.
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

/// Groups snapshots; groups come in the order of their keys.
pub fn group(snapshots: Vec<StoredSnapshot>, host: bool, paths: bool, tags: bool) -> Vec<Group> {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        (!list.is_empty()).then_some(list)
    };
    let mut groups: BTreeMap<GroupKey, Vec<StoredSnapshot>> = BTreeMap::new();
    for stored in snapshots {
        let key = GroupKey {
            hostname: if host { stored.snapshot.hostname.clone() } else { String::new() },
            paths: paths.then(|| sorted(&stored.snapshot.paths)).flatten(),
            tags: tags.then(|| sorted(&stored.snapshot.tags)).flatten(),
        };
        groups.entry(key).or_default().push(stored);
    }
    groups.into_iter().map(|(key, snapshots)| Group { key, snapshots }).collect()
}
