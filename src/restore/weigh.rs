//! Counts the entries below a tree, repeated trees as often as they occur, but reads each tree only
//! once.
//!
//! A tree of forty levels, each of which contains the next one twice, is forty small blobs and
//! 10^12 entries.

use super::error::{Result, is_lost};
use crate::id::Id;
use crate::repo::TreeReader;
use std::collections::HashMap;

/// The entries below a tree, counted as often as they would be restored.
pub fn entries(trees: &TreeReader<'_>, root: Id) -> Result<u64> {
    struct Open {
        id: Id,
        entries: u64,
        below: Vec<Id>,
    }
    let open = |id: Id| -> Result<Open> {
        let mut tree = Open { id, entries: 0, below: Vec::new() };
        match trees.open(id) {
            // The walk reports damage.
            Ok(nodes) => {
                for node in nodes.flatten() {
                    tree.entries += 1;
                    tree.below.extend(node.subtree);
                }
            }
            Err(error) if is_lost(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(tree)
    };
    let mut known = HashMap::new();
    let mut stack = vec![open(root)?];
    loop {
        let top = stack.last_mut().expect("the root is returned when it is done");
        if let Some(id) = top.below.pop() {
            match known.get(&id) {
                Some(entries) => top.entries = top.entries.saturating_add(*entries),
                None => stack.push(open(id)?),
            }
            continue;
        }
        let Open { id, entries, .. } = stack.pop().expect("just seen");
        let Some(above) = stack.last_mut() else { return Ok(entries) };
        above.entries = above.entries.saturating_add(entries);
        known.insert(id, entries);
    }
}
