//! Sets of files of the target, by device and inode.

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

/// A bit for each inode, in words of 64 neighbours: file systems number what is made together side
/// by side, so that a million files take some hundred kilobytes, and no more than a set does.
#[derive(Default)]
pub struct Inodes {
    words: HashMap<(u64, u64), u64>,
}

impl Inodes {
    /// `false`: it is there already.
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

/// Entries of the target that entries of the snapshot have been given.
#[derive(Default)]
pub struct Claimed(Mutex<Inodes>);

impl Claimed {
    /// `false`: it is there already.
    pub fn insert(&self, inode: Inode) -> bool {
        lock(&self.0).insert(inode)
    }

    pub fn contains(&self, inode: Inode) -> bool {
        lock(&self.0).contains(inode)
    }
}

/// What has several names in the target and stays as it is: its names in each directory.
#[derive(Default)]
pub struct Settled(Mutex<HashMap<(u32, Inode), Vec<Name>>>);

type Name = Box<[u8]>;

impl Settled {
    pub fn note(&self, dir: u32, inode: Inode, name: &[u8]) {
        lock(&self.0).entry((dir, inode)).or_default().push(name.into());
    }

    /// Whether `name`, which leads to this inode, is another spelling of a name that was noted.
    /// Names of one inode are places of their own only if the directory lists each of them as it is
    /// spelt.
    pub fn is_respelt(&self, number: u32, dir: &Dir, inode: Inode, name: &[u8]) -> rustix::io::Result<bool> {
        let Some(noted) = lock(&self.0).get(&(number, inode)).cloned() else { return Ok(false) };
        let listed: HashSet<Vec<u8>> = dir.names()?.into_iter().collect();
        Ok(!listed.contains(name) || !noted.iter().all(|noted| listed.contains(&**noted)))
    }
}

/// What this run has made in the place of something else, by the directory that it is in. It is not
/// to be replaced by another entry of the snapshot, whose name the file system takes for the same.
pub struct Replaced([Mutex<Inodes>; SHARDS]);

/// Directories whose entries are replaced side by side.
const SHARDS: usize = 64;

impl Default for Replaced {
    fn default() -> Replaced {
        Replaced(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Replaced {
    /// Held while something in a directory is replaced.
    pub fn of(&self, dir: u32) -> MutexGuard<'_, Inodes> {
        lock(&self.0[dir as usize % SHARDS])
    }
}

/// Which inodes entries of the snapshot have been given, so that no entry replaces another one
/// whose name the file system takes for the same.
#[derive(Default)]
pub struct Claims {
    /// Directories that existed, or were made in one that existed, each given to one entry.
    pub dirs: Claimed,
    /// Files that were made in the place of something else.
    pub replaced: Replaced,
    /// What is right already, or was made right, and has several names.
    pub settled: Settled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_are_told_apart_by_device_and_number() {
        let mut inodes = Inodes::default();
        let some = [(1, 0), (1, 63), (1, 64), (2, 0), (2, u64::MAX)];
        assert!(some.iter().all(|&inode| inodes.insert(inode)));
        assert!(some.iter().all(|&inode| !inodes.insert(inode) && inodes.contains(inode)));
        assert!(
            [(1, 1), (1, 62), (1, 65), (2, 63), (2, u64::MAX - 1), (3, 0)].iter().all(|&other| !inodes.contains(other))
        );
    }
}
