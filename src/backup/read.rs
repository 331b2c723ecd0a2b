//! Stage 3: large files and streams are read into slabs and cut into chunks.
//!
//! A reader fills slabs with one file after the other, and notes where the chunks end (see
//! [`super::fill`]). Holes are not read, because the chunks inside a hole are known beforehand (see
//! [`crate::chunk::ZERO_CHUNK`]). The walkers read small files ([`super::small`]).

use super::file::{FileWork, Opened};
use super::fill::{Filling, Pending};
use super::run::Run;
use crate::chunk::{Cutter, EndOfFile, MIN_SIZE, ZERO_CHUNK, is_zero_chunk};
use crate::id::Id;
use crossbeam_channel::{Receiver, TryRecvError};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A reader that waits for a stream checks at this interval (200 ms) whether the run is stopped.
const STREAM_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One reader with the slab it is filling.
pub struct Reader<'s, 'c> {
    run: &'s Run<'s>,
    filling: Filling<'s, 'c>,
    cutter: Cutter,
}

/// The file that is being read: its chunks so far and its size.
struct Current {
    file: Arc<Pending>,
    chunks: usize,
    size: u64,
}

impl<'s, 'c> Reader<'s, 'c> {
    pub fn new(run: &'s Run<'s>, filling: Filling<'s, 'c>) -> Reader<'s, 'c> {
        Reader { run, filling, cutter: Cutter::new(run.scanner.clone()) }
    }

