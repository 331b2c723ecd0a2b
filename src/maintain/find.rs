//! Searches snapshots for entries by pattern and time, and for blobs, trees and packs by id.

use super::gaps::Gaps;
use super::walk::Walk;
use crate::format::BlobType;
use crate::format::node::{Node, NodeType};
use crate::format::time::Time;
use crate::id::Id;
use crate::pattern::Patterns;
use crate::repo::{Error, Index, TreeReader};
use std::collections::HashSet;

/// The entries to search for.
pub struct Entries {
    pub patterns: Patterns,
    /// Inclusive bounds of the modification time.
    pub oldest: Option<Time>,
    pub newest: Option<Time>,
}

impl Entries {
    fn matches(&self, path: &[u8], node: &Node) -> bool {
        let time = node.mtime.instant();
        self.patterns.matches(path)
            && self.oldest.is_none_or(|oldest| time >= oldest.instant())
            && self.newest.is_none_or(|newest| time <= newest.instant())
    }

    /// Passes every matching entry of a tree, with its path, to the callback. Entries that cannot
    /// be read are reported and left out.
    pub fn find<E: From<Error>>(
        &self,
        trees: &TreeReader<'_>,
        root: Id,
        gaps: &Gaps<'_>,
        mut tell: impl FnMut(&[u8], &Node) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut walk = Walk::readable(trees, root, gaps)?;
        while let Some(node) = walk.next_readable(gaps)? {
            gaps.check_interrupted()?;
            if self.matches(walk.path(), &node) {
                tell(walk.path(), &node)?;
            }
            if node.ty == NodeType::Dir && self.patterns.may_match_below(walk.path()) {
                walk.enter_readable(&node, gaps)?;
            }
        }
        Ok(())
    }
}

/// The ids to search for, complete or as prefixes.
#[derive(Default)]
pub struct Objects {
    ids: HashSet<(BlobType, Id)>,
    /// Prefixes of ids in hex, with the type.
    beginnings: Vec<(BlobType, String)>,
    /// Trees that contain none of the objects, in them or below. Only trees that could be read
    /// completely are in the set.
    barren: HashSet<Id>,
}

/// A place where an object was found.
pub struct Place<'p> {
    pub ty: BlobType,
    pub id: Id,
    /// The file that contains the data blob, or the directory that the tree stands for.
    pub path: &'p [u8],
    /// The tree that contains the file.
    pub parent: Option<Id>,
}

impl Objects {
    /// Adds an object by its id or a prefix of it, in hex.
    pub fn add(&mut self, ty: BlobType, name: &str) {
        match name.parse() {
            Ok(id) => drop(self.ids.insert((ty, id))),
            Err(_) => self.beginnings.push((ty, name.to_ascii_lowercase())),
        }
    }

    /// Adds all blobs of the packs whose ids begin with one of `names`. Returns the number of names
    /// that match no pack.
    pub fn add_packs(&mut self, index: &Index, names: &[String]) -> usize {
        let mut missing: HashSet<&String> = names.iter().collect();
        for location in index.iter() {
            let pack = location.pack.to_string();
            for name in names.iter().filter(|name| pack.starts_with(&name.to_ascii_lowercase())) {
                missing.remove(name);
                self.ids.insert((location.blob.ty, location.blob.id));
            }
        }
        missing.len()
    }

    fn has(&self, ty: BlobType, id: Id) -> bool {
        self.ids.contains(&(ty, id))
            || self.beginnings.iter().any(|(of, name)| *of == ty && id.to_string().starts_with(name))
    }

