//! Fills slabs with chunks of files, and stage 4: the jobs that store these chunks.
//!
//! A [`Filling`] has a slab only while the slab contains data. Complete chunks are passed to jobs
//! of a few chunks each, which hash, seal and pack them on all cores.

use super::file::FileWork;
use super::run::Run;
use super::slab::{SLAB_SIZE, Slab};
use super::stat::display;
use crate::format::content::{Content, NewContent};
use crate::id::Id;
use crate::repo::Error;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A file whose chunks are being stored.
pub struct Pending {
    pub work: FileWork,
    content: Mutex<Chunks>,
    /// The number of bytes read; known when the whole file has been read.
    size: AtomicU64,
    /// The number of chunks not yet stored, plus one until the whole file has been read.
    open: AtomicUsize,
}

/// The ids of a file's chunks, which become known in any order.
#[derive(Default)]
pub struct Chunks {
    known: NewContent,
    /// The chunks from the first unknown one on, in runs of an id and a count. An unknown chunk is
    /// a run of its own; the chunks of a hole, which share a known id, are one run.
    waiting: VecDeque<(Option<Id>, usize)>,
}

impl Chunks {
    /// Adds a chunk whose id is not known yet.
    fn add(&mut self) {
        self.waiting.push_back((None, 1));
    }

    /// Adds `count` chunks with this id.
    pub fn add_known(&mut self, id: Id, count: usize, aside: Option<&Path>) -> io::Result<()> {
        if count > 0 {
            self.waiting.push_back((Some(id), count));
        }
        self.settle(aside)
    }

    fn set(&mut self, index: usize, id: Id, aside: Option<&Path>) -> io::Result<()> {
        let mut first = self.known.len();
        // The search is short: the runs are the chunks in flight and those between them.
        let run = self.waiting.iter_mut().find(|(_, count)| {
            let is_here = first == index;
            first += *count;
            is_here
        });
        run.expect("the chunk was added").0 = Some(id);
        self.settle(aside)
    }

