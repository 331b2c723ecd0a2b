//! A directory as a blob: `{"nodes":[…]}` and a line feed, nodes ascending by the bytes of their names.

use super::content::{Content, Json, JsonRef, NewContent};
use super::node::{Node, RawNode};
use super::text::unquote;
use super::{FormatError, Result};
use crate::limits;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

const OPENING: &[u8] = b"{\"nodes\":[";
const CLOSING: &[u8] = b"]}\n";

/// Writes a tree from nodes that arrive in order.
pub struct TreeWriter {
    json: Vec<u8>,
    is_empty: bool,
    /// The name that came last, if it is known.
    last: Vec<u8>,
}

impl TreeWriter {
    pub fn new() -> TreeWriter {
        TreeWriter { json: OPENING.to_vec(), is_empty: true, last: Vec::new() }
    }

    /// Adds a node. Its name must come after the one before.
    pub fn add(&mut self, node: &Node) -> Result<()> {
        self.open_slot(&node.name)?;
        node.write_json(&mut self.json);
        Ok(())
    }

    /// Begins a node, whose raw name this is. Its JSON is appended to [`TreeWriter::written`].
    pub fn open_slot(&mut self, name: &[u8]) -> Result<()> {
        if !self.is_empty && name <= &self.last[..] {
            let why =
                format!("{:?} comes after {:?}", name.escape_ascii().to_string(), self.last.escape_ascii().to_string());
            return Err(FormatError::new("the order of a tree", why));
        }
        self.separate();
        self.last.clear();
        self.last.extend_from_slice(name);
        Ok(())
    }

    /// Begins nodes, at least one, whose JSON with commas between them is appended to
    /// [`TreeWriter::written`]. That they are in order, among themselves and behind those before, is
    /// up to the caller.
    pub fn separate(&mut self) {
        if !self.is_empty {
            self.json.push(b',');
        }
        self.is_empty = false;
    }

    /// The plaintext so far. Whoever takes some of it puts that before what [`TreeWriter::finish`]
    /// gives.
    pub fn written(&mut self) -> &mut Vec<u8> {
        &mut self.json
    }

    /// The tree's plaintext; its hash is the tree's id.
    pub fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(CLOSING);
        self.json
    }
}

impl Default for TreeWriter {
    fn default() -> TreeWriter {
        TreeWriter::new()
    }
}

/// Bytes of JSON that are asked of a source at a time.
const PIECE: usize = 64 << 10;

/// The nodes of a tree, one by one, as its JSON comes: from memory or from a source, so that a large
/// directory is never held as a whole.
///
/// Accepts `nodes` among unknown keys, and `null` for it as very old repositories have. An error
/// that concerns one node spares the others, which come next; after any other error there is none.
pub struct Nodes<'s> {
    /// `None`: all of it has come.
    source: Option<Box<dyn Read + Send + 's>>,
    /// What has come and is needed; from `start` on it is still to be parsed.
    json: Vec<u8>,
    start: usize,
    /// Bytes that are asked of the source at a time, or more.
    piece: usize,
    /// Where the node that came last stands in `json`.
    node: Range<usize>,
    /// The node that came last, if it is a long one.
    long: Option<Json>,
    /// Bytes from which a node is long.
    long_from: usize,
    /// Where long lists of content are put aside.
    aside: Option<PathBuf>,
    at: At,
}

/// Bytes from which a node is not held: the usual ones have some hundred, and 67 for each blob.
pub const LONG: usize = 1 << 20;

/// Where in the JSON a reader is.
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

/// Why a node cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The source of the JSON failed.
    #[error(transparent)]
    Source(#[from] io::Error),
    /// A long list of content cannot be put aside.
    #[error("a long list of content cannot be put aside: {0}")]
    Aside(io::Error),
    /// One value has so many bytes and more, which are not held.
    #[error("one value has {size} bytes or more")]
    TooLarge { size: u64 },
}

