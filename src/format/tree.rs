//! A tree, the blob of a directory: `{"nodes":[…]}` and a line feed, with the nodes sorted by the
//! bytes of their names.

mod nodes;

pub use nodes::{LONG, Nodes, ReadError, parse_node};

use super::node::Node;
use super::text::unquote;
use super::{FormatError, Result};
use nodes::{ReadResult, bad};
use serde::Deserialize;
use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

const OPENING: &[u8] = b"{\"nodes\":[";
const CLOSING: &[u8] = b"]}\n";

/// Writes a tree from nodes that arrive in order.
pub struct TreeWriter {
    json: Vec<u8>,
    is_empty: bool,
    /// The name of the last node, if it is known.
    last: Vec<u8>,
}

impl TreeWriter {
    pub fn new() -> TreeWriter {
        TreeWriter { json: OPENING.to_vec(), is_empty: true, last: Vec::new() }
    }

    /// Adds a node. Its name must come after that of the last node.
    pub fn add(&mut self, node: &Node) -> Result<()> {
        self.open_slot(&node.name)?;
        node.write_json(&mut self.json);
        Ok(())
    }

    /// Begins a node with this raw name. The caller appends its JSON to [`TreeWriter::written`].
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

    /// Begins one or more nodes. The caller appends their JSON, with commas between them, to
    /// [`TreeWriter::written`], and must keep the order among them and after the nodes before.
    pub fn separate(&mut self) {
        if !self.is_empty {
            self.json.push(b',');
        }
        self.is_empty = false;
    }

    /// The plaintext so far. A caller that takes bytes from it must put them before the result of
    /// [`TreeWriter::finish`].
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

/// Reads one node from a source. A long list of content is spilled to the directory `aside`.
pub fn read_node(source: impl Read + Send, aside: Option<&Path>) -> ReadResult<Node> {
    let mut nodes = Nodes::from_source(OPENING.chain(source).chain(CLOSING)).put_aside_in(aside);
    nodes.next().unwrap_or_else(|| Err(bad("it is empty")))
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
mod tests;
