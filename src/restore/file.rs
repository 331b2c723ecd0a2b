//! Stage 5: writes plaintext into files, each piece at its offset, from any thread.
//!
//! A file is created at its first write. In a file that this run creates, blocks of zeros are left
//! out and stay holes; in a file that had content before, they are written. A file that cannot be
//! written is reported once and its other pieces are dropped; a file that lacks a piece gets all
//! others, but never counts as complete. A full disk ends the restore.
//!
//! A file of one piece gets its metadata as soon as it is complete, which saves looking the file up
//! again; for this the plan has owner and mode of plain files. For all other files, and if files
//! are read back, the last stage applies the metadata.
//!
//! A file is complete when it is closed without an error: network file systems report lost writes
//! only there. Several threads share one descriptor, and the last of them closes it.

use super::close::close;
use super::confine::{Dir, Pinned, is};
use super::dirs::Dirs;
use super::error::{Error, Result, is_lost};
use super::fetch::{Piece, Sink};
use super::file_states::{FileState, FileStates, Found, State};
use super::inodes::inode;
use super::meta::{Before, Meta, Recipient};
use super::open_files::{Handle, OpenFiles};
use super::path::display;
use super::plan::PlannedTable;
use super::plan::table::{File, Part, Use};
use super::positioned_io::write_at;
use super::problems::ONE_NAME;
use super::target::Target;
use super::workers::Queue;
use super::zeros::{Fill, without_zero_blocks};
use crate::limits;
use crate::repo;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

/// The files of a table while their content arrives.
pub struct Files<'f> {
    pub target: &'f Target<'f>,
    pub dirs: &'f Dirs<'f>,
    pub table: &'f PlannedTable<'f>,
    pub states: &'f FileStates,
    open: OpenFiles,
    unreached: OnceLock<String>,
}

/// The action that failed on a file, and its error.
type Failure = (&'static str, Errno);

/// Whether a file has its size already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Set,
    /// The file is new, and the current piece is its only one.
    Unset,
}

