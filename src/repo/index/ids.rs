//! A set of ids that grows one by one to millions. Each id takes 8 to 9 bytes of memory, and 32
//! bytes of a temporary file. In a hash table it would take 38 to 75 bytes, and both the old and
//! the new table exist while it grows.

use crate::format::content::NewContent;
use crate::id::Id;
use std::path::Path;

/// Number of lists: the first 12 bits of an id choose its list, so that each list is short.
const LISTS: usize = 1 << 12;

/// Ids in the order of insertion, and sorted lists to find them.
#[derive(Default)]
pub(super) struct Ids {
    ids: NewContent,
    /// Each list is sorted by `print`. There are no lists before the first id.
    lists: Vec<Vec<Entry>>,
    /// Spilling has failed: later ids stay in memory.
    is_full: bool,
}

/// An id that was added.
#[derive(Clone, Copy)]
struct Entry {
    /// 32 bits of the id, after those that chose the list: hardly any two in a list are equal.
    print: u32,
    /// Its position in the order of insertion.
    place: u32,
}

impl Ids {
    /// Adds an id. Returns `false` if the set has it already. Many ids are spilled to `directory`,
    /// as long as it has space.
    ///
    /// # Panics
    /// When the spilled ids cannot be read.
    pub fn insert(&mut self, id: Id, directory: Option<&Path>) -> bool {
        if self.lists.is_empty() {
            self.lists.resize_with(LISTS, Vec::new);
        }
        let at = match self.find(id) {
            Ok(_) => return false,
            Err(at) => at,
        };
        let entry = Entry { print: print(id), place: u32::try_from(self.ids.len()).expect("fewer than 2^32 blobs") };
        let list = &mut self.lists[list(id)];
        if list.len() == list.capacity() {
            // Not doubled: a million ids would waste megabytes.
            list.reserve_exact(8.max(list.len() / 8));
        }
        list.insert(at, entry);
        let directory = directory.filter(|_| !self.is_full);
        // Ids that could not be spilled stay in memory.
        self.is_full |= self.ids.push(id, directory).is_err();
        true
    }

    /// # Panics
    /// As [`Ids::insert`].
    pub fn contains(&self, id: Id) -> bool {
        !self.lists.is_empty() && self.find(id).is_ok()
    }

    /// The position of an id in its list, or as an error the position to insert it at.
    fn find(&self, id: Id) -> Result<usize, usize> {
        let (list, print) = (&self.lists[list(id)], print(id));
        let first = list.partition_point(|entry| entry.print < print);
        let same = list[first..].iter().take_while(|entry| entry.print == print);
        let mut same = same.enumerate();
        match same.find(|(_, entry)| self.ids.get(entry.place as usize) == id) {
            Some((behind, _)) => Ok(first + behind),
            None => Err(first),
        }
    }
}

fn list(id: Id) -> usize {
    usize::from(id.0[0]) << 4 | usize::from(id.0[1] >> 4)
}

fn print(id: Id) -> u32 {
    u32::from_be_bytes([id.0[1] << 4 | id.0[2] >> 4, id.0[3], id.0[4], id.0[5]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_only_after_it_was_inserted() {
        let temp = tempfile::tempdir().unwrap();
        let gone = temp.path().join("gone");
        // If nothing can be spilled, all ids stay in memory.
        for directory in [None, Some(temp.path()), Some(&*gone)] {
            let mut ids = Ids::default();
            let id = |number: u32| Id::of(&number.to_le_bytes());
            assert!(!ids.contains(id(0)));
            for number in 0..100_000 {
                assert!(ids.insert(id(number), directory), "{number}");
            }
            assert!((0..100_000).all(|number| ids.contains(id(number)) && !ids.insert(id(number), directory)));
            assert!((100_000..120_000).all(|number| !ids.contains(id(number))));
            // Also ids that differ only in their last bit.
            let ends = [0, 1].map(|last| Id([&[7; 31][..], &[last]].concat().try_into().unwrap()));
            assert!(ids.insert(ends[1], directory) && !ids.contains(ends[0]));
            assert!(ids.insert(ends[0], directory) && !ids.insert(ends[1], directory));
        }
    }
}