    /// Reads files until there are none left.
    pub fn read_all(&mut self, files: &Receiver<FileWork>) {
        loop {
            let work = match files.try_recv() {
                Ok(work) => work,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Complete chunks must not wait while there is nothing to read.
                    self.filling.turn();
                    match files.recv() {
                        Ok(work) => work,
                        Err(_) => break,
                    }
                }
            };
            if self.run.is_stopped() {
                return;
            }
            self.read_file(work);
            if self.filling.has_enough_chunks() {
                self.filling.turn();
            }
        }
        self.filling.turn();
    }

    /// Reads one file. If it cannot be read, it is left out; the backup continues unless all named
    /// entries are lost.
    fn read_file(&mut self, mut work: FileWork) {
        let run = self.run;
        let (fd, opened) = match work.open_input(run) {
            Ok(opened) => opened,
            Err(why) => return work.lose(run, why),
        };
        let mut current = Current { file: Pending::new(work), chunks: 0, size: 0 };
        self.cutter.reset();
        self.filling.begin_file();
        let outcome = self.read_content(&fd, &opened, &mut current);
        let Current { file, size, .. } = current;
        // A run that is stopped ends in the middle of files, which is not an error of the files.
        let outcome = outcome.map_err(|error| format!("it cannot be read: {error}")).and_then(|()| match opened {
            Opened::Device(has) if size != has && !run.is_stopped() => {
                Err(format!("it has {has} bytes, but only {size} could be read"))
            }
            Opened::Regular(_) | Opened::Device(_) | Opened::Stream => Ok(()),
        });
        if let Err(why) = outcome {
            self.filling.discard(&file);
            return file.work.lose(run, why);
        }
        if !run.is_stopped()
            && let Opened::Regular(before) = &opened
        {
            file.work.compare(run, &fd, before, size);
        }
        file.is_read(run, size);
    }

    fn read_content(&mut self, fd: &OwnedFd, opened: &Opened, current: &mut Current) -> rustix::io::Result<()> {
        let size = |stat: &Stat| u64::try_from(stat.st_size).unwrap_or(0);
        match opened {
            Opened::Stream => self.read_stream(fd, current)?,
            Opened::Device(_) => self.read_data(fd, None, current)?,
            Opened::Regular(stat) => match size(stat) {
                // The file may have content nevertheless, as in proc.
                0 => self.read_data(fd, None, current)?,
                size if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size => {
                    self.read_sparse(fd, size, current)?;
                }
                size => self.read_data(fd, Some(size), current)?,
            },
        }
        self.cut(current, EndOfFile::Reached);
        Ok(())
    }

    /// Reads a stream to its end, or until the run is stopped.
    fn read_stream(&mut self, fd: &OwnedFd, current: &mut Current) -> rustix::io::Result<()> {
        while !self.run.is_stopped() {
            let mut ready = [PollFd::new(fd, PollFlags::IN)];
            match poll(&mut ready, Some(&STREAM_PATIENCE)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let before = current.size;
            self.read_some(fd, u64::MAX, current)?;
            if current.size == before {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads to the end, or to `limit` bytes more.
    fn read_data(&mut self, fd: &OwnedFd, limit: Option<u64>, current: &mut Current) -> rustix::io::Result<()> {
        let mut left = limit.unwrap_or(u64::MAX);
        while left > 0 && !self.run.is_stopped() {
            match self.read_some(fd, left, current)? {
                0 => return Ok(()),
                got => left -= got,
            }
        }
        Ok(())
    }

    /// Reads once, at most `left` bytes. Returns the number of bytes read.
    fn read_some(&mut self, fd: &OwnedFd, left: u64, current: &mut Current) -> rustix::io::Result<u64> {
        self.filling.make_room(1);
        let room = self.filling.room();
        let bytes = self.filling.bytes_mut();
        let got = retry_on_intr(|| {
            if left >= room as u64 {
                return rustix::io::read(fd, spare_capacity(bytes));
            }
            // Read no more than requested: a hole may follow.
            let end = bytes.len();
            bytes.resize(end + usize::try_from(left).expect("less than the room"), 0);
            let got = rustix::io::read(fd, &mut bytes[end..]);
            bytes.truncate(end + got.unwrap_or(0));
            got
        })? as u64;
        current.size += got;
        self.cut(current, EndOfFile::Ahead);
        Ok(got)
    }

    /// Reads the ranges that the file system reports as data, and takes the rest for zeros.
    fn read_sparse(&mut self, fd: &OwnedFd, size: u64, current: &mut Current) -> rustix::io::Result<()> {
        let mut at = 0;
        while at < size && !self.run.is_stopped() {
            let data = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => size,
                Err(Errno::INVAL) => at,
                Err(error) => return Err(error),
            };
            self.skip_hole(data - at, current);
            if data == size {
                return Ok(());
            }
            let hole = match rustix::fs::seek(fd, SeekFrom::Hole(data)) {
                Ok(hole) => hole.min(size),
                Err(Errno::INVAL | Errno::NXIO) => size,
                Err(error) => return Err(error),
            };
            rustix::fs::seek(fd, SeekFrom::Start(data))?;
            let before = current.size;
            self.read_data(fd, Some(hole - data), current)?;
            if current.size - before < hole - data {
                return Ok(());
            }
            at = hole;
        }
        Ok(())
    }

    /// Adds a hole: zeros up to the next cut, then whole chunks of zeros without touching a byte,
    /// then the remaining zeros.
    fn skip_hole(&mut self, length: u64, current: &mut Current) {
        current.size += length;
        let mut left = length;
        while left > 0 && !self.run.is_stopped() {
            if self.filling.rest().is_empty() && left >= MIN_SIZE as u64 {
                let count = usize::try_from(left / MIN_SIZE as u64).expect("chunks can be counted");
                self.add_zero_chunks(count, current);
                left %= MIN_SIZE as u64;
                continue;
            }
            self.filling.make_room(1);
            let portion = left.min(self.filling.room().min(MIN_SIZE) as u64);
            let portion = usize::try_from(portion).expect("at most a slab");
            let bytes = self.filling.bytes_mut();
            bytes.resize(bytes.len() + portion, 0);
            left -= portion as u64;
            if let Some(length) = self.cutter.next_cut(self.filling.rest(), EndOfFile::Ahead) {
                self.add_chunk(length, current);
                // Zeros behind the cut belong to the hole again.
                left += self.filling.rest().len() as u64;
                self.filling.drop_rest();
            }
        }
    }

    fn add_zero_chunks(&mut self, count: usize, current: &mut Current) {
        let added = current.file.content().add_known(Id(ZERO_CHUNK), count, self.run.aside());
        self.run.check(added.map_err(|error| current.file.not_aside(self.run, error)));
        current.chunks += count;
        self.run.check(self.run.store_zero_chunk());
        self.run.progress.bytes_done.fetch_add((count * MIN_SIZE) as u64, Ordering::Relaxed);
    }

    /// Cuts the data that has been read into chunks.
    fn cut(&mut self, current: &mut Current, end: EndOfFile) {
        while let Some(length) = self.cutter.next_cut(self.filling.rest(), end) {
            self.add_chunk(length, current);
        }
    }

    fn add_chunk(&mut self, length: usize, current: &mut Current) {
        // A chunk of zeros needs neither hashing nor a job: its id is known.
        if is_zero_chunk(&self.filling.rest()[..length]) {
            self.filling.skip(length);
            return self.add_zero_chunks(1, current);
        }
        self.filling.add_chunk(&current.file, current.chunks, length);
        current.chunks += 1;
    }
}