impl<'f> Files<'f> {
    pub fn new(
        target: &'f Target<'f>,
        dirs: &'f Dirs<'f>,
        table: &'f PlannedTable<'f>,
        states: &'f FileStates,
    ) -> Files<'f> {
        Files { target, dirs, table, states, open: OpenFiles::default(), unreached: OnceLock::new() }
    }

    /// Creates all files. `fetch` passes the content of all files that are not empty to the sink.
    pub fn fill(&self, fetch: impl FnOnce(&dyn Sink) -> Result<()>) -> Result<()> {
        self.target.workers.run("files were written", |queue| {
            self.make_empty(queue)?;
            fetch(&Writing { files: self, queue })
        })
    }

    /// Creates the files that need no blob.
    fn make_empty<'s>(&'s self, queue: &Queue<'s, '_>) -> Result<()> {
        for (place, (file, state)) in (0..).zip(self.table.files.iter().zip(self.states.iter())) {
            if state.left() > 0 || !file.part.ends() {
                continue;
            }
            match state.state() {
                State::Planned => queue.submit(0, move || {
                    let written = self.write_whole(place, |_| Ok(()));
                    self.heed(place, written)?;
                    self.complete(place)
                })?,
                // The file was too long, and has been truncated.
                State::Correcting => self.complete(place)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn at(&self, place: u32) -> (&File, &FileState) {
        (&self.table.files[place as usize], self.states.of(place))
    }

    /// Creates a new file. In a directory that this run created, which is private until the end,
    /// the file gets its permissions at once, except set-id bits, which would grant the rights of
    /// the owner; elsewhere it is private until its metadata is applied. In either case the owner
    /// may write it, because some file systems check that at each write.
    fn make(&self, place: u32) -> rustix::io::Result<OwnedFd> {
        let (file, state) = self.at(place);
        let (dir, name) = (self.dirs.get(file.dir)?, self.table.file_name(place));
        let private = Mode::RUSR | Mode::WUSR;
        let mode = match self.table.access(place) {
            Some(access) if self.target.dir(file.dir).is_fresh() => {
                private | Mode::from_raw_mode(access.permissions & 0o777)
            }
            _ => private,
        };
        let fd = match state.found() {
            Found::Nothing => dir.create(name, mode)?,
            _ => self.replace(file.dir, &dir, name, mode)?,
        };
        state.make();
        Ok(fd)
    }

    /// Creates a file in place of an entry that existed when the target was inspected. Only that
    /// entry is replaced: any other belongs to another entry of the snapshot, whose name the file
    /// system treats as equal.
    fn replace(&self, number: u32, dir: &Dir, name: &[u8], mode: Mode) -> rustix::io::Result<OwnedFd> {
        let claims = &self.target.claims;
        let mut replaced = claims.replaced.of(number);
        // Create before `stat`: FUSE and NFS ask the file system again only for an exclusive
        // creation, and may otherwise answer from a stale cache.
        let fd = match dir.create(name, mode) {
            Err(Errno::EXIST) => {
                if let Some(there) = dir.stat(name)?
                    && (replaced.contains(inode(&there))
                        || claims.settled.is_respelt(number, dir, inode(&there), name)?)
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

    /// Opens a file, and creates it if it is new. `None`: the file has failed, and its name may
    /// belong to another entry.
    fn open(&self, place: u32) -> rustix::io::Result<Option<OwnedFd>> {
        let (file, state) = self.at(place);
        match state.state() {
            State::Planned => {
                let fd = self.make(place)?;
                ftruncate(&fd, file.size)?;
                return Ok(Some(fd));
            }
            State::Made | State::Correcting => {}
            _ => return Ok(None),
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let fd = self.dirs.get(file.dir)?.open(self.table.file_name(place), flags)?;
        // Content is written to regular files only, even if another process has replaced the file
        // meanwhile.
        if is(&fstat(&fd)?, FileType::RegularFile) { Ok(Some(fd)) } else { Err(Errno::INVAL) }
    }

    /// Closes a file unless another thread still uses it, which then closes it.
    fn release(&self, place: u32, handle: Arc<Handle>) -> Result<()> {
        let Some(handle) = Arc::into_inner(handle) else { return Ok(()) };
        let Some(fd) = handle.into_inner().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        // An error also fails a file that counts as complete already: a thread that evicted it may
        // be the last one to close it.
        self.heed(place, close(fd).map_err(|errno| ("close", errno))).map(drop)
    }

    /// Whether the content of a use's blob is needed.
    fn wants(&self, number: usize, needed: &Use) -> bool {
        !self.states.is_present(number)
            && matches!(self.states.of(needed.file).state(), State::Planned | State::Made | State::Correcting)
    }

    /// Records that a piece cannot be read. An error ends the restore.
    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()> {
        if self.states.of(needed.file).lack() {
            self.target.problems.report(&self.table.file_path(needed.file), why);
        }
        if !is_lost(why) {
            self.unreached.get_or_init(|| why.to_string());
        }
        self.one_less(needed.file)
    }

    /// Writes the content of a use's blob. An error ends the restore.
    fn write(&self, piece: Piece<'_>) -> Result<()> {
        let place = piece.needed.file;
        let (file, state) = self.at(place);
        if state.state() != State::Failed {
            // Most files have one blob, so no other thread needs them open.
            let is_whole = file.part == Part::Whole && state.state() == State::Planned && state.left() == 1;
            let is_written = if is_whole {
                let write = |fd: &OwnedFd| self.write_piece(fd, piece, Size::Unset);
                self.heed(place, self.write_whole(place, write))?
            } else {
                self.put(piece)?
            };
            if is_written {
                self.target.progress.bytes_done.fetch_add(piece.bytes.len() as u64, Ordering::Relaxed);
            }
        }
        self.one_less(place)
    }

    /// Creates a file, writes all of it with `write`, and closes it. Then applies its metadata, if
    /// that is known.
    fn write_whole(
        &self,
        place: u32,
        write: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
    ) -> std::result::Result<(), Failure> {
        let fd = self.make(place).map_err(|errno| ("create", errno))?;
        let meta = self.early_meta(place);
        // `fstat` before writing: a network file system then still has the answer from `create`.
        let new = meta.and_then(|meta| Some((meta, fstat(&fd).ok()?)));
        write(&fd).map_err(|errno| ("write", errno))?;
        let new = new.and_then(|(meta, stat)| Some((meta, stat, Pinned::of_open(&fd).ok()?)));
        // Close before applying metadata: a file that does not reach the disk must not look
        // complete, and the write-back at `close` may change the modification time.
        close(fd).map_err(|errno| ("close", errno))?;
        if let Some((meta, stat, pinned)) = new {
            let path = || self.table.file_path(place);
            let entry = Recipient { pinned: &pinned, before: Before::Bare, path: &path };
            self.target.refusals.apply_to(&entry, &stat, &meta);
            self.states.of(place).finish();
        }
        Ok(())
    }

    /// The metadata that a new file gets as soon as it is complete; `None` if the last stage
    /// applies it.
    fn early_meta(&self, place: u32) -> Option<Meta> {
        let (file, state) = self.at(place);
        let is_bare = !self.target.dir(file.dir).hands_down();
        let may = !self.target.options.verify && is_bare && !state.is_lacking();
        self.table.access(place).filter(|_| may).map(|access| Meta::plain(access, file.mtime))
    }

    /// Writes one of several pieces of a file. Returns whether it was written.
    pub(super) fn put(&self, piece: Piece<'_>) -> Result<bool> {
        let place = piece.needed.file;
        let (handle, evicted) = self.open.handle(place);
        if let Some((other, evicted)) = evicted {
            self.release(other, evicted)?;
        }
        let is_written = {
            let mut fd = handle.lock().unwrap_or_else(PoisonError::into_inner);
            match self.put_into(&mut fd, piece) {
                Ok(is_written) => is_written,
                // Under the lock, so that the next thread to take it finds that the file has
                // failed, and neither creates it again nor opens another entry of its name.
                Err((action, errno)) => {
                    self.broken(place, action, errno)?;
                    false
                }
            }
        };
        self.release(place, handle)?;
        Ok(is_written)
    }

    /// Writes a piece into a file, which is opened first if necessary. Returns `false` if the file
    /// has failed meanwhile.
    fn put_into(&self, fd: &mut Option<OwnedFd>, piece: Piece<'_>) -> std::result::Result<bool, Failure> {
        if fd.is_none() {
            *fd = self.open(piece.needed.file).map_err(|errno| ("open", errno))?;
        }
        let Some(fd) = fd else { return Ok(false) };
        self.write_piece(fd, piece, Size::Set).map_err(|errno| ("write", errno))?;
        Ok(true)
    }

    fn write_piece(&self, fd: &OwnedFd, piece: Piece<'_>, size: Size) -> rustix::io::Result<()> {
        let Piece { needed: Use { file: place, offset, .. }, bytes, fill } = piece;
        let (file, state) = self.at(place);
        // Only new files get holes.
        if !self.target.options.sparse || state.state() == State::Correcting {
            return write_at(fd, bytes, offset);
        }
        let mut end = 0;
        if fill == Fill::Data {
            for part in without_zero_blocks(bytes, offset) {
                write_at(fd, &bytes[part.clone()], offset + part.start as u64)?;
                end = part.end;
            }
        }
        if size == Size::Unset && end < bytes.len() { ftruncate(fd, file.size) } else { Ok(()) }
    }

    /// Counts a use as processed, and completes the file after the last use.
    fn one_less(&self, place: u32) -> Result<()> {
        if self.states.of(place).one_less() { self.complete(place) } else { Ok(()) }
    }

    fn complete(&self, place: u32) -> Result<()> {
        let (file, state) = self.at(place);
        if let Some(handle) = self.open.forget(place) {
            self.release(place, handle)?;
        }
        if file.part.ends() && state.complete() {
            self.target.progress.files_done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Marks a file as failed and reports it once; its remaining pieces are dropped.
    pub fn fail(&self, place: u32, why: &str) {
        let is_first = self.states.of(place).fail();
        // The error of `close` is ignored, because the file has failed already.
        drop(self.open.forget(place));
        if is_first {
            self.target.problems.refuse(&self.table.file_path(place), why);
        }
    }

    /// The first reason why the store did not return a piece, if a retry may succeed.
    pub fn unreached(&self) -> Option<&str> {
        self.unreached.get().map(String::as_str)
    }

    /// Whether a call on a file has succeeded; see [`Files::broken`].
    fn heed(&self, place: u32, outcome: std::result::Result<(), Failure>) -> Result<bool> {
        let Err((action, errno)) = outcome else { return Ok(true) };
        self.broken(place, action, errno)?;
        Ok(false)
    }

    /// Handles a failed call on a file: ends the whole restore if every other file would fail in
    /// the same way, and otherwise fails the file.
    fn broken(&self, place: u32, action: &'static str, errno: Errno) -> Result<()> {
        let path = display(&self.table.file_path(place));
        if let Some(error) = Error::of_target(action, path, errno) {
            return Err(error);
        }
        match errno {
            Errno::EXIST => self.fail(place, ONE_NAME),
            errno => self.fail(place, &format!("cannot {action} it: {errno}")),
        }
        Ok(())
    }
}

/// Writes pieces with the tasks of a queue.
struct Writing<'w, 'scope, 'env: 'scope> {
    files: &'scope Files<'scope>,
    queue: &'w Queue<'scope, 'env>,
}

impl Sink for Writing<'_, '_, '_> {
    fn wants(&self, number: usize, needed: &Use) -> bool {
        self.files.wants(number, needed)
    }

    fn write(&self, piece: Piece<'_>) -> Result<()> {
        // A copy of a large piece would cost memory, and more time than the latency that it hides.
        if piece.bytes.len() > limits::RESTORE_QUEUED_PIECE {
            return self.files.write(piece);
        }
        let Piece { needed, fill, .. } = piece;
        let (files, bytes) = (self.files, piece.bytes.to_vec());
        self.queue.submit(bytes.len(), move || files.write(Piece { needed, bytes: &bytes, fill }))
    }

    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()> {
        self.files.lack(needed, why)
    }

    fn holds(&self) -> u64 {
        limits::RESTORE_QUEUED_BYTES as u64
    }
}
