//! Fuzzes the tree parser: no panic, the same nodes from a whole buffer, from pieces and by serde,
//! and a tree in order is written to JSON with the same meaning.
#![no_main]
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::Read;
use vsm::format::node::Node;
use vsm::format::tree::{Nodes, TreeWriter, parse, parse_node};

#[derive(Deserialize)]
struct Whole<'j> {
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    nodes: Option<Vec<&'j RawValue>>,
}

/// A source that returns a few bytes at a time.
struct Slow<'j>(&'j [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = out.len().min(7);
        self.0.read(&mut out[..count])
    }
}

/// The nodes that can be read, and the number of errors.
fn read(nodes: Nodes<'_>) -> (Vec<Node>, usize) {
    let (mut read, mut errors) = (Vec::new(), 0);
    for node in nodes {
        match node {
            Ok(node) => read.push(node),
            Err(_) => errors += 1,
        }
    }
    (read, errors)
}

fuzz_target!(|json: &[u8]| {
    let (nodes, errors) = read(Nodes::new(json.to_vec()));
    assert_eq!(read(Nodes::from_source_by(7, Slow(json))), (nodes.clone(), errors), "in pieces");
    match serde_json::from_slice::<Whole<'_>>(json) {
        // serde accepts a list for a structure, too.
        Ok(Whole { nodes: whole }) if json.trim_ascii_start().starts_with(b"{") => {
            let whole = whole.unwrap_or_default().into_iter().map(|node| parse_node(node.get().as_bytes()));
            let (expected, refused): (Vec<_>, Vec<_>) = whole.partition(Result::is_ok);
            assert_eq!(refused.len(), errors);
            assert_eq!(expected.into_iter().flatten().collect::<Vec<_>>(), nodes);
        }
        _ => assert!(errors > 0),
    }
    let Ok(nodes) = parse(json) else { return };
    let mut writer = TreeWriter::new();
    if nodes.iter().all(|node| writer.add(node).is_ok()) {
        let written = writer.finish();
        let again = parse(&written).expect("our own JSON");
        let mut second = TreeWriter::new();
        again.iter().for_each(|node| second.add(node).expect("the same order"));
        assert_eq!(second.finish(), written, "writing is a fixed point");
    }
});
