//! The directories that are to be walked, and those that are listed, shared by the walkers.
//!
//! Directories are taken last in first out, which keeps the number of half-finished directories
//! small; entries of the listing that is the oldest come before any further directory. A directory
//! with many entries is taken part by part: what is left of it goes back on the stack, below the
//! directories in the part that was taken, and above all others. No other part of it begins while
//! many are not complete. The names in listings are bounded, so that walkers that all list at the
//! same time do not each hold a large directory and the parent's copy of it: beyond the bound they
//! share one listing.

use super::assemble::{Dir, Part, Position};
use super::names::Names;
use super::parent::{Extent, ParentDir, ParentNodes};
use super::run::Run;
use super::source::{Standing, Tops};
use super::stat::display;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names in listings beyond which there is no further one. With the parent's nodes, about 600 bytes
/// each, that is 12 MB.
const MOST_NAMES: usize = 20_000;

/// Names in a part of a directory.
const PART: usize = 4096;

/// How often a walker looks whether the parts of a directory are complete, which is not announced.
const PATIENCE: Duration = Duration::from_millis(10);

/// What there is to be walked.
#[derive(Default)]
pub struct Stack {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Directories to be listed, or to be resumed: no [`Work::Entries`].
    dirs: Vec<Work>,
    /// Directories with entries that no walker has taken yet. They come first: each is open.
    listings: VecDeque<Arc<Listing>>,
    /// Directories in `listings`, and those that are being listed.
    open: usize,
    /// The names in them, so far.
    names: usize,
    /// There were too many names, and no listing has ended since.
    full: bool,
    /// Walkers that may still add directories.
    busy: usize,
    /// Walkers that wait for something to be added.
    waiting: usize,
}

/// What a walker takes from the stack.
pub enum Work {
    Dir(DirWork),
    /// The next part of a directory is to be made.
    Part(Arc<Listed>),
    Entries(Arc<Listing>),
}

/// A directory to be taken into the snapshot.
pub struct DirWork {
    pub dir: Arc<Dir>,
    pub scope: Scope,
    pub standing: Standing,
    /// What only few directories have: there may be very many on the stack.
    pub known: Option<Box<Known>>,
}

impl DirWork {
    /// The named entries below it, if there are some.
    pub fn named(&self) -> Option<&Tops> {
        self.known.as_ref().map(|known| &known.named).filter(|named| !named.is_empty())
    }
}

/// What is known of a directory before it is listed.
#[derive(Default)]
pub struct Known {
    /// What the parent has in it, where that is not what the directory's previous node says.
    pub parent: Option<ParentNodes>,
    /// The named entries below it, and the directories on the way to them.
    pub named: Tops,
}

/// What is taken of a directory.
#[derive(Clone, Copy)]
pub enum Scope {
    /// All that it lists, and what is named below it.
    Whole {
        /// `st_dev` of the directory.
        device: u64,
    },
    /// Only what is named below it.
    Named,
}

/// A directory that has been listed, whose entries come part by part.
pub struct Listed {
    pub dir: Arc<Dir>,
    pub scope: Scope,
    /// `None` if only what is named below it is taken.
    pub opened: Option<Opened>,
    pub named: Mutex<Tops>,
    rest: Mutex<Rest>,
}

/// A directory that stays open while its entries are looked at.
pub struct Opened {
    pub fd: OwnedFd,
    /// The only entry that is taken, if there is a file of that name.
    pub tag: Option<String>,
}

/// What no part has yet.
pub struct Rest {
    /// The entries, at least one.
    pub names: Names,
    /// What the parent snapshot has in the directory.
    pub parent: ParentNodes,
}

/// A part of a directory, whose entries are looked at.
pub struct Listing {
    pub of: Arc<Listed>,
    pub part: Arc<Part>,
    /// What the parent snapshot has of it.
    pub parent: ParentDir,
    /// The first entry that no walker has taken.
    next: AtomicUsize,
}

impl Listed {
    pub fn new(dir: Arc<Dir>, scope: Scope, opened: Option<Opened>, named: Tops, rest: Rest) -> Arc<Listed> {
        if !named.is_empty() {
            dir.leads_to_named();
        }
        Arc::new(Listed { dir, scope, opened, named: Mutex::new(named), rest: Mutex::new(rest) })
    }

    /// The next part. An error means that the names, which were spilled to disk, cannot be read
    /// back.
    pub fn next_part(self: &Arc<Listed>, run: &Run<'_>) -> io::Result<(Listing, Position)> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Rest { names: left, parent } = &mut *rest;
        let names = left.take(PART)?;
        let position = if left.is_empty() { Position::Last } else { Position::MoreFollow };
        if position == Position::Last {
            report_twice(run, &self.dir.path, left.twice());
        }
        let part = self.dir.part(names, position);
        let is_only = position == Position::Last && part.is_first();
        let extent = if is_only { Extent::Whole } else { Extent::Part };
        let (found, gap) = parent.part(&run.parent_trees, &part.names, extent);
        if let Some(gap) = gap {
            gap.report(run, &self.dir.path);
        }
        Ok((Listing { of: self.clone(), part, parent: found, next: AtomicUsize::new(0) }, position))
    }
}

/// Reports names that a directory was listed with twice.
fn report_twice(run: &Run<'_>, path: &Path, names: usize) {
    // Network file systems do that to a directory that changes meanwhile. Both entries are the same
    // file.
    if names > 0 {
        run.progress.warning(&format!("{}: {names} names were listed twice", display(path)));
    }
}

impl Listing {
    /// The slot of the next entry.
    pub fn take(&self) -> Option<usize> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        (slot < self.names()).then_some(slot)
    }

    fn names(&self) -> usize {
        self.part.names.len()
    }

    fn is_taken(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.names()
    }
}

