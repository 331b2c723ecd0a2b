//! Stage 5: plaintext into files, each piece at its place, by any thread.
//!
//! A file is made at its first write, private until its metadata is applied. In a file that this run makes, blocks of zeros are left out
//! and stay holes; in one that had content before, they are written. A file that cannot be written is told once and its other
//! pieces are dropped; one that lacks a piece gets all others, but never counts as complete. A full disk ends the restore.
//!
//! A file is complete when it is closed without an error: network file systems report there what
//! did not reach their server. Several threads share one descriptor, and the last of them closes
//! it.

use super::close::close;
use super::confine::{Root, is};
use super::error::{Error, Result, is_lost};
use super::fetch::Sink;
use super::plan::{Plan, State, Use};
use super::prepare::ONE_NAME;
use super::walk::display;
use crate::limits;
use crate::progress::{Phase, Progress};
use crate::repo;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate};
use rustix::io::{Errno, pwrite};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// The granularity of holes: the block of most file systems.
const BLOCK: usize = 4096;

const SHARDS: usize = 16;

/// The files of a restore while their content arrives.
pub struct Files<'f> {
    plan: &'f Plan,
    root: &'f Root,
    progress: &'f Progress,
    /// Leave blocks of zeros out of new files.
    sparse: bool,
    open: [Mutex<Open>; SHARDS],
    unreached: OnceLock<String>,
}

/// Open files, the most recently used last.
type Open = Vec<Numbered>;

/// An open file and its number.
type Numbered = (u32, Arc<Handle>);

/// The kernel lets one writer into a file at a time, and the others spin for it; a lock lets them sleep.
type Handle = Mutex<OwnedFd>;

