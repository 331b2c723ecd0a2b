//! A table of neighbouring files, and the offsets that their blobs are written to.

use super::memory::FILE_STATE;
use super::name::{Name, count};
use crate::format::BlobType;
use crate::repo::Index;
use crate::repo::index::Location;
use std::io::{self, Read, Write};
use std::ops::Range;

/// One place that a blob's plaintext is written to.
#[derive(Clone, Copy)]
pub struct Use {
    /// The blob's position in the index.
    pub blob: u32,
    /// The file's place in its table.
    pub file: u32,
    pub offset: u64,
}

impl Use {
    /// The location of its blob in the repository.
    pub fn location(&self, index: &Index) -> Location {
        index.at(BlobType::Data, self.blob as usize)
    }
}

/// A regular file with content of its own, or a part of a file that is split over several tables.
pub struct File {
    pub dir: u32,
    pub name: Name,
    /// Bytes of the whole file.
    pub size: u64,
    pub mtime: (i64, u32),
    /// The position of its owner and mode in the plan, if it has no other metadata than these and
    /// the time.
    pub access: u16,
    pub part: Part,
    /// The snapshot lists content for it, and all of that is in an index.
    pub is_usable: bool,
}

/// Which of a file's uses are in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    Whole,
    First,
    Middle,
    Last,
}

impl Part {
    /// Whether the first of its uses are in the table.
    pub fn begins(self) -> bool {
        matches!(self, Part::Whole | Part::First)
    }

    /// Whether the last of its uses are in the table.
    pub fn ends(self) -> bool {
        matches!(self, Part::Whole | Part::Last)
    }
}

const PARTS: [Part; 4] = [Part::Whole, Part::First, Part::Middle, Part::Last];

#[derive(Default)]
pub struct Table {
    /// The number of the first file.
    pub first: u32,
    pub names: Vec<u8>,
    pub files: Vec<File>,
    /// Sorted by file and offset.
    pub uses: Vec<Use>,
}

/// Bytes that a use takes while its blob is fetched: the use itself, its place in the order of
/// fetching, and whether it is already present.
pub const PER_USE: usize = size_of::<Use>() + 13;

impl Table {
    /// Bytes that the table takes in memory, with the states of its files.
    pub fn memory(&self) -> u64 {
        let per_file = size_of::<File>() + FILE_STATE;
        (self.names.len() + self.files.len() * per_file + self.uses.len() * PER_USE) as u64
    }

    /// The number in the plan of a file by its place in the table.
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

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for length in [self.first, count(self.names.len()), count(self.files.len()), count(self.uses.len())] {
            out.write_all(&length.to_le_bytes())?;
        }
        out.write_all(&self.names)?;
        for File { dir, name, size, mtime: (seconds, nanos), access, part, is_usable } in &self.files {
            for number in [*dir, name.start, *nanos] {
                out.write_all(&number.to_le_bytes())?;
            }
            out.write_all(&size.to_le_bytes())?;
            out.write_all(&seconds.to_le_bytes())?;
            out.write_all(&name.length.to_le_bytes())?;
            out.write_all(&access.to_le_bytes())?;
            out.write_all(&[*part as u8, u8::from(*is_usable)])?;
        }
        for Use { blob, file, offset } in &self.uses {
            out.write_all(&blob.to_le_bytes())?;
            out.write_all(&file.to_le_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
        }
        Ok(())
    }

    pub fn read(from: &mut impl Read) -> io::Result<Table> {
        let [first, names, files, uses] = numbers(from)?;
        let mut table = Table {
            first,
            names: vec![0; names as usize],
            files: Vec::with_capacity(files as usize),
            uses: Vec::with_capacity(uses as usize),
        };
        from.read_exact(&mut table.names)?;
        for _ in 0..files {
            let [dir, start, nanos] = numbers(from)?;
            let (size, seconds) = (u64::from_le_bytes(bytes(from)?), i64::from_le_bytes(bytes(from)?));
            let (length, access) = (u16::from_le_bytes(bytes(from)?), u16::from_le_bytes(bytes(from)?));
            let [part, is_usable] = bytes(from)?;
            let part = *PARTS.get(usize::from(part)).ok_or(io::ErrorKind::InvalidData)?;
            let (name, mtime, is_usable) = (Name { start, length }, (seconds, nanos), is_usable != 0);
            table.files.push(File { dir, name, size, mtime, access, part, is_usable });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let mut table = Table { first: 5, ..Table::default() };
        for (part, is_usable) in PARTS.into_iter().zip([true, true, false, true]) {
            let name = Name::keep(&mut table.names, b"dir/some name");
            let mtime = (-3, 999_999_999);
            table.files.push(File { dir: 2, name, size: u64::MAX, mtime, access: 4, part, is_usable });
        }
        table.uses.push(Use { blob: 1, file: 3, offset: 1 << 40 });
        let mut bytes = Vec::new();
        table.write(&mut bytes).unwrap();
        let read = Table::read(&mut &bytes[..]).unwrap();
        let mut again = Vec::new();
        read.write(&mut again).unwrap();
        assert_eq!(again, bytes);
        assert_eq!((read.number(3), read.file_name(3)), (8, &b"some name"[..]));
        assert_eq!(read.uses_of(3), 0..1);
        assert!(read.files[3].part.ends() && !read.files[3].part.begins());
    }
}
