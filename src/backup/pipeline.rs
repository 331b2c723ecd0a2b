//! Starts the threads of a backup and the queues between them: stages 2 to 5, which store the
//! source as blobs.

use super::assemble::Dir;
use super::file::FileWork;
use super::fill::Filling;
use super::options::{Options, Source};
use super::parent::ParentNodes;
use super::read::Reader;
use super::run::{Read, Run, source_error};
use super::scan;
use super::small::Gatherer;
use super::source::Resolved;
use super::stack::Stack;
use super::stat::{self, Observer};
use super::stream::{self, Stream};
use super::walk::Walk;
use crate::clock::Clock;
use crate::concurrency::Limit;
use crate::limits;
use crate::memory;
use crate::progress::Progress;
use crate::repo::writer::Writer;
use crate::repo::{Error, Result, StoredSnapshot};
use crossbeam_channel::Sender;
use std::sync::atomic::Ordering;

/// The minimum number of walkers: one searches while another reads.
const LEAST_WALKERS: usize = 2;

/// Reads the source, and stores everything but the snapshot.
pub fn read_source(
    writer: &Writer,
    options: &Options,
    progress: &Progress,
    resolved: Resolved,
    parent: Option<&StoredSnapshot>,
) -> Result<Read> {
    let Resolved { tops, named, lost, .. } = resolved;
    let root_device = tops.values().next().and_then(|top| stat::lstat(&top.path).ok()).map(|stat| stat.st_dev);
    let observer = Observer::new(options, root_device);
    let mut run = Run::new(writer, options, progress, observer)?;
    (run.named, run.lost) = (named, lost.into());
    let root = Dir::root();
    match &options.source {
        Source::Stream { name, input } => {
            let names = stream::names(name)?;
            let (fd, producer) = stream::open(input).map_err(Error::Source)?;
            let source = producer.describe();
            let stream = Stream { fd, source: &source, names };
            run_stages(&run, &Stack::default(), Vec::new(), |files| stream::feed(&run, stream, root, files));
            run.outcome()?;
            producer.finish(progress).map_err(Error::Source)?;
            if run.counts.bytes.load(Ordering::Relaxed) == 0 {
                return Err(source_error(format!("{source} gave no data, so no snapshot was made")));
            }
        }
        Source::Paths(_) | Source::Volume(_) => {
            let (top, to_count) = (ParentNodes::root(parent, &options.source), scan::roots(&tops));
            run_stages(&run, &Stack::new(root, top, tops), to_count, |_| Ok(()));
        }
    }
    run.outcome()?;
    run.end()
}

/// Starts all stages and waits for them. `feed` sends the readers files that no walker finds.
fn run_stages(
    run: &Run<'_>,
    stack: &Stack,
    to_count: Vec<scan::Found>,
    feed: impl FnOnce(&Sender<FileWork>) -> Result<()>,
) {
    let memory::Backup { threads: cores, readers, walkers, small_files, .. } = run.parts;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cores).build().expect("threads can be started");
    let (files, queue) = crossbeam_channel::bounded(limits::FILE_QUEUE);
    let limit = Limit::new(cores.max(LEAST_WALKERS), walkers, Clock::default());
    pool.in_place_scope(|cpu| {
        let gatherer = Gatherer::new(run, cpu, small_files);
        let walk = Walk::new(run, stack, &gatherer, &limit);
        std::thread::scope(|threads| {
            // If a thread cannot be started, that is a panic here. Without `StopOnPanic`, the
            // running threads would do all the work first.
            let _stop = StopOnPanic(run);
            for _ in 0..readers {
                let mut reader = Reader::new(run, Filling::new(run, cpu));
                let queue = queue.clone();
                threads.spawn(move || run.guarded(|| reader.read_all(&queue)));
            }
            drop(queue);
            if run.options.scan {
                threads.spawn(|| run.guarded(|| scan::count(run, to_count, || walk.is_done())));
            }
            run.check(feed(&files));
            walk.start(threads, &files);
            drop(files);
        });
    });
}

/// Stops a run whose threads could not all be started.
struct StopOnPanic<'s, 'r>(&'s Run<'r>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::Panicked);
        }
    }
}
