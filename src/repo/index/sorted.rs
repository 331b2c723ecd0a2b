//! The sorted index entries of one blob type: in memory, or in a temporary file that only this
//! process has.

use crate::aside::TempFile;
use crate::id::Id;
use rayon::prelude::*;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One copy of a blob; its pack by number.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub id: Id,
    pub pack: u32,
    pub offset: u32,
    pub length: u32,
    pub uncompressed: u32,
}

/// The sort key of an entry. It has the pack's id, not its number, which depends on the order in
/// which index files are read.
type Key = (Id, Id, [u32; 3]);

/// Bytes of an entry in a file: its id, then the numbers, little-endian.
const SIZE: usize = 48;

impl Entry {
    fn key(&self, packs: &[Id]) -> Key {
        (self.id, packs[self.pack as usize], [self.offset, self.length, self.uncompressed])
    }

    fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..32].copy_from_slice(&self.id.0);
        let numbers = [self.pack, self.offset, self.length, self.uncompressed];
        bytes[32..].chunks_exact_mut(4).zip(numbers).for_each(|(to, number)| to.copy_from_slice(&number.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Entry {
        let (id, numbers) = bytes.split_first_chunk().expect("an entry");
        let mut numbers = numbers.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")));
        let mut next = || numbers.next().expect("an entry");
        Entry { id: Id(*id), pack: next(), offset: next(), length: next(), uncompressed: next() }
    }
}

fn sort(entries: &mut Vec<Entry>, packs: &[Id]) {
    entries.par_sort_unstable_by(|a, b| a.id.cmp(&b.id).then_with(|| a.key(packs).cmp(&b.key(packs))));
    entries.dedup_by_key(|entry| entry.key(packs));
}

/// Entries in the order of their [`Key`], without duplicates. An id is a hash, so its first bits
/// give its approximate position.
#[derive(Default)]
pub(super) struct Sorted {
    entries: Entries,
    starts: Vec<u32>,
}

enum Entries {
    Memory(Vec<Entry>),
    File { file: File, len: usize },
}

impl Default for Entries {
    fn default() -> Entries {
        Entries::Memory(Vec::new())
    }
}

/// Entries per bucket in memory, where searching a bucket is cheap. A bucket has the ids that share
/// their first bits.
const TOGETHER: usize = 8;
/// Entries per bucket in a file, where a bucket is read at once.
const TOGETHER_IN_FILE: usize = 64;
/// Entries that an iteration over all of them reads at a time.
const WINDOW: usize = 1024;

impl Sorted {
    pub fn new(mut entries: Vec<Entry>, packs: &[Id]) -> Sorted {
        sort(&mut entries, packs);
        entries.shrink_to_fit();
        let mut starts = Starts::new(entries.len(), TOGETHER);
        entries.iter().for_each(|entry| starts.add(entry.id));
        Sorted { entries: Entries::Memory(entries), starts: starts.finish() }
    }

    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Memory(entries) => entries.len(),
            Entries::File { len, .. } => *len,
        }
    }

    /// Bytes that it takes in memory.
    pub fn memory(&self) -> u64 {
        let entries = match &self.entries {
            Entries::Memory(entries) => size_of_val(&entries[..]),
            Entries::File { .. } => size_of_val(&self.starts[..]),
        };
        entries as u64
    }

    /// # Panics
    /// When the entry does not exist.
    pub fn get(&self, at: usize) -> Entry {
        match &self.entries {
            Entries::Memory(entries) => entries[at],
            Entries::File { .. } => self.range(at..at + 1)[0],
        }
    }

    /// # Panics
    /// When an entry does not exist, or when the spill file cannot be read.
    fn range(&self, range: Range<usize>) -> Cow<'_, [Entry]> {
        match &self.entries {
            Entries::Memory(entries) => Cow::Borrowed(&entries[range]),
            Entries::File { file, len } => {
                assert!(range.end <= *len, "no entry {}", range.end);
                let read = read(file, range);
                Cow::Owned(read.expect("the spill file of the index can be read"))
            }
        }
    }

    /// The position of the first entry of an id, or the one where it would be.
    pub fn find(&self, id: Id) -> usize {
        let Some(places) = self.starts.len().checked_sub(1) else { return 0 };
        let place = place(id, places);
        let [mut start, mut end] = [self.starts[place], self.starts[place + 1]].map(|at| at as usize);
        // A bucket is larger than that only if an attacker has chosen the ids.
        while end - start > 4 * TOGETHER_IN_FILE {
            let middle = usize::midpoint(start, end);
            if self.get(middle).id < id { start = middle + 1 } else { end = middle }
        }
        start + self.range(start..end).partition_point(|entry| entry.id < id)
    }

    /// The entry at a position, if it has this id.
    pub fn of(&self, id: Id, at: usize) -> Option<Entry> {
        (at < self.len()).then(|| self.get(at)).filter(|entry| entry.id == id)
    }

    /// All entries, each with its position.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Entry)> + '_ {
        (0..self.len()).step_by(WINDOW).flat_map(move |start| {
            let part = self.range(start..self.len().min(start + WINDOW));
            (0..part.len()).map(move |at| (start + at, part[at]))
        })
    }
}

