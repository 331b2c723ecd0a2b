//! Stages 3 and 4: files are read into slabs and cut into chunks; chunks are hashed, sealed and packed on all cores.
//!
//! A reader fills a slab with one large file or with many small ones, notes where the chunks end, and shares the slab with jobs of a
//! few chunks each. Holes are not read: the chunks inside one are known beforehand (see [`crate::chunk::ZERO_CHUNK`]).

use super::Run;
use super::assemble::Dir;
use super::reach::Reach;
use super::slab::{Slab, SlabPool};
use super::stat::{display, node_type};
use crate::chunk::{Cutter, MIN_SIZE, ZERO_CHUNK, is_zero_chunk};
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::Action;
use crossbeam_channel::{Receiver, TryRecvError};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Whether the user asked for an entry by name. If that cannot be read, the request has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Named,
    Found,
}

/// A file to be read.
pub struct FileWork {
    path: PathBuf,
    node: Node,
    dir: Arc<Dir>,
    slot: usize,
    in_parent: bool,
    standing: Standing,
    input: Input,
}

enum Input {
    /// A regular file, to be opened by its path.
    File,
    /// A block device, to be opened by its path or through a symlink.
    Device,
    /// Open already, as standard input is.
    Stream(OwnedFd),
}

impl FileWork {
    pub fn file(
        path: PathBuf,
        node: Node,
        dir: Arc<Dir>,
        slot: usize,
        standing: Standing,
        in_parent: bool,
    ) -> FileWork {
        FileWork { path, node, dir, slot, in_parent, standing, input: Input::File }
    }

    /// A block device that the user named.
    pub fn device(path: PathBuf, node: Node, dir: Arc<Dir>, slot: usize, in_parent: bool) -> FileWork {
        FileWork { path, node, dir, slot, in_parent, standing: Standing::Named, input: Input::Device }
    }

    /// A stream; `source` is what messages call it.
    pub fn stream(fd: OwnedFd, source: &str, node: Node, dir: Arc<Dir>, slot: usize) -> FileWork {
        let (path, standing) = (PathBuf::from(source), Standing::Named);
        FileWork { path, node, dir, slot, in_parent: false, standing, input: Input::Stream(fd) }
    }
}

/// What is known of an open file before it is read.
enum Opened {
    Regular(Stat),
    /// A block device of this size in bytes.
    Device(u64),
    Stream,
}

impl Opened {
    /// The file's metadata; a device has no size of its own to be compared with.
    fn regular(&self) -> Option<&Stat> {
        match self {
            Opened::Regular(stat) => Some(stat),
            Opened::Device(_) | Opened::Stream => None,
        }
    }
}

/// A file whose chunks are on their way.
struct Pending {
    work: FileWork,
    content: Mutex<Vec<Id>>,
    /// Bytes read; known when the reader is through.
    size: AtomicU64,
    /// Chunks not yet stored, and one while the reader is at it.
    open: AtomicUsize,
}

/// A piece of a slab that is a blob.
struct Chunk {
    file: Arc<Pending>,
    /// Its place in the file's content.
    index: usize,
    bytes: Range<usize>,
}

/// Bytes of chunks that make a job worth its while, and the most chunks in one. Two or three chunks of a large file, because hashes are
/// computed two at a time, and yet more than one job in a slab.
const JOB_BYTES: usize = 2 << 20;
const JOB_CHUNKS: usize = 128;

/// Chunks in a slab at most. A tiny file's place in memory is many times its content: a slab full of them would be the smaller part.
const SLAB_CHUNKS: usize = 2048;

/// How long a reader waits for more of a stream before it looks whether the run is stopped: 200 ms.
const STREAM_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One reader with the slab it is filling.
pub struct Reader<'s, 'c> {
    run: &'s Run<'s>,
    cpu: &'c rayon::Scope<'s>,
    slabs: &'s SlabPool,
    slab: Slab,
    /// Where the chunk being read starts in the slab.
    start: usize,
    /// Chunks of the slab that are complete, and not yet handed over.
    chunks: Vec<Chunk>,
    cutter: Cutter,
}

/// What is being read: its chunks so far and its size.
struct Current {
    file: Arc<Pending>,
    chunks: usize,
    size: u64,
}

