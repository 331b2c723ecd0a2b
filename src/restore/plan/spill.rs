//! Holds the files of a plan in tables of bounded size: one in memory, or several that are spilled
//! to disk and read back one at a time.
//!
//! A file whose uses exceed a table is split: several tables have a part of it.

use super::memory::PlanBudget;
use super::name::{Name, count};
use super::table::{File, PER_USE, Table};
use crate::aside::Aside;
use crate::repo;
use crate::restore::error::{Error, Result};
use std::io::{self, BufReader, BufWriter};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The spilled data, in messages.
const WHAT: &str = "the plan of the restore";

/// All tables.
pub enum Tables {
    One(Table),
    Several(Spilled),
}

pub struct Spilled {
    aside: Aside,
    /// The number of each table's first file, and the offset of the table in the spill file.
    places: Vec<(u32, u64)>,
    /// Held by [`Tables::each_file`], so that only one table is in memory besides that of the
    /// current stage.
    reading: Mutex<()>,
}

/// A table in memory.
pub enum LoadedTable<'t> {
    Kept(&'t Table),
    Read(Table),
}

impl Deref for LoadedTable<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        match self {
            LoadedTable::Kept(table) => table,
            LoadedTable::Read(table) => table,
        }
    }
}

impl Default for Tables {
    fn default() -> Tables {
        Tables::One(Table::default())
    }
}

impl Tables {
    pub fn len(&self) -> usize {
        match self {
            Tables::One(_) => 1,
            Tables::Several(spilled) => spilled.places.len(),
        }
    }

    pub fn get(&self, at: usize) -> Result<LoadedTable<'_>> {
        Ok(match self {
            Tables::One(table) => LoadedTable::Kept(table),
            Tables::Several(spilled) => LoadedTable::Read(spilled.read(at)?),
        })
    }

    /// Calls `each` with the number and name of each file of a directory; `first` is the number of
    /// the first of them.
    pub fn each_file(&self, dir: u32, first: u32, mut each: impl FnMut(u32, &[u8])) -> Result<()> {
        let (from, _reading) = match self {
            Tables::One(_) => (0, None),
            Tables::Several(spilled) => (
                // If the file is split, the first table with a part has its beginning.
                spilled.places.partition_point(|(number, _)| *number < first).saturating_sub(1),
                Some(spilled.reading.lock().unwrap_or_else(PoisonError::into_inner)),
            ),
        };
        for at in from..self.len() {
            let table = self.get(at)?;
            for (place, file) in (0..).zip(&table.files) {
                if table.number(place) < first || !file.part.begins() {
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

impl Spilled {
    fn read(&self, at: usize) -> Result<Table> {
        let mut from = BufReader::with_capacity(1 << 16, self.aside.reader_from(self.places[at].1));
        Ok(Table::read(&mut from).map_err(|error| repo::Error::aside_lost(WHAT, error))?)
    }
}

/// Fills tables, one after the other.
pub struct TableWriter {
    pub table: Table,
    directory: Option<PathBuf>,
    /// Maximum size of a table in memory, in bytes.
    max: u64,
    several: Option<Written>,
    /// Bytes that were spilled.
    written: u64,
}

/// The spill file, and the places of its tables as in [`Spilled`].
type Written = (BufWriter<Aside>, Vec<(u32, u64)>);

impl TableWriter {
    /// Limits tables to the size in the budget, if it has a directory to spill them to.
    pub fn new(budget: PlanBudget<'_>) -> TableWriter {
        let max = if budget.spill.is_some() { budget.table } else { u64::MAX };
        TableWriter {
            table: Table::default(),
            directory: budget.spill.map(ToOwned::to_owned),
            max,
            several: None,
            written: 0,
        }
    }

    /// The number of the next file.
    pub fn next_number(&self) -> u32 {
        self.table.number(count(self.table.files.len()))
    }

    /// Adds a file or a part of one, to which the uses belong that were added since the last call.
    pub fn add(&mut self, path: &[u8], file: File) {
        let name = Name::keep(&mut self.table.names, path);
        self.table.files.push(File { name, ..file });
    }

    /// Whether to begin another table.
    pub fn is_full(&self) -> bool {
        self.table.memory() >= self.max
    }

    /// Whether this number of uses exceeds one table.
    pub fn is_more_than_one(&self, uses: usize) -> bool {
        (uses * PER_USE) as u64 > self.max
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.written + self.table.memory()
    }

    /// Spills the current table and begins another, whose first file has this number.
    pub fn turn(&mut self, first: u32) -> Result<()> {
        self.spill()?;
        let Table { names, files, uses, .. } = &mut self.table;
        names.clear();
        files.clear();
        uses.clear();
        self.table.first = first;
        Ok(())
    }

    pub fn finish(mut self) -> Result<Tables> {
        if self.several.is_none() {
            let Table { names, files, uses, .. } = &mut self.table;
            names.shrink_to_fit();
            files.shrink_to_fit();
            uses.shrink_to_fit();
            return Ok(Tables::One(self.table));
        }
        self.spill()?;
        let (out, places) = self.several.take().expect("just seen");
        let aside = out.into_inner().map_err(|error| self.refused(error.into_error()))?;
        Ok(Tables::Several(Spilled { aside, places, reading: Mutex::default() }))
    }

    fn spill(&mut self) -> Result<()> {
        let TableWriter { table, directory, several, written, .. } = self;
        let (out, places) = several
            .get_or_insert_with(|| (BufWriter::with_capacity(1 << 16, Aside::new(directory.as_deref())), Vec::new()));
        let before = out.get_ref().len() + out.buffer().len() as u64;
        places.push((table.first, before));
        let outcome = table.write(out);
        *written = out.get_ref().len() + out.buffer().len() as u64;
        outcome.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: io::Error) -> Error {
        repo::Error::aside(WHAT, self.directory.as_deref(), error).into()
    }
}