    /// Passes every place in a tree where one of the objects is to the callback. Entries that
    /// cannot be read are reported and left out.
    pub fn find<E: From<Error>>(
        &mut self,
        trees: &TreeReader<'_>,
        root: Id,
        gaps: &Gaps<'_>,
        mut tell: impl FnMut(Place<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if self.barren.contains(&root) {
            return Ok(());
        }
        let mut found = 0u64;
        // An entry that could not be read may contain one of the objects.
        let found_or_missed = |found: u64| found + gaps.reported();
        // The open directories: their depth, their tree, and the number of finds and failures
        // before them.
        let mut open: Vec<(usize, Id, u64)> = vec![(1, root, found_or_missed(0))];
        if self.has(BlobType::Tree, root) {
            tell(Place { ty: BlobType::Tree, id: root, path: b"/", parent: None })?;
            found += 1;
        }
        let mut walk = Walk::readable(trees, root, gaps)?;
        while let Some(node) = walk.next_readable(gaps)? {
            gaps.check_interrupted()?;
            self.close(&mut open, walk.depth(), found_or_missed(found));
            let wanted = node.content.iter().flatten().filter(|&id| self.has(BlobType::Data, id));
            for id in wanted.collect::<HashSet<_>>() {
                tell(Place { ty: BlobType::Data, id, path: walk.path(), parent: walk.tree() })?;
                found += 1;
            }
            if let (NodeType::Dir, Some(id)) = (node.ty, node.subtree) {
                let before = found_or_missed(found);
                if self.has(BlobType::Tree, id) {
                    tell(Place { ty: BlobType::Tree, id, path: walk.path(), parent: None })?;
                    found += 1;
                }
                if !self.barren.contains(&id) && walk.enter_readable(&node, gaps)? {
                    open.push((walk.depth(), id, before));
                }
            }
        }
        self.close(&mut open, 0, found_or_missed(found));
        Ok(())
    }

    /// Closes finished directories, and records those that contain none of the objects.
    fn close(&mut self, open: &mut Vec<(usize, Id, u64)>, depth: usize, found: u64) {
        while let Some((_, id, before)) = open.pop_if(|(level, ..)| *level > depth) {
            if before == found {
                self.barren.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::testing::Fixture;
    use crate::pattern::Case;
    use crate::progress::Progress;

    #[test]
    fn entries_are_found_by_pattern_and_time() {
        let fixture = Fixture::new();
        let at = |seconds, node| Node { mtime: Time::utc(seconds, 0), ..node };
        let root = fixture.tree(&[
            at(1, fixture.dir("a", &[at(5, fixture.file("x.txt", &[])), at(9, fixture.file("y.txt", &[]))])),
            at(5, fixture.file("z.log", &[])),
        ]);
        let repo = fixture.repo();
        let index = Index::load(&repo).unwrap();
        let trees = TreeReader::new(&repo, &index);
        let progress = Progress::silent();
        let gaps = Gaps::new(Id::NULL, &progress);
        let find = |pattern: &str, oldest, newest| {
            let mut patterns = Patterns::default();
            patterns.push(pattern, Case::Sensitive).unwrap();
            let time = |seconds: Option<i64>| seconds.map(|seconds| Time::utc(seconds, 0));
            let entries = Entries { patterns, oldest: time(oldest), newest: time(newest) };
            let mut found = Vec::new();
            let outcome = entries.find::<Error>(&trees, root, &gaps, |path, _| {
                found.push(String::from_utf8_lossy(path).into_owned());
                Ok(())
            });
            outcome.unwrap();
            found
        };
        assert_eq!(find("*.txt", None, None), ["/a/x.txt", "/a/y.txt"]);
        assert_eq!(find("a", None, None), ["/a", "/a/x.txt", "/a/y.txt"], "entries below a match match");
        assert_eq!(find("*", Some(5), Some(5)), ["/a/x.txt", "/z.log"]);
        assert!(find("/x.txt", None, None).is_empty());
    }

    #[test]
    fn objects_are_found_in_every_place() {
        let fixture = Fixture::new();
        let file = fixture.file("f", &["twice", "once", "twice"]);
        let blob = file.content.as_ref().unwrap().get(0).unwrap();
        let dir = fixture.dir("d", &[file]);
        let tree = dir.subtree.unwrap();
        let root = fixture.tree(&[dir.clone(), Node { name: b"e".to_vec(), ..dir }, fixture.dir("z", &[])]);
        let repo = fixture.repo();
        let index = Index::load(&repo).unwrap();
        let trees = TreeReader::new(&repo, &index);
        let progress = Progress::silent();
        let gaps = Gaps::new(Id::NULL, &progress);
        let find = |objects: &mut Objects| {
            let mut found = Vec::new();
            let outcome = objects.find::<Error>(&trees, root, &gaps, |place| {
                found.push((place.id, String::from_utf8_lossy(place.path).into_owned()));
                Ok(())
            });
            outcome.unwrap();
            found
        };
        let mut objects = Objects::default();
        objects.add(BlobType::Data, &blob.to_string()[..12]);
        let expected = [(blob, "/d/f".to_owned()), (blob, "/e/f".to_owned())];
        assert_eq!(find(&mut objects), expected);
        assert_eq!(find(&mut objects), expected, "the barren trees hide nothing");
        assert_eq!(objects.barren.len(), 1, "only z");
        let mut objects = Objects::default();
        objects.add(BlobType::Tree, &tree.to_string());
        assert_eq!(find(&mut objects), [(tree, "/d".to_owned()), (tree, "/e".to_owned())]);
        let mut objects = Objects::default();
        objects.add(BlobType::Tree, &root.to_string());
        assert_eq!(find(&mut objects), [(root, "/".to_owned())]);
    }
}
