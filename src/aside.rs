//! Spill files: bytes that are kept in memory, or in a temporary file if they exceed 2 MiB.
//!
//! The file has no name, so that the kernel deletes it when the process ends in any way.

use rustix::fs::{Advice, fadvise};
use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Largest number of bytes in memory: the size of a tree that is read as a whole.
const IN_MEMORY: usize = 2 << 20;

/// Bytes after which the kernel is asked to write dirty pages of a temporary file back. By default
/// it waits until a large share of the machine's memory is dirty. A container reaches its limit
/// before, and is killed, because dirty pages cannot be reclaimed.
const WRITTEN_BACK: u64 = 4 << 20;

/// A temporary file without a name, to which bytes are appended.
pub struct TempFile {
    file: File,
    length: u64,
    /// The offset up to which the kernel was asked to write the file back.
    asked: u64,
}

impl TempFile {
    pub fn new(directory: &Path) -> io::Result<TempFile> {
        Ok(TempFile { file: tempfile::tempfile_in(directory)?, length: 0, asked: 0 })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        // At this offset, the bytes of an earlier failed write are overwritten.
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        let more = self.length - self.asked;
        if more >= WRITTEN_BACK {
            // The kernel starts the write-back and drops only clean pages; an error changes only
            // the timing.
            let _ = fadvise(&self.file, self.asked, NonZeroU64::new(more), Advice::DontNeed);
            self.asked = self.length;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A spill file: bytes that are appended and read again.
pub struct Aside {
    directory: Option<PathBuf>,
    memory: Vec<u8>,
    /// All bytes, after they have exceeded the memory.
    file: Option<TempFile>,
    length: u64,
}

impl Aside {
    /// A spill file in `directory`. Without a directory, more bytes than fit into memory are an
    /// error.
    pub fn new(directory: Option<&Path>) -> Aside {
        Aside { directory: directory.map(Path::to_owned), memory: Vec::new(), file: None, length: 0 }
    }

    /// The directory of the file.
    #[cfg(feature = "mount")]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number of bytes in memory; for a file, the largest number in memory.
    #[cfg(feature = "mount")]
    pub fn weight(&self) -> usize {
        if self.file.is_some() { IN_MEMORY } else { self.memory.len() }
    }

    /// Fills `out` with the bytes from `offset`.
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            match self.read_at(offset + filled as u64, &mut out[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => filled += got,
            }
        }
        Ok(())
    }

    /// Reads bytes from `offset` until `out` is full or the bytes end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        match &self.file {
            Some(temp) => temp.file.read_at(out, offset),
            None => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.memory.len());
                (&self.memory[from..]).read(out)
            }
        }
    }

    /// Reads the bytes from their beginning.
    pub fn reader(&self) -> Reader<&Aside> {
        Reader { aside: self, at: 0 }
    }

    /// Reads the bytes from `offset`.
    pub fn reader_from(&self, offset: u64) -> Reader<&Aside> {
        Reader { aside: self, at: offset }
    }

    pub fn into_reader(self) -> Reader<Aside> {
        Reader { aside: self, at: 0 }
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            let directory =
                self.directory.as_deref().ok_or_else(|| io::Error::other("no directory for spill files is set"))?;
            let mut file = TempFile::new(directory)?;
            file.write_all(&self.memory)?;
            (self.file, self.memory) = (Some(file), Vec::new());
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a spill file from front to back.
pub struct Reader<A> {
    aside: A,
    at: u64,
}

impl<A: Borrow<Aside>> Read for Reader<A> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.aside.borrow().read_at(self.at, out)?;
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_bytes_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 3, 30] {
            let mut aside = Aside::new(Some(dir.path()));
            let part = |number: usize| vec![number as u8; 100_003];
            (0..count).for_each(|number| aside.write_all(&part(number)).unwrap());
            assert_eq!(aside.len(), count as u64 * 100_003);
            assert_eq!(aside.file.is_some(), count == 30);
            let mut bytes = vec![0; 10];
            let got = aside.read_at(100_000, &mut bytes).unwrap();
            assert!(bytes[..got] == (0..count).flat_map(part).skip(100_000).take(10).collect::<Vec<_>>());
            let mut all = Vec::new();
            aside.reader().read_to_end(&mut all).unwrap();
            assert!(all == (0..count).flat_map(part).collect::<Vec<_>>());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no file has a name");
    }

    #[test]
    fn without_a_directory_only_bytes_that_fit_into_memory_are_taken() {
        let mut aside = Aside::new(None);
        aside.write_all(&vec![0; IN_MEMORY]).unwrap();
        aside.write_all(&[0]).unwrap_err();
        assert_eq!(aside.len(), IN_MEMORY as u64);
    }
}
