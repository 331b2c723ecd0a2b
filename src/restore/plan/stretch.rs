//! The files in tables of bounded size: one in memory, or several that are put aside until their turn.
//!
//! A file with more uses than a table takes is in several of them, one part after the other.

use super::{File, Name, Plan, STATES, Use, count};
use crate::aside::Aside;
use crate::repo;
use crate::restore::error::Result;
use crate::restore::meta::Access;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What is put aside, in messages.
const WHAT: &str = "the plan of the restore";

/// Neighbouring files, and the places that their blobs go to.
#[derive(Default)]
pub struct Table {
    /// The number of the first file.
    first: u32,
    names: Vec<u8>,
    pub files: Vec<File>,
    /// By file and offset.
    pub uses: Vec<Use>,
    /// By use: the file had this piece already. Not set if nothing was compared.
    pub present: OnceLock<Vec<AtomicBool>>,
}

/// Bytes that a use takes while its blob is fetched: itself, its place in the order of fetching, and
/// whether it is there.
const PER_USE: usize = size_of::<Use>() + 13;

impl Table {
    pub fn memory(&self) -> u64 {
        (self.names.len() + self.files.len() * size_of::<File>() + self.uses.len() * PER_USE) as u64
    }

    /// The number of a file by its place here.
    pub fn number(&self, place: u32) -> u32 {
        self.first + place
    }

    /// The last component of a file's path.
    pub fn file_name(&self, place: u32) -> &[u8] {
        self.files[place as usize].name.of(&self.names)
    }

    /// The numbers of a file's uses.
    pub fn uses_of(&self, place: u32) -> Range<usize> {
        let first = self.uses.partition_point(|needed| needed.file < place);
        first..self.uses.partition_point(|needed| needed.file <= place)
    }

    /// Whether a use need not be fetched.
    pub fn is_present(&self, number: usize) -> bool {
        self.present.get().is_some_and(|present| present[number].load(Ordering::Relaxed))
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for length in [self.first, count(self.names.len()), count(self.files.len()), count(self.uses.len())] {
            out.write_all(&length.to_le_bytes())?;
        }
        out.write_all(&self.names)?;
        for File { dir, name, size, mtime: (seconds, nanos), access, begins, ends, left, state, .. } in &self.files {
            for number in [*dir, name.start, *nanos, left.load(Ordering::Relaxed)] {
                out.write_all(&number.to_le_bytes())?;
            }
            out.write_all(&size.to_le_bytes())?;
            out.write_all(&seconds.to_le_bytes())?;
            out.write_all(&name.length.to_le_bytes())?;
            out.write_all(&access.to_le_bytes())?;
            out.write_all(&[u8::from(*begins), u8::from(*ends), state.load(Ordering::Relaxed)])?;
        }
        for Use { blob, file, offset } in &self.uses {
            out.write_all(&blob.to_le_bytes())?;
            out.write_all(&file.to_le_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
        }
        Ok(())
    }

    fn read(from: &mut impl Read) -> io::Result<Table> {
        let [first, names, files, uses] = numbers(from)?;
        let mut table = Table {
            first,
            names: vec![0; names as usize],
            files: Vec::with_capacity(files as usize),
            uses: Vec::with_capacity(uses as usize),
            present: OnceLock::new(),
        };
        from.read_exact(&mut table.names)?;
        for _ in 0..files {
            let [dir, start, nanos, left] = numbers(from)?;
            let (size, seconds) = (u64::from_le_bytes(bytes(from)?), i64::from_le_bytes(bytes(from)?));
            let (length, access) = (u16::from_le_bytes(bytes(from)?), u16::from_le_bytes(bytes(from)?));
            let [begins, ends, state] = bytes(from)?;
            let (name, left) = (Name { start, length }, AtomicU32::new(left));
            let (begins, ends) = (begins != 0, ends != 0);
            let state = *STATES.get(usize::from(state)).ok_or(io::ErrorKind::InvalidData)?;
            table.files.push(File {
                name,
                left,
                begins,
                ends,
                ..File::new(dir, size, (seconds, nanos), access, state)
            });
        }
        for _ in 0..uses {
            let [blob, file] = numbers(from)?;
            table.uses.push(Use { blob, file, offset: u64::from_le_bytes(bytes(from)?) });
        }
        Ok(table)
    }
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn numbers<const N: usize>(from: &mut impl Read) -> io::Result<[u32; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = u32::from_le_bytes(bytes(from)?);
    }
    Ok(numbers)
}

/// A table whose turn it is, and the plan that it belongs to.
pub struct Stretch<'p> {
    pub plan: &'p Plan,
    table: Held<'p>,
}

pub(super) enum Held<'p> {
    Kept(&'p Table),
    Read(Table),
}

impl Deref for Stretch<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.table.table()
    }
}

impl Held<'_> {
    fn table(&self) -> &Table {
        match self {
            Held::Kept(table) => table,
            Held::Read(table) => table,
        }
    }
}

impl<'p> Stretch<'p> {
    pub(super) fn new(plan: &'p Plan, table: Held<'p>) -> Stretch<'p> {
        Stretch { plan, table }
    }

    /// The path of a file, relative to the target.
    pub fn file_path(&self, place: u32) -> Vec<u8> {
        self.plan.path_in(self.files[place as usize].dir, self.file_name(place))
    }

    /// A file's owner and mode, if they and the time are all metadata that it has.
    pub fn access(&self, place: u32) -> Option<Access> {
        self.plan.accesses.get(usize::from(self.files[place as usize].access)).copied()
    }
}

