//! [`Nodes`]: reads the nodes of a tree one by one, while its JSON arrives.

use crate::format::content::{Content, Json, JsonRef, NewContent};
use crate::format::node::{Node, RawNode};
use crate::format::{FormatError, Result};
use crate::limits;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of JSON that are read from a source at a time.
const PIECE: usize = 64 << 10;

/// The nodes of a tree, read one by one from memory or from a source, so that a large directory is
/// never in memory as a whole.
///
/// Unknown keys beside `nodes` are skipped, and `null` is accepted for `nodes`, as in very old
/// repositories. After an error of a single node, the nodes behind it follow; after any other
/// error, none does.
pub struct Nodes<'s> {
    /// `None` once all JSON has been read.
    source: Option<Box<dyn Read + Send + 's>>,
    /// The buffered JSON, which is still to be parsed from `start` on.
    json: Vec<u8>,
    start: usize,
    /// The fewest bytes that are read from the source at a time.
    piece: usize,
    /// The range of the last node in `json`.
    node: Range<usize>,
    /// The last node, if it is a long one.
    long: Option<Json>,
    /// Bytes from which a node is long.
    long_from: usize,
    /// The directory to which long lists of content are spilled.
    aside: Option<PathBuf>,
    at: At,
}

/// Bytes from which a node is not kept in memory as a whole. A usual node has a few hundred, and 67
/// for each blob.
pub const LONG: usize = 1 << 20;

/// The position of a reader in the JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Beginning,
    /// Before the first node, or the end of the list.
    First,
    /// Behind a node.
    Next,
    /// Behind the list.
    Behind,
    End,
}

/// Why a node cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The source of the JSON failed.
    #[error(transparent)]
    Source(#[from] io::Error),
    /// A long list of content cannot be spilled to disk.
    #[error("cannot spill a long list of content to disk: {0}")]
    Aside(io::Error),
    /// One value has `size` bytes or more, which exceeds the limit.
    #[error("one value has {size} bytes or more, which exceeds the limit")]
    TooLarge { size: u64 },
}

pub(super) type ReadResult<T> = std::result::Result<T, ReadError>;

