//! The ids of a file's data blobs, in order: a short list in memory, a long one in a spill file.
//!
//! A disk of 10 TiB has ten million blobs, each with 32 bytes in the list and 67 in the JSON of the
//! node. [`Json`] is such JSON without the ids of long lists, which are inserted when it is
//! written.

use crate::aside::Aside;
use crate::id::Id;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Bytes of an id.
const SIZE: usize = 32;

/// Ids that are kept in memory: those of a file of about 16 GiB.
const IN_MEMORY: usize = 16 << 10;

/// Ids that are read or written at a time.
const WINDOW: usize = 1024;

/// The ids of a file's data blobs.
#[derive(Clone)]
pub struct Content(List);

#[derive(Clone)]
enum List {
    Memory(Vec<Id>),
    Aside(Arc<Aside>),
}

impl Default for Content {
    fn default() -> Content {
        Vec::new().into()
    }
}

impl From<Vec<Id>> for Content {
    fn from(ids: Vec<Id>) -> Content {
        Content(List::Memory(ids))
    }
}

impl FromIterator<Id> for Content {
    fn from_iter<I: IntoIterator<Item = Id>>(ids: I) -> Content {
        ids.into_iter().collect::<Vec<_>>().into()
    }
}

impl Content {
    pub fn len(&self) -> usize {
        match &self.0 {
            List::Memory(ids) => ids.len(),
            List::Aside(aside) => usize::try_from(aside.len()).expect("written by this process") / SIZE,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the list is in a spill file, because it is long.
    pub fn is_aside(&self) -> bool {
        matches!(self.0, List::Aside(_))
    }

    /// The id at a position; `None` behind the end.
    ///
    /// # Panics
    /// As [`Content::range`].
    pub fn get(&self, at: usize) -> Option<Id> {
        (at < self.len()).then(|| self.range(at..at + 1)[0])
    }

    /// The ids in a range.
    ///
    /// # Panics
    /// If the range exceeds the list, or if the spill file cannot be read: its ids are lost then.
    pub fn range(&self, range: Range<usize>) -> Cow<'_, [Id]> {
        match &self.0 {
            List::Memory(ids) => Cow::Borrowed(&ids[range]),
            List::Aside(aside) => {
                let mut bytes = vec![0; range.len() * SIZE];
                let read = aside.read_exact_at((range.start * SIZE) as u64, &mut bytes);
                read.expect("the spill file of a file's content can be read");
                Cow::Owned(bytes.chunks_exact(SIZE).map(|id| Id(id.try_into().expect("32 bytes"))).collect())
            }
        }
    }

    /// All ids, `size` at a time.
    pub fn windows(&self, size: usize) -> impl Iterator<Item = Cow<'_, [Id]>> {
        let length = self.len();
        (0..length).step_by(size).map(move |start| self.range(start..length.min(start + size)))
    }

    pub fn iter(&self) -> Ids<'_> {
        Ids { content: self, window: Cow::Borrowed(&[]), start: 0, at: 0 }
    }
}

impl<'c> IntoIterator for &'c Content {
    type Item = Id;
    type IntoIter = Ids<'c>;

    fn into_iter(self) -> Ids<'c> {
        self.iter()
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Content) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self).finish()
    }
}

/// The ids of a file's blobs.
pub struct Ids<'c> {
    content: &'c Content,
    /// The ids that were read, the position of the first of them, and the next one among them.
    window: Cow<'c, [Id]>,
    start: usize,
    at: usize,
}

impl Iterator for Ids<'_> {
    type Item = Id;

    fn next(&mut self) -> Option<Id> {
        if self.at == self.window.len() {
            self.start += self.at;
            self.at = 0;
            let end = match &self.content.0 {
                List::Memory(ids) => ids.len(),
                List::Aside(_) => self.content.len().min(self.start + WINDOW),
            };
            self.window = self.content.range(self.start..end);
        }
        let id = self.window.get(self.at).copied();
        self.at += usize::from(id.is_some());
        id
    }
}

/// A list that is being built.
#[derive(Default)]
pub struct NewContent {
    /// All ids, or those that were not spilled yet.
    ids: Vec<Id>,
    aside: Option<Aside>,
}

impl NewContent {
    pub fn len(&self) -> usize {
        let aside = self.aside.as_ref().map_or(0, Aside::len);
        self.ids.len() + usize::try_from(aside).expect("written by this process") / SIZE
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an id. A long list is spilled to `directory`; without a directory, it stays in memory.
    pub fn push(&mut self, id: Id, directory: Option<&Path>) -> io::Result<()> {
        self.ids.push(id);
        let Some(directory) = directory else { return Ok(()) };
        let most = if self.aside.is_some() { WINDOW } else { IN_MEMORY };
        if self.ids.len() > most {
            let aside = self.aside.get_or_insert_with(|| Aside::new(Some(directory)));
            put_aside(&mut self.ids, aside)?;
        }
        Ok(())
    }

    /// The id at a position.
    ///
    /// # Panics
    /// As [`Content::range`].
    pub fn get(&self, at: usize) -> Id {
        let before = self.len() - self.ids.len();
        match (at.checked_sub(before), &self.aside) {
            (None, Some(aside)) => {
                let mut id = [0; SIZE];
                let read = aside.read_exact_at((at * SIZE) as u64, &mut id);
                read.expect("the spill file of a file's content can be read");
                Id(id)
            }
            (behind, _) => self.ids[behind.expect("no id was spilled")],
        }
    }

    pub fn finish(mut self) -> io::Result<Content> {
        let Some(mut aside) = self.aside else { return Ok(self.ids.into()) };
        put_aside(&mut self.ids, &mut aside)?;
        Ok(Content(List::Aside(Arc::new(aside))))
    }
}

fn put_aside(ids: &mut Vec<Id>, aside: &mut Aside) -> io::Result<()> {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
    aside.write_all(&bytes)?;
    ids.clear();
    ids.shrink_to(WINDOW + 1);
    Ok(())
}

/// JSON of nodes, with commas between them, from which long lists of content are left out.
#[derive(Clone, Debug, Default)]
pub struct Json {
    pub text: Vec<u8>,
    /// Where each list belongs between its brackets.
    pub lists: Vec<(usize, Content)>,
}

/// A borrowed [`Json`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JsonRef<'j> {
    pub text: &'j [u8],
    pub lists: &'j [(usize, Content)],
}

