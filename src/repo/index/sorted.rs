//! The entries of one type of blobs in their order: in memory, or in a temporary file that only
//! this process has.

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

/// What entries are in the order of: packs by their ids, not their numbers, which depend on which
/// index file was read first.
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

/// Entries by id, then pack and place in it, each once. An id is a hash, so its first bits give its
/// approximate position.
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

/// Entries that share the first bits: few in memory, where they are found for nothing, and in a
/// file as many as are read at once.
const TOGETHER: usize = 8;
const TOGETHER_IN_FILE: usize = 64;
/// Entries that are read at a time by an iteration over all of them.
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
    /// When there is no such entry.
    pub fn get(&self, at: usize) -> Entry {
        match &self.entries {
            Entries::Memory(entries) => entries[at],
            Entries::File { .. } => self.range(at..at + 1)[0],
        }
    }

    /// # Panics
    /// When they do not exist, and when the file that they were spilled to cannot be read.
    fn range(&self, range: Range<usize>) -> Cow<'_, [Entry]> {
        match &self.entries {
            Entries::Memory(entries) => Cow::Borrowed(&entries[range]),
            Entries::File { file, len } => {
                assert!(range.end <= *len, "no entry {}", range.end);
                let read = read(file, range);
                Cow::Owned(read.expect("the temporary file that the index was put aside in can be read"))
            }
        }
    }

    /// Where an id is, or would be.
    pub fn find(&self, id: Id) -> usize {
        let Some(places) = self.starts.len().checked_sub(1) else { return 0 };
        let place = place(id, places);
        let [mut start, mut end] = [self.starts[place], self.starts[place + 1]].map(|at| at as usize);
        // There are more than that only where an attacker has chosen the ids.
        while end - start > 4 * TOGETHER_IN_FILE {
            let middle = usize::midpoint(start, end);
            if self.get(middle).id < id { start = middle + 1 } else { end = middle }
        }
        start + self.range(start..end).partition_point(|entry| entry.id < id)
    }

    /// The entry at a place, if it is of this id.
    pub fn of(&self, id: Id, at: usize) -> Option<Entry> {
        (at < self.len()).then(|| self.get(at)).filter(|entry| entry.id == id)
    }

    /// All of them, each with its place.
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

/// What the first bits of an id are, for as many as `count`, a power of two, has values.
fn place(id: Id, count: usize) -> usize {
    let first = id.0.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    ((u64::from(first) * count as u64) >> 32) as usize
}

/// For each value of the first bits, where its entries begin; and the end.
struct Starts {
    starts: Vec<u32>,
    count: usize,
    entries: u32,
}

impl Starts {
    /// For about this number of entries, of which `together` share the first bits.
    fn new(entries: usize, together: usize) -> Starts {
        let count = (entries / together + 1).next_power_of_two();
        Starts { starts: Vec::with_capacity(count + 1), count, entries: 0 }
    }

    /// The next one.
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
    /// Where each ends.
    ends: Vec<usize>,
}

/// Entries of each run that are in memory while they are merged.
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

    /// All of them, in a file of their own.
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
