//! Reads a whole pack and verifies it: its hash equals its name, its header equals the index, and
//! each blob authenticates, decompresses and has the hash that its id says.
//!
//! A pack is read front to back, in pieces, and never held whole: it may have 4 GiB.

use crate::format::pack::{self, LENGTH_FIELD, PackedBlob};
use crate::hash::Sha256;
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::index::Location;
use crate::repo::{Error, PackReader, Repository, Result, Stretch, check_size, is_large};
use crate::store::{Download, File, FileType};
use std::io::{self, Read};
use std::sync::atomic::Ordering;

/// A pack as the store lists it, and the blobs that the index lists in it, front to back.
pub(super) struct ListedPack<'p> {
    pub id: Id,
    pub size: u64,
    pub blobs: &'p [PackedBlob],
}

/// The errors of a pack, and what follows from them.
pub(super) struct Verdict {
    pub errors: Vec<String>,
    /// Blobs that could not be read.
    pub lost: Vec<Id>,
    /// The store failed to deliver the pack.
    pub out_of_reach: bool,
    /// The pack may be intact, and the index wrong about it.
    pub index_differs: bool,
}

impl ListedPack<'_> {
    /// Reads the pack. Returns an error only if interrupted.
    pub fn read(&self, repo: &Repository, progress: &Progress, reader: &mut PackReader<'_>) -> Result<Verdict> {
        match repo.store().download(File::new(FileType::Pack, self.id), 0, self.size) {
            Ok(download) => PackRead::new(repo, progress, self, download).run(reader),
            Err(error) => {
                let error = Error::from(error);
                Ok(Verdict {
                    errors: vec![error.to_string()],
                    lost: self.blobs.iter().map(|blob| blob.id).collect(),
                    out_of_reach: !error.is_damage(),
                    index_differs: false,
                })
            }
        }
    }
}

/// Bytes read at a time where blobs are not opened one by one.
const PIECE: u64 = 1 << 20;
/// The last bytes of a pack, which contain its header: more than a header may have.
const TAIL: u64 = (16 << 20) + LENGTH_FIELD as u64;

struct PackRead<'r> {
    repo: &'r Repository,
    progress: &'r Progress,
    pack: &'r ListedPack<'r>,
    download: Box<dyn Download + 'r>,
    /// Bytes read so far.
    at: u64,
    /// The hash of all bytes read.
    hash: Sha256,
    errors: Vec<String>,
    /// Blobs that failed.
    lost: Vec<Id>,
    /// The number of blobs whose outcome is known.
    judged: usize,
    index_differs: bool,
}

