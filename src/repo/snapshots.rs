//! Finds snapshots: by id, by prefix, `latest`, and by host, tags and paths.

use super::error::{Error, Result};
use super::repository::Repository;
use crate::format::snapshot::Snapshot;
use crate::id::Id;
use crate::parallel::side_by_side;
use crate::store::{File, FileType};
use crate::{limits, memory};

/// A snapshot and its name.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    pub id: Id,
    pub snapshot: Snapshot,
}

impl StoredSnapshot {
    /// The root tree; a snapshot without one is damaged.
    pub fn tree(&self) -> Result<Id> {
        self.snapshot.tree.ok_or_else(|| Error::Inconsistent {
            path: format!("snapshot {}", self.id),
            why: "it names no tree; it is damaged".to_owned(),
        })
    }
}

/// Selects snapshots; an empty list accepts any.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFilter {
    pub hosts: Vec<String>,
    /// A snapshot must have all tags of one of these lists; an empty list asks for a snapshot
    /// without tags.
    pub tags: Vec<Vec<String>>,
    /// A snapshot must have all of these paths.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    pub fn accepts(&self, snapshot: &Snapshot) -> bool {
        let tagged =
            |list: &Vec<String>| if list.is_empty() { snapshot.tags.is_empty() } else { snapshot.has_tags(list) };
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.hostname))
            && (self.tags.is_empty() || self.tags.iter().any(tagged))
            && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }
}

impl Repository {
    pub fn load_snapshot(&self, id: Id) -> Result<StoredSnapshot> {
        let file = File::new(FileType::Snapshot, id);
        let json = self.load_file(file)?;
        let snapshot = Snapshot::decode(&json).map_err(|source| Error::Damaged { file, source })?;
        Ok(StoredSnapshot { id, snapshot })
    }

    /// All snapshots, oldest first, and the errors of those that cannot be read.
    pub fn snapshots(&self) -> Result<(Vec<StoredSnapshot>, Vec<Error>)> {
        let mut snapshots = Vec::new();
        let mut errors = Vec::new();
        for (_, snapshot) in self.read_snapshots()? {
            match snapshot {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => errors.push(error),
            }
        }
        snapshots.sort_by_key(|stored| (stored.snapshot.time.instant(), stored.id));
        Ok((snapshots, errors))
    }

    /// All snapshots in no particular order, read over all connections: the id of each, and the
    /// snapshot or the reason why it cannot be read.
    pub fn read_snapshots(&self) -> Result<Vec<(Id, Result<StoredSnapshot>)>> {
        let listed = self.store().list(FileType::Snapshot)?;
        let largest = listed.iter().map(|(_, size)| *size).max().unwrap_or(0);
        let each = (2 * limits::SNAPSHOT_FILE).min((1 << 20) + largest.saturating_mul(10));
        // Without memory left, one at a time is read nevertheless.
        let left = self.settings().budget.left(0, 0).unwrap_or(0);
        let threads = memory::threads(left, each, self.store().downloads());
        let ids: Vec<Id> = listed.into_iter().map(|(id, _)| id).collect();
        let read = side_by_side(threads, &ids, |&id| self.load_snapshot(id));
        Ok(ids.into_iter().zip(read).collect())
    }

    /// The snapshot called `name`: an id, an unambiguous beginning of one, or `latest` among those
    /// the filter accepts.
    pub fn find_snapshot(&self, name: &str, filter: &SnapshotFilter) -> Result<StoredSnapshot> {
        if name == "latest" {
            let (snapshots, errors) = self.snapshots()?;
            if let Some(error) = errors.into_iter().next() {
                // The unreadable snapshot may be the latest one; to take another one would be a
                // guess.
                return Err(error);
            }
            let latest = snapshots.into_iter().rfind(|stored| filter.accepts(&stored.snapshot));
            return latest.ok_or_else(|| Error::NoSuchSnapshot("no snapshot matches: there is no latest one".into()));
        }
        let id = self.find_id(FileType::Snapshot, name)?;
        self.load_snapshot(id)
    }

    /// The one file of a type whose id begins with `prefix`.
    pub fn find_id(&self, ty: FileType, prefix: &str) -> Result<Id> {
        if let Ok(id) = prefix.parse() {
            return Ok(id);
        }
        let ids = self.store().list(ty)?;
        let mut matches =
            ids.iter().map(|&(id, _)| id).filter(|id| !prefix.is_empty() && id.to_string().starts_with(prefix));
        match (matches.next(), matches.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Error::NoSuchSnapshot(format!("no {ty} has an id that begins with {prefix:?}"))),
            (Some(a), Some(b)) => Err(Error::NoSuchSnapshot(format!(
                "{prefix:?} begins the ids of several {ty} files ({a}, {b}); give more digits"
            ))),
        }
    }

    pub fn remove_snapshot(&self, id: Id) -> Result<()> {
        Ok(self.store().remove(File::new(FileType::Snapshot, id))?)
    }
}
