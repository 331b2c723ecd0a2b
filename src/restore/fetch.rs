//! Stage 4: blobs out of packs, each fetched once and handed to every place it is used.
//!
//! Packs come in the order in which the files first need them. What is wanted of a pack is read in runs that bridge small gaps; a few
//! threads take run after run, open the blobs (authenticated, expanded, compared with their hash) and write them. A blob that
//! cannot be had from its run is looked for everywhere else. [`Budget`] bounds what all threads hold together.

use super::error::{Error, Result};
use super::file::is_zero;
use super::plan::{Plan, Use};
use crate::crypto::OVERHEAD;
use crate::format::BlobType;
use crate::id::Id;
use crate::limits;
use crate::progress::Progress;
use crate::repo::index::Location;
use crate::repo::{self, Index, Repository, together};
use crate::store::{File, FileType, StoreError};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

/// Where plaintext goes.
pub trait Sink: Sync {
    /// `false`: the use is of no use any more.
    fn wants(&self, needed: &Use) -> bool;

    /// Takes what a use's blob holds. An error ends the restore.
    fn write(&self, needed: &Use, plaintext: &[u8], all_zero: bool) -> Result<()>;

    /// A use's blob cannot be had.
    fn lack(&self, needed: &Use, why: &str);
}

/// A use in the order of fetching: by pack, and by place in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    pack: u32,
    offset: u32,
    needed: u32,
}

/// Steps whose blobs are read together.
struct Run {
    steps: Range<usize>,
    pack: Id,
    start: u64,
    end: u64,
    /// Bytes that its blobs need while they are opened.
    opening: u64,
}

struct Fetch<'f> {
    repo: &'f Repository,
    index: &'f Index,
    plan: &'f Plan,
    sink: &'f dyn Sink,
    progress: &'f Progress,
    steps: Vec<Step>,
    next: Mutex<usize>,
    budget: Budget,
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Final errors of the store since its last success.
    store_errors: AtomicU32,
}

/// Fetches everything that the sink wants.
pub fn run(repo: &Repository, index: &Index, plan: &Plan, sink: &dyn Sink, progress: &Progress) -> Result<()> {
    let fetch = Fetch {
        repo,
        index,
        plan,
        sink,
        progress,
        steps: order(index, plan, sink),
        next: Mutex::new(0),
        budget: Budget::new(limits::RESTORE_BUFFERS),
        failure: Mutex::new(None),
        stopped: AtomicBool::new(false),
        store_errors: AtomicU32::new(0),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = repo.store().connections().max(cores).clamp(1, limits::RESTORE_THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| fetch.work());
        }
    });
    match lock(&fetch.failure).take() {
        Some(error) => Err(error),
        None if progress.is_interrupted() => Err(Error::interrupted()),
        None => Ok(()),
    }
}

/// All wanted uses by pack, the pack that is needed first in front.
fn order(index: &Index, plan: &Plan, sink: &dyn Sink) -> Vec<Step> {
    let mut ranks: HashMap<Id, u32> = HashMap::new();
    let mut steps = Vec::new();
    let wanted = |(number, needed): &(usize, &Use)| !plan.is_present(*number) && sink.wants(needed);
    for (number, needed) in plan.uses.iter().enumerate().filter(wanted) {
        let Location { pack, blob } = plan.location(index, needed);
        let next = u32::try_from(ranks.len()).expect("fewer than 2^32 packs");
        let pack = *ranks.entry(pack).or_insert(next);
        let needed = u32::try_from(number).expect("the plan's memory is bounded");
        steps.push(Step { pack, offset: blob.offset, needed });
    }
    steps.sort_unstable();
    steps
}

