//! Stage 2 for a block device: where each blob of one file goes.

use super::error::{Error, Result};
use super::plan::memory::PlanBudget;
use super::plan::spill::{TableWriter, Tables};
use super::plan::table::Use;
use super::problems::NO_CONTENT;
use crate::format::BlobType;
use crate::format::node::Node;
use crate::id::Id;
use crate::repo::{self, Index};

/// The uses of one file, in tables without files: the device has a name of its own.
pub struct Image {
    pub tables: Tables,
    pub size: u64,
    /// Bytes and blobs that no index has, and why.
    pub lost: u64,
    pub pieces: u64,
    pub why: Option<repo::Error>,
}

impl Image {
    /// Plans a file alone. What comes before the first blob that is in no index has its place, and
    /// so has what comes after the last one: its distance from the end is known. The inner error
    /// says why the file is no image.
    pub fn plan(index: &Index, node: &Node, budget: PlanBudget<'_>) -> Result<std::result::Result<Image, String>> {
        let Some(content) = &node.content else { return Ok(Err(NO_CONTENT.into())) };
        let known = |id: Id| {
            let position = index.position(BlobType::Data, id)?;
            let blob = u32::try_from(position).expect("an index has fewer than 2^32 blobs");
            Some((blob, index.at(BlobType::Data, position).blob.plain_length()))
        };
        let mut uses = Uses { tables: TableWriter::new(budget), max: budget.total };
        let (mut listed, mut size) = (0, 0u64);
        for (blob, length) in content.iter().map_while(known) {
            uses.add(blob, size)?;
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
                uses.add(blob, offset)?;
                listed += 1;
                end = offset;
            }
            (lost, pieces) = (end - head, (content.len() - listed) as u64);
            why = Some(repo::Error::BlobMissing { ty: BlobType::Data, id });
        } else if size != node.size {
            return Ok(Err(format!("the snapshot gives it {} bytes and lists content of {size}", node.size)));
        }
        Ok(Ok(Image { tables: uses.tables.finish()?, size, lost, pieces, why }))
    }
}

/// The file's uses while they are listed.
struct Uses {
    tables: TableWriter,
    /// Bytes of all tables.
    max: u64,
}

impl Uses {
    fn add(&mut self, blob: u32, offset: u64) -> Result<()> {
        if self.tables.is_full() {
            self.tables.turn(0)?;
        }
        self.tables.table.uses.push(Use { blob, file: 0, offset });
        if self.tables.bytes() > self.max { Err(Error::PlanTooLarge { max: self.max }) } else { Ok(()) }
    }
}
