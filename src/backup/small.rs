//! Stage 3 for small files: each is read as a whole by the walker that found it.
//!
//! A small file is a few operations and no time else, so on a volume with latency many of them are
//! in flight ([`crate::concurrency`]). Its content passes through a buffer, because a slab that
//! each walker held would be most of the memory, and is gathered with others in one slab.

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

/// Whether a file of this size is one chunk, without being looked at.
pub fn is_small(size: u64) -> bool {
    size < MIN_SIZE as u64
}

/// Room that a buffer keeps for the next file.
const KEPT: usize = 32 << 10;
/// Bytes to ask for where a file's size says that there are none.
const PROBE: usize = 512;

/// What small files are read with and gathered in.
pub struct Gatherer<'s, 'c> {
    slabs: &'s SlabPool,
    filling: Mutex<Filling<'s, 'c>>,
    /// Bytes that may be in buffers.
    room: Room,
    /// Walkers that may add files.
    active: AtomicUsize,
}

/// A walker that may add files. Without one, the gatherer holds nothing back.
pub struct Gathering<'g, 's, 'c> {
    gatherer: &'g Gatherer<'s, 'c>,
    buffer: Vec<u8>,
}

impl<'s, 'c> Gatherer<'s, 'c> {
    /// Reads files of at most `bytes` bytes at the same time.
    pub fn new(run: &'s Run<'s>, cpu: &'c rayon::Scope<'s>, bytes: u64) -> Gatherer<'s, 'c> {
        let filling = Mutex::new(Filling::new(run, cpu));
        Gatherer { slabs: &run.slabs, filling, room: Room::new(bytes), active: AtomicUsize::new(0) }
    }

    pub fn begin(&self) -> Gathering<'_, 's, 'c> {
        self.active.fetch_add(1, Ordering::SeqCst);
        Gathering { gatherer: self, buffer: Vec::new() }
    }

    /// A walker adds nothing until further notice. Readers may need the slab meanwhile.
    fn pause(&self) {
        if self.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.filling().turn();
        }
    }

    /// Turns the slab over if a reader waits for one and no job will free one. A walker that is
    /// adding a file does it itself.
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
    /// Waits for something other than small files.
    pub fn paused<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.gatherer.pause();
        let outcome = wait();
        self.gatherer.active.fetch_add(1, Ordering::SeqCst);
        outcome
    }

    /// To be called often by a walker that does something other than small files: a reader may wait
    /// for the slab that they are gathered in.
    pub fn relieve(&self) {
        self.gatherer.relieve();
    }

    /// Reads a file, which is left out if that fails. Gives it back if it turns out not to be
    /// small: it has grown, or has content without a size.
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
        // Not more than it had: whether it has grown is seen by its size.
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
        // Closing may be an operation, too.
        drop(fd);
        Ok(true)
    }

    /// Reads up to `size` bytes in all into the buffer, or looks whether there is a byte.
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