impl Fetch<'_> {
    fn work(&self) {
        while let Some(run) = self.next_run() {
            let _held = self.budget.take(run.end - run.start + run.opening);
            if let Err(error) = self.fetch(&run) {
                lock(&self.failure).get_or_insert(error);
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    fn next_run(&self) -> Option<Run> {
        if self.stopped.load(Ordering::Relaxed) || self.progress.is_interrupted() {
            return None;
        }
        let mut next = lock(&self.next);
        let first = self.steps.get(*next)?;
        let Location { pack, blob } = self.location(first);
        let start = u64::from(blob.offset);
        let mut run = Run { steps: *next..*next + 1, pack, start, end: start, opening: 0 };
        for step in self.steps[*next..].iter().take_while(|step| step.pack == first.pack) {
            let blob = self.location(step).blob;
            let end = u64::from(blob.offset) + u64::from(blob.length);
            let apart = u64::from(blob.offset) > run.end + limits::RESTORE_GAP || end - start > limits::RESTORE_RUN;
            if run.end > start && end > run.end && apart {
                break;
            }
            run.end = run.end.max(end);
            // The compressed form of one beside the plain form of those opened together.
            run.opening = run.opening.max(u64::from(blob.length) + blob.plain_length().max(limits::OPENED_TOGETHER));
            run.steps.end += 1;
        }
        run.steps.end -= 1;
        *next = run.steps.end;
        Some(run)
    }

    fn location(&self, step: &Step) -> Location {
        self.plan.location(self.index, &self.plan.uses[step.needed as usize])
    }

    fn fetch(&self, run: &Run) -> Result<()> {
        // A blob too large for memory is alone in its run, and refused before it is read.
        let sealed = if run.end - run.start <= limits::DATA_BLOB + OVERHEAD as u64 {
            let length = usize::try_from(run.end - run.start).expect("bounded");
            let read = self.repo.store().read_at(File::new(FileType::Pack, run.pack), run.start, length);
            self.heed(read.map_err(repo::Error::from))?
        } else {
            None
        };
        let blob = |step: &Step| self.plan.uses[step.needed as usize].blob;
        let uses = self.steps[run.steps.clone()].chunk_by(|a, b| blob(a) == blob(b));
        let uses: Vec<(&[Step], Location)> = uses.map(|same| (same, self.location(&same[0]))).collect();
        let mut left = &uses[..];
        let mut plaintexts = Vec::new();
        while !left.is_empty() {
            let (now, later) = left.split_at(together(left.iter().map(|(_, location)| location.blob.plain_length())));
            left = later;
            let opened = sealed.as_ref().map(|sealed| {
                let part = |&(_, location): &(&[Step], Location)| {
                    let from = usize::try_from(u64::from(location.blob.offset) - run.start).expect("in the run");
                    (location, &sealed[from..from + location.blob.length as usize])
                };
                self.repo.open_blobs(&now.iter().map(part).collect::<Vec<_>>(), None, &mut plaintexts)
            });
            let mut opened = opened.into_iter().flatten();
            for (same, location) in now {
                match opened.next() {
                    Some(Ok(range)) => self.deliver(same, &plaintexts[range], Ok(()))?,
                    _ => {
                        let mut plaintext = Vec::new();
                        let loaded = self.load_again(location, &mut plaintext)?;
                        self.deliver(same, &plaintext, loaded)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads one blob from wherever it can be had; the first copy once more too, for it may have been damaged on the way here.
    fn load_again(&self, location: &Location, plaintext: &mut Vec<u8>) -> Result<repo::Result<()>> {
        let loaded = self.repo.load_blob(self.index, BlobType::Data, location.blob.id);
        let why = match loaded {
            Ok(loaded) => {
                *plaintext = loaded;
                self.store_errors.store(0, Ordering::Relaxed);
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        if let repo::Error::Store(StoreError::Failed { .. }) = why
            && self.store_errors.fetch_add(1, Ordering::Relaxed) + 1 >= limits::RESTORE_STORE_ERRORS
        {
            return Err(why.into());
        }
        Ok(Err(why))
    }

    /// `None` for an error that leaves hope for single blobs.
    fn heed<T>(&self, outcome: repo::Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => {
                self.store_errors.store(0, Ordering::Relaxed);
                Ok(Some(value))
            }
            Err(error @ repo::Error::Store(StoreError::Failed { .. })) => {
                let errors = self.store_errors.fetch_add(1, Ordering::Relaxed) + 1;
                if errors >= limits::RESTORE_STORE_ERRORS { Err(error.into()) } else { Ok(None) }
            }
            Err(_) => Ok(None),
        }
    }

    /// Hands a blob, or the news that there is none, to all its uses.
    fn deliver(&self, steps: &[Step], plaintext: &[u8], loaded: repo::Result<()>) -> Result<()> {
        let all_zero = loaded.is_ok() && is_zero(plaintext);
        let why = loaded.err().map(|error| error.to_string());
        for step in steps {
            let needed = &self.plan.uses[step.needed as usize];
            match &why {
                Some(why) => self.sink.lack(needed, why),
                None => self.sink.write(needed, plaintext, all_zero)?,
            }
            if self.progress.is_interrupted() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Bytes that may be held at a time by all threads together.
struct Budget {
    total: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// A part of the budget, given back when dropped.
struct Held<'b> {
    budget: &'b Budget,
    bytes: u64,
}

impl Budget {
    fn new(total: u64) -> Budget {
        Budget { total, free: Mutex::new(total), freed: Condvar::new() }
    }

    /// Waits until there is room. What is larger than all of it has it alone.
    fn take(&self, bytes: u64) -> Held<'_> {
        let bytes = bytes.min(self.total);
        let mut free = lock(&self.free);
        while *free < bytes {
            free = self.freed.wait(free).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *free -= bytes;
        Held { budget: self, bytes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *lock(&self.budget.free) += self.bytes;
        self.budget.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
