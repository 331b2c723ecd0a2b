//! The names in a directory of the snapshot, packed: about 15 bytes each, where a set takes 60.

use std::collections::HashSet;

/// Names, each once.
#[derive(Default)]
pub struct Names {
    /// Behind each other, sorted.
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u32>,
    /// All of them, if they did not come sorted.
    unsorted: Option<HashSet<Box<[u8]>>>,
    /// Of names that come sorted, only the last is kept.
    forgets: bool,
}

impl Names {
    /// Names that are not asked for: of those that come sorted, the last one is enough to tell that
    /// the next is new.
    pub fn forgetting() -> Names {
        Names { forgets: true, ..Names::default() }
    }

    /// Whether a name may be one of those that are not kept any more.
    pub fn has_forgotten(&self, name: &[u8]) -> bool {
        self.forgets && !self.is_behind(name)
    }

    /// Adds a name, none that [`Names::has_forgotten`]; `false`: it is there already.
    pub fn insert(&mut self, name: &[u8]) -> bool {
        if let Some(names) = &mut self.unsorted {
            return names.insert(name.into());
        }
        let is_behind = self.is_behind(name);
        if self.forgets {
            self.bytes.clear();
            self.ends.clear();
        }
        // Names come out of a tree, which has no more than 4 GiB.
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

    /// Bytes that they take, about.
    pub fn memory(&self) -> usize {
        let of_set = |names: &HashSet<Box<[u8]>>| names.iter().map(|name| size_of_val(name) + name.len()).sum();
        self.bytes.len() + size_of_val(&self.ends[..]) + self.unsorted.as_ref().map_or(0, of_set)
    }

    /// Whether a name comes after all others, which came sorted.
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
    fn names_are_found_whether_they_came_sorted_or_not() {
        for names in [&["a", "ab", "b", "c"][..], &["c", "a", "b", "ab"], &[], &["a", "c", "b", "ab"]] {
            let mut set = Names::default();
            assert!(names.iter().all(|name| set.insert(name.as_bytes())), "{names:?}");
            assert!(!names.iter().any(|name| set.insert(name.as_bytes())), "{names:?}");
            assert!(names.iter().all(|name| set.contains(name.as_bytes())), "{names:?}");
            assert!(!["", "aa", "d"].iter().any(|name| set.contains(name.as_bytes())), "{names:?}");
        }
    }

    #[test]
    fn names_that_are_not_kept_are_new_as_long_as_they_come_sorted() {
        let mut names = Names::forgetting();
        assert!(
            ["a", "ab", "b"].iter().all(|name| !names.has_forgotten(name.as_bytes()) && names.insert(name.as_bytes()))
        );
        assert!(["b", "ab", ""].iter().all(|name| names.has_forgotten(name.as_bytes())));
        assert!(names.insert(b"c"));
        assert_eq!(names.memory(), 5);
    }
}
