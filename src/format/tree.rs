//! A directory as a blob: `{"nodes":[…]}` and a line feed, nodes ascending by the bytes of their names.

use super::node::{Node, RawNode};
use super::text::unquote;
use super::{FormatError, Result};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

const OPENING: &[u8] = b"{\"nodes\":[";
const CLOSING: &[u8] = b"]}\n";

/// Writes a tree from nodes that arrive in order.
pub struct TreeWriter {
    json: Vec<u8>,
    last: Option<Vec<u8>>,
}

impl TreeWriter {
    pub fn new() -> TreeWriter {
        TreeWriter::with_capacity(0)
    }

    /// A writer for nodes whose JSON has about `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> TreeWriter {
        let mut json = Vec::with_capacity(capacity + OPENING.len() + CLOSING.len());
        json.extend_from_slice(OPENING);
        TreeWriter { json, last: None }
    }

    /// Adds a node. Its name must come after the one before.
    pub fn add(&mut self, node: &Node) -> Result<()> {
        self.open_slot(&node.name)?;
        node.write_json(&mut self.json);
        Ok(())
    }

    /// Adds a node that is JSON already; `name` is its raw name.
    pub fn add_json(&mut self, name: &[u8], json: &[u8]) -> Result<()> {
        self.open_slot(name)?;
        self.json.extend_from_slice(json);
        Ok(())
    }

    fn open_slot(&mut self, name: &[u8]) -> Result<()> {
        if let Some(last) = &mut self.last {
            if name <= &last[..] {
                let why =
                    format!("{:?} comes after {:?}", name.escape_ascii().to_string(), last.escape_ascii().to_string());
                return Err(FormatError::new("the order of a tree", why));
            }
            self.json.push(b',');
            last.clear();
            last.extend_from_slice(name);
        } else {
            self.last = Some(name.to_vec());
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_none()
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

/// Reads a tree node by node, so that a large directory need not be held as nodes. An error from `each` ends it and comes back as it is.
pub fn visit<E: From<FormatError>>(
    json: &[u8],
    mut each: impl FnMut(Node) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let outcome = deserializer
        .deserialize_map(TreeVisitor { each: &mut each, failure: &mut failure })
        .and_then(|()| deserializer.end());
    match (failure, outcome) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(FormatError::new("a tree", error).into()),
        (None, Ok(())) => Ok(()),
    }
}

/// All nodes of a tree.
pub fn parse(json: &[u8]) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    visit::<FormatError>(json, |node| {
        nodes.push(node);
        Ok(())
    })?;
    Ok(nodes)
}

#[derive(Deserialize)]
struct RawTree<'a> {
    // With a function of its own, a field that is missing is an error, and only a `null` is `None`.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    nodes: Option<Vec<&'a RawValue>>,
}

/// Where the nodes of a tree stand in its JSON, each for [`parse_node`], so that they can be made one by one.
pub fn split(json: &[u8]) -> Result<Vec<Range<usize>>> {
    let tree: RawTree<'_> = serde_json::from_slice(json).map_err(|error| FormatError::new("a tree", error))?;
    let range = |node: &RawValue| {
        let start = node.get().as_ptr() as usize - json.as_ptr() as usize;
        start..start + node.get().len()
    };
    Ok(tree.nodes.unwrap_or_default().into_iter().map(range).collect())
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

/// One node of a tree.
pub fn parse_node(json: &[u8]) -> Result<Node> {
    let raw: RawNode<'_> = serde_json::from_slice(json).map_err(|error| FormatError::new("a tree", error))?;
    Node::try_from(raw)
}

/// Accepts `nodes` among unknown keys, and `null` for it as very old repositories have.
struct TreeVisitor<'v, F, E> {
    each: &'v mut F,
    failure: &'v mut Option<E>,
}

impl<'de, F, E> Visitor<'de> for TreeVisitor<'_, F, E>
where
    F: FnMut(Node) -> std::result::Result<(), E>,
    E: From<FormatError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with nodes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<(), M::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "nodes" && !seen {
                seen = true;
                map.next_value_seed(Nodes { each: &mut *self.each, failure: &mut *self.failure })?;
            } else {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        if seen { Ok(()) } else { Err(serde::de::Error::missing_field("nodes")) }
    }
}

struct Nodes<'v, F, E> {
    each: &'v mut F,
    failure: &'v mut Option<E>,
}

impl<'de, F, E> DeserializeSeed<'de> for Nodes<'_, F, E>
where
    F: FnMut(Node) -> std::result::Result<(), E>,
    E: From<FormatError>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F, E> Visitor<'de> for Nodes<'_, F, E>
where
    F: FnMut(Node) -> std::result::Result<(), E>,
    E: From<FormatError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of nodes or null")
    }

    fn visit_unit<X>(self) -> std::result::Result<(), X> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut nodes: S) -> std::result::Result<(), S::Error> {
        while let Some(raw) = nodes.next_element::<RawNode<'de>>()? {
            let outcome = Node::try_from(raw).map_err(E::from).and_then(&mut *self.each);
            if let Err(failure) = outcome {
                *self.failure = Some(failure);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::{NodeType, Xattr};
    use crate::format::time::Time;
    use crate::id::Id;

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
                content: Some(vec![Id::of(b"hello")]),
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
                    content: Some(vec![]),
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
        let ranges = split(extra).unwrap();
        assert_eq!(ranges.iter().map(|range| parse_node(&extra[range.clone()]).unwrap()).collect::<Vec<_>>(), nodes);
        assert!(split(b"{\"nodes\":null}").unwrap().is_empty());
        for bad in
            [&b"{}"[..], b"", b"[]", b"{\"nodes\":[{\"name\":\"a\\\"b\",\"type\":\"file\"}]}", b"{\"nodes\":[]} x"]
        {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
            let one_by_one =
                split(bad).and_then(|ranges| ranges.into_iter().try_for_each(|r| parse_node(&bad[r]).map(drop)));
            assert!(one_by_one.is_err(), "{}", bad.escape_ascii());
        }
    }
}
