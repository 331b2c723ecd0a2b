//! Checks whether a file of the target contains a blob at its offset: before it is written, and
//! after.

use super::dirs::Dirs;
use super::plan::PlannedTable;
use super::plan::table::Use;
use super::positioned_io::read_at;
use crate::id::Id;
use crate::limits;
use crate::repo::Index;
use rustix::fs::OFlags;

/// Bytes of memory that [`holds`] needs.
pub fn weight(index: &Index, needed: &Use) -> usize {
    usize::try_from(needed.location(index).blob.plain_length().min(limits::DATA_BLOB)).expect("bounded")
}

/// Whether the file contains the blob of a use at its offset.
pub fn holds(dirs: &Dirs<'_>, table: &PlannedTable<'_>, index: &Index, needed: &Use) -> rustix::io::Result<bool> {
    let blob = needed.location(index).blob;
    if blob.plain_length() > limits::DATA_BLOB {
        return Ok(false);
    }
    let dir = dirs.get(table.files[needed.file as usize].dir)?;
    let fd = dir.open(table.file_name(needed.file), OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut bytes = vec![0; weight(index, needed)];
    Ok(read_at(fd, &mut bytes, needed.offset)? == bytes.len() && Id::of(&bytes) == blob.id)
}
