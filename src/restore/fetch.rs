//! Stage 4: blobs out of packs, each fetched once and handed to every place it is used.
//!
//! Packs come in the order in which the files first need them. A few threads take pack after pack: what is wanted of it is read front to
//! back with one request, small gaps and all, and opened (authenticated, expanded, compared with its hash) and written as it comes.
//! A blob that cannot be had in this way is looked for everywhere else. [`Room`] bounds what all threads hold together.

use super::error::{Error, Result};
use super::file::is_zero;
use super::plan::{Plan, Use};
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::limits;
use crate::progress::Progress;
use crate::repo::index::Location;
use crate::repo::{self, Index, Repository, check_size, reading_threads, room, together};
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

/// Steps in one pack.
struct Run {
    steps: Range<usize>,
    pack: Id,
    /// Bytes that its blobs need while they are read and opened.
    bytes: u64,
}

/// A blob in a pack, and the steps that use it.
type Wanted<'f> = (&'f [Step], Location);

/// Used again and again.
#[derive(Default)]
struct Buffers {
    sealed: Vec<u8>,
    plaintexts: Vec<u8>,
}

struct Fetch<'f> {
    repo: &'f Repository,
    index: &'f Index,
    plan: &'f Plan,
    sink: &'f dyn Sink,
    progress: &'f Progress,
    steps: Vec<Step>,
    next: Mutex<usize>,
    room: Room,
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Final errors of the store since its last success.
    store_errors: AtomicU32,
}

/// Fetches everything that the sink wants.
pub fn run(repo: &Repository, index: &Index, plan: &Plan, sink: &dyn Sink, progress: &Progress) -> Result<()> {
    let held = index.memory() + plan.memory();
    let left = repo.settings().budget.left(held).map_err(repo::Error::from)?;
    let fetch = Fetch {
        repo,
        index,
        plan,
        sink,
        progress,
        steps: order(index, plan, sink),
        next: Mutex::new(0),
        room: Room::new(left.min(limits::RESTORE_BUFFERS)),
        failure: Mutex::new(None),
        stopped: AtomicBool::new(false),
        store_errors: AtomicU32::new(0),
    };
    let threads = reading_threads(repo, held)?;
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

/// Where a blob begins and ends in its pack.
fn extent((_, Location { blob, .. }): &Wanted<'_>) -> (u64, u64) {
    (u64::from(blob.offset), u64::from(blob.offset) + u64::from(blob.length))
}

/// Whether one blob follows another so closely that they are read with one request.
fn adjoin(one: &Wanted<'_>, other: &Wanted<'_>) -> bool {
    let ((_, end), (start, _)) = (extent(one), extent(other));
    let sound = [one, other].iter().all(|(_, location)| check_size(&location.blob).is_ok());
    sound && (end..=end + limits::RESTORE_GAP).contains(&start)
}

/// How many of some blobs to read and open together; at least one.
fn read_together(left: &[Wanted<'_>]) -> usize {
    let (start, _) = extent(&left[0]);
    let near = left.iter().take_while(|wanted| extent(wanted).1 - start <= limits::RESTORE_READ);
    together(near.map(|(_, location)| location.blob.plain_length()))
}

impl Fetch<'_> {
    fn work(&self) {
        while let Some(run) = self.next_run() {
            let _held = self.room.take(run.bytes);
            if let Err(error) = self.fetch(&run) {
                lock(&self.failure).get_or_insert(error);
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    fn next_run(&self) -> Option<Run> {
        if self.is_stopped() {
            return None;
        }
        let mut next = lock(&self.next);
        let first = self.steps.get(*next)?;
        let count = self.steps[*next..].iter().take_while(|step| step.pack == first.pack).count();
        let steps = *next..*next + count;
        *next = steps.end;
        drop(next);
        let largest = |largest: u64, step| {
            let PackedBlob { length, .. } = self.location(step).blob;
            largest.max(u64::from(length) + self.location(step).blob.plain_length())
        };
        let largest = self.steps[steps.clone()].iter().fold(0, largest);
        // Sealed, expanded, and one of them between the two.
        let bytes = limits::RESTORE_READ + limits::OPENED_TOGETHER + largest;
        Some(Run { pack: self.location(&self.steps[steps.start]).pack, steps, bytes })
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.progress.is_interrupted()
    }

    fn location(&self, step: &Step) -> Location {
        self.plan.location(self.index, &self.plan.uses[step.needed as usize])
    }

    /// Reads what is wanted of a pack and hands it on.
    fn fetch(&self, run: &Run) -> Result<()> {
        let blob = |step: &Step| self.plan.uses[step.needed as usize].blob;
        let uses = self.steps[run.steps.clone()].chunk_by(|a, b| blob(a) == blob(b));
        let uses: Vec<Wanted> = uses.map(|same| (same, self.location(&same[0]))).collect();
        let mut buffers = Buffers::default();
        uses.chunk_by(adjoin).try_for_each(|stretch| self.fetch_stretch(run.pack, stretch, &mut buffers))
    }

    /// Reads a stretch of a pack front to back, with one request and the small gaps in it.
    fn fetch_stretch(&self, pack: Id, stretch: &[Wanted<'_>], buffers: &mut Buffers) -> Result<()> {
        let Buffers { sealed, plaintexts } = buffers;
        let (start, end) = (extent(&stretch[0]).0, extent(&stretch[stretch.len() - 1]).1);
        // A blob too large for memory is alone in its stretch, and refused before it is read.
        let mut download = match check_size(&stretch[0].1.blob) {
            Ok(()) => {
                let download = self.repo.store().download(File::new(FileType::Pack, pack), start, end - start);
                self.heed(download.map_err(repo::Error::from))?
            }
            Err(_) => None,
        };
        let mut at = start;
        let mut left = stretch;
        while !left.is_empty() && !self.is_stopped() {
            let (now, later) = left.split_at(read_together(left));
            let (_, stop) = extent(&now[now.len() - 1]);
            let read = match &mut download {
                Some(download) => {
                    let bytes = room(sealed, usize::try_from(stop - at).expect("a few blobs"));
                    let read = download.read(bytes).map_err(repo::Error::from);
                    self.heed(read)?.map(|()| &*bytes)
                }
                None => None,
            };
            let opened = match read {
                Some(bytes) => {
                    let part = |wanted: &Wanted| {
                        let (from, to) = extent(wanted);
                        (wanted.1, &bytes[(from - at) as usize..(to - at) as usize])
                    };
                    self.repo.open_blobs(&now.iter().map(part).collect::<Vec<_>>(), None, plaintexts)
                }
                None => {
                    download = None;
                    Vec::new()
                }
            };
            let mut opened = opened.into_iter();
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
            (at, left) = (stop, later);
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
struct Room {
    total: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// A part of the room, given back when dropped.
struct Held<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Room {
    fn new(total: u64) -> Room {
        Room { total, free: Mutex::new(total), freed: Condvar::new() }
    }

    /// Waits until there is room. What is larger than all of it has it alone.
    fn take(&self, bytes: u64) -> Held<'_> {
        let bytes = bytes.min(self.total);
        let mut free = lock(&self.free);
        while *free < bytes {
            free = self.freed.wait(free).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *free -= bytes;
        Held { room: self, bytes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *lock(&self.room.free) += self.bytes;
        self.room.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