/// Whether the names of a directory that is being listed fit beside those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// There are too many, but no other listing will end before this one.
    Exceeded,
    /// There are too many, and others take them up: it is to be listed again after those.
    None,
}

/// What a walker has taken from the stack. While there is one, more may be pushed; also a walker
/// that panics gives it back.
pub struct Popped<'s> {
    stack: &'s Stack,
    pub work: Option<Work>,
    /// The names that are counted for the directory that is being listed.
    counted: Option<usize>,
}

impl Popped<'_> {
    /// Counts the names of the directory that is being listed, so far.
    pub fn count(&mut self, names: usize) -> Room {
        let mut state = self.stack.lock();
        state.recount(self.counted.replace(names), names);
        match state.names > MOST_NAMES {
            false => Room::Enough,
            true if state.open > 1 => Room::None,
            true => Room::Exceeded,
        }
    }

    /// Shares the entries of a part of the directory. Returns the listing that is next.
    pub fn share(&mut self, listing: Listing, position: Position) -> Arc<Listing> {
        let names = listing.names();
        let listing = Arc::new(listing);
        let mut state = self.stack.lock();
        state.recount(self.counted.take(), names);
        state.listings.push_back(listing.clone());
        if position == Position::MoreFollow {
            state.dirs.push(Work::Part(listing.of.clone()));
        }
        self.stack.prune(&mut state);
        let next = state.listings.front().cloned().unwrap_or(listing);
        let wake = state.waiting.min(names - 1);
        drop(state);
        (0..wake).for_each(|_| self.stack.changed.notify_one());
        next
    }
}

impl Drop for Popped<'_> {
    fn drop(&mut self) {
        // Directories are closed without the lock: that may be an operation on the volume.
        let _ended;
        let mut state = self.stack.lock();
        state.busy -= 1;
        if let Some(names) = self.counted {
            self.stack.close(&mut state, names);
        }
        _ended = self.stack.prune(&mut state);
        // What others wait for has been announced when it was added: there may only be no more.
        if state.busy == 0 {
            self.stack.changed.notify_all();
        }
    }
}

impl State {
    fn recount(&mut self, before: Option<usize>, names: usize) {
        self.names = self.names - before.unwrap_or(0) + names;
        self.full |= self.names > MOST_NAMES;
    }

    /// The directory that is to be resumed next, if it is one.
    fn rest(&self) -> Option<&Listed> {
        match self.dirs.last() {
            Some(Work::Part(listed)) => Some(listed),
            _ => None,
        }
    }

    /// Whether a part fits beside what is listed.
    fn has_room(&self) -> bool {
        !self.full && (self.open == 0 || self.names + PART <= MOST_NAMES)
    }
}

impl Stack {
    /// A stack with the snapshot's root on it; `parent` is what the parent snapshot has there.
    pub fn new(root: Arc<Dir>, parent: ParentNodes, named: Tops) -> Stack {
        let stack = Stack::default();
        let known = Some(Box::new(Known { parent: Some(parent), named }));
        stack.push(DirWork { dir: root, scope: Scope::Named, standing: Standing::Found, known });
        stack
    }

    pub fn push(&self, work: DirWork) {
        let mut state = self.lock();
        state.dirs.push(Work::Dir(work));
        let waiting = state.waiting;
        drop(state);
        if waiting > 0 {
            self.changed.notify_one();
        }
    }

    /// What is next, if there is something.
    pub fn try_pop(&self) -> Option<Popped<'_>> {
        self.take(&mut self.lock())
    }

    /// What is next; `None` when there is nothing and no walker can add to it, and when the run has
    /// stopped.
    pub fn pop(&self, is_stopped: impl Fn() -> bool) -> Option<Popped<'_>> {
        let mut state = self.lock();
        loop {
            if let Some(popped) = self.take(&mut state) {
                return Some(popped);
            }
            if state.busy == 0 && (state.dirs.is_empty() || is_stopped()) {
                self.changed.notify_all();
                return None;
            }
            state.waiting += 1;
            state = if state.rest().is_some() {
                self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
            state.waiting -= 1;
        }
    }

    fn take(&self, state: &mut State) -> Option<Popped<'_>> {
        self.prune(state);
        let is_due = state.has_room() && state.rest().is_some_and(|rest| !rest.dir.is_crowded());
        let (work, counted) = if is_due && state.listings.len() < 2 {
            // While one part is looked at, the next is made.
            (state.dirs.pop()?, Some(PART))
        } else if let Some(listing) = state.listings.front() {
            (Work::Entries(listing.clone()), None)
        } else if state.full {
            return None;
        } else if state.rest().is_some() {
            // Without room, others are being made, and end.
            state.full |= !state.has_room();
            return None;
        } else {
            (state.dirs.pop()?, Some(0))
        };
        if let Some(names) = counted {
            state.open += 1;
            state.recount(None, names);
        }
        state.busy += 1;
        Some(Popped { stack: self, work: Some(work), counted })
    }

    /// Removes listings whose entries are all taken.
    fn prune(&self, state: &mut State) -> Vec<Arc<Listing>> {
        let mut ended = Vec::new();
        while let Some(listing) = state.listings.pop_front_if(|listing| listing.is_taken()) {
            self.close(state, listing.names());
            self.reopen(state);
            ended.push(listing);
        }
        ended
    }

    /// A directory with this number of names is no longer listed.
    fn close(&self, state: &mut State, names: usize) {
        state.open -= 1;
        state.names -= names;
        if state.open == 0 {
            self.reopen(state);
        }
    }

    /// Further directories are listed again if there is room for their names.
    fn reopen(&self, state: &mut State) {
        if state.full && state.names <= MOST_NAMES {
            state.full = false;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
