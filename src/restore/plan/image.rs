//! The plan for a target that takes one file and is one itself.

use super::build::Room;
use super::stretch::Filling;
use super::{File, NO_ACCESS, NO_CONTENT, Plan, State, Use, count};
use crate::format::BlobType;
use crate::format::node::Node;
use crate::id::Id;
use crate::repo::{self, Index};
use crate::restore::error::{Error, Result};

/// A plan of one file and no directories.
pub struct Image {
    pub plan: Plan,
    pub size: u64,
    /// Bytes and blobs that no index has, and why.
    pub lost: u64,
    pub pieces: u64,
    pub why: Option<repo::Error>,
}

/// The file's uses while they are listed.
struct Uses {
    filling: Filling,
    is_begun: bool,
}

impl Image {
    /// Plans a file alone. What comes before the first blob that is in no index has its place, and so
    /// has what comes after the last one: its distance from the end is known. The inner error says
    /// why the file is no image.
    pub fn plan(index: &Index, node: &Node, room: Room<'_>) -> Result<std::result::Result<Image, String>> {
        let Some(content) = &node.content else { return Ok(Err(NO_CONTENT.into())) };
        let known = |id: Id| {
            let position = index.position(BlobType::Data, id)?;
            Some((count(position), index.at(BlobType::Data, position).blob.plain_length()))
        };
        let filling = Filling::new(room.aside, room.stretch);
        let mut uses = Uses { filling, is_begun: false };
        let (mut listed, mut size) = (0, 0u64);
        for (blob, length) in content.iter().map_while(known) {
            uses.add(Use { blob, file: 0, offset: size }, room)?;
            size = size.saturating_add(length);
            listed += 1;
        }
        let (mut lost, mut pieces, mut why) = (0, 0, None);
        if let Some(id) = content.get(listed) {
            let head = size;
            size = head.max(node.size);
            let mut end = size;
            let backwards = (0..content.len()).rev().filter_map(|at| content.get(at));
            for (blob, length) in backwards.map_while(known) {
                let Some(offset) = end.checked_sub(length).filter(|&offset| offset >= head) else { break };
                uses.add(Use { blob, file: 0, offset }, room)?;
                listed += 1;
                end = offset;
            }
            (lost, pieces) = (end - head, (content.len() - listed) as u64);
            why = Some(repo::Error::BlobMissing { ty: BlobType::Data, id });
        } else if size != node.size {
            return Ok(Err(format!("the snapshot gives it {} bytes and lists content of {size}", node.size)));
        }
        uses.end_part(true);
        let stretches = uses.filling.finish()?;
        let plan = Plan { entries: 1, bytes: size, files: 1, stretches, ..Plan::default() };
        Ok(Ok(Image { plan, size, lost, pieces, why }))
    }
}

impl Uses {
    fn add(&mut self, needed: Use, room: Room<'_>) -> Result<()> {
        if self.filling.is_full() {
            self.end_part(false);
            self.filling.turn(0)?;
        }
        self.filling.table.uses.push(needed);
        if self.filling.bytes() > room.most { Err(Error::PlanTooLarge { max: room.most }) } else { Ok(()) }
    }

    fn end_part(&mut self, ends: bool) {
        let begins = !std::mem::replace(&mut self.is_begun, true);
        // Of the file, only its uses matter: the target has a name of its own.
        self.filling.add(b"", File { begins, ends, ..File::new(0, 0, (0, 0), NO_ACCESS, State::Planned) });
    }
}