/// All tables.
pub(super) enum Stretches {
    One(Table),
    Several(Several),
}

pub(super) struct Several {
    aside: Aside,
    /// The number of each table's first file, and where it begins.
    places: Vec<(u32, u64)>,
    /// Held by who reads tables beside the restore's own course, so that memory has one of them.
    reading: Mutex<()>,
}

impl Default for Stretches {
    fn default() -> Stretches {
        Stretches::One(Table::default())
    }
}

impl Stretches {
    pub fn len(&self) -> usize {
        match self {
            Stretches::One(_) => 1,
            Stretches::Several(several) => several.places.len(),
        }
    }

    pub fn get(&self, at: usize) -> Result<Held<'_>> {
        Ok(match self {
            Stretches::One(table) => Held::Kept(table),
            Stretches::Several(several) => Held::Read(several.read(at)?),
        })
    }

    /// See [`Plan::each_file`].
    pub fn each_file(&self, dir: u32, first: u32, mut each: impl FnMut(u32, &[u8])) -> Result<()> {
        let (from, _reading) = match self {
            Stretches::One(_) => (0, None),
            Stretches::Several(several) => (
                // Of several tables with parts of the file, the first has its beginning.
                several.places.partition_point(|(number, _)| *number < first).saturating_sub(1),
                Some(several.reading.lock().unwrap_or_else(PoisonError::into_inner)),
            ),
        };
        for at in from..self.len() {
            let held = self.get(at)?;
            let table = held.table();
            for (place, file) in (0..).zip(&table.files) {
                if table.number(place) < first || !file.begins {
                    continue;
                }
                if file.dir != dir {
                    return Ok(());
                }
                each(table.number(place), table.file_name(place));
            }
        }
        Ok(())
    }
}

impl Several {
    fn read(&self, at: usize) -> Result<Table> {
        let mut from = BufReader::with_capacity(1 << 16, self.aside.reader_from(self.places[at].1));
        Ok(Table::read(&mut from).map_err(|error| repo::Error::aside_lost(WHAT, error))?)
    }
}

/// Tables that were put aside, and their places as in [`Several`].
type Written = (BufWriter<Aside>, Vec<(u32, u64)>);

/// Tables that are being filled.
pub(super) struct Filling {
    pub table: Table,
    directory: Option<PathBuf>,
    /// Bytes of a table in memory.
    max: u64,
    several: Option<Written>,
    /// Bytes that were put aside.
    written: u64,
}

impl Filling {
    /// Tables of about `max` bytes, if there is a directory to put them aside in.
    pub fn new(directory: Option<&Path>, max: u64) -> Filling {
        let max = if directory.is_some() { max } else { u64::MAX };
        let directory = directory.map(Path::to_owned);
        Filling { table: Table::default(), directory, max, several: None, written: 0 }
    }

    /// The number of the next file.
    pub fn next_number(&self) -> u32 {
        self.table.number(count(self.table.files.len()))
    }

    /// Adds a file, or the part of one whose uses are those behind the last file's.
    pub fn add(&mut self, path: &[u8], file: File) {
        let name = Name::keep(&mut self.table.names, path);
        let left = count(self.table.uses_of(count(self.table.files.len())).len());
        self.table.files.push(File { name, left: left.into(), ..file });
    }

    /// Whether another table should begin.
    pub fn is_full(&self) -> bool {
        self.table.memory() >= self.max
    }

    /// Whether so many uses belong into several tables.
    pub fn is_more_than_one(&self, uses: usize) -> bool {
        (uses * PER_USE) as u64 > self.max
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.written + self.table.memory()
    }

    /// Begins another table, whose first file has this number.
    pub fn turn(&mut self, first: u32) -> Result<()> {
        self.put_aside()?;
        let Table { names, files, uses, .. } = &mut self.table;
        names.clear();
        files.clear();
        uses.clear();
        self.table.first = first;
        Ok(())
    }

    pub fn finish(mut self) -> Result<Stretches> {
        if self.several.is_none() {
            let Table { names, files, uses, .. } = &mut self.table;
            names.shrink_to_fit();
            files.shrink_to_fit();
            uses.shrink_to_fit();
            return Ok(Stretches::One(self.table));
        }
        self.put_aside()?;
        let (out, places) = self.several.take().expect("just seen");
        let aside = out.into_inner().map_err(|error| self.refused(error.into_error()))?;
        Ok(Stretches::Several(Several { aside, places, reading: Mutex::default() }))
    }

    fn put_aside(&mut self) -> Result<()> {
        let Filling { table, directory, several, written, .. } = self;
        let (out, places) = several
            .get_or_insert_with(|| (BufWriter::with_capacity(1 << 16, Aside::new(directory.as_deref())), Vec::new()));
        let before = out.get_ref().len() + out.buffer().len() as u64;
        places.push((table.first, before));
        let outcome = table.write(out);
        *written = out.get_ref().len() + out.buffer().len() as u64;
        outcome.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: io::Error) -> crate::restore::Error {
        repo::Error::aside(WHAT, self.directory.as_deref(), error).into()
    }
}
