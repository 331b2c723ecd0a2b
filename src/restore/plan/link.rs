//! Identifies hard links: entries of the snapshot that are names of one inode.

use super::name::Name;
use crate::format::node::{Node, NodeType};
use crate::hash::Sha256;
use crate::id::Id;

/// The first file of a group of hard links.
pub struct Link {
    pub file: u32,
    pub dir: u32,
    pub name: Name,
}

/// The key that all names of one entry share; `None` if it has only one name. The snapshot does not
/// record the link count of a fifo, so its inode decides. The content is part of the key: a file
/// that changed while it was backed up may have different content under each name, and each of them
/// is restored.
pub fn link_key(node: &Node) -> Option<Id> {
    let several = node.links > 1 || node.ty == NodeType::Fifo && node.links == 0;
    if !several || node.inode == 0 {
        return None;
    }
    let mut key = Vec::from(node.ty.name());
    [node.inode, node.device_id, node.device].iter().for_each(|number| key.extend_from_slice(&number.to_le_bytes()));
    key.extend_from_slice(&node.link_target);
    let mut hash = Sha256::new();
    hash.update(&key);
    node.content.iter().flatten().for_each(|id| hash.update(&id.0));
    Some(Id(hash.finish()))
}