    fn settle(&mut self, aside: Option<&Path>) -> io::Result<()> {
        while let Some(&(Some(id), count)) = self.waiting.front() {
            (0..count).try_for_each(|_| self.known.push(id, aside))?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn take(&mut self) -> io::Result<Content> {
        std::mem::take(&mut self.known).finish()
    }
}

/// A piece of a slab that becomes a blob.
struct Chunk {
    file: Arc<Pending>,
    /// Its index in the file's content.
    index: usize,
    bytes: Range<usize>,
}

/// The bytes of chunks that are enough for a job, and the most chunks in one. These are two or
/// three chunks of a large file, because hashes are computed two at a time, and yet more than one
/// job in a slab.
const JOB_BYTES: usize = 2 << 20;
const JOB_CHUNKS: usize = 128;

/// The most chunks in a slab. A tiny file takes many times the memory of its content, so without
/// this bound the files of a slab would take more memory than the slab.
const SLAB_CHUNKS: usize = 2048;

/// A slab that is being filled, with its complete chunks.
pub struct Filling<'s, 'c> {
    run: &'s Run<'s>,
    cpu: &'c rayon::Scope<'s>,
    slab: Option<Slab>,
    /// Where the chunk being read starts in the slab.
    start: usize,
    chunks: Vec<Chunk>,
}

impl<'s, 'c> Filling<'s, 'c> {
    pub fn new(run: &'s Run<'s>, cpu: &'c rayon::Scope<'s>) -> Filling<'s, 'c> {
        Filling { run, cpu, slab: None, start: 0, chunks: Vec::new() }
    }

    /// The bytes of the incomplete chunk that have been read.
    pub fn rest(&self) -> &[u8] {
        self.slab.as_deref().map_or(&[], |slab| &slab[self.start..])
    }

    pub fn drop_rest(&mut self) {
        let start = self.start;
        self.bytes_mut().truncate(start);
    }

    /// The number of bytes that the slab can take; all of a slab if none has been taken.
    pub fn room(&self) -> usize {
        self.slab.as_ref().map_or(SLAB_SIZE, Slab::room)
    }

    /// The slab's bytes, to be appended to. Waits for a free slab if none has been taken.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.slab.get_or_insert_with(|| self.run.slabs.take()).bytes_mut()
    }

    /// Takes a new slab unless this one has room for `length` bytes. The beginning of the current
    /// chunk moves to the new slab.
    pub fn make_room(&mut self, length: usize) {
        if self.room() < length {
            self.turn();
        }
    }

    /// Makes the first `length` bytes of the rest the chunk `index` of `file`.
    pub fn add_chunk(&mut self, file: &Arc<Pending>, index: usize, length: usize) {
        file.content().add();
        file.open.fetch_add(1, Ordering::Relaxed);
        let bytes = self.start..self.start + length;
        self.start = bytes.end;
        self.chunks.push(Chunk { file: file.clone(), index, bytes });
    }

    /// Skips the first `length` bytes of the rest, which need not be stored.
    pub fn skip(&mut self, length: usize) {
        self.start += length;
    }

    /// Begins a file with the next byte.
    pub fn begin_file(&mut self) {
        self.start = self.slab.as_deref().map_or(0, <[u8]>::len);
    }

    /// Discards the chunks of a file that is left out.
    pub fn discard(&mut self, file: &Arc<Pending>) {
        self.chunks.retain(|chunk| !Arc::ptr_eq(&chunk.file, file));
        self.begin_file();
    }

    pub fn has_enough_chunks(&self) -> bool {
        self.chunks.len() >= SLAB_CHUNKS
    }

    /// Whether no job is running, and the complete chunks are enough for a job or a thread waits
    /// for a slab, which no job will free.
    pub fn is_waited_for(&self) -> bool {
        let is_wanted = self.start >= JOB_BYTES || self.run.slabs.is_short();
        is_wanted && self.run.jobs.load(Ordering::Relaxed) == 0
    }

    /// Passes the complete chunks to jobs. An incomplete chunk continues in a new slab.
    pub fn turn(&mut self) {
        let Some(slab) = self.slab.take() else { return };
        if self.start == 0 && !slab.is_empty() {
            self.slab = Some(slab);
            return;
        }
        // The jobs get the old slab before this thread waits for the new one.
        let old = Arc::new(slab);
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
            run.jobs.fetch_add(1, Ordering::Relaxed);
            self.cpu.spawn(move |_| {
                run.guarded(|| store_chunks(run, &slab, job));
                run.jobs.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let rest = &old[self.start..];
        if !rest.is_empty() {
            self.slab.insert(self.run.slabs.take()).bytes_mut().extend_from_slice(rest);
        }
        self.start = 0;
    }
}

/// Stage 4: stores chunks as blobs of the repository.
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
        let set = file.content().set(index, id, run.aside());
        match set {
            Ok(()) => file.close_one(run),
            Err(error) => return run.fail(file.not_aside(run, error)),
        }
    }
}

impl Pending {
    pub fn new(work: FileWork) -> Arc<Pending> {
        let (content, size, open) = (Mutex::default(), AtomicU64::new(0), AtomicUsize::new(1));
        Arc::new(Pending { work, content, size, open })
    }

    pub fn content(&self) -> std::sync::MutexGuard<'_, Chunks> {
        self.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The error that the list of its chunks cannot be spilled to disk.
    pub fn not_aside(&self, run: &Run<'_>, error: io::Error) -> Error {
        let what = format!("the list of the chunks of {}", display(&self.work.path));
        Error::aside(what, run.aside(), error)
    }

    /// Records that the whole file has been read, and its size in bytes.
    pub fn is_read(&self, run: &Run<'_>, size: u64) {
        self.size.store(size, Ordering::Release);
        self.close_one(run);
    }

    /// Counts a stored chunk, or the end of reading. The last of these finishes the file.
    fn close_one(&self, run: &Run<'_>) {
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 || run.is_stopped() {
            return;
        }
        let FileWork { path, node, slot, action, .. } = &self.work;
        let mut node = node.clone();
        node.size = self.size.load(Ordering::Acquire);
        let content = self.content().take();
        match content {
            Ok(content) => node.content = Some(content),
            Err(error) => return run.fail(self.not_aside(run, error)),
        }
        run.finish_file(&node, *action, path);
        run.check(slot.fill(run, Some(&node)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_in_the_order_of_the_file_whatever_the_order_of_completion() {
        let id = |number: u8| Id([number; 32]);
        for order in [[0, 4, 5], [5, 4, 0], [4, 0, 5]] {
            let mut chunks = Chunks::default();
            chunks.add();
            chunks.add_known(id(9), 3, None).unwrap();
            chunks.add();
            chunks.add();
            assert_eq!(chunks.waiting.len(), 4, "a hole is one run, whatever its size");
            chunks.add_known(id(9), 1, None).unwrap();
            order.into_iter().for_each(|index| chunks.set(index, id(index as u8), None).unwrap());
            let ids = chunks.take().unwrap();
            assert!(ids.iter().eq([0, 9, 9, 9, 4, 5, 9].map(id)), "{order:?}: {ids:?}");
        }
    }
}
