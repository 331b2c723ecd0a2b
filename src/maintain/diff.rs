//! Compares two trees: which entries changed, and how many bytes only one of the trees needs.
//!
//! Both trees are walked in lockstep; a subtree that both share is not compared. The path down is
//! kept in a list, not on the call stack.

use super::blobs::BlobSet;
use super::gaps::Gaps;
use super::stats;
use crate::format::node::{Node, NodeType};
use crate::format::text::lossy;
use crate::format::{BlobType, FormatError, tree};
use crate::id::Id;
use crate::repo::{Error, Index, Result, Tree, TreeReader};
use std::cmp::Ordering;
use std::iter::Peekable;

/// The differences of an entry that exists in both trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The type of the entry.
    pub ty: bool,
    /// The content of the file.
    pub content: bool,
    /// The content of the file, although its metadata is unchanged: possibly bit rot.
    pub silent: bool,
    /// Any other property; for a directory also its content, as in restic.
    pub metadata: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    Changed(Changed),
}

/// Entries and blobs that are in one of the trees only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub files: u64,
    pub dirs: u64,
    pub others: u64,
    pub data_blobs: u64,
    pub tree_blobs: u64,
    /// Bytes of plaintext of these blobs.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub changed_files: u64,
    pub added: Side,
    pub removed: Side,
}

/// A directory that exists in one or both trees.
struct Pair {
    left: Entries,
    right: Entries,
    path_length: usize,
}

/// The entries of a directory, sorted by name. An error ends them.
struct Entries {
    /// Null if the directory does not exist in this tree.
    id: Id,
    entries: Peekable<Box<dyn Iterator<Item = Result<Entry>>>>,
}

/// An entry's name, and its node unless that cannot be read.
type Entry = (Vec<u8>, Result<Node>);

impl Entries {
    fn load(trees: &TreeReader<'_>, id: Option<Id>) -> Result<Entries> {
        let (id, entries): (_, Box<dyn Iterator<Item = Result<Entry>>>) = match id {
            None => (Id::NULL, Box::new(std::iter::empty())),
            Some(id) => {
                let tree = trees.open(id)?;
                if tree.is_large() {
                    (id, Box::new(in_order(id, named(tree))))
                } else {
                    // Programs other than restic do not always sort the entries.
                    let mut entries = named(tree).collect::<Result<Vec<_>>>()?;
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                    (id, Box::new(entries.into_iter().map(Ok)))
                }
            }
        };
        Ok(Entries { id, entries: entries.peekable() })
    }

    /// The name of the next entry, if any.
    fn peek(&mut self) -> Option<&[u8]> {
        self.entries.peek().and_then(|entry| entry.as_ref().ok()).map(|(name, _)| &name[..])
    }

    /// The error that ends the entries, if it is next.
    fn error(&mut self) -> Option<Error> {
        self.entries.next_if(Result::is_err).and_then(Result::err)
    }

    fn next(&mut self) -> Result<Option<Node>> {
        self.entries.next().and_then(Result::ok).map(|(_, node)| node).transpose()
    }
}

/// The entries of a tree. An entry that cannot be read does not end them if its name can be read.
fn named(mut tree: Tree) -> impl Iterator<Item = Result<Entry>> {
    std::iter::from_fn(move || {
        Some(match tree.next()? {
            Ok(node) => Ok((node.name.clone(), Ok(node))),
            Err(error) if tree.is_over() => Err(error),
            Err(error) => match tree::parse_name(tree.raw().text) {
                Ok(name) => Ok((name, Err(error))),
                Err(_) => Err(error),
            },
        })
    })
}

/// The entries of a tree that is too large to be sorted. An entry out of order is an error.
fn in_order(id: Id, entries: impl Iterator<Item = Result<Entry>>) -> impl Iterator<Item = Result<Entry>> {
    let mut last = Vec::new();
    entries.map(move |entry| {
        let (name, node) = entry?;
        if name < last {
            let why = format!("{:?} is out of order; entries must be sorted by name", lossy(&name));
            return Err(Error::Tree { id, source: FormatError::new("a large tree", why) });
        }
        last.clone_from(&name);
        Ok((name, node))
    })
}

