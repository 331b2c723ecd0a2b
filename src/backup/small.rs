//! Stage 3 for small files: each is read as a whole by the walker that found it.
//!
//! Reading a small file takes a few operations and little else, so on a volume with latency many of
//! them are in flight ([`crate::concurrency`]). The content passes through a buffer, because a slab
//! for each walker would take most of the memory, and is gathered with other files in one slab.

use super::file::{FileWork, OpenFile};
use super::fill::{Filling, Pending};
use super::reach::Place;
use super::run::Run;
use super::slab::SlabPool;
use crate::chunk::MIN_SIZE;
use crate::concurrency::Limit;
use crate::room::Room;
use rustix::fd::OwnedFd;
use rustix::io::retry_on_intr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Whether a file of this size is a single chunk, whatever its content.
pub fn is_small(size: u64) -> bool {
    size < MIN_SIZE as u64
}

/// The capacity that a buffer keeps for the next file.
const KEPT: usize = 32 << 10;
/// The number of bytes to read from a file whose size is 0, in case it has content.
const PROBE: usize = 512;

/// Gathers the content of small files in a slab.
pub struct Gatherer<'s, 'c> {
    slabs: &'s SlabPool,
    filling: Mutex<Filling<'s, 'c>>,
    /// The budget for bytes in buffers.
    room: Room,
    /// The number of walkers that may add files.
    active: AtomicUsize,
}

/// A walker that may add files. Without such a walker, the gatherer holds no slab.
pub struct Gathering<'g, 's, 'c> {
    gatherer: &'g Gatherer<'s, 'c>,
    buffer: Vec<u8>,
}

impl<'s, 'c> Gatherer<'s, 'c> {
    /// A gatherer for walkers that hold at most `bytes` bytes in buffers.
    pub fn new(run: &'s Run<'s>, cpu: &'c rayon::Scope<'s>, bytes: u64) -> Gatherer<'s, 'c> {
        let filling = Mutex::new(Filling::new(run, cpu));
        Gatherer { slabs: &run.slabs, filling, room: Room::new(bytes), active: AtomicUsize::new(0) }
    }

    pub fn begin(&self) -> Gathering<'_, 's, 'c> {
        self.active.fetch_add(1, Ordering::SeqCst);
        Gathering { gatherer: self, buffer: Vec::new() }
    }

    /// Records that a walker adds no files for now. The last such walker passes the slab on,
    /// because readers may need it.
    fn pause(&self) {
        if self.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.filling().turn();
        }
    }

    /// Passes the slab on if a reader waits for one and no job will free one. If a walker is adding
    /// a file, that walker does it.
    fn relieve(&self) {
        if !self.slabs.is_short() {
            return;
        }
        let mut filling = match self.filling.try_lock() {
            Ok(filling) => filling,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if filling.is_waited_for() {
            filling.turn();
        }
    }

    fn filling(&self) -> MutexGuard<'_, Filling<'s, 'c>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gathering<'_, '_, '_> {
    fn drop(&mut self) {
        self.gatherer.pause();
    }
}

impl Gathering<'_, '_, '_> {
    /// Waits for something other than small files, during which this walker adds none.
    pub fn paused<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.gatherer.pause();
        let outcome = wait();
        self.gatherer.active.fetch_add(1, Ordering::SeqCst);
        outcome
    }

    /// Passes the slab on if a reader waits for it. A walker calls this often while it does other
    /// work than reading small files.
    pub fn relieve(&self) {
        self.gatherer.relieve();
    }

    /// Reads a file, which is left out if that fails. Returns the file if it turns out not to be
    /// small: it has grown, or it has content but a size of 0.
    pub fn read(&mut self, run: &Run<'_>, limit: &Limit, place: &Place<'_>, mut work: FileWork) -> Option<FileWork> {
        let held = self.gatherer.room.take(work.node.size);
        self.buffer.clear();
        match self.read_content(run, limit, place, &mut work) {
            Ok(true) => self.gather(run, work),
            Ok(false) => return Some(work),
            Err(why) => work.lose(run, why),
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        drop(held);
        None
    }

    /// Reads a file into the buffer; `false` if it turns out not to be small.
    fn read_content(
        &mut self,
        run: &Run<'_>,
        limit: &Limit,
        place: &Place<'_>,
        work: &mut FileWork,
    ) -> Result<bool, String> {
        let expected = work.node.size;
        let OpenFile { fd, stat, warnings } = {
            let _flight = limit.begin();
            work.open(run, place)?
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size > expected {
            return Ok(false);
        }
        let size = usize::try_from(size).expect("less than a chunk");
        // Read no more than its size: the size shows whether the file has grown.
        self.buffer.reserve_exact(size.max(PROBE));
        while self.buffer.len() < size.max(1) {
            let _flight = limit.begin();
            if self.read_once(&fd, size).map_err(|error| format!("it cannot be read: {error}"))? == 0 {
                break;
            }
        }
        if size == 0 && !self.buffer.is_empty() {
            return Ok(false);
        }
        work.report(run, warnings);
        let _flight = limit.begin();
        work.compare(run, &fd, &stat, self.buffer.len() as u64);
        // Closing may be an operation on the volume, too.
        drop(fd);
        Ok(true)
    }

    /// Reads once, so that the buffer has at most `size` bytes. If `size` is 0, checks for content.
    fn read_once(&mut self, fd: &OwnedFd, size: usize) -> rustix::io::Result<usize> {
        let before = self.buffer.len();
        self.buffer.resize(if size == 0 { PROBE } else { size }, 0);
        let got = retry_on_intr(|| rustix::io::read(fd, &mut self.buffer[before..]));
        self.buffer.truncate(before + got.unwrap_or(0));
        got
    }

    /// Adds the content of the buffer to the slab.
    fn gather(&mut self, run: &Run<'_>, work: FileWork) {
        let size = self.buffer.len();
        let file = Pending::new(work);
        if size > 0 {
            let mut filling = self.gatherer.filling();
            filling.make_room(size);
            filling.begin_file();
            filling.bytes_mut().extend_from_slice(&self.buffer);
            filling.add_chunk(&file, 0, size);
            if filling.has_enough_chunks() || filling.is_waited_for() {
                filling.turn();
            }
        }
        file.is_read(run, size as u64);
    }
}
