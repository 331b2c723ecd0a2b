//! Stage 3: large files and streams are read into slabs and cut into chunks.
//!
//! A reader fills slabs with one file after the other, and notes where the chunks end (see
//! [`super::fill`]). Holes are not read: the chunks inside one are known beforehand (see
//! [`crate::chunk::ZERO_CHUNK`]). Small files come another way ([`super::small`]).

use super::Run;
use super::assemble::Part;
use super::fill::{Filling, Pending};
use super::reach::Place;
use super::stat::{display, node_type, xattrs_of_file};
use crate::chunk::{Cutter, EndOfFile, MIN_SIZE, ZERO_CHUNK, is_zero_chunk};
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crossbeam_channel::{Receiver, TryRecvError};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whether the user asked for an entry by name. If that cannot be read, the request has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Named,
    Found,
}

/// A file to be read.
pub struct FileWork {
    pub path: PathBuf,
    pub node: Node,
    pub part: Arc<Part>,
    pub slot: usize,
    pub in_parent: bool,
    pub standing: Standing,
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
        part: Arc<Part>,
        slot: usize,
        standing: Standing,
        in_parent: bool,
    ) -> FileWork {
        FileWork { path, node, part, slot, in_parent, standing, input: Input::File }
    }

    /// A block device that the user named.
    pub fn device(path: PathBuf, node: Node, part: Arc<Part>, slot: usize, in_parent: bool) -> FileWork {
        FileWork { path, node, part, slot, in_parent, standing: Standing::Named, input: Input::Device }
    }

    /// A stream; `source` is what messages call it.
    pub fn stream(fd: OwnedFd, source: &str, node: Node, part: Arc<Part>, slot: usize) -> FileWork {
        let (path, standing) = (PathBuf::from(source), Standing::Named);
        FileWork { path, node, part, slot, in_parent: false, standing, input: Input::Stream(fd) }
    }

    /// Opens a regular file, takes from it what describes it, and makes sure that it is what was
    /// seen in the directory.
    pub fn open(&mut self, run: &Run<'_>, place: &Place<'_>) -> std::result::Result<OpenFile, String> {
        let fd = open_as_it_is(place, OFlags::NOFOLLOW)?;
        let mut warnings = Vec::new();
        // Before it is looked at: in sysfs, the first list of attributes changes the times.
        let xattrs = xattrs_of_file(&fd, |why| warnings.push(why));
        let stat = look_at(&fd)?;
        if node_type(&stat) != NodeType::File || stat.st_ino != self.node.inode {
            return Err(self.replaced());
        }
        run.observer.refresh(&mut self.node, &stat);
        self.node.xattrs = xattrs;
        Ok(OpenFile { fd, stat, warnings })
    }

    /// Reports what [`FileWork::open`] could not read, once the file is not to be opened again.
    pub fn report(&self, run: &Run<'_>, warnings: Vec<String>) {
        for why in warnings {
            run.problem(&self.path, why);
        }
    }

    fn replaced(&self) -> String {
        format!("{} was replaced while it was backed up", display(&self.path))
    }

    /// Reports a file that changed between `before` and the end of reading `read` bytes of it.
    pub fn compare(&self, run: &Run<'_>, fd: &OwnedFd, before: &Stat, read: u64) {
        if rustix::fs::fstat(fd).is_ok_and(|after| changed(before, &after, read, || is_generated(fd))) {
            run.problem(&self.path, "it changed while it was read: what is stored may never have been its content");
        }
    }

    /// The file cannot be read, and is left out.
    pub fn lose(&self, run: &Run<'_>, why: String) {
        run.lost(self.standing, &self.path, why);
        run.check(self.part.fill(run, self.slot, None));
    }
}

/// A regular file that has been opened.
pub struct OpenFile {
    pub fd: OwnedFd,
    pub stat: Stat,
    /// Extended attributes that cannot be read.
    pub warnings: Vec<String>,
}

/// What is known of an open file before it is read.
enum Opened {
    Regular(Stat),
    /// A block device of this size in bytes.
    Device(u64),
    Stream,
}

/// How long a reader waits for more of a stream before it looks whether the run is stopped: 200 ms.
const STREAM_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One reader with the slab it is filling.
pub struct Reader<'s, 'c> {
    run: &'s Run<'s>,
    filling: Filling<'s, 'c>,
    cutter: Cutter,
}

/// What is being read: its chunks so far and its size.
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
                    // Nobody should wait for what is complete while there is nothing to read.
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

    /// Reads one file. If it cannot be read, it is left out; the backup goes on unless all that was
    /// named is lost.
    fn read_file(&mut self, mut work: FileWork) {
        let run = self.run;
        let (fd, opened) = match open(run, &mut work) {
            Ok(opened) => opened,
            Err(why) => return work.lose(run, why),
        };
        let mut current = Current { file: Pending::new(work), chunks: 0, size: 0 };
        self.cutter.reset();
        self.filling.begin_file();
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
                // It may have content all the same, as in proc.
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
        self.filling.make_room(1);
        let room = self.filling.room();
        let bytes = self.filling.bytes_mut();
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
        self.cut(current, EndOfFile::Ahead);
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

    /// Cuts what has been read.
    fn cut(&mut self, current: &mut Current, end: EndOfFile) {
        while let Some(length) = self.cutter.next_cut(self.filling.rest(), end) {
            self.add_chunk(length, current);
        }
    }

    fn add_chunk(&mut self, length: usize, current: &mut Current) {
        // Zeros that are stored need no more than a look at them.
        if is_zero_chunk(&self.filling.rest()[..length]) {
            self.filling.skip(length);
            return self.add_zero_chunks(1, current);
        }
        self.filling.add_chunk(&current.file, current.chunks, length);
        current.chunks += 1;
    }
}

/// Opens what is to be read.
fn open(run: &Run<'_>, work: &mut FileWork) -> std::result::Result<(OwnedFd, Opened), String> {
    match std::mem::replace(&mut work.input, Input::File) {
        Input::Stream(fd) => Ok((fd, Opened::Stream)),
        Input::File => {
            let path = work.path.clone();
            let place = Place::at(&path).map_err(|error| cannot("reached", error))?;
            let OpenFile { fd, stat, warnings } = work.open(run, &place)?;
            work.report(run, warnings);
            Ok((fd, Opened::Regular(stat)))
        }
        Input::Device => {
            let place = Place::at(&work.path).map_err(|error| cannot("reached", error))?;
            // The user named it: its name may be a symlink.
            let fd = open_as_it_is(&place, OFlags::empty())?;
            if node_type(&look_at(&fd)?) != NodeType::Dev {
                return Err(work.replaced());
            }
            let size = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|error| cannot("measured", error))?;
            rustix::fs::seek(&fd, SeekFrom::Start(0)).map_err(|error| cannot("read", error))?;
            if size == 0 {
                return Err(
                    "it cannot be read: the device has a size of 0 bytes, as if nothing were attached to it".into()
                );
            }
            Ok((fd, Opened::Device(size)))
        }
    }
}

/// Opens an entry without changing it.
fn open_as_it_is(place: &Place<'_>, follow: OFlags) -> std::result::Result<OwnedFd, String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | follow;
    // Only a file's owner and root may keep its access time as it is.
    let fd = match place.open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => place.open(flags),
        outcome => outcome,
    };
    fd.map_err(|error| cannot("opened", error))
}

fn look_at(fd: &OwnedFd) -> std::result::Result<Stat, String> {
    rustix::fs::fstat(fd).map_err(|error| cannot("looked at", error))
}

fn cannot(action: &str, error: Errno) -> String {
    format!("it cannot be {action}: {error}")
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
