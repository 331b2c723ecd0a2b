//! Stage 2 for a block device: plans the offset of each blob of one file.

use super::error::{Error, Result};
use super::plan::memory::PlanBudget;
use super::plan::spill::{TableWriter, Tables};
use super::plan::table::Use;
use super::problems::NO_CONTENT;
use crate::format::BlobType;
use crate::format::node::Node;
use crate::id::Id;
use crate::repo::{self, Index};

/// The uses of one file, in tables without files, because the device is the only file.
pub struct Image {
    pub tables: Tables,
    pub size: u64,
    /// Bytes and blobs without a known offset, because blobs are in no index, and the first such
    /// error.
    pub lost: u64,
    pub pieces: u64,
    pub why: Option<repo::Error>,
}

impl Image {
    /// Plans one file. The blobs before the first missing one have known offsets, and so have those
    /// after the last missing one: their distance from the end is known. The inner error is the
    /// reason why the file is not a usable image.
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
            return Ok(Err(format!(
                "the snapshot records {} bytes for it but lists content of {size} bytes",
                node.size
            )));
        }
        Ok(Ok(Image { tables: uses.tables.finish()?, size, lost, pieces, why }))
    }
}

/// Collects the file's uses.
struct Uses {
    tables: TableWriter,
    /// Maximum size of all tables in bytes.
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
