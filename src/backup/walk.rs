//! Stage 2: lists directories, examines their entries, and compares them with the parent's.
//!
//! Walkers take directories from one stack and share the entries of those that are listed
//! ([`super::stack`]). An entry that is unchanged or has no content is finished here, small files
//! are read here ([`super::small`]), and large files go to the readers. The number of walkers
//! adapts to the volume ([`crate::concurrency`]). The first directory on the stack is the
//! snapshot's root, which has only the named entries.
//!
//! The steps of a walker are modules: [`list`] reads the names of a directory, [`look`] examines an
//! entry, and [`entry`] takes it into the snapshot or leaves it out.

mod entry;
mod list;
mod look;
mod walker;

use super::file::FileWork;
use super::run::Run;
use super::small::Gatherer;
use super::stack::{Listed, Listing, Popped, Stack, Work};
use super::stat::display;
use crate::concurrency::Limit;
use crate::repo::{Error, Result};
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope as Threads;
use walker::Walker;

/// The state that all walkers share. The limit sets the number of walkers.
pub struct Walk<'w, 's, 'c> {
    run: &'w Run<'s>,
    stack: &'w Stack,
    gatherer: &'w Gatherer<'s, 'c>,
    limit: &'w Limit,
    walkers: AtomicUsize,
    /// The system has refused to start a thread; no further attempt is made.
    refused: AtomicBool,
    /// All entries have been examined.
    done: AtomicBool,
}

impl<'w, 's, 'c> Walk<'w, 's, 'c> {
    pub fn new(
        run: &'w Run<'s>,
        stack: &'w Stack,
        gatherer: &'w Gatherer<'s, 'c>,
        limit: &'w Limit,
    ) -> Walk<'w, 's, 'c> {
        let (refused, done) = (AtomicBool::new(false), AtomicBool::new(false));
        Walk { run, stack, gatherer, limit, walkers: AtomicUsize::new(0), refused, done }
    }

    /// Starts walkers until there are as many as the limit has slots now.
    ///
    /// # Panics
    /// If no walker can be started.
    pub fn start<'scope>(&'scope self, threads: &'scope Threads<'scope, '_>, files: &Sender<FileWork>) {
        while let Some(walking) = self.admit() {
            let files = files.clone();
            let walk = move || {
                self.run.guarded(|| {
                    let Walk { run, stack, gatherer, limit, .. } = *self;
                    let walker = Walker { run, stack, limit, files, gathering: gatherer.begin() };
                    self.walk(threads, walking, walker);
                });
            };
            if let Err(error) = std::thread::Builder::new().spawn_scoped(threads, walk) {
                // The running walkers do all the work.
                self.refused.store(true, Ordering::Relaxed);
                let running = self.walkers.load(Ordering::Relaxed);
                assert!(running > 0, "no thread can be started: {error}");
                return;
            }
        }
    }

    /// Walks until the stack is empty and no walker can add to it, or until there are too many
    /// walkers.
    fn walk<'scope>(
        &'scope self,
        threads: &'scope Threads<'scope, '_>,
        walking: Walking<'_>,
        mut walker: Walker<'_, '_, '_>,
    ) {
        let Walk { run, stack, .. } = *self;
        let pop = || stack.pop(|| run.is_stopped());
        while let Some(mut popped) = stack.try_pop().or_else(|| walker.gathering.paused(pop)) {
            if run.is_stopped() {
                return;
            }
            walker.gathering.relieve();
            let listing = match next_listing(&walker, &mut popped) {
                Ok(Some(listing)) => listing,
                Ok(None) => continue,
                Err(error) => return run.fail(error),
            };
            while let Some(slot) = listing.take() {
                if run.is_stopped() {
                    return;
                }
                if let Err(error) = look::at_slot(&mut walker, &listing, slot) {
                    return run.fail(error);
                }
                walker.gathering.relieve();
                self.start(threads, &walker.files);
                if self.leave() {
                    // `leave` has already reduced the number of walkers.
                    std::mem::forget(walking);
                    return;
                }
            }
        }
        self.done.store(true, Ordering::Relaxed);
    }

    /// Whether there is one walker too many, so that this one has to end. Its remaining work is on
    /// the stack.
    fn leave(&self) -> bool {
        let slots = self.limit.slots();
        let fewer = |walkers| (walkers > slots).then(|| walkers - 1);
        self.walkers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }

    /// Whether all entries have been examined.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Admits one more walker, if there is a slot for one.
    fn admit(&self) -> Option<Walking<'_>> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let slots = self.limit.slots();
        let more = |walkers| (walkers < slots).then_some(walkers + 1);
        self.walkers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Walking(&self.walkers))
    }
}

/// A walker that is counted until this is dropped.
struct Walking<'w>(&'w AtomicUsize);

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The listing whose entries are next, which may be part of the directory that was taken from the
/// stack. `None` if that directory is finished, left out or put back.
fn next_listing(walker: &Walker<'_, '_, '_>, popped: &mut Popped<'_>) -> Result<Option<Arc<Listing>>> {
    match popped.work.take() {
        Some(Work::Dir(work)) => match list::list(walker, work, popped)? {
            Some(listed) => next_part(walker.run, &listed, popped).map(Some),
            None => Ok(None),
        },
        Some(Work::Part(listed)) if listed.dir.is_lost() => Ok(None),
        Some(Work::Part(listed)) => next_part(walker.run, &listed, popped).map(Some),
        Some(Work::Entries(listing)) => Ok(Some(listing)),
        None => Ok(None),
    }
}

/// Makes and shares the next part of a directory. Returns the part whose entries are next.
fn next_part(run: &Run<'_>, listed: &Arc<Listed>, popped: &mut Popped<'_>) -> Result<Arc<Listing>> {
    let next = listed.next_part(run);
    let names = || format!("the names in {}", display(&listed.dir.path));
    let (listing, position) = next.map_err(|error| Error::aside_lost(names(), error))?;
    Ok(popped.share(listing, position))
}