/// Compares two trees and passes every change to the callback; the path of a directory ends with a
/// slash. An error of the callback ends the comparison. An entry or a directory that cannot be read
/// is reported as a gap of its snapshot and not compared: it is unknown whether it changed.
pub fn diff<E: From<Error>>(
    trees: &TreeReader<'_>,
    index: &Index,
    [left, right]: [Id; 2],
    gaps: [&Gaps<'_>; 2],
    mut tell: impl FnMut(&[u8], Change) -> std::result::Result<(), E>,
) -> std::result::Result<Totals, E> {
    let (before, after) = (BlobSet::new(index), BlobSet::new(index));
    let mut diff = Diff { trees, gaps, before, after, totals: Totals::default() };
    let mut path = Vec::new();
    let mut stack = Vec::new();
    // Without both roots nothing can be compared.
    trees.open(left)?;
    trees.open(right)?;
    diff.open(&mut stack, Some(left), Some(right), &path)?;
    while let Some(pair) = stack.last_mut() {
        gaps[0].check_interrupted()?;
        path.truncate(pair.path_length);
        let mut is_readable = true;
        for (side, gaps) in [(&mut pair.left, gaps[0]), (&mut pair.right, gaps[1])] {
            if let Some(error) = side.error() {
                gaps.or_report(&path, Err::<(), _>(error))?;
                is_readable = false;
            }
        }
        if !is_readable {
            // The rest of the directory has no counterpart that is known.
            stack.pop();
            continue;
        }
        let Some((name, left, right)) = next_pair(pair) else {
            stack.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(&name);
        let (Some(left), Some(right)) = (gaps[0].or_report(&path, left)?, gaps[1].or_report(&path, right)?) else {
            continue;
        };
        let change = diff.compare(&path, left.as_ref(), right.as_ref())?;
        // As in restic, the slash shows whether the entry is a directory in the newer tree.
        let shown = right.as_ref().or(left.as_ref()).expect("one side has an entry");
        let length = path.len();
        if let Some(change) = change {
            if shown.ty == NodeType::Dir {
                path.push(b'/');
            }
            tell(&path, change)?;
            path.truncate(length);
        }
        let subtree = |node: Option<Node>| node.and_then(|node| node.subtree);
        diff.open(&mut stack, subtree(left), subtree(right), &path)?;
    }
    Ok(diff.finish())
}

/// The next name that is in either directory, with its node in each.
#[allow(clippy::type_complexity, reason = "a name and two nodes")]
fn next_pair(pair: &mut Pair) -> Option<(Vec<u8>, Result<Option<Node>>, Result<Option<Node>>)> {
    let (name, order) = match (pair.left.peek(), pair.right.peek()) {
        (None, None) => return None,
        (Some(left), None) => (left.to_vec(), Ordering::Less),
        (None, Some(right)) => (right.to_vec(), Ordering::Greater),
        (Some(left), Some(right)) => (left.min(right).to_vec(), left.cmp(right)),
    };
    let left = if order.is_le() { pair.left.next() } else { Ok(None) };
    let right = if order.is_ge() { pair.right.next() } else { Ok(None) };
    Some((name, left, right))
}

struct Diff<'d> {
    trees: &'d TreeReader<'d>,
    /// The gaps of the older snapshot, and of the newer one.
    gaps: [&'d Gaps<'d>; 2],
    before: BlobSet<'d>,
    after: BlobSet<'d>,
    totals: Totals,
}

impl Diff<'_> {
    /// Enters a directory, unless both sides share its tree or one side cannot be read.
    fn open(&mut self, stack: &mut Vec<Pair>, left: Option<Id>, right: Option<Id>, path: &[u8]) -> Result<()> {
        if let (Some(left), true) = (left, left == right) {
            // Both sides need its blobs, although elsewhere one side alone may need some of them.
            stats::collect(self.trees, left, &self.before, path, self.gaps[0])?;
            return stats::collect(self.trees, left, &self.after, path, self.gaps[1]);
        }
        let mut sides = Vec::with_capacity(2);
        for (set, id, gaps) in [(&self.before, left, self.gaps[0]), (&self.after, right, self.gaps[1])] {
            // Both sides are loaded, so that the damage of each is reported.
            let Some(entries) = gaps.or_report(path, Entries::load(self.trees, id))? else { continue };
            if let Some(id) = id {
                set.insert(BlobType::Tree, id)?;
            }
            sides.push(entries);
        }
        if let Ok([left, right]) = <[Entries; 2]>::try_from(sides)
            && (!left.id.is_null() || !right.id.is_null())
        {
            stack.push(Pair { left, right, path_length: path.len() });
        }
        Ok(())
    }

    fn compare(&mut self, path: &[u8], left: Option<&Node>, right: Option<&Node>) -> Result<Option<Change>> {
        for (set, node, gaps) in [(&self.before, left, self.gaps[0]), (&self.after, right, self.gaps[1])] {
            for id in node.iter().filter_map(|node| node.content.as_ref()).flatten() {
                gaps.or_report(path, set.insert(BlobType::Data, id))?;
            }
        }
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (Some(left), None) => {
                count(&mut self.totals.removed, left);
                return Ok(Some(Change::Removed));
            }
            (None, right) => {
                count(&mut self.totals.added, right.expect("one side has an entry"));
                return Ok(Some(Change::Added));
            }
        };
        let mut changed = Changed { ty: left.ty != right.ty, ..Changed::default() };
        if left.ty == NodeType::File && right.ty == NodeType::File && left.content != right.content {
            self.totals.changed_files += 1;
            changed.content = true;
            let without_content = |node: &Node| Node { content: None, ..node.clone() };
            changed.silent = without_content(left) == without_content(right);
        } else {
            changed.metadata = left != right;
        }
        Ok((changed != Changed::default()).then_some(Change::Changed(changed)))
    }

    fn finish(self) -> Totals {
        let Diff { before, after, mut totals, .. } = self;
        for (side, only) in [(&mut totals.removed, (&before, &after)), (&mut totals.added, (&after, &before))] {
            for location in only.0.without(only.1) {
                match location.blob.ty {
                    BlobType::Data => side.data_blobs += 1,
                    BlobType::Tree => side.tree_blobs += 1,
                }
                side.bytes += location.blob.plain_length();
            }
        }
        totals
    }
}

