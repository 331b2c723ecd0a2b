//! Trees are compared with Go's, and all readers with each other on the same input.

use super::*;
use crate::format::content::{Content, JsonRef};
use crate::format::node::{NodeType, Xattr};
use crate::format::time::Time;
use crate::id::Id;
use serde_json::Value;
use std::io;

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
    assert_eq!(Id::of(&encode(&[one])).to_string(), "408f230eda565772d8e408232cceaf05fd3f6a216b58ca9be13276515c04c8db");
    let ours = encode(&mixed_nodes(noon));
    let theirs = String::from_utf8(ours.clone()).unwrap().replace(r#""user.b","value":"""#, r#""user.b","value":null"#);
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
        at(Node { mode: 69_206_416, inode: 10, links: 1, device: 1280, ..Node::new("tty", NodeType::CharDev) }, noon),
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
fn reads_trees_of_other_programs_and_refuses_malformed_ones() {
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

/// The JSON of a node, without differences in white space and in the case of ids.
fn meaning(raw: JsonRef<'_>) -> Value {
    let mut json = Vec::new();
    raw.write(&mut json, |_| Ok::<_, ()>(())).unwrap();
    let mut value: Value = serde_json::from_slice(&json).unwrap();
    // The ids of a long list are written in lower case.
    for id in value.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        *id = id.as_str().unwrap().to_ascii_lowercase().into();
    }
    value
}

/// The nodes of a tree and their JSON, and the number of errors.
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
fn the_nodes_after_an_invalid_node_are_read() {
    let json = br#"{"nodes":[{"name":"a","type":"fifo"},{"name":1},17,{"name":"b","type":"fifo"}],"x":[]}"#;
    let names = |nodes: &[(Node, Value)]| nodes.iter().map(|(node, _)| node.name.clone()).collect::<Vec<_>>();
    let (nodes, errors) = read(Nodes::new(json.to_vec()));
    assert_eq!((names(&nodes), errors), (vec![b"a".to_vec(), b"b".to_vec()], 2));
    assert_eq!(nodes[1].1, serde_json::json!({"name": "b", "type": "fifo"}));
    // If the JSON itself is damaged, the beginning of the next node is unknown.
    let json = br#"{"nodes":[{"name":"a","type":"fifo"},{"name":"b",},{"name":"c","type":"fifo"}]}"#;
    let (nodes, errors) = read(Nodes::new(json.to_vec()));
    assert_eq!((names(&nodes), errors), (vec![b"a".to_vec()], 1));
}

#[test]
fn a_tree_read_in_pieces_has_the_same_nodes() {
    let noon = Time::parse("2024-02-29T23:59:59.12Z").unwrap();
    let mut nodes = mixed_nodes(noon);
    // A node that is longer than a piece.
    let content = (0..5000_u32).map(|number| Id::of(&number.to_le_bytes())).collect();
    nodes.push(Node { content: Some(content), ..Node::new(*b"\xff\xff", NodeType::File) });
    let json = encode(&nodes);
    let whole = read(Nodes::new(json.clone()));
    assert_eq!(whole.0.iter().map(|(node, _)| node.clone()).collect::<Vec<_>>(), nodes);
    for piece in [1, 2, 7, 1000, 1 << 20] {
        assert!(read(Nodes::from_source_by(piece, Slow(&json, piece))) == whole, "{piece} bytes at a time");
    }
    // A truncated tree is an error, and the nodes before the end are read.
    for end in (0..json.len() - 2).step_by(61) {
        let (before, errors) = read(Nodes::from_source(Slow(&json[..end], 100)));
        assert!(errors == 1 && whole.0.starts_with(&before), "{end}");
    }
}

/// A whole tree, parsed by serde; `None` if it is not JSON of that form.
fn whole(json: &[u8]) -> Option<Vec<Result<Node>>> {
    #[derive(Deserialize)]
    struct Whole<'j> {
        // With `deserialize_with`, a missing field is an error.
        #[serde(borrow, deserialize_with = "Option::deserialize")]
        nodes: Option<Vec<&'j serde_json::value::RawValue>>,
    }
    // serde also accepts a list as a structure.
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
    /// All readers read a tree with random damage alike.
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
fn a_failing_source_is_not_reported_as_damage() {
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
