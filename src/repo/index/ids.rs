//! A set of ids that grows one by one to millions: 8 to 9 bytes each in memory, whatever their
//! number, and 32 in a temporary file. A hash table of ids takes 38 to 75, and both the old and the
//! new one while it grows.

use crate::format::content::NewContent;
use crate::id::Id;
use std::path::Path;

/// Lists that the first 12 bits of an id choose among, so that each is short.
const LISTS: usize = 1 << 12;

/// Ids in the order in which they came, and where each of them is.
#[derive(Default)]
pub(super) struct Ids {
    ids: NewContent,
    /// Sorted. None before the first id.
    lists: Vec<Vec<Entry>>,
    /// No more can be spilled.
    is_full: bool,
}

/// An id that was added.
#[derive(Clone, Copy)]
struct Entry {
    /// The bits of it behind those that chose the list: hardly any two in a list have the same.
    print: u32,
    /// Its place in the order of ids.
    place: u32,
}

impl Ids {
    /// Adds an id; `false`: the set has it already. Many are spilled to `directory`, as long as
    /// there is space.
    ///
    /// # Panics
    /// When those that were spilled cannot be read.
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
            // Not twice as many: of a million that would be megabytes for nothing.
            list.reserve_exact(8.max(list.len() / 8));
        }
        list.insert(at, entry);
        let directory = directory.filter(|_| !self.is_full);
        // What could not be spilled stays in memory.
        self.is_full |= self.ids.push(id, directory).is_err();
        true
    }

    /// # Panics
    /// As [`Ids::insert`].
    pub fn contains(&self, id: Id) -> bool {
        !self.lists.is_empty() && self.find(id).is_ok()
    }

    /// Where an id is in its list, or belongs.
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
    fn an_id_is_there_once_it_was_added() {
        let temp = tempfile::tempdir().unwrap();
        let gone = temp.path().join("gone");
        // Where nothing can be spilled, all stay in memory.
        for directory in [None, Some(temp.path()), Some(&*gone)] {
            let mut ids = Ids::default();
            let id = |number: u32| Id::of(&number.to_le_bytes());
            assert!(!ids.contains(id(0)));
            for number in 0..100_000 {
                assert!(ids.insert(id(number), directory), "{number}");
            }
            assert!((0..100_000).all(|number| ids.contains(id(number)) && !ids.insert(id(number), directory)));
            assert!((100_000..120_000).all(|number| !ids.contains(id(number))));
            // Also those that differ in their last bit.
            let ends = [0, 1].map(|last| Id([&[7; 31][..], &[last]].concat().try_into().unwrap()));
            assert!(ids.insert(ends[1], directory) && !ids.contains(ends[0]));
            assert!(ids.insert(ends[0], directory) && !ids.insert(ends[1], directory));
        }
    }
}
