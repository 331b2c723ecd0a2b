//! Every byte of the packs, or of some of them: a pack's hash is its name, its header says what the index says, and each blob
//! authenticates, expands and has the hash it is known by.
//!
//! A pack is read once, front to back, in pieces, and never held whole: it may have 4 GiB. A pack that fails is read again before
//! it counts as broken, because the network may be to blame.

use super::Check;
use crate::clock;
use crate::format::pack::{self, LENGTH_FIELD, PackedBlob};
use crate::hash::{Sha256, Stream};
use crate::id::Id;
use crate::progress::Progress;
use crate::repo::index::Location;
use crate::repo::{Error, ReadBuffers, Reading, Repository, Result, check_size, is_large, room, together};
use crate::store::{Download, File, FileType};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which packs are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    All,
    /// Part `number` of `parts`, from 1 on, by the first byte of a pack's id: all parts together are all packs.
    Part {
        number: u16,
        parts: u16,
    },
    /// As many packs, drawn at random.
    Percent(f64),
    /// Packs of about as many bytes, drawn at random.
    Bytes(u64),
}

impl Subset {
    fn choose(self, mut packs: Vec<(Id, u64)>) -> Vec<(Id, u64)> {
        packs.sort_unstable();
        let total: u64 = packs.iter().map(|(_, size)| size).sum();
        let percent = match self {
            Subset::All => return packs,
            Subset::Part { number, parts } => {
                packs.retain(|(id, _)| u16::from(id.0[0]) % parts == number - 1);
                return packs;
            }
            Subset::Percent(percent) => percent,
            Subset::Bytes(bytes) => 100.0 * bytes as f64 / total.max(1) as f64,
        };
        let count = ((packs.len() as f64 * percent / 100.0) as usize).clamp(1.min(packs.len()), packs.len());
        for at in 0..count {
            let rest = (packs.len() - at) as u64;
            let other = at + usize::try_from(u64::from_le_bytes(clock::random_bytes()) % rest).expect("below a length");
            packs.swap(at, other);
        }
        packs.truncate(count);
        packs
    }
}

/// What is wrong with a pack.
struct Verdict {
    errors: Vec<String>,
    /// Blobs that could not be read.
    lost: Vec<Id>,
    /// The store did not give it.
    out_of_reach: bool,
    /// The pack may be sound, and the index wrong about it.
    index_differs: bool,
}

impl Check<'_> {
    /// Reads packs. Those that are in no index are left out: nothing needs them.
    pub fn data(&mut self, subset: Subset) -> Result<()> {
        let indexed: HashSet<Id> = self.index.packs().iter().copied().collect();
        let packs = self.listed.iter().map(|(&id, &size)| (id, size)).collect();
        let mut packs = subset.choose(packs);
        packs.retain(|&(id, _)| indexed.contains(&id));
        // No thread is to be left alone with a large one at the end.
        packs.sort_unstable_by_key(|&(id, size)| (Reverse(size), id));
        self.count(packs.len() as u64, packs.iter().map(|(_, size)| size).sum());
        self.report.packs_read = packs.len() as u64;
        drop(indexed);
        let ids: Vec<Id> = packs.into_iter().map(|(id, _)| id).collect();
        let mut verdicts: Vec<(Id, Verdict)> = Vec::new();
        let reading = Reading::beside(self.repo, &self.index)?;
        for group in self.index.groups(&ids) {
            let next = AtomicUsize::new(0);
            let read = self.pool.broadcast(|_| {
                let mut buffers = ReadBuffers::new(&reading);
                let mine = std::iter::from_fn(|| group.packs().get(next.fetch_add(1, Ordering::Relaxed)));
                let read = |&id| Ok((id, self.read(id, self.listed[&id], &group.blobs(id), &reading, &mut buffers)?));
                mine.map(read).collect()
            });
            verdicts.extend(read.into_iter().collect::<Result<Vec<Vec<_>>>>()?.into_iter().flatten());
        }
        verdicts.sort_unstable_by_key(|&(id, _)| id);
        for (id, verdict) in verdicts.into_iter().filter(|(_, verdict)| !verdict.errors.is_empty()) {
            self.report.broken_packs.push(id);
            self.report.suggest_repair_index |= verdict.index_differs;
            self.out_of_reach.fetch_add(verdict.out_of_reach.into(), Ordering::Relaxed);
            self.lost.blobs.extend(verdict.lost.into_iter().map(|blob| (id, blob)));
            verdict.errors.into_iter().for_each(|error| self.problem(format!("pack {id}"), error));
        }
        Ok(())
    }

    /// Reads a pack, and once more if it fails.
    fn read(
        &self,
        id: Id,
        size: u64,
        blobs: &[PackedBlob],
        reading: &Reading,
        buffers: &mut ReadBuffers,
    ) -> Result<Verdict> {
        let mut read = || PackRead::run(self.repo, self.progress, id, size, blobs, reading, buffers);
        let mut verdict = read()?;
        if !verdict.errors.is_empty() {
            let first = std::mem::replace(&mut verdict, read()?).errors.join("; ");
            if verdict.errors.is_empty() {
                self.hint(format!("pack {id} could only be read the second time; the first time: {first}"));
            }
        }
        self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        Ok(verdict)
    }
}