impl<'r> PackRead<'r> {
    fn new(
        repo: &'r Repository,
        progress: &'r Progress,
        pack: &'r ListedPack<'r>,
        download: Box<dyn Download + 'r>,
    ) -> PackRead<'r> {
        let (hash, errors, lost) = (Sha256::new(), Vec::new(), Vec::new());
        PackRead { repo, progress, pack, download, at: 0, hash, errors, lost, judged: 0, index_differs: false }
    }

    fn run(mut self, reader: &mut PackReader<'_>) -> Result<Verdict> {
        let blobs = self.pack.blobs;
        // Of a truncated file, the blobs before the cut are read.
        let cut = blobs.partition_point(|blob| blob.end() <= self.pack.size);
        let outcome = self.read_blobs(&blobs[..cut], reader);
        let unread = if outcome.is_err() { self.judged } else { cut };
        self.lost.extend(blobs[unread..].iter().map(|blob| blob.id));
        let outcome = outcome.and_then(|()| self.read_header());
        let PackRead { hash, mut errors, lost, index_differs, .. } = self;
        let out_of_reach = outcome.as_ref().is_err_and(|error| !error.is_damage());
        match outcome {
            Ok(()) => {
                let actual = Id(hash.finish());
                if actual != self.pack.id {
                    errors.insert(0, format!("its content hashes to {actual}, which is not its name"));
                }
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => errors.push(error.to_string()),
        }
        Ok(Verdict { errors, lost, out_of_reach, index_differs })
    }

    /// Reads the blobs that the index lists; stops at the first gap between them.
    fn read_blobs(&mut self, blobs: &[PackedBlob], reader: &mut PackReader<'_>) -> Result<()> {
        let mut left = blobs;
        while let Some(first) = left.first().filter(|blob| u64::from(blob.offset) == self.at) {
            let together = adjoining(left).count();
            if is_large(first) {
                self.compare_large(first)?;
            } else if let Err(error) = check_size(first) {
                self.errors.push(error.to_string());
                self.lost.push(first.id);
                self.judged += 1;
                self.skip(u64::from(first.length))?;
            } else {
                self.read_stretch(Stretch::new(self.pack.id, &left[..together]), reader)?;
            }
            left = &left[together.max(1)..];
        }
        Ok(())
    }

    /// Reads blobs that follow each other without a gap.
    fn read_stretch(&mut self, mut stretch: Stretch<'_>, reader: &mut PackReader<'_>) -> Result<()> {
        while let Some(mut portion) = reader.next_portion(&mut stretch) {
            self.fill(portion.buffer())?;
            for (blob, opened) in portion.open(Some(&mut self.hash)) {
                if let Err(error) = opened {
                    self.errors.push(error.to_string());
                    self.lost.push(blob.id);
                }
            }
            self.judged += portion.blobs().len();
        }
        Ok(())
    }

    /// Reads a tree that is too large for memory.
    fn compare_large(&mut self, blob: &PackedBlob) -> Result<()> {
        let (repo, end) = (self.repo, self.at + u64::from(blob.length));
        let location = Location { pack: self.pack.id, blob: *blob };
        match repo.compare(&location, Pieces { of: self, end }) {
            Ok(()) => {}
            Err(error) if error.is_damage() && !matches!(error, Error::Store(_)) => {
                self.errors.push(error.to_string());
                self.lost.push(blob.id);
            }
            Err(error) => return Err(error),
        }
        self.judged += 1;
        self.skip(end - self.at)
    }

    /// Reads the rest of the pack, and compares its header with the index.
    fn read_header(&mut self) -> Result<()> {
        let rest = self.pack.size.saturating_sub(self.at);
        self.skip(rest.saturating_sub(TAIL))?;
        let rest = usize::try_from(self.pack.size - self.at).expect("at most a tail");
        let mut tail = vec![0; rest];
        self.fill(&mut tail)?;
        self.hash.update(&tail);
        let listed = tail.split_last_chunk().ok_or_else(|| "it ends before its header".to_owned()).and_then(
            |(before, field): (&[u8], &[u8; LENGTH_FIELD])| {
                let length = pack::header_length(*field, self.pack.size).map_err(|error| error.to_string())?;
                let start = before.len().checked_sub(length).ok_or("its header overlaps its blobs")?;
                self.repo.open_pack_header(self.pack.id, &before[start..]).map_err(|error| error.to_string())
            },
        );
        match listed {
            Ok(listed) if listed == self.pack.blobs => {}
            Ok(listed) => {
                self.index_differs = true;
                let (listed, indexed) = (listed.len(), self.pack.blobs.len());
                let text = format!("its header lists {listed} blobs and differs from the index, which lists {indexed}");
                self.errors.push(text);
            }
            Err(why) => self.errors.push(why),
        }
        Ok(())
    }

    /// Reads and hashes bytes without interpreting them.
    fn skip(&mut self, length: u64) -> Result<()> {
        let end = self.at + length;
        let mut buffer = vec![0; usize::try_from(length.min(PIECE)).expect("a piece")];
        while self.at < end {
            let piece = usize::try_from((end - self.at).min(PIECE)).expect("a piece");
            self.fill(&mut buffer[..piece])?;
            self.hash.update(&buffer[..piece]);
        }
        Ok(())
    }

    /// Reads the next bytes of the pack, which the caller hashes.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        if self.progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        self.download.read(bytes)?;
        self.at += bytes.len() as u64;
        self.progress.bytes_done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// The bytes of a pack up to the end of a blob, in pieces.
struct Pieces<'p, 'r> {
    of: &'p mut PackRead<'r>,
    end: u64,
}

impl Read for Pieces<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = (self.end - self.of.at).min(out.len() as u64);
        let out = &mut out[..usize::try_from(length).expect("at most the length of the buffer")];
        self.of.fill(out).map_err(io::Error::other)?;
        self.of.hash.update(out);
        Ok(out.len())
    }
}

/// The first of some blobs and those that follow it without a gap, up to a blob that is too large
/// to be read with others.
fn adjoining(blobs: &[PackedBlob]) -> impl Iterator<Item = &PackedBlob> {
    let mut next = u64::from(blobs[0].offset);
    blobs.iter().take_while(move |blob| {
        let follows = u64::from(blob.offset) == next;
        next += u64::from(blob.length);
        follows && check_size(blob).is_ok() && !is_large(blob)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjoining_blobs_end_at_a_gap_or_at_a_blob_that_is_too_large() {
        let blob = |offset: u32, length: u32| PackedBlob {
            ty: crate::format::BlobType::Data,
            id: Id::NULL,
            offset,
            length,
            uncompressed: 0,
        };
        assert_eq!(adjoining(&[blob(0, 10), blob(10, 10), blob(30, 10)]).count(), 2);
        assert_eq!(adjoining(&[blob(5, 10), blob(15, 1 << 30), blob(15 + (1 << 30), 1)]).count(), 1);
    }
}
