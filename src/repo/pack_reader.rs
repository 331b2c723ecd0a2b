//! Reads blobs of a pack front to back, in portions that are opened together.
//!
//! Restore, check, copy and prune share it: which neighbours are coalesced into one request, how
//! much memory they may take, and how they are opened. The caller decides where the bytes come from
//! and what happens with a blob that cannot be read: check reports it; restore and copy search for
//! another copy of the blob.

use super::blob_bounds::check_size;
use super::coalesce::{adjoin, together};
use super::error::Result;
use super::index::Location;
use super::read_budget::{ReadBuffers, Reading, room};
use super::repository::Repository;
use crate::format::pack::PackedBlob;
use crate::hash::{Sha256, Stream};
use crate::id::Id;
use crate::room::Held;
use crate::store::{Download, File, FileType};

/// Neighbouring blobs of a pack that are read with one request.
pub(crate) struct Stretch<'b> {
    pack: Id,
    blobs: &'b [PackedBlob],
    /// The blobs that are still to be read, and the offset in the pack of the next byte.
    left: &'b [PackedBlob],
    at: u64,
}

impl<'b> Stretch<'b> {
    /// Blobs of a pack, front to back; the bytes between them are read, too.
    pub fn new(pack: Id, blobs: &'b [PackedBlob]) -> Stretch<'b> {
        Stretch { pack, blobs, left: blobs, at: start(blobs) }
    }

    /// Blobs of a pack, front to back, in stretches of those that [`adjoin`].
    pub fn coalesce(pack: Id, blobs: &'b [PackedBlob]) -> impl Iterator<Item = Stretch<'b>> {
        blobs.chunk_by(adjoin).map(move |blobs| Stretch::new(pack, blobs))
    }

    /// Requests all bytes of the stretch. The caller may wait with that until memory for the first
    /// portion is free. Fails if the stretch is a blob too large for memory.
    pub fn download<'r>(&self, repo: &'r Repository) -> Result<Box<dyn Download + 'r>> {
        self.blobs.first().map_or(Ok(()), check_size)?;
        let start = start(self.blobs);
        let end = self.blobs.last().map_or(start, PackedBlob::end);
        Ok(repo.store().download(File::new(FileType::Pack, self.pack), start, end - start)?)
    }
}

/// Reads packs for one thread, with reused buffers.
pub(crate) struct PackReader<'r> {
    repo: &'r Repository,
    reading: &'r Reading,
    buffers: ReadBuffers,
}

impl<'r> PackReader<'r> {
    pub fn new(repo: &'r Repository, reading: &'r Reading) -> PackReader<'r> {
        PackReader { repo, reading, buffers: ReadBuffers::new(reading) }
    }

    /// The next blobs of a stretch to read and open together. Waits until memory for them is free.
    pub fn next_portion<'p, 'b: 'p>(&'p mut self, stretch: &mut Stretch<'b>) -> Option<Portion<'p>> {
        let Stretch { pack, at, left, .. } = *stretch;
        let (blobs, left) = left.split_at_checked(together(left.iter().copied(), self.reading.portion))?;
        let end = blobs.last()?.end();
        (stretch.left, stretch.at) = (left, end);
        let room = self.reading.room(end - at, blobs.iter().copied());
        Some(Portion { repo: self.repo, pack, at, end, blobs, buffers: &mut self.buffers, _room: room })
    }
}

/// Blobs of a pack that are read and opened together. Dropping it frees their memory.
pub(crate) struct Portion<'p> {
    repo: &'p Repository,
    pack: Id,
    /// Where its bytes begin and end in the pack.
    at: u64,
    end: u64,
    blobs: &'p [PackedBlob],
    buffers: &'p mut ReadBuffers,
    _room: Held<'p>,
}

/// A blob that has been opened and compared with its id.
pub(crate) struct OpenedBlob<'p> {
    pub plaintext: &'p [u8],
    pub sealed: &'p [u8],
}