impl<'s, 'c> Reader<'s, 'c> {
    pub fn new(run: &'s Run<'s>, cpu: &'c rayon::Scope<'s>, slabs: &'s SlabPool) -> Reader<'s, 'c> {
        let cutter = Cutter::new(run.scanner.clone());
        Reader { run, cpu, slabs, slab: slabs.take(), start: 0, chunks: Vec::new(), cutter }
    }

    /// Reads files until there are none left.
    pub fn read_all(&mut self, files: &Receiver<FileWork>) {
        loop {
            let work = match files.try_recv() {
                Ok(work) => work,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Nobody should wait for what is complete while there is nothing to read.
                    self.turn_slab();
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
            if self.chunks.len() >= SLAB_CHUNKS {
                self.turn_slab();
            }
        }
        self.turn_slab();
    }

    /// Reads one file. If it cannot be read, it is left out; the backup goes on unless all that was
    /// named is lost.
    fn read_file(&mut self, mut work: FileWork) {
        let run = self.run;
        let (fd, opened) = match open(&mut work) {
            Ok(opened) => opened,
            Err(why) => {
                run.lost(work.standing, &work.path, why);
                return run.check(work.dir.fill(run, work.slot, None));
            }
        };
        if let Some(stat) = opened.regular() {
            run.observer.refresh(&mut work.node, stat);
        }
        let file =
            Arc::new(Pending { work, content: Mutex::default(), size: AtomicU64::new(0), open: AtomicUsize::new(1) });
        let mut current = Current { file, chunks: 0, size: 0 };
        self.cutter.reset();
        self.start = self.slab.len();
        let outcome = self.read_content(&fd, &opened, &mut current);
        let Current { file, size, .. } = current;
        // A run that is ended stops in the middle of files, and that is no fault of theirs.
        let outcome = outcome.map_err(|error| format!("it cannot be read: {error}")).and_then(|()| match opened {
            Opened::Device(has) if size != has && !run.is_stopped() => {
                Err(format!("it has {has} bytes, and {size} of them could be read"))
            }
            Opened::Regular(_) | Opened::Device(_) | Opened::Stream => Ok(()),
        });
        if let Err(why) = outcome {
            run.lost(file.work.standing, &file.work.path, why);
            // What was read of it becomes no part of the snapshot.
            self.chunks.retain(|chunk| !Arc::ptr_eq(&chunk.file, &file));
            return run.check(file.work.dir.fill(run, file.work.slot, None));
        }
        if !run.is_stopped()
            && let Opened::Regular(before) = &opened
            && rustix::fs::fstat(&fd).is_ok_and(|after| changed(before, &after, size, || is_generated(&fd)))
        {
            run.problem(
                &file.work.path,
                "it changed while it was read: what is stored may never have been its content",
            );
        }
        file.size.store(size, Ordering::Release);
        file.close_one(run);
    }

    fn read_content(&mut self, fd: &OwnedFd, opened: &Opened, current: &mut Current) -> rustix::io::Result<()> {
        let size = |stat: &Stat| u64::try_from(stat.st_size).unwrap_or(0);
        match opened {
            Opened::Stream => self.read_stream(fd, current)?,
            Opened::Device(_) => self.read_data(fd, None, current)?,
            Opened::Regular(stat) => match size(stat) {
                // It may have content all the same, as in proc.
                0 => self.read_data(fd, None, current)?,
                size if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size => {
                    self.read_sparse(fd, size, current)?;
                }
                size => self.read_data(fd, Some(size), current)?,
            },
        }
        self.cut(current, true);
        Ok(())
    }

    /// Reads a stream to its end. A run that is stopped waits for no more of it.
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

    /// Reads once, at most `left` bytes; how many it were.
    fn read_some(&mut self, fd: &OwnedFd, left: u64, current: &mut Current) -> rustix::io::Result<u64> {
        self.make_room();
        let room = self.slab.room();
        let bytes = self.slab.bytes_mut();
        let got = retry_on_intr(|| {
            if left >= room as u64 {
                return rustix::io::read(fd, spare_capacity(bytes));
            }
            // Not more than asked for: what follows may be a hole.
            let end = bytes.len();
            bytes.resize(end + usize::try_from(left).expect("less than the room"), 0);
            let got = rustix::io::read(fd, &mut bytes[end..]);
            bytes.truncate(end + got.unwrap_or(0));
            got
        })? as u64;
        current.size += got;
        self.cut(current, false);
        Ok(got)
    }

    /// Reads a file by what the file system says is data, and takes the rest for zeros.
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

    /// Adds a hole: zeros up to the next cut, then whole chunks of zeros without touching a byte, then the zeros that are left.
    fn skip_hole(&mut self, length: u64, current: &mut Current) {
        current.size += length;
        let mut left = length;
        while left > 0 && !self.run.is_stopped() {
            if self.start == self.slab.len() && left >= MIN_SIZE as u64 {
                let count = usize::try_from(left / MIN_SIZE as u64).expect("chunks can be counted");
                self.add_zero_chunks(count, current);
                left %= MIN_SIZE as u64;
                continue;
            }
            self.make_room();
            let end = self.slab.len();
            let portion = left.min(self.slab.room().min(MIN_SIZE) as u64);
            let portion = usize::try_from(portion).expect("at most a slab");
            self.slab.bytes_mut().resize(end + portion, 0);
            left -= portion as u64;
            if let Some(length) = self.cutter.next_cut(&self.slab[self.start..], false) {
                self.add_chunk(length, current);
                // Zeros behind the cut belong to the hole again.
                left += (self.slab.len() - self.start) as u64;
                let start = self.start;
                self.slab.bytes_mut().truncate(start);
            }
        }
    }

    fn add_zero_chunks(&mut self, count: usize, current: &mut Current) {
        current.file.content().extend(std::iter::repeat_n(Id(ZERO_CHUNK), count));
        current.chunks += count;
        self.run.check(self.run.store_zero_chunk());
        self.run.progress.bytes_done.fetch_add((count * MIN_SIZE) as u64, Ordering::Relaxed);
    }

    /// Cuts what has been read.
    fn cut(&mut self, current: &mut Current, end_of_file: bool) {
        while let Some(length) = self.cutter.next_cut(&self.slab[self.start..], end_of_file) {
            self.add_chunk(length, current);
        }
    }

    fn add_chunk(&mut self, length: usize, current: &mut Current) {
        let bytes = self.start..self.start + length;
        self.start = bytes.end;
        // Zeros that are stored need no more than a look at them.
        if is_zero_chunk(&self.slab[bytes.clone()]) {
            return self.add_zero_chunks(1, current);
        }
        current.file.content().push(Id::NULL);
        current.file.open.fetch_add(1, Ordering::Relaxed);
        self.chunks.push(Chunk { file: current.file.clone(), index: current.chunks, bytes });
        current.chunks += 1;
    }

    /// Takes a new slab if this one is full, with the beginning of the current chunk moved over.
    fn make_room(&mut self) {
        if self.slab.room() == 0 {
            self.turn_slab();
        }
    }

    /// Hands the complete chunks over and goes on with another slab.
    fn turn_slab(&mut self) {
        if self.chunks.is_empty() && self.start == 0 {
            return;
        }
        // An empty placeholder while both are needed: the old one is shared before the new one is waited for.
        let old = Arc::new(std::mem::replace(&mut self.slab, self.slabs.none()));
        let mut chunks = std::mem::take(&mut self.chunks).into_iter().peekable();
        while chunks.peek().is_some() {
            let mut size = 0;
            let mut job = Vec::new();
            while size < JOB_BYTES
                && job.len() < JOB_CHUNKS
                && let Some(chunk) = chunks.next()
            {
                size += chunk.bytes.len();
                job.push(chunk);
            }
            let (run, slab) = (self.run, old.clone());
            self.cpu.spawn(move |_| run.guarded(|| store_chunks(run, &slab, job)));
        }
        self.slab = self.slabs.take();
        self.slab.bytes_mut().extend_from_slice(&old[self.start..]);
        self.start = 0;
    }
}

/// Stage 4: chunks become blobs of the repository.
fn store_chunks(run: &Run<'_>, slab: &Slab, chunks: Vec<Chunk>) {
    if run.is_stopped() {
        return;
    }
    let plaintexts: Vec<&[u8]> = chunks.iter().map(|chunk| &slab[chunk.bytes.clone()]).collect();
    let ids = match run.writer.store_chunks(&plaintexts) {
        Ok(ids) => ids,
        Err(error) => return run.fail(error),
    };
    for (Chunk { file, index, bytes }, id) in chunks.into_iter().zip(ids) {
        run.progress.bytes_done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        file.content()[index] = id;
        file.close_one(run);
    }
}

impl Pending {
    fn content(&self) -> std::sync::MutexGuard<'_, Vec<Id>> {
        self.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One chunk is stored, or the reader is through; whoever is last finishes the file.
    fn close_one(&self, run: &Run<'_>) {
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 || run.is_stopped() {
            return;
        }
        let FileWork { path, node, dir, slot, in_parent, .. } = &self.work;
        let mut node = node.clone();
        node.size = self.size.load(Ordering::Acquire);
        node.content = Some(std::mem::take(&mut *self.content()));
        run.finish_file(&node, if *in_parent { Action::Changed } else { Action::New }, path);
        run.check(dir.fill(run, *slot, Some(&node)));
    }
}

/// Opens a file and makes sure that it is what was seen in the directory.
fn open(work: &mut FileWork) -> std::result::Result<(OwnedFd, Opened), String> {
    let follow = match std::mem::replace(&mut work.input, Input::File) {
        Input::Stream(fd) => return Ok((fd, Opened::Stream)),
        Input::File => OFlags::NOFOLLOW,
        // Somebody named it: its name may be a symlink.
        Input::Device => OFlags::empty(),
    };
    let cannot = |action: &str, error: Errno| format!("it cannot be {action}: {error}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | follow;
    let reach = Reach::of(&work.path).map_err(|error| cannot("reached", error))?;
    let open = |flags| rustix::fs::openat(CWD, reach.path(), flags, Mode::empty());
    // Only a file's owner and root may keep its access time as it is.
    let fd = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        outcome => outcome,
    };
    let fd = fd.map_err(|error| cannot("opened", error))?;
    let stat = rustix::fs::fstat(&fd).map_err(|error| cannot("looked at", error))?;
    match (follow.is_empty(), node_type(&stat)) {
        (true, NodeType::Dev) => {
            let size = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|error| cannot("measured", error))?;
            rustix::fs::seek(&fd, SeekFrom::Start(0)).map_err(|error| cannot("read", error))?;
            if size == 0 {
                return Err(
                    "it cannot be read: the device has a size of 0 bytes, as if nothing were attached to it".into()
                );
            }
            Ok((fd, Opened::Device(size)))
        }
        (false, NodeType::File) if stat.st_ino == work.node.inode => Ok((fd, Opened::Regular(stat))),
        _ => Err(format!("{} was replaced while it was backed up", display(&work.path))),
    }
}

