//! Checks the size and location that an index gives for a blob, before anything is allocated for
//! it.

use super::error::{Error, Result};
use super::index::Location;
use crate::crypto::OVERHEAD;
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::limits;
use crate::store::{File, FileType};

pub(super) fn damaged(location: &Location, why: String) -> Error {
    let PackedBlob { ty, id, .. } = location.blob;
    Error::BlobDamaged { ty, id, pack: File::new(FileType::Pack, location.pack), why }
}

pub(super) fn max_size(ty: BlobType) -> u64 {
    match ty {
        BlobType::Data => limits::DATA_BLOB,
        BlobType::Tree => limits::TREE_BLOB,
    }
}

/// Refuses a blob whose sealed or plain form is larger than may be held in memory.
pub(crate) fn check_size(blob: &PackedBlob) -> Result<()> {
    let PackedBlob { ty, id, length, .. } = *blob;
    let max = max_size(ty);
    let size = blob.plain_length().max(u64::from(length));
    if size > max + OVERHEAD as u64 {
        return Err(Error::BlobTooLarge { ty, id, size, max });
    }
    Ok(())
}

/// Refuses a location that no pack can have: a sealed blob is no shorter than its envelope. The
/// decoder of pack headers checks the same.
pub(super) fn check_location(location: &Location) -> Result<()> {
    check_envelope(location)?;
    check_size(&location.blob)
}

/// [`check_location`] for a blob that is never in memory as a whole.
pub(super) fn check_envelope(location: &Location) -> Result<()> {
    let length = location.blob.length as usize;
    if length < OVERHEAD {
        return Err(damaged(location, format!("the index says {length} bytes, but its envelope alone has {OVERHEAD}")));
    }
    Ok(())
}
