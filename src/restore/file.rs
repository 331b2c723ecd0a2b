//! Stage 5: plaintext into files, each piece at its place, by any thread.
//!
//! A file is made at its first write. In a file that this run makes, blocks of zeros are left out
//! and stay holes; in one that had content before, they are written. A file that cannot be written is told once and its other
//! pieces are dropped; one that lacks a piece gets all others, but never counts as complete. A full disk ends the restore.
//!
//! A file of one piece gets its metadata as soon as it is complete, which spares finding it again;
//! for this the plan has owner and mode of plain files. Only a restore that reads files back leaves
//! that to the last stage, as it is left for all others.
//!
//! A file is complete when it is closed without an error: network file systems report there what
//! did not reach their server. Several threads share one descriptor, and the last of them closes
//! it.

use super::Options;
use super::close::close;
use super::confine::{Dir, Pinned, is};
use super::dirs::Dirs;
use super::error::{Error, Result, is_lost};
use super::fetch::Sink;
use super::inodes::inode;
use super::meta::{Before, Meta, Refusals};
use super::plan::{Found, State, Stretch, Use};
use super::prepare::ONE_NAME;
use super::walk::display;
use super::workers::{Queue, Workers};
use crate::limits;
use crate::progress::{Phase, Progress};
use crate::repo;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate};
use rustix::io::{Errno, pwrite};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The granularity of holes: the block of most file systems.
const BLOCK: usize = 4096;

const SHARDS: usize = 16;

/// The files of a table while their content arrives.
pub struct Files<'f> {
    stretch: &'f Stretch<'f>,
    dirs: &'f Dirs<'f>,
    progress: &'f Progress,
    refusals: &'f Refusals<'f>,
    /// Leave blocks of zeros out of new files.
    sparse: bool,
    /// Files get their metadata once they are complete: they are not read back first.
    finishes: bool,
    open: [Mutex<Open>; SHARDS],
    unreached: OnceLock<String>,
}

/// Open files, the most recently used last.
type Open = Vec<Numbered>;

/// An open file and its number.
type Numbered = (u32, Arc<Handle>);

/// The kernel lets one writer into a file at a time, and the others spin for it; a lock lets them
/// sleep. `None`: the first one that has the lock opens the file.
type Handle = Mutex<Option<OwnedFd>>;