/// What was done to a file when a call failed, and how.
type Failure = (&'static str, Errno);

impl<'f> Files<'f> {
    pub fn new(plan: &'f Plan, root: &'f Root, sparse: bool, progress: &'f Progress) -> Files<'f> {
        Files { plan, root, progress, sparse, open: Default::default(), unreached: OnceLock::new() }
    }

    /// Makes the files that no blob will come for.
    pub fn make_empty(&self) -> Result<()> {
        for (number, file) in self.plan.files.iter().enumerate() {
            if file.left.load(Ordering::Relaxed) > 0 {
                continue;
            }
            let number = u32::try_from(number).expect("files are numbered so");
            match file.state() {
                State::Planned => match self.make(number) {
                    Ok(fd) => {
                        self.heed(number, close(fd).map_err(|errno| ("close", errno)))?;
                        self.complete(number)?;
                    }
                    Err(errno) => self.broken(number, "create", errno)?,
                },
                // It was too long, and has been cut.
                State::Correcting => self.complete(number)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn make(&self, number: u32) -> rustix::io::Result<OwnedFd> {
        let path = self.plan.file_path(number);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = &self.plan.files[number as usize];
        let open = || match self.root.open_beneath(&path, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::LOOP) => Err(Errno::EXIST),
            other => other,
        };
        let fd = match open() {
            // Only what was seen there is replaced: the rest is this run's, under a name that the
            // file system takes for this one.
            Err(Errno::EXIST) if file.occupied.load(Ordering::Relaxed) => {
                let (dir, name) = self.root.parent(&path)?;
                dir.clear(name)?;
                open()?
            }
            other => other?,
        };
        file.advance(State::Planned, State::Made);
        Ok(fd)
    }

    /// The open file, made if it is to be new; and the one that is not kept open because of it.
    fn handle(&self, number: u32) -> rustix::io::Result<(Arc<Handle>, Option<Numbered>)> {
        let file = &self.plan.files[number as usize];
        let mut open = self.shard(number);
        if let Some(at) = open.iter().position(|(other, _)| *other == number) {
            let found = open.remove(at);
            let fd = found.1.clone();
            open.push(found);
            return Ok((fd, None));
        }
        let fd = Arc::new(Mutex::new(if file.state() == State::Planned {
            let fd = self.make(number)?;
            ftruncate(&fd, file.size)?;
            fd
        } else {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            let fd = self.root.open_beneath(&self.plan.file_path(number), flags, Mode::empty())?;
            // Content goes into regular files only, whatever somebody has put in its place meanwhile.
            if is(&fstat(&fd)?, FileType::RegularFile) { fd } else { return Err(Errno::INVAL) }
        }));
        let evicted = (open.len() >= limits::RESTORE_OPEN_FILES / SHARDS).then(|| open.remove(0));
        open.push((number, fd.clone()));
        Ok((fd, evicted))
    }

    /// Closes a file unless another thread still uses it, which then closes it.
    fn release(&self, number: u32, handle: Arc<Handle>) -> Result<()> {
        let Some(handle) = Arc::into_inner(handle) else { return Ok(()) };
        let fd = handle.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Also of a file that counts as complete, which a thread that evicted it may close last:
        // then it fails now.
        self.heed(number, close(fd).map_err(|errno| ("close", errno)))
    }

    fn shard(&self, number: u32) -> MutexGuard<'_, Open> {
        self.open[number as usize % SHARDS].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes one piece, and closes the file if nothing else is to come.
    fn put(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<std::result::Result<(), Failure>> {
        let number = needed.file;
        let file = &self.plan.files[number as usize];
        // Most files have one blob: no other thread will need them open.
        let whole = file.state() == State::Planned && file.left.load(Ordering::Acquire) == 1;
        if whole {
            let written = self.make(number).map_err(|errno| ("create", errno)).and_then(|fd| {
                self.write_piece(&fd, needed, plaintext, all_zero, true).map_err(|errno| ("write", errno))?;
                close(fd).map_err(|errno| ("close", errno))
            });
            return Ok(written);
        }
        let (handle, evicted) = match self.handle(number) {
            Ok(opened) => opened,
            Err(errno) => return Ok(Err(("open", errno))),
        };
        if let Some((other, evicted)) = evicted {
            self.release(other, evicted)?;
        }
        let written = {
            let fd = handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.write_piece(&fd, needed, plaintext, all_zero, false).map_err(|errno| ("write", errno))
        };
        self.release(number, handle)?;
        Ok(written)
    }

    /// `whole`: it is the only piece of a new file, whose size is still to be set.
    fn write_piece(
        &self,
        fd: &OwnedFd,
        needed: &Use,
        plaintext: &[u8],
        all_zero: bool,
        whole: bool,
    ) -> rustix::io::Result<()> {
        let Use { file: number, offset, .. } = *needed;
        let file = &self.plan.files[number as usize];
        if !self.sparse || file.state() == State::Correcting {
            return write_at(fd, plaintext, offset);
        }
        if whole && plaintext.last() == Some(&0) {
            ftruncate(fd, file.size)?;
        }
        if !all_zero {
            for piece in without_zero_blocks(plaintext, offset) {
                write_at(fd, &plaintext[piece.clone()], offset + piece.start as u64)?;
            }
        }
        Ok(())
    }

    /// A use has been dealt with.
    fn one_less(&self, number: u32) -> Result<()> {
        if self.plan.files[number as usize].left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete(number)?;
        }
        Ok(())
    }

    fn complete(&self, number: u32) -> Result<()> {
        let file = &self.plan.files[number as usize];
        if let Some(handle) = self.forget(number) {
            self.release(number, handle)?;
        }
        let before = file.state();
        let complete = match before {
            State::Failed => return Ok(()),
            _ if file.lacking.load(Ordering::Acquire) => State::Failed,
            State::Correcting => State::Corrected,
            _ => State::Done,
        };
        // Another thread that evicted the file may have failed to close it since.
        if file.advance(before, complete) && complete != State::Failed {
            self.progress.files_done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes a file out of those that are kept open.
    fn forget(&self, number: u32) -> Option<Arc<Handle>> {
        let mut open = self.shard(number);
        let at = open.iter().position(|(other, _)| *other == number)?;
        Some(open.remove(at).1)
    }

    /// The file is not what it should be, and what is still to come for it is of no use.
    pub fn fail(&self, number: u32, why: &str) {
        let before = self.plan.files[number as usize].set_state(State::Failed);
        // An error of closing it would be the second one of a file that has failed.
        drop(self.forget(number));
        if before != State::Failed {
            self.plan.refuse(self.progress, &self.plan.file_path(number), why);
        }
    }

    /// Why the store did not yield some piece, if it may do so another time.
    pub fn unreached(&self) -> Option<&str> {
        self.unreached.get().map(String::as_str)
    }

    fn heed(&self, number: u32, outcome: std::result::Result<(), Failure>) -> Result<()> {
        outcome.or_else(|(action, errno)| self.broken(number, action, errno))
    }

    /// A call on a file has failed: the whole restore ends if the next file would meet the same.
    fn broken(&self, number: u32, action: &'static str, errno: Errno) -> Result<()> {
        let path = display(&self.plan.file_path(number));
        if let Some(error) = Error::of_target(action, path, errno) {
            return Err(error);
        }
        match errno {
            Errno::EXIST => self.fail(number, ONE_NAME),
            errno => self.fail(number, &format!("cannot {action} it: {errno}")),
        }
        Ok(())
    }
}

impl Sink for Files<'_> {
    fn wants(&self, needed: &Use) -> bool {
        matches!(self.plan.files[needed.file as usize].state(), State::Planned | State::Made | State::Correcting)
    }

    fn write(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<()> {
        let file = &self.plan.files[needed.file as usize];
        if file.state() != State::Failed {
            match self.put(needed, plaintext, all_zero)? {
                Ok(()) => drop(self.progress.bytes_done.fetch_add(plaintext.len() as u64, Ordering::Relaxed)),
                Err((action, errno)) => self.broken(needed.file, action, errno)?,
            }
        }
        self.one_less(needed.file)
    }

    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()> {
        let file = &self.plan.files[needed.file as usize];
        if !file.lacking.swap(true, Ordering::AcqRel) && file.state() != State::Failed {
            self.progress.problem(Phase::Restore, display(&self.plan.file_path(needed.file)), why);
        }
        if !is_lost(why) {
            self.unreached.get_or_init(|| why.to_string());
        }
        self.one_less(needed.file)
    }
}

/// Writes all of it, however many calls that takes.
pub fn write_at(fd: impl AsFd, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(&fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// The parts of `bytes` that are not whole blocks of zeros; blocks begin at multiples of their size in the file, where `bytes` starts at `offset`.
pub fn without_zero_blocks(bytes: &[u8], offset: u64) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    let next_block = move || {
        let into = usize::try_from((offset + at as u64) % BLOCK as u64).expect("less than a block");
        let end = (at + BLOCK - into).min(bytes.len());
        let block = at..end;
        at = end;
        (!block.is_empty()).then_some(block)
    };
    let mut blocks = std::iter::from_fn(next_block).peekable();
    std::iter::from_fn(move || {
        let mut piece = blocks.find(|block| !is_zero(&bytes[block.clone()]))?;
        while let Some(block) = blocks.next_if(|block| !is_zero(&bytes[block.clone()])) {
            piece.end = block.end;
        }
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_blocks_are_found_at_the_file_s_own_boundaries() {
        let mut bytes = vec![0u8; 5 * BLOCK];
        bytes[BLOCK + 7] = 1;
        bytes[2 * BLOCK] = 1;
        bytes[4 * BLOCK] = 1;
        let pieces = |offset| without_zero_blocks(&bytes, offset).collect::<Vec<_>>();
        assert_eq!(pieces(0), [BLOCK..3 * BLOCK, 4 * BLOCK..5 * BLOCK]);
        // One byte further into the file, every block begins one byte earlier in the buffer.
        assert_eq!(pieces(1), [BLOCK - 1..3 * BLOCK - 1, 4 * BLOCK - 1..5 * BLOCK - 1]);
        assert_eq!(without_zero_blocks(&[0; 10], 3).count(), 0);
        assert_eq!(without_zero_blocks(&[0, 1], BLOCK as u64 - 1).next(), Some(1..2));
        assert_eq!(without_zero_blocks(&[], 0).count(), 0);
    }
}
