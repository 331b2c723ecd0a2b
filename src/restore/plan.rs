//! The plan of a restore: compact tables of directories, files and the offsets of blobs. A complete
//! plan does not change.
//!
//! The first walk ([`planner`]) makes the plan, before anything is touched. Directories and files
//! are numbered in the order of the walk, and every offset that a blob is written to is one
//! [`Use`](table::Use) of 16 bytes. Of the metadata, a plan has the modification time, and the
//! owner and mode of plain files, which get them as soon as they are complete; all other properties
//! of an entry are read again from the trees when the restore is finished.
//!
//! Files and uses are in tables of bounded size ([`spill`]), which the stages up to the file
//! contents process one by one. The total size is bounded, too: planning fails for a snapshot that
//! would need more, or that repeats itself endlessly.

pub mod link;
pub mod memory;
mod name;
pub mod planner;
pub mod spill;
pub mod table;

use super::error::Result;
use super::meta::Access;
use crate::id::Id;
use link::Link;
use memory::{DIR_STATE, FILE_OUTCOME};
use name::Name;
use spill::{LoadedTable, Tables};
use std::collections::HashMap;
use std::ops::Deref;
use table::Table;

/// A directory below the target; number 0 is the target itself.
pub struct Dir {
    pub parent: u32,
    name: Name,
    pub mtime: (i64, u32),
    /// The numbers of the first directory and the first file that are not below it.
    pub dirs_end: u32,
    pub files_end: u32,
    /// It or an entry below it is selected. Other directories are not created.
    pub needed: bool,
    /// Its listing in the snapshot cannot be read, or not to its end.
    pub unreadable: bool,
    pub truncated: bool,
}

/// Bytes of a directory in memory, with its state and without its name.
const DIR_MEMORY: usize = size_of::<Dir>() + DIR_STATE;

/// The plan of one restore.
#[derive(Default)]
pub struct Plan {
    /// The names of directories, and the first names of hard links.
    names: Vec<u8>,
    pub dirs: Vec<Dir>,
    tables: Tables,
    /// The number of files.
    pub files: u32,
    /// The sizes of files whose nodes record a different size.
    sizes: HashMap<u32, u64>,
    /// Each owner and mode of plain files, once.
    accesses: Vec<Access>,
    /// By [`link::link_key`]: the first file of each group of hard links.
    pub links: HashMap<Id, Link>,
    /// Selected entries of all kinds, without the target itself; and the bytes of all files.
    pub entries: u64,
    pub bytes: u64,
    /// A directory has names that cannot be trusted, so nothing is deleted.
    pub doubtful: bool,
    /// Why the listing of the root is truncated.
    pub root_damage: Option<String>,
}

impl Plan {
    /// The path of a directory, relative to the target.
    pub fn dir_path(&self, number: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = number;
        while at != 0 {
            let dir = &self.dirs[at as usize];
            names.push(dir.name.of(&self.names));
            at = dir.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The last component of a directory's path, and of a hard link's.
    pub fn dir_name(&self, number: u32) -> &[u8] {
        self.dirs[number as usize].name.of(&self.names)
    }

    pub fn link_name(&self, link: &Link) -> &[u8] {
        link.name.of(&self.names)
    }

    /// The path of an entry of a directory, relative to the target.
    pub fn path_in(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        let mut path = self.dir_path(dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The numbers of the subdirectories of a directory.
    pub fn dirs_in(&self, number: u32) -> impl Iterator<Item = u32> {
        let end = self.dirs[number as usize].dirs_end;
        let next = move |&at: &u32| self.dirs.get(at as usize).map(|dir| dir.dirs_end);
        std::iter::successors(Some(number + 1), next).take_while(move |&at| at < end)
    }

    /// The number of tables that the files are in.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// The files of one table.
    pub fn table(&self, at: usize) -> Result<PlannedTable<'_>> {
        Ok(PlannedTable { plan: self, table: self.tables.get(at)? })
    }

    /// Calls `each` with the number and name of each file of a directory; `first` is the number of
    /// the first of them.
    pub fn each_file(&self, dir: u32, first: u32, each: impl FnMut(u32, &[u8])) -> Result<()> {
        self.tables.each_file(dir, first, each)
    }

    /// The bytes of a file's content; its node records `size`.
    pub fn size(&self, file: u32, size: u64) -> u64 {
        self.sizes.get(&file).copied().unwrap_or(size)
    }

    /// Bytes that the plan takes in memory throughout, with the states of its entries: all but the
    /// tables of files.
    pub fn memory(&self) -> u64 {
        let of = |count: usize, size: usize| (count * size) as u64;
        self.names.len() as u64
            + of(self.dirs.len(), DIR_MEMORY)
            + of(self.accesses.len(), size_of::<Access>())
            + of(self.links.len(), 2 * size_of::<(Id, Link)>())
            + of(self.sizes.len(), 2 * size_of::<(u32, u64)>())
            + u64::from(self.files) * FILE_OUTCOME as u64
    }

    /// Frees the unused capacity of the tables.
    fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.dirs.shrink_to_fit();
        self.accesses.shrink_to_fit();
    }
}

/// A table in memory, and the plan that it belongs to.
pub struct PlannedTable<'p> {
    pub plan: &'p Plan,
    table: LoadedTable<'p>,
}

impl Deref for PlannedTable<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl PlannedTable<'_> {
    /// The path of a file, relative to the target.
    pub fn file_path(&self, place: u32) -> Vec<u8> {
        self.plan.path_in(self.files[place as usize].dir, self.file_name(place))
    }

    /// A file's owner and mode, if it has no other metadata than these and the time.
    pub fn access(&self, place: u32) -> Option<Access> {
        self.plan.accesses.get(usize::from(self.files[place as usize].access)).copied()
    }
}
