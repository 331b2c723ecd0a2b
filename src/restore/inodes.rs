//! Sets of entries of the target, by device and inode number.

use super::confine::Dir;
use crate::sync::lock;
use rustix::fs::Stat;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

/// Device and inode.
pub type Inode = (u64, u64);

pub fn inode(stat: &Stat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// A bit per inode, in words of 64 neighbouring numbers. File systems number files that are created
/// together consecutively, so that a million files take a few hundred kilobytes; scattered files
/// take no more than in a plain set.
#[derive(Default)]
pub struct Inodes {
    words: HashMap<(u64, u64), u64>,
}

impl Inodes {
    /// Returns `false` if the set has the inode already.
    pub fn insert(&mut self, (device, inode): Inode) -> bool {
        let word = self.words.entry((device, inode / 64)).or_default();
        let before = *word;
        *word |= 1 << (inode % 64);
        *word != before
    }

    pub fn contains(&self, (device, inode): Inode) -> bool {
        self.words.get(&(device, inode / 64)).is_some_and(|word| word >> (inode % 64) & 1 == 1)
    }
}

/// Entries of the target that are assigned to entries of the snapshot.
#[derive(Default)]
pub struct Claimed(Mutex<Inodes>);

impl Claimed {
    /// Returns `false` if the set has the inode already.
    pub fn insert(&self, inode: Inode) -> bool {
        lock(&self.0).insert(inode)
    }

    pub fn contains(&self, inode: Inode) -> bool {
        lock(&self.0).contains(inode)
    }
}

/// Entries of the target with several names that stay as they are: their names in each directory.
#[derive(Default)]
pub struct Settled(Mutex<HashMap<(u32, Inode), Vec<Name>>>);

type Name = Box<[u8]>;

impl Settled {
    pub fn note(&self, dir: u32, inode: Inode, name: &[u8]) {
        lock(&self.0).entry((dir, inode)).or_default().push(name.into());
    }

    /// Whether `name`, which resolves to this inode, is another spelling of a noted name, as on a
    /// file system that ignores case. Two names of one inode are separate hard links only if the
    /// directory lists both in exactly these spellings.
    pub fn is_respelt(&self, number: u32, dir: &Dir, inode: Inode, name: &[u8]) -> rustix::io::Result<bool> {
        let Some(noted) = lock(&self.0).get(&(number, inode)).cloned() else { return Ok(false) };
        let listed: HashSet<Vec<u8>> = dir.names()?.into_iter().collect();
        Ok(!listed.contains(name) || !noted.iter().all(|noted| listed.contains(&**noted)))
    }
}

/// Files that this run created in place of existing entries, in shards by directory. Another entry
/// of the snapshot must not replace them, if the file system treats both names as equal.
pub struct Replaced([Mutex<Inodes>; SHARDS]);

/// Number of directories in which entries can be replaced in parallel.
const SHARDS: usize = 64;

impl Default for Replaced {
    fn default() -> Replaced {
        Replaced(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Replaced {
    /// Locks the set of a directory, while an entry in it is replaced.
    pub fn of(&self, dir: u32) -> MutexGuard<'_, Inodes> {
        lock(&self.0[dir as usize % SHARDS])
    }
}

/// The inodes that are assigned to entries of the snapshot, so that no entry replaces another one
/// if the file system treats their names as equal.
#[derive(Default)]
pub struct Claims {
    /// Directories that existed, or were created in one that existed, each assigned to one entry.
    pub dirs: Claimed,
    /// Files that were created in place of existing entries.
    pub replaced: Replaced,
    /// Entries with several names that are correct or kept.
    pub settled: Settled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_are_distinguished_by_device_and_number() {
        let mut inodes = Inodes::default();
        let some = [(1, 0), (1, 63), (1, 64), (2, 0), (2, u64::MAX)];
        assert!(some.iter().all(|&inode| inodes.insert(inode)));
        assert!(some.iter().all(|&inode| !inodes.insert(inode) && inodes.contains(inode)));
        assert!(
            [(1, 1), (1, 62), (1, 65), (2, 63), (2, u64::MAX - 1), (3, 0)].iter().all(|&other| !inodes.contains(other))
        );
    }
}