/// What was done to a file when a call failed, and how.
type Failure = (&'static str, Errno);

impl<'f> Files<'f> {
    pub fn new(
        stretch: &'f Stretch<'f>,
        dirs: &'f Dirs<'f>,
        refusals: &'f Refusals<'f>,
        options: &Options,
        progress: &'f Progress,
    ) -> Files<'f> {
        let (sparse, finishes) = (options.sparse, !options.verify);
        Files {
            stretch,
            dirs,
            progress,
            refusals,
            sparse,
            finishes,
            open: Default::default(),
            unreached: OnceLock::new(),
        }
    }

    /// Makes all files. `fetch` hands the content of those that have any to the sink.
    pub fn fill(&self, workers: &Workers<'_>, fetch: impl FnOnce(&dyn Sink) -> Result<()>) -> Result<()> {
        workers.run("files were written", |queue| {
            self.make_empty(queue)?;
            fetch(&Writing { files: self, queue })
        })
    }

    /// Makes the files that no blob will come for.
    fn make_empty<'s>(&'s self, queue: &Queue<'s, '_>) -> Result<()> {
        for (number, file) in (0..).zip(&self.stretch.files) {
            if file.left.load(Ordering::Relaxed) > 0 || !file.ends {
                continue;
            }
            match file.state() {
                State::Planned => queue.submit(0, move || {
                    let written = self.write_whole(number, |_| Ok(()));
                    self.heed(number, written)?;
                    self.complete(number)
                })?,
                // It was too long, and has been cut.
                State::Correcting => self.complete(number)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a new file. In a directory that this run made, which is private until the end, it has
    /// its permissions at once, but for set-id bits, which lend the owner's rights; elsewhere it is
    /// private until its metadata is applied. The owner may write it in either case: some file
    /// systems check that at each write.
    fn make(&self, number: u32) -> rustix::io::Result<OwnedFd> {
        let file = &self.stretch.files[number as usize];
        let (dir, name) = (self.dirs.get(file.dir)?, self.stretch.file_name(number));
        let private = Mode::RUSR | Mode::WUSR;
        let mode = match self.stretch.access(number) {
            Some(access) if self.stretch.plan.dirs[file.dir as usize].fresh.is_set() => {
                private | Mode::from_raw_mode(access.permissions & 0o777)
            }
            _ => private,
        };
        let fd = match file.found() {
            Found::Nothing => dir.create(name, mode)?,
            _ => self.replace(file.dir, &dir, name, mode)?,
        };
        file.advance(State::Planned, State::Made);
        Ok(fd)
    }

    /// Makes a file where there was something when the target was looked at. Only that is replaced: the
    /// rest is another entry's, under a name that the file system takes for this one.
    fn replace(&self, number: u32, dir: &Dir, name: &[u8], mode: Mode) -> rustix::io::Result<OwnedFd> {
        let mut replaced = self.stretch.plan.replaced.of(number);
        // Before it is looked at: FUSE and NFS ask the file system anew for an exclusive creation only,
        // and else may still know what the name led to before.
        let fd = match dir.create(name, mode) {
            Err(Errno::EXIST) => {
                let settled = &self.stretch.plan.settled;
                if let Some(there) = dir.stat(name)?
                    && (replaced.contains(inode(&there)) || settled.is_respelt(number, dir, inode(&there), name)?)
                {
                    return Err(Errno::EXIST);
                }
                dir.clear(name)?;
                dir.create(name, mode)?
            }
            other => other?,
        };
        replaced.insert(inode(&fstat(&fd)?));
        Ok(fd)
    }

    /// The lock of an open file; and the one that is not kept open because of it.
    fn handle(&self, number: u32) -> (Arc<Handle>, Option<Numbered>) {
        let mut open = self.shard(number);
        if let Some(at) = open.iter().position(|(other, _)| *other == number) {
            let found = open.remove(at);
            let handle = found.1.clone();
            open.push(found);
            return (handle, None);
        }
        let handle = Arc::<Handle>::default();
        // One that is in use stays, so that no two threads open a file for themselves.
        let is_full = open.len() >= limits::RESTORE_OPEN_FILES / SHARDS;
        let idle = open.iter().position(|(_, handle)| is_full && Arc::strong_count(handle) == 1);
        let evicted = idle.map(|at| open.remove(at));
        open.push((number, handle.clone()));
        (handle, evicted)
    }

    /// Opens a file, and makes it if it is to be new. `None`: it has failed, and what has its name
    /// may be another entry.
    fn open(&self, number: u32) -> rustix::io::Result<Option<OwnedFd>> {
        let file = &self.stretch.files[number as usize];
        match file.state() {
            State::Planned => {
                let fd = self.make(number)?;
                ftruncate(&fd, file.size)?;
                return Ok(Some(fd));
            }
            State::Made | State::Correcting => {}
            _ => return Ok(None),
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let fd = self.dirs.get(file.dir)?.open(self.stretch.file_name(number), flags)?;
        // Content goes into regular files only, whatever somebody has put in its place meanwhile.
        if is(&fstat(&fd)?, FileType::RegularFile) { Ok(Some(fd)) } else { Err(Errno::INVAL) }
    }

    /// Closes a file unless another thread still uses it, which then closes it.
    fn release(&self, number: u32, handle: Arc<Handle>) -> Result<()> {
        let Some(handle) = Arc::into_inner(handle) else { return Ok(()) };
        let Some(fd) = handle.into_inner().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        // Also of a file that counts as complete, which a thread that evicted it may close last:
        // then it fails now.
        self.heed(number, close(fd).map_err(|errno| ("close", errno))).map(drop)
    }

    fn shard(&self, number: u32) -> MutexGuard<'_, Open> {
        self.open[number as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what a use's blob holds goes anywhere.
    fn wants(&self, needed: &Use) -> bool {
        matches!(self.stretch.files[needed.file as usize].state(), State::Planned | State::Made | State::Correcting)
    }

    /// Some piece cannot be had. An error ends the restore.
    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()> {
        let file = &self.stretch.files[needed.file as usize];
        if !file.lacking.swap(true, Ordering::AcqRel) && file.state() != State::Failed {
            self.progress.problem(Phase::Restore, display(&self.stretch.file_path(needed.file)), why);
        }
        if !is_lost(why) {
            self.unreached.get_or_init(|| why.to_string());
        }
        self.one_less(needed.file)
    }

    /// Takes what a use's blob holds. An error ends the restore.
    fn write(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<()> {
        let number = needed.file;
        let file = &self.stretch.files[number as usize];
        if file.state() != State::Failed {
            // Most files have one blob: no other thread will need them open.
            let is_whole = file.is_whole() && file.state() == State::Planned && file.left.load(Ordering::Acquire) == 1;
            let is_written = if is_whole {
                let write = |fd: &OwnedFd| self.write_piece(fd, needed, plaintext, all_zero, true);
                self.heed(number, self.write_whole(number, write))?
            } else {
                self.put(needed, plaintext, all_zero)?
            };
            if is_written {
                self.progress.bytes_done.fetch_add(plaintext.len() as u64, Ordering::Relaxed);
            }
        }
        self.one_less(number)
    }

    /// Makes a file that `write` writes at once, and closes it. Then it gets its metadata, if that is known.
    fn write_whole(
        &self,
        number: u32,
        write: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
    ) -> std::result::Result<(), Failure> {
        let fd = self.make(number).map_err(|errno| ("create", errno))?;
        let meta = self.early_meta(number);
        // Before anything is written: then a network file system still has it from the answer to
        // `create`.
        let new = meta.and_then(|meta| Some((meta, fstat(&fd).ok()?)));
        write(&fd).map_err(|errno| ("write", errno))?;
        let new = new.and_then(|(meta, stat)| Some((meta, stat, Pinned::of_open(&fd).ok()?)));
        // Closed first: what does not reach the disk must not look complete, and what is written
        // back by `close` may change the time.
        close(fd).map_err(|errno| ("close", errno))?;
        if let Some((meta, stat, pinned)) = new {
            self.refusals.apply_to(&pinned, &stat, Before::Bare, &meta, &|| self.stretch.file_path(number));
            self.stretch.files[number as usize].advance(State::Made, State::Finished);
        }
        Ok(())
    }

    /// The metadata of a new file that it may have as soon as it is complete.
    fn early_meta(&self, number: u32) -> Option<Meta> {
        let file = &self.stretch.files[number as usize];
        let is_bare = !self.stretch.plan.dirs[file.dir as usize].hands_down.is_set();
        let may = self.finishes && is_bare && !file.lacking.load(Ordering::Acquire);
        self.stretch.access(number).filter(|_| may).map(|access| Meta::plain(access, file.mtime))
    }

    /// Writes one piece of several. Returns whether the file has it now.
    pub(super) fn put(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<bool> {
        let number = needed.file;
        let (handle, evicted) = self.handle(number);
        if let Some((other, evicted)) = evicted {
            self.release(other, evicted)?;
        }
        let is_written = {
            let mut fd = handle.lock().unwrap_or_else(PoisonError::into_inner);
            match self.put_into(&mut fd, needed, plaintext, all_zero) {
                Ok(is_written) => is_written,
                // Under the lock, so that the next thread that has it finds that the file has
                // failed, and neither makes it again nor opens what has its name.
                Err((action, errno)) => {
                    self.broken(number, action, errno)?;
                    false
                }
            }
        };
        self.release(number, handle)?;
        Ok(is_written)
    }

    /// Writes a piece into a file that is opened first if need be. Returns whether it did: the file
    /// may have failed meanwhile.
    fn put_into(
        &self,
        fd: &mut Option<OwnedFd>,
        needed: &Use,
        plaintext: &[u8],
        all_zero: bool,
    ) -> std::result::Result<bool, Failure> {
        if fd.is_none() {
            *fd = self.open(needed.file).map_err(|errno| ("open", errno))?;
        }
        let Some(fd) = fd else { return Ok(false) };
        self.write_piece(fd, needed, plaintext, all_zero, false).map_err(|errno| ("write", errno))?;
        Ok(true)
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
        let file = &self.stretch.files[number as usize];
        if !self.sparse || file.state() == State::Correcting {
            return write_at(fd, plaintext, offset);
        }
        let mut end = 0;
        if !all_zero {
            for piece in without_zero_blocks(plaintext, offset) {
                write_at(fd, &plaintext[piece.clone()], offset + piece.start as u64)?;
                end = piece.end;
            }
        }
        if whole && end < plaintext.len() { ftruncate(fd, file.size) } else { Ok(()) }
    }

    /// A use has been dealt with.
    fn one_less(&self, number: u32) -> Result<()> {
        if self.stretch.files[number as usize].left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete(number)?;
        }
        Ok(())
    }

    fn complete(&self, number: u32) -> Result<()> {
        let file = &self.stretch.files[number as usize];
        if let Some(handle) = self.forget(number) {
            self.release(number, handle)?;
        }
        if !file.ends {
            return Ok(());
        }
        let before = file.state();
        let complete = match before {
            State::Failed => return Ok(()),
            _ if file.lacking.load(Ordering::Acquire) => State::Failed,
            State::Correcting => State::Corrected,
            State::Finished => State::Finished,
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
        let before = self.stretch.files[number as usize].set_state(State::Failed);
        // An error of closing it would be the second one of a file that has failed.
        drop(self.forget(number));
        if before != State::Failed {
            self.stretch.plan.refuse(self.progress, &self.stretch.file_path(number), why);
        }
    }

    /// Why the store did not yield some piece, if it may do so another time.
    pub fn unreached(&self) -> Option<&str> {
        self.unreached.get().map(String::as_str)
    }

    /// Whether a call on a file has succeeded; see [`Files::broken`].
    fn heed(&self, number: u32, outcome: std::result::Result<(), Failure>) -> Result<bool> {
        let Err((action, errno)) = outcome else { return Ok(true) };
        self.broken(number, action, errno)?;
        Ok(false)
    }

    /// A call on a file has failed: the whole restore ends if the next file would meet the same.
    fn broken(&self, number: u32, action: &'static str, errno: Errno) -> Result<()> {
        let path = display(&self.stretch.file_path(number));
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

/// Files that are written by the tasks of a queue.
struct Writing<'w, 'scope, 'env: 'scope> {
    files: &'scope Files<'scope>,
    queue: &'w Queue<'scope, 'env>,
}

impl Sink for Writing<'_, '_, '_> {
    fn wants(&self, needed: &Use) -> bool {
        self.files.wants(needed)
    }

    fn write(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<()> {
        // A copy would cost more than the latency that it hides, and memory.
        if plaintext.len() > limits::RESTORE_QUEUED_PIECE {
            return self.files.write(needed, plaintext, all_zero);
        }
        let (files, needed, plaintext) = (self.files, *needed, plaintext.to_vec());
        self.queue.submit(plaintext.len(), move || files.write(&needed, &plaintext, all_zero))
    }

    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()> {
        self.files.lack(needed, why)
    }

    fn holds(&self) -> u64 {
        limits::RESTORE_QUEUED_BYTES as u64
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
