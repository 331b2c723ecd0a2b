//! Coalesces neighbouring blobs of a pack: decides which are read with one request, and how many of
//! those are opened together.

use super::blob_bounds::check_size;
use crate::format::pack::PackedBlob;
use crate::limits;

/// The number of leading `blobs`, which are those of a pack front to back, to read and open
/// together: at least one, and no more than fit into `portion` bytes.
pub(super) fn together(blobs: impl Iterator<Item = PackedBlob>, portion: u64) -> usize {
    let (mut start, mut plain) = (None, 0);
    let fits = |blob: &PackedBlob| {
        plain += blob.plain_length();
        let sealed = blob.end() - *start.get_or_insert(u64::from(blob.offset));
        plain.max(sealed) <= portion
    };
    blobs.take(limits::OPENED_BLOBS).take_while(fits).count().max(1)
}

/// Whether `other` follows `one` closely enough to be read with the same request. A blob too large
/// for memory stays alone, and is refused before it is read.
pub(super) fn adjoin(one: &PackedBlob, other: &PackedBlob) -> bool {
    let sound = [one, other].iter().all(|blob| check_size(blob).is_ok());
    sound && (one.end()..=one.end() + limits::RESTORE_GAP).contains(&u64::from(other.offset))
}