impl Json {
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn borrow(&self) -> JsonRef<'_> {
        JsonRef { text: &self.text, lists: &self.lists }
    }

    /// Appends other nodes.
    pub fn append(&mut self, other: Json) {
        if !self.is_empty() && !other.is_empty() {
            self.text.push(b',');
        }
        let before = self.text.len();
        self.text.extend_from_slice(&other.text);
        self.lists.extend(other.lists.into_iter().map(|(at, list)| (before + at, list)));
    }
}

impl JsonRef<'_> {
    /// Appends the whole JSON to `out`. After each part of a list, `relieve` may take the bytes of
    /// `out`.
    pub fn write<E>(self, out: &mut Vec<u8>, mut relieve: impl FnMut(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let mut written = 0;
        for (at, list) in self.lists {
            out.extend_from_slice(&self.text[written..*at]);
            written = *at;
            let mut is_first = true;
            for window in list.windows(WINDOW) {
                write_ids(out, &window, is_first);
                is_first = false;
                relieve(out)?;
            }
        }
        out.extend_from_slice(&self.text[written..]);
        Ok(())
    }
}

/// Appends ids as they stand between the brackets of a node's content.
pub(super) fn write_ids(out: &mut Vec<u8>, ids: &[Id], is_first: bool) {
    out.reserve(ids.len() * 67);
    for (index, id) in ids.iter().enumerate() {
        out.extend_from_slice(if is_first && index == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(&id.hex());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::{Node, NodeType};

    fn ids(count: usize) -> Vec<Id> {
        (0..count).map(|number| Id::of(&number.to_le_bytes())).collect()
    }

    fn put(ids: &[Id], directory: Option<&Path>) -> Content {
        let mut content = NewContent::default();
        ids.iter().for_each(|&id| content.push(id, directory).unwrap());
        assert_eq!(content.len(), ids.len());
        content.finish().unwrap()
    }

    #[test]
    fn a_spilled_list_equals_one_in_memory() {
        let temp = tempfile::tempdir().unwrap();
        for count in [0, 1, IN_MEMORY, IN_MEMORY + 1, 5 * IN_MEMORY + 3] {
            let ids = ids(count);
            let (memory, aside) = (Content::from(ids.clone()), put(&ids, Some(temp.path())));
            assert_eq!((aside.len(), aside.is_aside()), (count, count > IN_MEMORY));
            assert!(aside == memory && aside.iter().eq(ids.iter().copied()));
            assert!(aside.windows(1000).flat_map(|window| window.to_vec()).eq(ids.iter().copied()));
            assert_eq!((aside.get(count), aside.get(count / 2)), (None, ids.get(count / 2).copied()));
            let node = |content| Node { content: Some(content), ..Node::new("a", NodeType::File) };
            let (mut long, mut short) = (Vec::new(), Vec::new());
            node(aside.clone()).write_json(&mut long);
            node(memory).write_json(&mut short);
            assert!(long == short, "{count}");
            if count > 0 {
                let other = put(&ids[1..], Some(temp.path()));
                assert!(other != aside && put(&[&ids[1..], &[Id::NULL]].concat(), None) != aside);
            }
        }
        assert!(!put(&ids(IN_MEMORY + 1), None).is_aside());
    }

    #[test]
    fn nodes_are_joined_with_the_lists_that_are_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let node = |name, count| {
            let content = Some(put(&ids(count), Some(temp.path())));
            Node { content, ..Node::new(name, NodeType::File) }
        };
        let nodes = [node("a", 2), node("b", IN_MEMORY + 1), node("c", 0), node("d", IN_MEMORY + 2000)];
        let mut expected = Vec::new();
        for node in &nodes {
            expected.extend_from_slice(if expected.is_empty() { b"" } else { b"," });
            node.write_json(&mut expected);
        }
        let mut joined = Json::default();
        nodes.iter().for_each(|node| joined.append(node.json()));
        assert_eq!(joined.lists.len(), 2);
        let (mut out, mut written) = (Vec::new(), Vec::new());
        let relieved = joined.borrow().write(&mut out, |out| {
            written.append(out);
            Ok::<_, ()>(())
        });
        relieved.unwrap();
        written.append(&mut out);
        assert!(written == expected);
    }
}
