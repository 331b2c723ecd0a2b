//! Stage 4: blobs out of packs, each fetched once and handed to every place it is used.
//!
//! Packs come in the order in which the files first need them. A thread for each connection, or
//! core if those are more, takes pack after pack, and parts of packs when few are left, so that
//! none is idle before the end: what is wanted is read front to back with one request, small gaps
//! and all, and opened (authenticated, expanded, compared with its hash) and written as it comes. A
//! blob that cannot be had in this way is looked for everywhere else. [`Reading`] bounds what all
//! threads hold together. A panic in a thread ends all of them with an error.

use super::context::Restoring;
use super::error::{Error, Result, is_lost};
use super::panics::caught;
use super::plan::table::Use;
use super::zeros::Fill;
use crate::format::BlobType;
use crate::id::Id;
use crate::limits;
use crate::repo::index::Location;
use crate::repo::{self, Index, ReadBuffers, Reading, TreeReader, adjoin, check_size, room, together};
use crate::store::{Download, File, FileType, StoreError};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Where plaintext goes.
pub trait Sink: Sync {
    /// Whether a use, the one of this number, is to be fetched.
    fn wants(&self, number: usize, needed: &Use) -> bool;

    /// Takes the content of a use's blob. An error ends the restore.
    fn write(&self, piece: Piece<'_>) -> Result<()>;

    /// A use's blob cannot be read. An error ends the restore.
    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()>;

    /// Bytes that it holds at most after it has returned.
    fn holds(&self) -> u64 {
        0
    }
}

/// The content of a blob, and one place that it goes to.
#[derive(Clone, Copy)]
pub struct Piece<'p> {
    pub needed: Use,
    pub bytes: &'p [u8],
    pub fill: Fill,
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
}

/// What no thread has taken yet.
struct Waiting {
    next: usize,
    /// Bytes of its blobs in their packs; one that is used several times counts as often.
    bytes: u64,
}

/// A part of a pack is not smaller than this, unless it is the last one: what a request costs
/// beside its bytes is a quarter of it at 100 ms of latency and 10 MB/s, and less where links are
/// faster.
const LEAST_RUN: u64 = 4 << 20;

/// A blob, and the steps that use it.
type Wanted<'s> = (&'s [Step], Location);

/// What is read and opened together: blobs, and the bytes of the pack from the end of the portion
/// before to the end of the last of them.
struct Portion<'s> {
    wanted: Vec<Wanted<'s>>,
    bytes: Range<u64>,
}

struct Fetch<'f> {
    restoring: Restoring<'f>,
    uses: &'f [Use],
    sink: &'f dyn Sink,
    steps: Vec<Step>,
    reading: Reading,
    waiting: Mutex<Waiting>,
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Final errors of the store since its last success.
    store_errors: AtomicU32,
}

/// Fetches every use that the sink wants. `held` bytes of memory are taken by the uses and by what
/// else the caller keeps of them.
pub fn run(restoring: &Restoring<'_>, uses: &[Use], held: u64, sink: &dyn Sink) -> Result<()> {
    let Restoring { repo, index, progress, .. } = *restoring;
    let (steps, bytes) = order(index, uses, sink);
    // Trees have been read, and will be read again.
    let held = held + TreeReader::KEPT;
    let left = repo.settings().budget.left(index.memory(), held).map_err(repo::Error::from)?;
    let left = left.saturating_sub(sink.holds());
    let fetch = Fetch {
        restoring: *restoring,
        uses,
        sink,
        steps,
        reading: Reading::within(repo, left),
        waiting: Mutex::new(Waiting { next: 0, bytes }),
        failure: Mutex::new(None),
        stopped: AtomicBool::new(false),
        store_errors: AtomicU32::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 0..fetch.reading.threads {
            scope.spawn(|| fetch.work());
        }
    });
    match lock(&fetch.failure).take() {
        Some(error) => Err(error),
        None if progress.is_interrupted() => Err(Error::interrupted()),
        None => Ok(()),
    }
}