impl<'s> Nodes<'s> {
    /// The nodes of a tree that is in memory.
    pub fn new(json: Vec<u8>) -> Nodes<'s> {
        Nodes {
            source: None,
            json,
            start: 0,
            piece: PIECE,
            node: 0..0,
            long: None,
            long_from: LONG,
            aside: None,
            at: At::Beginning,
        }
    }

    /// The nodes of a tree that is read from a source.
    pub fn from_source(source: impl Read + Send + 's) -> Nodes<'s> {
        Nodes { source: Some(Box::new(source)), ..Nodes::new(Vec::new()) }
    }

    /// Like [`Nodes::from_source`], but reads at least `piece` bytes at a time, and keeps no node
    /// in memory as a whole that is longer.
    pub fn from_source_by(piece: usize, source: impl Read + Send + 's) -> Nodes<'s> {
        Nodes { piece, long_from: piece, ..Nodes::from_source(source) }
    }

    /// Sets the directory to which long lists of content are spilled.
    pub fn put_aside_in(self, directory: Option<&Path>) -> Nodes<'s> {
        Nodes { aside: directory.map(Path::to_owned), ..self }
    }

    /// The directory to which long lists of content are spilled.
    pub fn aside(&self) -> Option<&Path> {
        self.aside.as_deref()
    }

    /// Whether no other node follows, not even after an error.
    pub fn is_over(&self) -> bool {
        self.at == At::End
    }

    /// The JSON of the last node, even if the node is invalid; a long node has no white space
    /// between its fields.
    pub fn raw(&self) -> JsonRef<'_> {
        match &self.long {
            Some(json) => json.borrow(),
            None => JsonRef { text: &self.json[self.node.clone()], lists: &[] },
        }
    }

    /// The next node. An error ends the iteration, unless `node` sets the position behind the node.
    fn advance(&mut self) -> ReadResult<Option<Node>> {
        let mut at = std::mem::replace(&mut self.at, At::End);
        if at == At::Beginning {
            at = if self.find_list()? { At::First } else { At::Behind };
        }
        if matches!(at, At::First | At::Next) {
            if !self.take(b']')? {
                if at == At::Next {
                    self.expect(b',', "a comma between nodes")?;
                }
                return self.node().map(Some);
            }
            at = At::Behind;
        }
        if at == At::Behind {
            while let Some(is_list) = self.next_key(false)? {
                if is_list {
                    return Err(bad("it has two lists of nodes"));
                }
                self.skip()?;
            }
            if self.peek()?.is_some() {
                return Err(bad("data follows its end"));
            }
        }
        Ok(None)
    }

    /// Goes to the first node; returns whether the tree has a list of nodes.
    fn find_list(&mut self) -> ReadResult<bool> {
        self.expect(b'{', "an object")?;
        let mut is_first = true;
        while let Some(is_list) = self.next_key(is_first)? {
            is_first = false;
            if !is_list {
                self.skip()?;
            } else if self.take(b'[')? {
                return Ok(true);
            } else {
                self.value(limits::TREE_BLOB, |json| first::<()>(json))?;
                return Ok(false);
            }
        }
        Err(bad("it has no list of nodes"))
    }

    /// Goes to the value of the next key, and returns whether the key is `nodes`; `None` at the end
    /// of the object.
    fn next_key(&mut self, is_first: bool) -> ReadResult<Option<bool>> {
        if self.take(b'}')? {
            return Ok(None);
        }
        if !is_first {
            self.expect(b',', "a comma between keys")?;
        }
        let (_, is_list) = self.value(limits::TREE_BLOB, |json| {
            let (key, end) = first::<Cow<'_, str>>(json);
            (key.map(|key| key.map(|key| key == "nodes")), end)
        })?;
        self.expect(b':', "a colon behind a key")?;
        Ok(Some(is_list))
    }

    /// The node that begins here.
    fn node(&mut self) -> ReadResult<Node> {
        let held = if self.peek()? == Some(b'{') { self.long_from as u64 } else { limits::TREE_BLOB };
        self.long = None;
        // An invalid node is skipped, because the others may be valid.
        let (range, node) = match self.typed_node(held) {
            Ok((range, node)) => (range, node.map_err(ReadError::from)),
            Err(error @ ReadError::Format(_)) => match self.skip_up_to(held) {
                Ok(range) => (range, Err(error)),
                Err(ReadError::Format(_)) => return Err(error),
                Err(ReadError::TooLarge { .. }) => return self.long_node(Some(error)),
                Err(worse) => return Err(worse),
            },
            Err(ReadError::TooLarge { .. }) => return self.long_node(None),
            Err(error) => return Err(error),
        };
        std::str::from_utf8(&self.json[range.clone()]).map_err(bad)?;
        (self.node, self.at) = (range, At::Next);
        node
    }

    fn typed_node(&mut self, most: u64) -> ReadResult<(Range<usize>, Result<Node>)> {
        self.value(most, |json| {
            let (raw, end) = first::<RawNode<'_>>(json);
            (raw.map(|raw| raw.map(Node::try_from)), end)
        })
    }

    /// Reads a node that is too long for memory: field by field, and its content id by id. With
    /// `failure`, the node is known to be invalid.
    fn long_node(&mut self, mut failure: Option<ReadError>) -> ReadResult<Node> {
        self.expect(b'{', "a node")?;
        let mut long = Json { text: vec![b'{'], lists: Vec::new() };
        loop {
            if self.take(b'}')? {
                break;
            }
            if long.text.len() > 1 {
                self.expect(b',', "a comma between fields")?;
                long.text.push(b',');
            }
            if self.peek()? != Some(b'"') {
                return Err(bad("the name of a field is missing"));
            }
            let name = self.text()?;
            let is_content = serde_json::from_slice::<Cow<'_, str>>(name).is_ok_and(|name| name == "content");
            long.text.extend_from_slice(name);
            self.expect(b':', "a colon behind the name of a field")?;
            long.text.push(b':');
            if is_content && long.lists.is_empty() && self.take(b'[')? {
                let content = self.content(&mut failure)?;
                long.text.push(b'[');
                long.lists.push((long.text.len(), content));
                long.text.push(b']');
            } else {
                long.text.extend_from_slice(self.text()?);
            }
            let size = long.text.len() as u64;
            if size > limits::TREE_BLOB {
                return Err(ReadError::TooLarge { size });
            }
        }
        long.text.push(b'}');
        let node = match failure {
            Some(failure) => Err(failure),
            None => parse_node(&long.text).map_err(ReadError::from).map(|node| match long.lists.first() {
                Some((_, content)) => Node { content: Some(content.clone()), ..node },
                None => node,
            }),
        };
        (self.node, self.long, self.at) = (0..0, Some(long), At::Next);
        node
    }

    /// Reads the list of ids behind its opening bracket. A value that is not an id sets `failure`,
    /// unless that is set already.
    fn content(&mut self, failure: &mut Option<ReadError>) -> ReadResult<Content> {
        let mut content = NewContent::default();
        let mut is_first = true;
        loop {
            if self.take(b']')? {
                return content.finish().map_err(ReadError::Aside);
            }
            if !std::mem::take(&mut is_first) {
                self.expect(b',', "a comma between ids")?;
            }
            self.peek()?;
            // Nearly all ids are valid and in the buffer.
            let rest = &self.json[self.start..];
            let id = match rest.get(..66).map(serde_json::from_slice) {
                Some(Ok(id)) => {
                    self.start += 66;
                    Ok(id)
                }
                _ => serde_json::from_slice(self.text()?),
            };
            match id {
                Ok(id) => content.push(id, self.aside.as_deref()).map_err(ReadError::Aside)?,
                Err(error) => {
                    failure.get_or_insert_with(|| bad(error));
                }
            }
        }
    }

    /// The JSON of the value that begins here.
    fn text(&mut self) -> ReadResult<&[u8]> {
        let range = self.skip()?;
        let text = &self.json[range];
        std::str::from_utf8(text).map_err(bad)?;
        Ok(text)
    }

    fn skip(&mut self) -> ReadResult<Range<usize>> {
        self.skip_up_to(limits::TREE_BLOB)
    }

    fn skip_up_to(&mut self, most: u64) -> ReadResult<Range<usize>> {
        Ok(self.value(most, |json| first::<IgnoredAny>(json))?.0)
    }

    /// Takes the value that begins here; `parse` returns the parsed value and its end. A value that
    /// has not ended after more than `most` bytes is not taken.
    fn value<T>(
        &mut self,
        most: u64,
        parse: impl Fn(&[u8]) -> (Option<serde_json::Result<T>>, usize),
    ) -> ReadResult<(Range<usize>, T)> {
        // Skips white space, so that the loop does not search through it again.
        self.peek()?;
        loop {
            let rest = &self.json[self.start..];
            let is_all = self.source.is_none();
            match parse(rest) {
                // A number may continue behind the buffer.
                (Some(Ok(value)), length) if is_all || length < rest.len() => {
                    let range = self.start..self.start + length;
                    self.start = range.end;
                    return Ok((range, value));
                }
                // So may an incomplete number, which does not parse yet.
                (Some(Err(error)), _) if is_all || !(error.is_eof() || ends_in_number(rest)) => {
                    return Err(bad(error));
                }
                (None, _) if is_all => return Err(bad("it ends before its last value")),
                _ if rest.len() as u64 > most => return Err(ReadError::TooLarge { size: rest.len() as u64 }),
                _ => self.fill()?,
            }
        }
    }

    fn expect(&mut self, byte: u8, what: &str) -> ReadResult<()> {
        if self.take(byte)? { Ok(()) } else { Err(bad(format!("{what} is missing"))) }
    }

    /// Takes the next byte behind white space if it is this one.
    fn take(&mut self, byte: u8) -> ReadResult<bool> {
        let is_next = self.peek()? == Some(byte);
        self.start += usize::from(is_next);
        Ok(is_next)
    }

    /// The next byte behind white space; `None` at the end.
    fn peek(&mut self) -> ReadResult<Option<u8>> {
        loop {
            let rest = &self.json[self.start..];
            if let Some(at) = rest.iter().position(|byte| !b" \n\t\r".contains(byte)) {
                self.start += at;
                return Ok(Some(self.json[self.start]));
            }
            self.start = self.json.len();
            if self.source.is_none() {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// Reads more JSON: as much again as is still to be parsed, so that a long value is not parsed
    /// too often.
    fn fill(&mut self) -> ReadResult<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        self.json.drain(..self.start);
        (self.start, self.node) = (0, 0..0);
        let more = self.json.len().max(self.piece);
        self.json.reserve_exact(more);
        if source.by_ref().take(more as u64).read_to_end(&mut self.json)? < more {
            self.source = None;
        }
        Ok(())
    }
}

impl Iterator for Nodes<'_> {
    type Item = ReadResult<Node>;

    fn next(&mut self) -> Option<ReadResult<Node>> {
        self.advance().transpose()
    }
}

pub(super) fn bad(why: impl fmt::Display) -> ReadError {
    FormatError::new("a tree", why).into()
}

/// Whether JSON ends within a number that must continue.
fn ends_in_number(json: &[u8]) -> bool {
    json.last().is_some_and(|byte| b"-+.eE".contains(byte))
}

/// The first value in some JSON, if any, and its end.
fn first<'j, T: Deserialize<'j>>(json: &'j [u8]) -> (Option<serde_json::Result<T>>, usize) {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter();
    let value = values.next();
    (value, values.byte_offset())
}

/// One node of a tree.
pub fn parse_node(json: &[u8]) -> Result<Node> {
    let raw: RawNode<'_> = serde_json::from_slice(json).map_err(|error| FormatError::new("a tree", error))?;
    Node::try_from(raw)
}