fn count(side: &mut Side, node: &Node) {
    match node.ty {
        NodeType::File => side.files += 1,
        NodeType::Dir => side.dirs += 1,
        _ => side.others += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::testing::Fixture;
    use crate::progress::Progress;

    #[test]
    fn every_kind_of_change_is_reported_once() {
        let fixture = Fixture::new();
        let same = fixture.dir("same", &[fixture.file("deep", &["d"])]);
        let gone = fixture.dir("gone", &[fixture.file("x", &["x"])]);
        let chmod = |mode| Node { mode, ..fixture.file("mode", &["m"]) };
        let left = fixture.tree(&[
            same.clone(),
            gone,
            chmod(0o600),
            fixture.file("was-file", &["f"]),
            fixture.file("rot", &["a"]),
            Node { inode: 1, ..fixture.file("text", &["t1", "t2"]) },
        ]);
        let right = fixture.tree(&[
            same,
            chmod(0o644),
            fixture.dir("was-file", &[fixture.file("new", &["n"])]),
            fixture.file("rot", &["b"]),
            Node { inode: 2, ..fixture.file("text", &["t1", "t3"]) },
        ]);
        let repo = fixture.repo();
        let index = Index::load(&repo).unwrap();
        let trees = TreeReader::new(&repo, &index);
        let progress = Progress::silent();
        let gaps = Gaps::new(Id::NULL, &progress);
        let mut told = Vec::new();
        let totals = diff::<Error>(&trees, &index, [left, right], [&gaps; 2], |path, change| {
            told.push((String::from_utf8(path.to_vec()).unwrap(), change));
            Ok(())
        })
        .unwrap();
        let changed = |ty, content, silent, metadata| Change::Changed(Changed { ty, content, silent, metadata });
        let expected = [
            ("/gone/", Change::Removed),
            ("/gone/x", Change::Removed),
            ("/mode", changed(false, false, false, true)),
            ("/rot", changed(false, true, true, false)),
            ("/text", changed(false, true, false, false)),
            ("/was-file/", changed(true, false, false, true)),
            ("/was-file/new", Change::Added),
        ];
        assert_eq!(told, expected.map(|(path, change)| (path.to_owned(), change)));
        let Totals { changed_files, added, removed } = totals;
        assert_eq!((changed_files, removed.files, removed.dirs, added.files), (2, 1, 1, 1));
        assert_eq!((removed.data_blobs, removed.tree_blobs), (4, 2), "x, f, a, t2; the root and gone");
        assert_eq!((added.data_blobs, added.tree_blobs), (3, 2), "n, b, t3; the root and was-file");
    }

    #[test]
    fn ten_thousand_levels_are_compared() {
        let fixture = Fixture::new();
        let mut ids = [fixture.tree(&[fixture.file("f", &["1"])]), fixture.tree(&[fixture.file("f", &["2"])])];
        for _ in 0..10_000 {
            ids = ids.map(|id| fixture.tree(&[Node { subtree: Some(id), ..Node::new("d", NodeType::Dir) }]));
        }
        let repo = fixture.repo();
        let index = Index::load(&repo).unwrap();
        let trees = TreeReader::new(&repo, &index);
        let progress = Progress::silent();
        let gaps = Gaps::new(Id::NULL, &progress);
        let mut longest = 0;
        let totals = diff::<Error>(&trees, &index, ids, [&gaps; 2], |path, _| {
            longest = path.len().max(longest);
            Ok(())
        });
        assert_eq!((totals.unwrap().changed_files, longest), (1, 20_002));
    }
}
