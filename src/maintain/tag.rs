//! Changes the tags of snapshots. The id of a snapshot is its hash, so other tags make a new
//! snapshot; the old one is removed when the new one exists.

use crate::id::Id;
use crate::repo::{Repository, Result, StoredSnapshot};
use crate::store::FileType;

/// A change of the tags.
pub enum Change {
    /// Replace the tags by these.
    Set(Vec<String>),
    /// Add the tags of `add`, then remove those of `remove`.
    Edit { add: Vec<String>, remove: Vec<String> },
}

impl Change {
    fn apply(&self, tags: &[String]) -> Vec<String> {
        let (mut changed, add, remove): (Vec<String>, _, &[String]) = match self {
            Change::Set(tags) => (Vec::new(), tags, &[]),
            Change::Edit { add, remove } => (tags.to_vec(), add, remove),
        };
        for tag in add {
            if !changed.contains(tag) {
                changed.push(tag.clone());
            }
        }
        changed.retain(|tag| !remove.contains(tag));
        changed
    }
}

/// Changes the tags of a snapshot. Returns the id of the new snapshot, or `None` if the tags
/// already match. The caller holds an exclusive lock.
pub fn change(repo: &Repository, stored: &StoredSnapshot, change: &Change) -> Result<Option<Id>> {
    let tags = change.apply(&stored.snapshot.tags);
    if tags == stored.snapshot.tags {
        return Ok(None);
    }
    let mut snapshot = stored.snapshot.clone();
    snapshot.tags = tags;
    snapshot.original.get_or_insert(stored.id);
    let id = repo.save_file(FileType::Snapshot, snapshot.encode())?;
    repo.remove_snapshot(stored.id)?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::testing::Fixture;
    use crate::repo::SnapshotFilter;

    fn list(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn tags_are_set_added_and_removed() {
        let edit = Change::Edit { add: list(&["c", "a"]), remove: list(&["b"]) };
        assert_eq!(edit.apply(&list(&["a", "b"])), ["a", "c"]);
        assert_eq!(Change::Set(list(&["x", "x"])).apply(&list(&["a"])), ["x"]);
        assert!(Change::Set(vec![]).apply(&list(&["a"])).is_empty());
    }

    #[test]
    fn a_retagged_snapshot_records_the_original_and_replaces_the_old_one() {
        let fixture = Fixture::new();
        let root = fixture.tree(&[]);
        let first = fixture.snapshot(root);
        let repo = fixture.repo();
        let stored = repo.load_snapshot(first).unwrap();
        let second = change(&repo, &stored, &Change::Set(list(&["x"]))).unwrap().unwrap();
        let stored = repo.load_snapshot(second).unwrap();
        assert_eq!(change(&repo, &stored, &Change::Set(list(&["x"]))).unwrap(), None);
        let third = change(&repo, &stored, &Change::Set(list(&["y"]))).unwrap().unwrap();
        let (all, _) = repo.snapshots().unwrap();
        assert_eq!(all.iter().map(|stored| stored.id).collect::<Vec<_>>(), [third]);
        let latest = repo.find_snapshot("latest", &SnapshotFilter::default()).unwrap();
        assert_eq!(latest.snapshot.original, Some(first));
    }
}