impl<'p> Portion<'p> {
    pub fn blobs(&self) -> &'p [PackedBlob] {
        self.blobs
    }

    /// The buffer for the bytes of the pack from the first to the last of the blobs.
    pub fn buffer(&mut self) -> &mut [u8] {
        room(&mut self.buffers.sealed, length(self.at, self.end))
    }

    /// Opens the blobs from the bytes in the buffer. All bytes of the buffer are added to `hash`,
    /// too: two hashes at a time cost little more than one.
    pub fn open(&mut self, hash: Option<&mut Sha256>) -> impl Iterator<Item = (PackedBlob, Result<OpenedBlob<'_>>)> {
        let ReadBuffers { sealed, plaintexts, .. } = &mut *self.buffers;
        let bytes = &sealed[..length(self.at, self.end)];
        let part = |&blob: &PackedBlob| {
            let from = length(self.at, blob.offset.into());
            (Location { pack: self.pack, blob }, &bytes[from..from + blob.length as usize])
        };
        let parts: Vec<(Location, &[u8])> = self.blobs.iter().map(part).collect();
        let whole = [bytes];
        let beside = hash.map(|hash| Stream { hash, parts: &whole });
        let opened = self.repo.open_blobs(&parts, beside, plaintexts);
        let plaintexts = &plaintexts[..];
        opened.into_iter().zip(parts).map(move |(opened, (location, sealed))| {
            (location.blob, opened.map(|range| OpenedBlob { plaintext: &plaintexts[range], sealed }))
        })
    }
}

impl Drop for Portion<'_> {
    fn drop(&mut self) {
        // `_room` is released after this.
        self.buffers.shrink();
    }
}

/// The offset of the first of some blobs.
fn start(blobs: &[PackedBlob]) -> u64 {
    blobs.first().map_or(0, |first| first.offset.into())
}

fn length(from: u64, to: u64) -> usize {
    usize::try_from(to - from).expect("a few blobs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BlobType;
    use crate::format::compression::Compression;
    use crate::limits;
    use crate::repo::tests::new_repository;
    use crate::repo::writer::{WriteMode, Writer};
    use crate::repo::{Index, Settings};
    use std::sync::Arc;

    #[test]
    fn neighbours_are_coalesced_up_to_a_large_gap_or_blob() {
        let gap = u32::try_from(limits::RESTORE_GAP).unwrap();
        let ends = [(0, 10), (10, 10), (20 + gap, 10), (31 + 2 * gap, 10), (41 + 2 * gap, 1 << 30), (u32::MAX, 1)];
        let blobs = ends.map(|(offset, length)| PackedBlob {
            ty: BlobType::Data,
            id: Id::NULL,
            offset,
            length,
            uncompressed: 0,
        });
        let stretches: Vec<usize> = Stretch::coalesce(Id::NULL, &blobs).map(|stretch| stretch.left.len()).collect();
        assert_eq!(stretches, [3, 1, 1, 1]);
    }

    #[test]
    fn portions_cover_all_blobs_and_bytes_of_a_stretch() {
        let (_dir, repo) = new_repository(Settings { compression: Compression::Off, ..Settings::default() });
        let repo = Arc::new(repo);
        let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
        let chunks: Vec<Vec<u8>> = (0..12u8).map(|number| vec![number; 300_000]).collect();
        let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk[..]).collect();
        let ids = writer.store_chunks(&chunks).unwrap();
        writer.finish().unwrap();
        let index = Index::load(&repo).unwrap();
        let group = index.groups(index.packs()).next().unwrap();
        let (pack, blobs) = (index.packs()[0], group.blobs(index.packs()[0]));
        let reading = Reading::within(&repo, 0);
        let mut reader = PackReader::new(&repo, &reading);
        let mut stretch = Stretch::new(pack, &blobs);
        let mut download = stretch.download(&repo).unwrap();
        let (mut hash, mut found, mut portions) = (Sha256::new(), Vec::new(), 0);
        while let Some(mut portion) = reader.next_portion(&mut stretch) {
            download.read(portion.buffer()).unwrap();
            for (blob, opened) in portion.open(Some(&mut hash)) {
                let opened = opened.unwrap();
                assert_eq!((Id::of(opened.plaintext), opened.sealed.len()), (blob.id, blob.length as usize));
                found.push(blob.id);
            }
            portions += 1;
        }
        assert_eq!((found, portions), (ids, 4), "three chunks fit into a portion of 1 MiB");
        let end = usize::try_from(blobs[11].end()).unwrap();
        let all = repo.store().read_at(File::new(FileType::Pack, pack), 0, end).unwrap();
        assert_eq!(Id(hash.finish()), Id::of(&all));
    }
}