type ReadResult<T> = std::result::Result<T, ReadError>;

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

    /// The nodes of a tree that comes from a source.
    pub fn from_source(source: impl Read + Send + 's) -> Nodes<'s> {
        Nodes { source: Some(Box::new(source)), ..Nodes::new(Vec::new()) }
    }

    /// The same, of which at least `piece` bytes are asked for at a time, and no longer node is held.
    pub fn from_source_by(piece: usize, source: impl Read + Send + 's) -> Nodes<'s> {
        Nodes { piece, long_from: piece, ..Nodes::from_source(source) }
    }

    /// The same, with a directory where long lists of content are put aside.
    pub fn put_aside_in(self, directory: Option<&Path>) -> Nodes<'s> {
        Nodes { aside: directory.map(Path::to_owned), ..self }
    }

    /// Where long lists of content are put aside.
    pub fn aside(&self) -> Option<&Path> {
        self.aside.as_deref()
    }

    /// Whether no other node comes, not even after an error.
    pub fn is_over(&self) -> bool {
        self.at == At::End
    }

    /// The JSON of the node that came last, also of one that is none of ours; a long one comes
    /// without spaces.
    pub fn raw(&self) -> JsonRef<'_> {
        match &self.long {
            Some(json) => json.borrow(),
            None => JsonRef { text: &self.json[self.node.clone()], lists: &[] },
        }
    }

    /// The next node. Unless it says otherwise, an error is the end.
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
                return Err(bad("something stands behind it"));
            }
        }
        Ok(None)
    }

    /// Goes to the first node; says whether there is a list.
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

    /// Goes to the value of the next key, and says whether that is the list of nodes; `None` at the
    /// end of the object.
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
        // Also if it is no node of ours: the others may be.
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

    /// The node that begins here, which is too long to be held: its fields are taken one by one, and
    /// the ids of its content too. `failure`: it is known not to be one of ours.
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

    /// The list of ids whose opening bracket has been taken. What is no id becomes the failure, if there
    /// is none yet.
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
            // Nearly all of them are there, and ids.
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

    /// Takes the value that begins here, of which `parse` makes something and says where it ends. One
    /// that has not ended after more than `most` bytes stays.
    fn value<T>(
        &mut self,
        most: u64,
        parse: impl Fn(&[u8]) -> (Option<serde_json::Result<T>>, usize),
    ) -> ReadResult<(Range<usize>, T)> {
        // Not to be searched for again and again.
        self.peek()?;
        loop {
            let rest = &self.json[self.start..];
            let is_all = self.source.is_none();
            match parse(rest) {
                // A number may go on behind what has come.
                (Some(Ok(value)), length) if is_all || length < rest.len() => {
                    let range = self.start..self.start + length;
                    self.start = range.end;
                    return Ok((range, value));
                }
                // So may one that ends in the middle, which is no number so far.
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

    /// Has more of the JSON come: as much again as is still to be parsed, so that a long value is not
    /// tried too often.
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

fn bad(why: impl fmt::Display) -> ReadError {
    FormatError::new("a tree", why).into()
}

/// Whether JSON breaks off where a number that has begun must go on.
fn ends_in_number(json: &[u8]) -> bool {
    json.last().is_some_and(|byte| b"-+.eE".contains(byte))
}

/// The first value in some JSON, if there is one, and where it ends.
fn first<'j, T: Deserialize<'j>>(json: &'j [u8]) -> (Option<serde_json::Result<T>>, usize) {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter();
    let value = values.next();
    (value, values.byte_offset())
}

/// The raw name of one node of a tree.
pub fn parse_name(json: &[u8]) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    let named: Named<'_> = serde_json::from_slice(json).map_err(|error| FormatError::new("a tree", error))?;
    unquote(&named.name)
}

/// One node, which comes from a source, with a directory where a long list of content is put aside.
pub fn read_node(source: impl Read + Send, aside: Option<&Path>) -> ReadResult<Node> {
    let mut nodes = Nodes::from_source(OPENING.chain(source).chain(CLOSING)).put_aside_in(aside);
    nodes.next().unwrap_or_else(|| Err(bad("it is empty")))
}

/// One node of a tree.
pub fn parse_node(json: &[u8]) -> Result<Node> {
    let raw: RawNode<'_> = serde_json::from_slice(json).map_err(|error| FormatError::new("a tree", error))?;
    Node::try_from(raw)
}

/// All nodes of a tree.
pub fn parse(json: &[u8]) -> Result<Vec<Node>> {
    let nodes: ReadResult<_> = Nodes::from_source(json).collect();
    nodes.map_err(|error| match error {
        ReadError::Format(error) => error,
        error => FormatError::new("a tree", error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::{NodeType, Xattr};
    use crate::format::time::Time;
    use crate::id::Id;
    use serde_json::Value;

    fn encode(nodes: &[Node]) -> Vec<u8> {
        let mut writer = TreeWriter::new();
        nodes.iter().for_each(|node| writer.add(node).unwrap());
        writer.finish()
    }

    fn at(node: Node, time: Time) -> Node {
        Node { mtime: time, atime: time, ctime: time, ..node }
    }

    /// The published id of the empty tree.
    #[test]
    fn empty_tree_is_that_of_restic() {
        let id = "ac08ce34ba4f8123618661bef2425f7028ffb9ac740578a3ee88684d2523fee8";
        assert_eq!(Id::of(&TreeWriter::new().finish()).to_string(), id);
    }

    /// Ids of trees that Go's encoding/json wrote from restic's node type.
    #[test]
    fn trees_have_the_ids_of_go() {
        let noon = Time::parse("2024-02-29T23:59:59.12Z").unwrap();
        let one = at(
            Node {
                mode: 420,
                user: "root".into(),
                group: "root".into(),
                inode: 12,
                device_id: 2049,
                size: 5,
                links: 1,
                content: Some(vec![Id::of(b"hello")].into()),
                ..Node::new("a", NodeType::File)
            },
            noon,
        );
        assert_eq!(
            Id::of(&encode(&[one])).to_string(),
            "408f230eda565772d8e408232cceaf05fd3f6a216b58ca9be13276515c04c8db"
        );
        let ours = encode(&mixed_nodes(noon));
        let theirs =
            String::from_utf8(ours.clone()).unwrap().replace(r#""user.b","value":"""#, r#""user.b","value":null"#);
        assert_eq!(theirs.len(), 1354);
        assert_eq!(
            Id::of(theirs.as_bytes()).to_string(),
            "e341655dd6467ae0d24627b03e704dfd7f1c91a7f39086172f324a37d916bd70"
        );
        assert_eq!(encode(&parse(theirs.as_bytes()).unwrap()), ours, "null is read, and never written");
    }

    /// One node for every rule of quoting, escaping and leaving out.
    fn mixed_nodes(noon: Time) -> Vec<Node> {
        let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.into() };
        vec![
            at(
                Node {
                    mode: 8_389_101,
                    uid: 1000,
                    gid: 1000,
                    inode: 7,
                    content: Some(Content::default()),
                    ..Node::new("\u{1}\u{7f}\u{a0}\u{ad}\u{200b}💯", NodeType::File)
                },
                Time::utc(-1, 999_999_999),
            ),
            at(
                Node {
                    mode: 134_218_239,
                    inode: 8,
                    links: 1,
                    link_target: b"a\x08\x0c\xff\xe2\x80\xa8<".to_vec(),
                    ..Node::new("<a&b>\"\\'", NodeType::Symlink)
                },
                Time { offset: 7200, ..noon },
            ),
            at(
                Node {
                    mode: 2_148_532_735,
                    inode: 9,
                    xattrs: vec![xattr("user.a", b""), xattr("user.b", b""), xattr("user.c", &[0, 255])],
                    subtree: Some(Id::of(&TreeWriter::new().finish())),
                    ..Node::new("d", NodeType::Dir)
                },
                Time { nanos: 0, ..noon },
            ),
            at(
                Node { mode: 69_206_416, inode: 10, links: 1, device: 1280, ..Node::new("tty", NodeType::CharDev) },
                noon,
            ),
            at(Node { mode: 33_554_816, inode: 11, ..Node::new(*b"\xff\xfe", NodeType::Fifo) }, noon),
        ]
    }

    #[test]
    fn refuses_nodes_out_of_order() {
        let mut writer = TreeWriter::new();
        writer.add(&Node::new("b", NodeType::Fifo)).unwrap();
        assert!(writer.add(&Node::new("b", NodeType::Fifo)).is_err());
        assert!(writer.add(&Node::new("a", NodeType::Fifo)).is_err());
    }

    #[test]
    fn reads_what_others_wrote() {
        assert_eq!(parse(b"{\"nodes\":null}").unwrap(), []);
        let extra = br#"{"x":[1],"nodes":[{"new":{},"type":"whatever","name":"n","extended_attributes":null}],"y":2}"#;
        let nodes = parse(extra).unwrap();
        assert_eq!((nodes.len(), nodes[0].ty), (1, NodeType::Unknown));
        for bad in [
            &b"{}"[..],
            b"",
            b"[]",
            b"{\"nodes\":[{\"name\":\"a\\\"b\",\"type\":\"file\"}]}",
            b"{\"nodes\":[]} x",
            b"{\"nodes\":[],\"nodes\":[]}",
            b"{\"nodes\":[],}",
            b"{\"nodes\":[,]}",
            b"{\"nodes\":1}",
            b"{\"nodes\":[]",
        ] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    /// A source that gives a few bytes at a time.
    struct Slow<'j>(&'j [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(out.len());
            self.0.read(&mut out[..count])
        }
    }

    /// The JSON of a node, whatever spaces and capital letters are in it.
    fn meaning(raw: JsonRef<'_>) -> Value {
        let mut json = Vec::new();
        raw.write(&mut json, |_| Ok::<_, ()>(())).unwrap();
        let mut value: Value = serde_json::from_slice(&json).unwrap();
        // The ids of a long list are written as ours are.
        for id in value.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
            *id = id.as_str().unwrap().to_ascii_lowercase().into();
        }
        value
    }

    /// What is read of a tree: its nodes and their JSON, and how many errors there were.
    fn read(mut nodes: Nodes<'_>) -> (Vec<(Node, Value)>, usize) {
        let (mut read, mut errors) = (Vec::new(), 0);
        while let Some(next) = nodes.next() {
            match next {
                Ok(node) => read.push((node, meaning(nodes.raw()))),
                Err(_) => errors += 1,
            }
        }
        (read, errors)
    }

    #[test]
    fn a_node_that_is_none_spares_the_others() {
        let json = br#"{"nodes":[{"name":"a","type":"fifo"},{"name":1},17,{"name":"b","type":"fifo"}],"x":[]}"#;
        let names = |nodes: &[(Node, Value)]| nodes.iter().map(|(node, _)| node.name.clone()).collect::<Vec<_>>();
        let (nodes, errors) = read(Nodes::new(json.to_vec()));
        assert_eq!((names(&nodes), errors), (vec![b"a".to_vec(), b"b".to_vec()], 2));
        assert_eq!(nodes[1].1, serde_json::json!({"name": "b", "type": "fifo"}));
        // Where the JSON itself is damaged, nobody knows where the next node begins.
        let json = br#"{"nodes":[{"name":"a","type":"fifo"},{"name":"b",},{"name":"c","type":"fifo"}]}"#;
        let (nodes, errors) = read(Nodes::new(json.to_vec()));
        assert_eq!((names(&nodes), errors), (vec![b"a".to_vec()], 1));
    }

    #[test]
    fn a_tree_that_comes_in_pieces_is_the_same() {
        let noon = Time::parse("2024-02-29T23:59:59.12Z").unwrap();
        let mut nodes = mixed_nodes(noon);
        // One that has more than a piece.
        let content = (0..5000_u32).map(|number| Id::of(&number.to_le_bytes())).collect();
        nodes.push(Node { content: Some(content), ..Node::new(*b"\xff\xff", NodeType::File) });
        let json = encode(&nodes);
        let whole = read(Nodes::new(json.clone()));
        assert_eq!(whole.0.iter().map(|(node, _)| node.clone()).collect::<Vec<_>>(), nodes);
        for piece in [1, 2, 7, 1000, 1 << 20] {
            assert!(read(Nodes::from_source_by(piece, Slow(&json, piece))) == whole, "{piece} bytes at a time");
        }
        // Wherever it ends, that is an error, and what came before is there.
        for end in (0..json.len() - 2).step_by(61) {
            let (before, errors) = read(Nodes::from_source(Slow(&json[..end], 100)));
            assert!(errors == 1 && whole.0.starts_with(&before), "{end}");
        }
    }

    /// The whole of a tree by serde, as the format has it: `None` if it is no JSON of that form.
    fn whole(json: &[u8]) -> Option<Vec<Result<Node>>> {
        #[derive(Deserialize)]
        struct Whole<'j> {
            // With a function of its own, a field that is missing is an error.
            #[serde(borrow, deserialize_with = "Option::deserialize")]
            nodes: Option<Vec<&'j serde_json::value::RawValue>>,
        }
        // serde takes a list for a structure, too.
        let is_object = json.trim_ascii_start().starts_with(b"{");
        let tree: Whole<'_> = serde_json::from_slice(json).ok().filter(|_| is_object)?;
        Some(tree.nodes.unwrap_or_default().into_iter().map(|node| parse_node(node.get().as_bytes())).collect())
    }

    fn agree(json: &[u8]) {
        let (in_memory, errors) = read(Nodes::new(json.to_vec()));
        for piece in [1, 13, 4096] {
            let in_pieces = read(Nodes::from_source_by(piece, Slow(json, piece)));
            assert!(in_pieces == (in_memory.clone(), errors), "in pieces of {piece}: {}", json.escape_ascii());
        }
        let nodes = || in_memory.iter().map(|(node, _)| node);
        match whole(json) {
            Some(expected) => {
                assert_eq!(expected.iter().filter(|node| node.is_err()).count(), errors);
                assert!(expected.iter().flatten().eq(nodes()));
            }
            None => assert!(errors > 0, "{}", json.escape_ascii()),
        }
    }

    proptest::proptest! {
        /// A tree that is damaged in some places is read by all readers alike.
        #[test]
        fn the_readers_agree(
            changes in proptest::collection::vec((0usize..2500, proptest::prop_oneof![
                proptest::prelude::any::<u8>(),
                proptest::sample::select(b"{}[],:\"\\ 0nue".to_vec()),
            ]), 0..4),
            cut in 0usize..4000,
        ) {
            let noon = Time::parse("2024-02-29T23:59:59.12Z").unwrap();
            let mut nodes = mixed_nodes(noon);
            let content = (0..4_u8).map(|number| Id::of(&[number])).collect();
            nodes.push(Node { content: Some(content), ..Node::new(*b"\xff\xff", NodeType::File) });
            let mut json = encode(&nodes);
            for (at, byte) in changes {
                let at = at % json.len();
                json[at] = byte;
            }
            json.truncate(json.len().min(cut + 200));
            agree(&json);
        }
    }

    #[test]
    fn the_readers_agree_on_odd_trees() {
        for json in [
            &br#"{"nodes":null}"#[..],
            br#" { "a" : [ { } , "}" ] , "nodes" : [ ] , "b" : 1e5 } "#,
            br#"{"nod\u0065s":[{"name":"a","type":"fifo"}],"nodes ":12}"#,
            br#"{"nodes":[["a","fifo"]]}"#,
            br#"{"nodes":[1,2],"x":1"#,
            br#"{"nodes":[12"#,
            br#"{"nodes":[],"nodes":null}"#,
            br#"{"nodes":null,"nodes":[]}"#,
            br#"{"nodes":[{"name":"\ud800","type":"file"},{"name":"a","type":"file"}]}"#,
            b"{\"nodes\":[{\"name\":\"a\",\"type\":\"file\",\"x\":\"\xff\"}]}",
            b"{\"\xff\":1,\"nodes\":[]}",
            b"{\"nodes\":[],\"x\":\"\xff\"}",
            b"[[]]",
            br#"{"x":-1.5e-10,"nodes":[{"name":"a","type":"fifo","x":[-0.25E+1]},{"name":"b","type":"fifo","x":-}]}"#,
            br#"{"x":-,"nodes":[]}"#,
            br#"{"nodes":[{"name":"a","type":"file","content":null},{"type":"file","content":[ ],"name":"b"}]}"#,
            br#"{"nodes":[{"name":"a","type":"file","content":[7,"x"]},{"name":"b","type":"fifo"}]}"#,
            br#"{"nodes":[{"name":"a","type":"file","content":[],"content":[]},{"name":"b","type":"fifo"}]}"#,
            br#"{"nodes":[{"name":"a","type":"file","content":{"content":[]}},{"name":"b","type":"fifo"}]}"#,
            br#"{"nodes":[{"name":"a","type":"file","content":[],},{"name":"b","type":"fifo"}]}"#,
            br#"{"nodes":[{"name":"a","size":"x","content":[]},{},{"a":1,2:3}]}"#,
            br#"{"nodes":[{"name":"a","type":"fifo","\ud800":[1]},{"name":"b","type":"fifo"}]}"#,
        ] {
            agree(json);
        }
        let ids = [b"a", b"b"].map(|text| format!("{:?}", Id::of(text).to_string()));
        for content in [" %a , %b ", "%a,%a,", "%a%b", ",%a", "%a,[%b]", "%a,null"] {
            let content = content.replace("%a", &ids[0]).replace("%b", &ids[1]);
            for key in ["content", r"con\u0074ent", "Content"] {
                agree(format!(r#"{{"nodes":[{{"name":"a","{key}":[{content}],"type":"file"}},1]}}"#).as_bytes());
            }
        }
    }

    #[test]
    fn a_source_that_fails_is_no_damage() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("it is broken"))
            }
        }
        let json = &br#"{"nodes":[{"name":"a","type":"fifo"},"#[..];
        let mut nodes = Nodes::from_source(json.chain(Broken));
        assert!(matches!(nodes.next(), Some(Err(ReadError::Source(_)))));
        assert!(nodes.next().is_none());
    }
}