fn read(file: &File, range: Range<usize>) -> io::Result<Vec<Entry>> {
    let mut bytes = vec![0; range.len() * SIZE];
    file.read_exact_at(&mut bytes, (range.start * SIZE) as u64)?;
    Ok(bytes.chunks_exact(SIZE).map(Entry::from_bytes).collect())
}

/// The bucket of an id among `count` buckets, a power of two: the value of its first bits.
fn place(id: Id, count: usize) -> usize {
    let first = id.0.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    ((u64::from(first) * count as u64) >> 32) as usize
}

/// The position of the first entry of each bucket, and the end.
struct Starts {
    starts: Vec<u32>,
    count: usize,
    entries: u32,
}

impl Starts {
    /// For about `entries` entries, with about `together` per bucket.
    fn new(entries: usize, together: usize) -> Starts {
        let count = (entries / together + 1).next_power_of_two();
        Starts { starts: Vec::with_capacity(count + 1), count, entries: 0 }
    }

    /// Adds the next entry in order.
    fn add(&mut self, id: Id) {
        self.starts.resize(place(id, self.count) + 1, self.entries);
        self.entries = self.entries.checked_add(1).expect("fewer than 2^32 blobs");
    }

    fn finish(mut self) -> Vec<u32> {
        self.starts.resize(self.count + 1, self.entries);
        self.starts
    }
}

/// Entries that were spilled to disk: sorted runs of them in a temporary file.
pub(super) struct Runs {
    file: TempFile,
    /// The end of each run, in entries.
    ends: Vec<usize>,
}

/// Entries of each run that are in memory during a merge.
const READ_OF_RUN: usize = 256;

impl Runs {
    pub fn new(directory: &Path) -> io::Result<Runs> {
        Ok(Runs { file: TempFile::new(directory)?, ends: Vec::new() })
    }

    /// Spills entries as one run.
    pub fn add(&mut self, entries: &mut Vec<Entry>, packs: &[Id]) -> io::Result<()> {
        sort(entries, packs);
        let mut out = BufWriter::with_capacity(1 << 16, &mut self.file);
        entries.iter().try_for_each(|entry| out.write_all(&entry.to_bytes()))?;
        out.flush()?;
        drop(out);
        self.ends.push(self.ends.last().copied().unwrap_or(0) + entries.len());
        entries.clear();
        Ok(())
    }

    /// Merges all runs into a new file.
    pub fn merge(self, directory: &Path, packs: &[Id]) -> io::Result<Sorted> {
        let Runs { file: runs, ends } = self;
        let mut begin = 0;
        let mut rest = Vec::new();
        for &end in &ends {
            rest.push(Run {
                file: runs.file(),
                left: std::mem::replace(&mut begin, end)..end,
                read: Vec::new().into_iter(),
            });
        }
        let mut first = BinaryHeap::new();
        for (run, rest) in rest.iter_mut().enumerate() {
            first.extend(rest.next()?.map(|entry| Reverse((entry.key(packs), entry.pack, run))));
        }
        let mut starts = Starts::new(begin, TOGETHER_IN_FILE);
        let mut out = BufWriter::with_capacity(1 << 16, TempFile::new(directory)?);
        let (mut last, mut len) = (None, 0);
        while let Some(Reverse((key, pack, run))) = first.pop() {
            first.extend(rest[run].next()?.map(|entry| Reverse((entry.key(packs), entry.pack, run))));
            if last.replace(key) == Some(key) {
                continue;
            }
            let (id, _, [offset, length, uncompressed]) = key;
            out.write_all(&Entry { id, pack, offset, length, uncompressed }.to_bytes())?;
            starts.add(id);
            len += 1;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?.into_file();
        Ok(Sorted { entries: Entries::File { file, len }, starts: starts.finish() })
    }
}

struct Run<'f> {
    file: &'f File,
    left: Range<usize>,
    read: std::vec::IntoIter<Entry>,
}

impl Run<'_> {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.read.len() == 0 && !self.left.is_empty() {
            let end = self.left.end.min(self.left.start + READ_OF_RUN);
            self.read = read(self.file, self.left.start..end)?.into_iter();
            self.left.start = end;
        }
        Ok(self.read.next())
    }
}
