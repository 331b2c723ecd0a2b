//! Inode numbers that the kernel holds: it learns a number by looking up a name, and sends `forget`
//! when it drops that number.

use super::places::Places;
use crate::format::node::Node;
use crate::id::Id;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// The number of the root, which FUSE prescribes.
pub const ROOT: u64 = 1;

/// The object of an inode number.
#[derive(Clone)]
pub enum Inode {
    /// A directory above the snapshots.
    Place(usize),
    /// A symbolic link in such a directory.
    Link(Vec<u8>),
    /// An entry of the directory `tree`, without its content. The root of a snapshot has no `tree`.
    Node { tree: Option<Id>, node: Arc<Node> },
}

struct Known {
    inode: Inode,
    parent: u64,
    name: Vec<u8>,
    /// Lookups for which the kernel has not sent `forget`.
    lookups: u64,
}

/// The numbers that the kernel knows.
#[derive(Default)]
pub struct Inodes(HashMap<u64, Known>);

impl Inodes {
    /// The object of a number; `None` for a number that the kernel cannot know.
    pub fn get(&self, number: u64) -> Option<Inode> {
        match number {
            ROOT => Some(Inode::Place(Places::ROOT)),
            _ => self.0.get(&number).map(|known| known.inode.clone()),
        }
    }

    /// Counts a lookup of an entry, and returns its number.
    pub fn look_up(&mut self, parent: u64, name: &[u8], inode: impl FnOnce() -> Inode) -> u64 {
        let mut number = number(parent, name);
        loop {
            match self.0.entry(number) {
                Entry::Vacant(free) => {
                    free.insert(Known { inode: inode(), parent, name: name.to_owned(), lookups: 1 });
                    return number;
                }
                Entry::Occupied(mut known) if known.get().parent == parent && known.get().name == name => {
                    known.get_mut().lookups += 1;
                    return number;
                }
                // A hash collision: another name has this number.
                Entry::Occupied(_) => number = number.wrapping_add(1).max(ROOT + 1),
            }
        }
    }

    pub fn forget(&mut self, number: u64, lookups: u64) {
        if let Entry::Occupied(mut known) = self.0.entry(number) {
            known.get_mut().lookups = known.get().lookups.saturating_sub(lookups);
            if known.get().lookups == 0 {
                known.remove();
            }
        }
    }

    /// The path below the mount point, for messages. While the kernel knows an entry, it knows all
    /// directories above it.
    pub fn path(&self, number: u64) -> String {
        let above = |known: &&Known| self.0.get(&known.parent);
        let mut names: Vec<_> = std::iter::successors(self.0.get(&number), above).map(|known| &known.name).collect();
        names.reverse();
        names.into_iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect()
    }
}

/// The number of a name unless that is taken. The same name gets the same number each time, because
/// programs compare numbers.
pub fn number(parent: u64, name: &[u8]) -> u64 {
    let hash = Id::of(&[&parent.to_be_bytes(), name].concat());
    u64::from_be_bytes(*hash.0.first_chunk().expect("32 bytes")).max(ROOT + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_valid_until_the_kernel_forgets_every_lookup_of_it() {
        let mut inodes = Inodes::default();
        let dir = inodes.look_up(ROOT, b"dir", || Inode::Place(7));
        let file = inodes.look_up(dir, b"file", || Inode::Place(8));
        assert_eq!(inodes.look_up(dir, b"file", || unreachable!("it is known")), file);
        assert_eq!(inodes.path(file), "/dir/file");
        inodes.forget(file, 1);
        assert!(matches!(inodes.get(file), Some(Inode::Place(8))));
        inodes.forget(file, 1);
        assert!(inodes.get(file).is_none());
        assert!(matches!(inodes.get(ROOT), Some(Inode::Place(0))));
    }

    #[test]
    fn names_with_the_same_hash_get_different_numbers() {
        let mut inodes = Inodes::default();
        let one = number(ROOT, b"one");
        inodes.0.insert(one, Known { inode: Inode::Place(1), parent: 5, name: b"x".into(), lookups: 1 });
        assert_eq!(inodes.look_up(ROOT, b"one", || Inode::Place(2)), one.wrapping_add(1));
    }
}
