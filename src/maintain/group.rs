//! Groups snapshots by host, by paths, by tags, or by any combination of them.

use crate::repo::StoredSnapshot;
use serde::Serialize;
use std::collections::BTreeMap;

/// The values that the snapshots of a group have in common; a property that is not a criterion is
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GroupKey {
    pub hostname: String,
    /// The paths, sorted.
    pub paths: Option<Vec<String>>,
    /// The tags, sorted.
    pub tags: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub key: GroupKey,
    /// In the order of the input.
    pub snapshots: Vec<StoredSnapshot>,
}

/// The properties by which snapshots are grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCriteria {
    pub host: bool,
    pub paths: bool,
    pub tags: bool,
}

/// Groups snapshots. The groups are sorted by their keys.
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
