//! A set of ids that grows one by one to millions: 33 to 36 bytes each, whatever their number. A
//! hash table takes 38 to 75, and both the old and the new one while it grows.

use crate::id::Id;

/// Lists that the first 12 bits of an id choose among, so that each is short.
const LISTS: usize = 1 << 12;

/// Ids, sorted in many short lists.
#[derive(Default)]
pub(super) struct Ids {
    /// None before the first id.
    lists: Vec<Vec<Id>>,
}

impl Ids {
    /// Adds an id; `false`: it is there already.
    pub fn insert(&mut self, id: Id) -> bool {
        if self.lists.is_empty() {
            self.lists.resize_with(LISTS, Vec::new);
        }
        let list = &mut self.lists[place(id)];
        let Err(at) = list.binary_search(&id) else { return false };
        if list.len() == list.capacity() {
            // Not twice as many: of a million that would be 16 MB for nothing.
            list.reserve_exact(4.max(list.len() / 8));
        }
        list.insert(at, id);
        true
    }

    pub fn contains(&self, id: Id) -> bool {
        self.lists.get(place(id)).is_some_and(|list| list.binary_search(&id).is_ok())
    }
}

fn place(id: Id) -> usize {
    usize::from(id.0[0]) << 4 | usize::from(id.0[1] >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_there_once_it_was_added() {
        let mut ids = Ids::default();
        let id = |number: u32| Id::of(&number.to_le_bytes());
        assert!(!ids.contains(id(0)));
        for number in 0..50_000 {
            assert!(ids.insert(id(number)), "{number}");
        }
        assert!((0..50_000).all(|number| ids.contains(id(number)) && !ids.insert(id(number))));
        assert!((50_000..60_000).all(|number| !ids.contains(id(number))));
        // Also those that differ in their last bit.
        let ends = [0, 1].map(|last| Id([&[7; 31][..], &[last]].concat().try_into().unwrap()));
        assert!(ids.insert(ends[1]) && ids.insert(ends[0]) && !ids.insert(ends[1]));
    }
}
