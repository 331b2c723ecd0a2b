//! A compact set of the names in a directory of the snapshot: about 15 bytes each, where a hash set
//! takes 60.

use std::collections::HashSet;

/// A set of names.
#[derive(Default)]
pub struct Names {
    /// The names, sorted and concatenated.
    bytes: Vec<u8>,
    /// The end of each name in `bytes`.
    ends: Vec<u32>,
    /// All names, if they did not arrive sorted.
    unsorted: Option<HashSet<Box<[u8]>>>,
    /// Whether only the last name is kept while names arrive sorted.
    forgets: bool,
}

impl Names {
    /// A set that only checks that names are new: while they arrive sorted, the last one is enough
    /// for that.
    pub fn forgetting() -> Names {
        Names { forgets: true, ..Names::default() }
    }

    /// Whether a name may be one that is not kept any more.
    pub fn has_forgotten(&self, name: &[u8]) -> bool {
        self.forgets && !self.is_behind(name)
    }

    /// Adds a name, for which [`Names::has_forgotten`] must be false. Returns `false` if the set
    /// has it already.
    pub fn insert(&mut self, name: &[u8]) -> bool {
        if let Some(names) = &mut self.unsorted {
            return names.insert(name.into());
        }
        let is_behind = self.is_behind(name);
        if self.forgets {
            self.bytes.clear();
            self.ends.clear();
        }
        // The names come from a tree, which has no more than 4 GiB.
        match u32::try_from(self.bytes.len() + name.len()) {
            Ok(end) if is_behind => {
                self.bytes.extend_from_slice(name);
                self.ends.push(end);
                true
            }
            _ => {
                let mut names: HashSet<Box<[u8]>> = (0..self.ends.len()).map(|at| self.get(at).into()).collect();
                let is_new = names.insert(name.into());
                *self = Names { unsorted: Some(names), ..Names::default() };
                is_new
            }
        }
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        if let Some(names) = &self.unsorted {
            return names.contains(name);
        }
        let (mut start, mut end) = (0, self.ends.len());
        while start < end {
            let middle = usize::midpoint(start, end);
            if self.get(middle) < name { start = middle + 1 } else { end = middle }
        }
        start < self.ends.len() && self.get(start) == name
    }

    /// Approximate size in bytes.
    pub fn memory(&self) -> usize {
        let of_set = |names: &HashSet<Box<[u8]>>| names.iter().map(|name| size_of_val(name) + name.len()).sum();
        self.bytes.len() + size_of_val(&self.ends[..]) + self.unsorted.as_ref().map_or(0, of_set)
    }

    /// Whether a name sorts after all others, which arrived sorted.
    fn is_behind(&self, name: &[u8]) -> bool {
        self.ends.len().checked_sub(1).is_none_or(|last| self.get(last) < name)
    }

    fn get(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[at] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_order_of_arrival() {
        for names in [&["a", "ab", "b", "c"][..], &["c", "a", "b", "ab"], &[], &["a", "c", "b", "ab"]] {
            let mut set = Names::default();
            assert!(names.iter().all(|name| set.insert(name.as_bytes())), "{names:?}");
            assert!(!names.iter().any(|name| set.insert(name.as_bytes())), "{names:?}");
            assert!(names.iter().all(|name| set.contains(name.as_bytes())), "{names:?}");
            assert!(!["", "aa", "d"].iter().any(|name| set.contains(name.as_bytes())), "{names:?}");
        }
    }

    #[test]
    fn names_that_arrive_sorted_are_known_to_be_new_by_the_last_one() {
        let mut names = Names::forgetting();
        assert!(
            ["a", "ab", "b"].iter().all(|name| !names.has_forgotten(name.as_bytes()) && names.insert(name.as_bytes()))
        );
        assert!(["b", "ab", ""].iter().all(|name| names.has_forgotten(name.as_bytes())));
        assert!(names.insert(b"c"));
        assert_eq!(names.memory(), 5);
    }
}
