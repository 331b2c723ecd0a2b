//! Sorts the names of a directory: in memory, or, if there are many, in sorted runs that are
//! spilled to disk and merged on demand.

use crate::aside::Aside;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// The number of names in a run: 1 MiB, with names of 30 bytes.
const RUN: usize = 16 << 10;
/// The number of bytes of each run that are read at a time.
const READ: usize = 8 << 10;

/// Names in the order of the listing.
pub struct Gathered {
    directory: Option<PathBuf>,
    /// The names that are not yet spilled.
    names: Vec<Vec<u8>>,
    aside: Option<Aside>,
    /// Where each spilled run ends.
    ends: Vec<u64>,
}

/// Sorted names without duplicates.
pub struct Names {
    from: Source,
    next: Option<Vec<u8>>,
    /// The names that were added to spilled runs, sorted. The runs may contain them, too.
    added: Vec<Vec<u8>>,
    /// The number of names that were listed twice.
    twice: usize,
}

enum Source {
    Memory(IntoIter<Vec<u8>>),
    Runs { aside: Aside, runs: Vec<Run>, first: BinaryHeap<Reverse<(Vec<u8>, usize)>> },
}

/// A spilled run of names, each after its length in two bytes.
struct Run {
    left: std::ops::Range<u64>,
    read: Vec<u8>,
    at: usize,
}

impl Gathered {
    /// Names that do not fit in memory are spilled to a file in `directory`.
    pub fn new(directory: Option<&Path>) -> Gathered {
        let (directory, names, ends) = (directory.map(Path::to_owned), Vec::new(), Vec::new());
        Gathered { directory, names, aside: None, ends }
    }

    /// Whether names have been spilled.
    pub fn is_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// The number of names in memory.
    pub fn in_memory(&self) -> usize {
        self.names.len()
    }

    /// Adds a name of at most 65,535 bytes.
    pub fn add(&mut self, name: &[u8]) -> io::Result<()> {
        self.names.push(name.to_vec());
        if self.names.len() == RUN { self.put_aside() } else { Ok(()) }
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let aside = self.aside.get_or_insert_with(|| Aside::new(self.directory.as_deref()));
        self.names.sort_unstable();
        let mut run = Vec::with_capacity(self.names.iter().map(|name| name.len() + 2).sum());
        for name in self.names.drain(..) {
            let length = u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
            run.extend_from_slice(&length.to_le_bytes());
            run.extend_from_slice(&name);
        }
        aside.write_all(&run)?;
        self.ends.push(aside.len());
        Ok(())
    }

    /// Sorts all names, and those of `more` that are not among them.
    pub fn sorted<'n>(mut self, more: impl Iterator<Item = &'n Vec<u8>>) -> io::Result<Names> {
        let mut added: Vec<Vec<u8>> = more.cloned().collect();
        added.sort_unstable();
        if self.aside.is_none() {
            self.names.sort_unstable();
            added.retain(|name| self.names.binary_search(name).is_err());
            self.names.append(&mut added);
            return Ok(Names::new(self.names));
        }
        self.names.extend_from_slice(&added);
        self.put_aside()?;
        let Gathered { aside, ends, .. } = self;
        let mut start = 0;
        let run = |end| Run { left: std::mem::replace(&mut start, end)..end, read: Vec::new(), at: 0 };
        let mut runs: Vec<Run> = ends.into_iter().map(run).collect();
        let aside = aside.expect("runs were spilled");
        let mut first = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            first.extend(run.next(&aside)?.map(|name| Reverse((name, number))));
        }
        let from = Source::Runs { aside, runs, first };
        let mut names = Names { from, next: None, added, twice: 0 };
        names.next = names.from.next()?;
        Ok(names)
    }
}

impl Names {
    /// Names that are all in memory, in any order.
    pub fn new(mut names: Vec<Vec<u8>>) -> Names {
        names.sort_unstable();
        let mut names = names.into_iter();
        let next = names.next();
        Names { from: Source::Memory(names), next, added: Vec::new(), twice: 0 }
    }

    /// The next names, at most `count`.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(name) = self.next.take()
        {
            let mut again = 0;
            loop {
                self.next = self.from.next()?;
                if self.next.as_ref() != Some(&name) {
                    break;
                }
                again += 1;
            }
            if again > 0 {
                self.twice += again - usize::from(self.added.binary_search(&name).is_ok());
            }
            taken.push(name);
        }
        Ok(taken)
    }

    /// Whether all have been taken.
    pub fn is_empty(&self) -> bool {
        self.next.is_none()
    }

    /// The number of names that were listed twice, since the last call.
    pub fn twice(&mut self) -> usize {
        std::mem::take(&mut self.twice)
    }
}

impl Source {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Source::Memory(names) => Ok(names.next()),
            Source::Runs { aside, runs, first } => {
                let Some(Reverse((name, number))) = first.pop() else { return Ok(None) };
                first.extend(runs[number].next(aside)?.map(|name| Reverse((name, number))));
                Ok(Some(name))
            }
        }
    }
}

impl Run {
    fn next(&mut self, aside: &Aside) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.bytes(aside, 2)? else { return Ok(None) };
        let length = u16::from_le_bytes([length[0], length[1]]);
        let name = self.bytes(aside, length.into())?;
        Ok(Some(name.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec()))
    }

    /// The next bytes; `None` at the end.
    fn bytes(&mut self, aside: &Aside, count: usize) -> io::Result<Option<&[u8]>> {
        let has = self.read.len() - self.at;
        if has < count {
            self.read.drain(..self.at);
            self.at = 0;
            let more = (self.left.end - self.left.start).min((count - has).max(READ) as u64);
            self.read.resize(has + usize::try_from(more).expect("a few kilobytes"), 0);
            aside.read_exact_at(self.left.start, &mut self.read[has..])?;
            self.left.start += more;
        }
        let at = self.at;
        self.at = (at + count).min(self.read.len());
        Ok(self.read.get(at..at + count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Vec<u8> {
        // The names are in no order and have different lengths.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{mixed:x}{}", "x".repeat(number % 250)).into_bytes()
    }

    #[test]
    fn names_are_sorted_and_unique_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 100, RUN - 1, RUN, RUN + 1, 3 * RUN + 5] {
            let mut gathered = Gathered::new(Some(dir.path()));
            (0..count).for_each(|number| gathered.add(&name(number)).unwrap());
            // Network file systems list some names twice.
            (0..count.min(3)).for_each(|number| gathered.add(&name(number)).unwrap());
            assert!(gathered.in_memory() < RUN);
            // One of these names is listed, too; the other is not.
            let named = [name(5), b"named".to_vec()];
            let mut names = gathered.sorted(named.iter()).unwrap();
            let mut expected: Vec<Vec<u8>> = (0..count).map(name).chain(named.iter().cloned()).collect();
            expected.sort_unstable();
            expected.dedup();
            let mut found = Vec::new();
            while !names.is_empty() {
                let part = names.take(1000).unwrap();
                assert!(part.len() == 1000 || names.is_empty());
                found.extend(part);
            }
            assert!(found == expected, "{count}");
            assert_eq!(names.twice(), count.min(3));
        }
    }
}