/// All wanted uses by pack, the pack that is needed first in front, and the bytes of their blobs.
fn order(index: &Index, uses: &[Use], sink: &dyn Sink) -> (Vec<Step>, u64) {
    let mut ranks: HashMap<Id, u32> = HashMap::new();
    let mut bytes = 0;
    let mut steps = Vec::new();
    for (number, needed) in uses.iter().enumerate().filter(|(number, needed)| sink.wants(*number, needed)) {
        let Location { pack, blob } = needed.location(index);
        let next = u32::try_from(ranks.len()).expect("fewer than 2^32 packs");
        let pack = *ranks.entry(pack).or_insert(next);
        let needed = u32::try_from(number).expect("the plan's memory is bounded");
        steps.push(Step { pack, offset: blob.offset, needed });
        bytes += u64::from(blob.length);
    }
    steps.shrink_to_fit();
    steps.sort_unstable();
    (steps, bytes)
}

impl Fetch<'_> {
    fn work(&self) {
        let mut buffers = ReadBuffers::new(&self.reading);
        while let Some(run) = self.next_run() {
            let outcome = caught("blobs were read and written", || self.fetch(&run, &mut buffers));
            if let Err(error) = outcome {
                lock(&self.failure).get_or_insert(error);
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The rest of the pack that comes next, or a part of it where whole packs would leave threads
    /// without work.
    fn next_run(&self) -> Option<Run> {
        if self.is_stopped() {
            return None;
        }
        let mut waiting = lock(&self.waiting);
        let start = waiting.next;
        let first = self.steps.get(start)?;
        let share = waiting.bytes / (2 * self.reading.threads as u64);
        let (mut end, mut bytes) = (start, 0);
        while let Some(step) = self.steps.get(end).filter(|step| step.pack == first.pack) {
            // A blob's uses stay together.
            if bytes >= share.max(LEAST_RUN) && step.offset != self.steps[end - 1].offset {
                break;
            }
            bytes += u64::from(self.location(step).blob.length);
            end += 1;
        }
        *waiting = Waiting { next: end, bytes: waiting.bytes - bytes };
        drop(waiting);
        Some(Run { pack: self.location(first).pack, steps: start..end })
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.restoring.progress.is_interrupted()
    }

    fn location(&self, step: &Step) -> Location {
        self.uses[step.needed as usize].location(self.restoring.index)
    }

    /// Reads what is wanted of a pack and hands it on.
    fn fetch(&self, run: &Run, buffers: &mut ReadBuffers) -> Result<()> {
        // A blob that is used several times is several steps.
        let together = |a: &Step, b: &Step| {
            let (one, other) = (self.location(a).blob, self.location(b).blob);
            one == other || adjoin(&one, &other)
        };
        let mut stretches = self.steps[run.steps.clone()].chunk_by(together);
        stretches.try_for_each(|stretch| self.fetch_stretch(run.pack, stretch, buffers))
    }

    /// Reads a stretch of a pack front to back, with one request and the small gaps in it.
    fn fetch_stretch(&self, pack: Id, stretch: &[Step], buffers: &mut ReadBuffers) -> Result<()> {
        let first = self.location(&stretch[0]).blob;
        let (start, end) = (u64::from(first.offset), self.location(&stretch[stretch.len() - 1]).blob.end());
        let open = || match check_size(&first) {
            Ok(()) => {
                let download =
                    self.restoring.repo.store().download(File::new(FileType::Pack, pack), start, end - start);
                self.heed(download.map_err(repo::Error::from))
            }
            Err(_) => Ok(None),
        };
        // Asked for when there is room for what comes first: no answer waits.
        let mut download = None;
        let mut at = start;
        let mut left = stretch;
        while !left.is_empty() && !self.is_stopped() {
            let (portion, count) = self.portion(left, at);
            let Range { start: from, end: stop } = portion.bytes;
            let _held = self.reading.room(stop - from, portion.wanted.iter().map(|(_, location)| location.blob));
            if at == start {
                download = open()?;
            }
            self.fetch_portion(&portion, &mut download, buffers)?;
            buffers.shrink();
            (at, left) = (stop, &left[count..]);
        }
        Ok(())
    }

    /// Reads and opens a portion, and hands it on.
    fn fetch_portion(
        &self,
        portion: &Portion<'_>,
        download: &mut Option<Box<dyn Download + '_>>,
        buffers: &mut ReadBuffers,
    ) -> Result<()> {
        let Portion { wanted, bytes: Range { start, end } } = portion;
        let ReadBuffers { sealed, plaintexts, .. } = buffers;
        let read = match download {
            Some(download) => {
                let bytes = room(sealed, usize::try_from(end - start).expect("a few blobs"));
                let read = download.read(bytes).map_err(repo::Error::from);
                self.heed(read)?.map(|()| &*bytes)
            }
            None => None,
        };
        let opened = match read {
            Some(bytes) => {
                let part = |&(_, location): &Wanted| {
                    let from = u64::from(location.blob.offset) - start;
                    (location, &bytes[from as usize..(location.blob.end() - start) as usize])
                };
                self.restoring.repo.open_blobs(&wanted.iter().map(part).collect::<Vec<_>>(), None, plaintexts)
            }
            None => {
                *download = None;
                Vec::new()
            }
        };
        let mut opened = opened.into_iter();
        for &(same, location) in wanted {
            match opened.next() {
                Some(Ok(range)) => self.deliver(same, &plaintexts[range], Ok(()))?,
                _ => {
                    let mut plaintext = Vec::new();
                    let loaded = self.load_again(&location, &mut plaintext)?;
                    self.deliver(same, &plaintext, loaded)?;
                }
            }
        }
        Ok(())
    }

    /// What to read and open together next of the steps that are left of a stretch, and the number
    /// of steps that takes: at least those of one blob. The pack has been read up to `start`.
    fn portion<'s>(&self, steps: &'s [Step], start: u64) -> (Portion<'s>, usize) {
        let blob = |step: &Step| self.uses[step.needed as usize].blob;
        let uses = || steps.chunk_by(|a, b| blob(a) == blob(b)).map(|same| (same, self.location(&same[0])));
        let wanted: Vec<Wanted> =
            uses().take(together(uses().map(|(_, location)| location.blob), self.reading.portion)).collect();
        let count = wanted.iter().map(|(same, _)| same.len()).sum();
        let end = wanted[wanted.len() - 1].1.blob.end();
        (Portion { wanted, bytes: start..end }, count)
    }

    /// Reads one blob from wherever it can be had; the first copy again, too, because it may have
    /// been damaged on the way here.
    fn load_again(&self, location: &Location, plaintext: &mut Vec<u8>) -> Result<repo::Result<()>> {
        let Restoring { repo, index, .. } = self.restoring;
        let loaded = repo.load_blob(index, BlobType::Data, location.blob.id);
        let why = match loaded {
            Ok(loaded) => {
                *plaintext = loaded;
                self.store_errors.store(0, Ordering::Relaxed);
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        self.bear(why).map(Err)
    }

    /// `None` for an error that leaves hope for single blobs.
    fn heed<T>(&self, outcome: repo::Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => {
                self.store_errors.store(0, Ordering::Relaxed);
                Ok(Some(value))
            }
            Err(error) => self.bear(error).map(|_| None),
        }
    }

    /// Gives back an error that other blobs may be spared: a lost blob's, and a request's that
    /// failed unless several have in a row. Any other ends the restore, because every request would
    /// meet it: credentials that have expired, a bucket that is missing.
    fn bear(&self, error: repo::Error) -> Result<repo::Error> {
        if is_lost(&error) {
            return Ok(error);
        }
        let failed = matches!(error, repo::Error::Store(StoreError::Failed { .. }));
        let spares_others = failed && self.store_errors.fetch_add(1, Ordering::Relaxed) + 1 < limits::STORE_ERRORS;
        if spares_others { Ok(error) } else { Err(error.into()) }
    }

    /// Hands a blob, or the news that there is none, to all its uses.
    fn deliver(&self, steps: &[Step], plaintext: &[u8], loaded: repo::Result<()>) -> Result<()> {
        let loaded = loaded.map(|()| Fill::of(plaintext));
        for step in steps {
            let needed = self.uses[step.needed as usize];
            match &loaded {
                Ok(fill) => self.sink.write(Piece { needed, bytes: plaintext, fill: *fill })?,
                Err(why) => self.sink.lack(&needed, why)?,
            }
            if self.restoring.progress.is_interrupted() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