/// Bytes read at a time where there are no blobs to be told apart.
const PIECE: u64 = 1 << 20;
/// Where the header must begin, at the latest counted from the end: more than it may have.
const TAIL: u64 = (16 << 20) + LENGTH_FIELD as u64;

/// One reading of a pack, front to back.
struct PackRead<'r> {
    repo: &'r Repository,
    progress: &'r Progress,
    id: Id,
    size: u64,
    download: Box<dyn Download + 'r>,
    /// Bytes read so far.
    at: u64,
    /// Of all bytes read.
    hash: Sha256,
    errors: Vec<String>,
    /// Blobs that failed.
    lost: Vec<Id>,
    /// Blobs of which it is known whether they failed.
    judged: usize,
    index_differs: bool,
}

impl PackRead<'_> {
    /// What is wrong with the pack; an error only when interrupted.
    fn run(
        repo: &Repository,
        progress: &Progress,
        id: Id,
        size: u64,
        blobs: &[PackedBlob],
        reading: &Reading,
        buffers: &mut ReadBuffers,
    ) -> Result<Verdict> {
        let download = match repo.store().download(File::new(FileType::Pack, id), 0, size) {
            Ok(download) => download,
            Err(error) => {
                let error = Error::from(error);
                let lost = blobs.iter().map(|blob| blob.id).collect();
                let (errors, out_of_reach) = (vec![error.to_string()], !error.is_damage());
                return Ok(Verdict { errors, lost, out_of_reach, index_differs: false });
            }
        };
        let (hash, errors, lost) = (Sha256::new(), Vec::new(), Vec::new());
        let mut read =
            PackRead { repo, progress, id, size, download, at: 0, hash, errors, lost, judged: 0, index_differs: false };
        // Of a file that was cut short, what comes before the cut is read.
        let cut = blobs.partition_point(|blob| u64::from(blob.offset) + u64::from(blob.length) <= size);
        let outcome = read.read_blobs(&blobs[..cut], reading, buffers);
        let unread = if outcome.is_err() { read.judged } else { cut };
        read.lost.extend(blobs[unread..].iter().map(|blob| blob.id));
        let outcome = outcome.and_then(|()| read.read_header(blobs));
        let PackRead { hash, mut errors, lost, index_differs, .. } = read;
        let out_of_reach = outcome.as_ref().is_err_and(|error| !error.is_damage());
        match outcome {
            Ok(()) => {
                let actual = Id(hash.finish());
                if actual != id {
                    errors.insert(0, format!("its content hashes to {actual}, which is not its name"));
                }
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => errors.push(error.to_string()),
        }
        Ok(Verdict { errors, lost, out_of_reach, index_differs })
    }

    /// Reads the blobs that the index lists; stops at the first place where the index leaves bytes out.
    fn read_blobs(&mut self, blobs: &[PackedBlob], reading: &Reading, buffers: &mut ReadBuffers) -> Result<()> {
        let mut left = blobs;
        while let Some(first) = left.first().filter(|blob| u64::from(blob.offset) == self.at) {
            if is_large(first) {
                self.compare_large(first)?;
                left = &left[1..];
                continue;
            }
            if let Err(error) = check_size(first) {
                self.errors.push(error.to_string());
                self.lost.push(first.id);
                self.judged += 1;
                self.skip(u64::from(first.length))?;
                left = &left[1..];
                continue;
            }
            let (now, later) = left.split_at(together(adjoining(left).copied(), reading.portion));
            left = later;
            let length: u64 = now.iter().map(|blob| u64::from(blob.length)).sum();
            let _held = reading.room(length, now.iter().copied());
            let ReadBuffers { sealed, plaintexts, .. } = &mut *buffers;
            let bytes = self.next(usize::try_from(length).expect("a few blobs"), sealed)?;
            let mut rest = bytes;
            let now = now.iter().map(|&blob| {
                let one = rest.split_off(..blob.length as usize).expect("all of them were read");
                (Location { pack: self.id, blob }, one)
            });
            let now: Vec<(Location, &[u8])> = now.collect();
            let beside = Stream { hash: &mut self.hash, parts: &[bytes] };
            let opened = self.repo.open_blobs(&now, Some(beside), plaintexts);
            for (error, (location, _)) in
                opened.into_iter().zip(&now).filter_map(|(opened, at)| Some((opened.err()?, at)))
            {
                self.errors.push(error.to_string());
                self.lost.push(location.blob.id);
            }
            self.judged += now.len();
            buffers.shrink();
        }
        Ok(())
    }

    /// Reads a tree that is not to be held in memory.
    fn compare_large(&mut self, blob: &PackedBlob) -> Result<()> {
        let (repo, end) = (self.repo, self.at + u64::from(blob.length));
        let location = Location { pack: self.id, blob: *blob };
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
    fn read_header(&mut self, blobs: &[PackedBlob]) -> Result<()> {
        let rest = self.size.saturating_sub(self.at);
        self.skip(rest.saturating_sub(TAIL))?;
        let mut tail = Vec::new();
        let rest = usize::try_from(self.size - self.at).expect("at most a tail");
        let tail = self.next(rest, &mut tail)?;
        self.hash.update(tail);
        let listed = tail.split_last_chunk().ok_or_else(|| "it ends before its header".to_owned()).and_then(
            |(before, field): (&[u8], &[u8; LENGTH_FIELD])| {
                let length = pack::header_length(*field, self.size).map_err(|error| error.to_string())?;
                let start = before.len().checked_sub(length).ok_or("its header overlaps its blobs")?;
                self.repo.open_pack_header(self.id, &before[start..]).map_err(|error| error.to_string())
            },
        );
        match listed {
            Ok(listed) if listed == blobs => {}
            Ok(listed) => {
                self.index_differs = true;
                let (listed, indexed) = (listed.len(), blobs.len());
                let text = format!("its header lists {listed} blobs, and not the {indexed} that the index lists");
                self.errors.push(text);
            }
            Err(why) => self.errors.push(why),
        }
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        let end = self.at + length;
        let mut buffer = Vec::new();
        while self.at < end {
            let piece = usize::try_from((end - self.at).min(PIECE)).expect("a piece");
            let bytes = self.next(piece, &mut buffer)?;
            self.hash.update(bytes);
        }
        Ok(())
    }

    /// The next bytes of the pack, in a buffer that is used again and again; still to be hashed.
    fn next<'b>(&mut self, length: usize, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        if self.progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let bytes = room(buffer, length);
        self.download.read(bytes)?;
        self.at += length as u64;
        self.progress.bytes_done.fetch_add(length as u64, Ordering::Relaxed);
        Ok(bytes)
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
        let mut buffer = Vec::new();
        let length = usize::try_from(length).expect("no more than there is room for");
        let bytes = self.of.next(length, &mut buffer).map_err(io::Error::other)?;
        out[..length].copy_from_slice(bytes);
        self.of.hash.update(&out[..length]);
        Ok(length)
    }
}

/// The first of some blobs and those that follow it without a gap, as far as they are not too large.
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
    fn parts_together_are_all_packs_and_draws_have_the_size_asked_for() {
        let packs: Vec<(Id, u64)> = (0..200u8).map(|n| (Id::of(&[n]), 100)).collect();
        let mut parts: Vec<_> =
            (1..=7).flat_map(|number| Subset::Part { number, parts: 7 }.choose(packs.clone())).collect();
        parts.sort_unstable();
        assert_eq!(parts, Subset::All.choose(packs.clone()));
        let count = |subset: Subset| {
            let mut drawn = subset.choose(packs.clone());
            drawn.sort_unstable();
            drawn.dedup();
            drawn.len()
        };
        assert_eq!(count(Subset::Percent(10.0)), 20);
        assert_eq!(count(Subset::Percent(0.01)), 1);
        assert_eq!(count(Subset::Bytes(5000)), 50);
        assert_eq!(count(Subset::Bytes(u64::MAX)), 200);
        assert_eq!(Subset::Percent(50.0).choose(vec![]), []);
    }

    #[test]
    fn blobs_adjoin_up_to_a_gap_or_one_that_is_too_large() {
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
