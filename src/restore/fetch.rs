//! Stage 4: fetches blobs from packs, each once, and passes them to every place that uses them.
//!
//! Packs are read in the order in which the files first need them. Each thread, one per connection
//! or core, whichever are more, takes pack after pack, and parts of packs when few are left, so
//! that no thread is idle before the end. A [`PackReader`] reads the wanted blobs front to back,
//! and they are written as they arrive. A blob that cannot be read in this way is searched for in
//! other packs. [`Reading`] bounds the memory of all threads together. A panic in a thread ends all
//! of them with an error.

use super::context::Restoring;
use super::error::{Error, Result, is_lost};
use super::panics::caught;
use super::plan::table::Use;
use super::zeros::Fill;
use crate::format::BlobType;
use crate::format::pack::PackedBlob;
use crate::id::Id;
use crate::limits;
use crate::repo::index::Location;
use crate::repo::{self, Index, PackReader, Portion, Reading, Stretch, TreeReader};
use crate::store::{Download, StoreError};
use crate::sync::lock;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The destination of plaintext.
pub trait Sink: Sync {
    /// Whether the use of this number is to be fetched.
    fn wants(&self, number: usize, needed: &Use) -> bool;

    /// Writes the content of a use's blob. An error ends the restore.
    fn write(&self, piece: Piece<'_>) -> Result<()>;

    /// Records that a use's blob cannot be read. An error ends the restore.
    fn lack(&self, needed: &Use, why: &repo::Error) -> Result<()>;

    /// Maximum number of bytes that it holds after a call has returned.
    fn holds(&self) -> u64 {
        0
    }
}

/// The content of a blob, and one place that it is written to.
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

/// The steps that no thread has taken yet.
struct Waiting {
    next: usize,
    /// Bytes of their blobs in the packs; a blob with several uses counts as often.
    bytes: u64,
}

/// Minimum bytes of a part of a pack, except the last part: at 100 ms of latency and 10 MB/s, a
/// request takes a quarter longer than the transfer of its bytes.
const LEAST_RUN: u64 = 4 << 20;

/// Maximum number of blobs in a run, which bounds the list of them to 400 KiB.
const MOST_BLOBS: usize = 8192;

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

/// Fetches every use that the sink wants. The uses and related data of the caller take `held` bytes
/// of memory.
pub fn run(restoring: &Restoring<'_>, uses: &[Use], held: u64, sink: &dyn Sink) -> Result<()> {
    let Restoring { repo, index, progress, .. } = *restoring;
    let (steps, bytes) = order(index, uses, sink);
    // The trees have been read, and will be read again.
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

/// All wanted uses by pack, the pack that is needed first in front, and the total bytes of their
/// blobs.
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
        let mut reader = PackReader::new(self.restoring.repo, &self.reading);
        while let Some(run) = self.next_run() {
            let outcome = caught("blobs were read and written", || self.fetch(&run, &mut reader));
            if let Err(error) = outcome {
                lock(&self.failure).get_or_insert(error);
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The rest of the next pack, or a part of it if whole packs would leave threads without work.
    fn next_run(&self) -> Option<Run> {
        if self.is_stopped() {
            return None;
        }
        let mut waiting = lock(&self.waiting);
        let start = waiting.next;
        let first = self.steps.get(start)?;
        let share = waiting.bytes / (2 * self.reading.threads as u64);
        let (mut end, mut bytes, mut blobs) = (start, 0, 0);
        while let Some(step) = self.steps.get(end).filter(|step| step.pack == first.pack) {
            // A blob's uses stay together.
            if end == start || step.offset != self.steps[end - 1].offset {
                if bytes >= share.max(LEAST_RUN) || blobs == MOST_BLOBS {
                    break;
                }
                blobs += 1;
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

    /// Reads the wanted blobs of a run and writes them to all their uses.
    fn fetch(&self, run: &Run, reader: &mut PackReader<'_>) -> Result<()> {
        let blob = |step: &Step| self.uses[step.needed as usize].blob;
        // The uses of each blob.
        let mut uses = self.steps[run.steps.clone()].chunk_by(|a, b| blob(a) == blob(b));
        let blobs: Vec<PackedBlob> = uses.clone().map(|same| self.location(&same[0]).blob).collect();
        for mut stretch in Stretch::coalesce(run.pack, &blobs) {
            let mut download = None;
            let mut requested = false;
            while !self.is_stopped()
                && let Some(mut portion) = reader.next_portion(&mut stretch)
            {
                // The request is sent when memory for the first portion is free, so that no
                // response has to wait.
                if !requested {
                    download = self.heed(stretch.download(self.restoring.repo))?;
                    requested = true;
                }
                self.fetch_portion(&mut portion, &mut download, &mut uses)?;
            }
        }
        Ok(())
    }

    /// Reads and opens a portion, and writes its blobs to their uses. After a failed request, blobs
    /// are read one by one.
    fn fetch_portion<'s>(
        &self,
        portion: &mut Portion<'_>,
        download: &mut Option<Box<dyn Download + '_>>,
        uses: &mut impl Iterator<Item = &'s [Step]>,
    ) -> Result<()> {
        let mut next = || uses.next().expect("each blob has its uses");
        let read = match download {
            Some(download) => self.heed(download.read(portion.buffer()).map_err(repo::Error::from))?,
            None => None,
        };
        if read.is_none() {
            *download = None;
            return portion.blobs().iter().try_for_each(|blob| self.fetch_alone(next(), blob));
        }
        for (blob, opened) in portion.open(None) {
            match opened {
                Ok(opened) => self.deliver(next(), opened.plaintext, Ok(()))?,
                Err(_) => self.fetch_alone(next(), &blob)?,
            }
        }
        Ok(())
    }

    fn fetch_alone(&self, uses: &[Step], blob: &PackedBlob) -> Result<()> {
        let mut plaintext = Vec::new();
        let loaded = self.load_again(blob.id, &mut plaintext)?;
        self.deliver(uses, &plaintext, loaded)
    }

    /// Reads one blob from any of its copies; also from the first one again, because it may have
    /// been damaged in transit.
    fn load_again(&self, id: Id, plaintext: &mut Vec<u8>) -> Result<repo::Result<()>> {
        let Restoring { repo, index, .. } = self.restoring;
        let loaded = repo.load_blob(index, BlobType::Data, id);
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

    /// `None` for an error after which single blobs may still be readable.
    fn heed<T>(&self, outcome: repo::Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => {
                self.store_errors.store(0, Ordering::Relaxed);
                Ok(Some(value))
            }
            Err(error) => self.bear(error).map(|_| None),
        }
    }

    /// Returns an error in `Ok` if other blobs may not be affected: the error of a lost blob, or of
    /// a failed request, unless several have failed in a row. Any other error ends the restore,
    /// because every request would fail in the same way, as with expired credentials or a missing
    /// bucket.
    fn bear(&self, error: repo::Error) -> Result<repo::Error> {
        if is_lost(&error) {
            return Ok(error);
        }
        let failed = matches!(error, repo::Error::Store(StoreError::Failed { .. }));
        let spares_others = failed && self.store_errors.fetch_add(1, Ordering::Relaxed) + 1 < limits::STORE_ERRORS;
        if spares_others { Ok(error) } else { Err(error.into()) }
    }

    /// Passes a blob, or the error of reading it, to all its uses.
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