/// Whether a file is not what it was when it was opened, or other than was read of it.
/// `is_generated` is asked whether the kernel makes the content up when it is read, so that the
/// size says nothing about it.
fn changed(before: &Stat, after: &Stat, read: u64, is_generated: impl FnOnce() -> bool) -> bool {
    let key = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    if key(before) != key(after) {
        return true;
    }
    // Network file systems and FUSE servers, too, have files of size 0 with content that is
    // generated.
    after.st_size != 0 && u64::try_from(after.st_size) != Ok(read) && !is_generated()
}

/// `f_type` of file systems whose files are generated (`linux/magic.h`): sysfs says a page for
/// each, and so do others.
const GENERATED: [u32; 9] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x6265_6570, // configfs
    0x7363_6673, // securityfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xde5e_81e4, // efivarfs
];

fn is_generated(fd: &OwnedFd) -> bool {
    // Magic numbers have 32 bits; the field is signed, and wider on some architectures.
    rustix::fs::fstatfs(fd).is_ok_and(|found| GENERATED.contains(&(found.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_size_time_and_what_was_read() {
        let temp = tempfile::tempdir().unwrap();
        let stat_of = |bytes: &[u8]| {
            std::fs::write(temp.path().join("f"), bytes).unwrap();
            rustix::fs::stat(temp.path().join("f")).unwrap()
        };
        let (empty, full) = (stat_of(b""), stat_of(b"12345"));
        let stored = || false;
        assert!(!changed(&full, &full, 5, stored));
        assert!(changed(&full, &full, 4, stored), "it ended early");
        assert!(!changed(&full, &full, 4, || true), "its size means nothing");
        assert!(changed(&empty, &full, 5, stored), "it grew");
        assert!(changed(&full, &empty, 5, || true), "it shrank");
        assert!(!changed(&empty, &empty, 0, stored));
        assert!(!changed(&empty, &empty, 17, stored), "it has content without a size");
        let mut later = full;
        later.st_mtime += 1;
        assert!(changed(&full, &later, 5, stored));
    }
}
