//! The work of the walkers: directories to be listed, and listings whose entries are to be
//! examined.
//!
//! Directories are taken last in, first out, which keeps the number of half-finished directories
//! small; the entries of the oldest listing come before any further directory. A directory with
//! many entries is processed part by part: its rest goes back on the stack, below the directories
//! in the current part and above all others. No further part begins while too many are incomplete
//! (backpressure). The number of names in listings is bounded, so that concurrent walkers do not
//! each hold a large directory and the parent's copy of it: beyond the bound, they share one
//! listing.

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

/// The number of names in listings beyond which no further listing begins. With the parent's nodes,
/// about 600 bytes each, that is 12 MB.
const MOST_NAMES: usize = 20_000;

/// The number of names in a part of a directory.
const PART: usize = 4096;

/// The interval at which a waiting walker checks whether the parts of a directory are complete,
/// which is not signalled.
const PATIENCE: Duration = Duration::from_millis(10);

/// The work of the walkers.
#[derive(Default)]
pub struct Stack {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Directories to be listed or resumed; never [`Work::Entries`].
    dirs: Vec<Work>,
    /// Listings with entries that no walker has taken yet. They come first, because each keeps a
    /// directory open.
    listings: VecDeque<Arc<Listing>>,
    /// The number of directories in `listings` and of those that are being listed.
    open: usize,
    /// The number of names in them so far.
    names: usize,
    /// The bound on names was exceeded. No further directory is listed until a listing ends and the
    /// names are within the bound.
    full: bool,
    /// The number of walkers that may still add directories.
    busy: usize,
    /// The number of walkers that wait for work.
    waiting: usize,
}

/// Work that a walker takes from the stack.
pub enum Work {
    Dir(DirWork),
    /// A directory whose next part is to be made.
    Part(Arc<Listed>),
    Entries(Arc<Listing>),
}

/// A directory to be taken into the snapshot.
pub struct DirWork {
    pub dir: Arc<Dir>,
    pub scope: Scope,
    pub standing: Standing,
    /// Boxed, because few directories have it and very many directories may be on the stack.
    pub known: Option<Box<Known>>,
}

impl DirWork {
    /// The named entries below it, if any.
    pub fn named(&self) -> Option<&Tops> {
        self.known.as_ref().map(|known| &known.named).filter(|named| !named.is_empty())
    }
}

/// The facts about a directory that are known before it is listed.
#[derive(Default)]
pub struct Known {
    /// The parent's nodes of the directory, if they are not those of the directory's previous node.
    pub parent: Option<ParentNodes>,
    /// The named entries below it, and the directories on the way to them.
    pub named: Tops,
}

/// The entries of a directory that are stored.
#[derive(Clone, Copy)]
pub enum Scope {
    /// All listed entries, and the named entries below the directory.
    Whole {
        /// `st_dev` of the directory.
        device: u64,
    },
    /// Only the named entries below the directory.
    Named,
}

/// A listed directory, whose entries are processed part by part.
pub struct Listed {
    pub dir: Arc<Dir>,
    pub scope: Scope,
    /// `None` if only the named entries are stored.
    pub opened: Option<Opened>,
    pub named: Mutex<Tops>,
    rest: Mutex<Rest>,
}

/// A directory that stays open while its entries are examined.
pub struct Opened {
    pub fd: OwnedFd,
    /// The name of the file that marks the directory as excluded, if it has one. Only this entry is
    /// stored.
    pub tag: Option<String>,
}

/// The entries that are in no part yet.
pub struct Rest {
    /// The names of the entries, at least one.
    pub names: Names,
    /// The parent's nodes of the directory.
    pub parent: ParentNodes,
}

/// A part of a directory whose entries are being examined.
pub struct Listing {
    pub of: Arc<Listed>,
    pub part: Arc<Part>,
    /// The parent's nodes of this part.
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

    /// Makes the next part. An error means that the names, which were spilled to disk, cannot be
    /// read back.
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

/// Reports names that were listed twice in a directory.
fn report_twice(run: &Run<'_>, path: &Path, names: usize) {
    // Network file systems list a name twice if the directory changes meanwhile. Both entries are
    // the same file.
    if names > 0 {
        run.progress.warning(&format!("{}: {names} names were listed twice", display(path)));
    }
}

impl Listing {
    /// Takes the next entry. Returns its slot.
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

/// Whether the names of a directory that is being listed fit next to those of other directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// The bound is exceeded, but no other listing will end before this one.
    Exceeded,
    /// The bound is exceeded because of other listings. The directory is listed again after these.
    None,
}

/// The work that a walker has taken from the stack. While this exists, the walker counts as busy
/// and may push more work; a panic ends that, too.
pub struct Popped<'s> {
    stack: &'s Stack,
    pub work: Option<Work>,
    /// The number of names that is counted for the directory that is being listed.
    counted: Option<usize>,
}

impl Popped<'_> {
    /// Sets the number of names of the directory that is being listed, so far.
    pub fn count(&mut self, names: usize) -> Room {
        let mut state = self.stack.lock();
        state.recount(self.counted.replace(names), names);
        match state.names > MOST_NAMES {
            false => Room::Enough,
            true if state.open > 1 => Room::None,
            true => Room::Exceeded,
        }
    }

    /// Shares the entries of a part of the directory with all walkers. Returns the listing that is
    /// next.
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
        // Directories are closed after the lock is released: that may be an operation on the
        // volume.
        let _ended;
        let mut state = self.stack.lock();
        state.busy -= 1;
        if let Some(names) = self.counted {
            self.stack.close(&mut state, names);
        }
        _ended = self.stack.prune(&mut state);
        // Added work has been signalled when it was added. The end of all work is signalled here.
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

    /// The directory that is to be resumed, if the next work is one.
    fn rest(&self) -> Option<&Listed> {
        match self.dirs.last() {
            Some(Work::Part(listed)) => Some(listed),
            _ => None,
        }
    }

    /// Whether another part fits within the bound on names.
    fn has_room(&self) -> bool {
        !self.full && (self.open == 0 || self.names + PART <= MOST_NAMES)
    }
}

impl Stack {
    /// A stack with the snapshot's root on it; `parent` holds the parent's nodes of the root.
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

    /// Takes the next work, if any is available.
    pub fn try_pop(&self) -> Option<Popped<'_>> {
        self.take(&mut self.lock())
    }

    /// Takes the next work, and waits until some is available. Returns `None` if there is no work
    /// and no walker can add any, or if the run has stopped.
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
            // The next part is made while the current part is examined.
            (state.dirs.pop()?, Some(PART))
        } else if let Some(listing) = state.listings.front() {
            (Work::Entries(listing.clone()), None)
        } else if state.full {
            return None;
        } else if state.rest().is_some() {
            // Without room, other listings are in progress, and will end.
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

    /// Removes and returns listings whose entries are all taken.
    fn prune(&self, state: &mut State) -> Vec<Arc<Listing>> {
        let mut ended = Vec::new();
        while let Some(listing) = state.listings.pop_front_if(|listing| listing.is_taken()) {
            self.close(state, listing.names());
            self.reopen(state);
            ended.push(listing);
        }
        ended
    }

    /// Records that a directory with this number of names is no longer listed.
    fn close(&self, state: &mut State, names: usize) {
        state.open -= 1;
        state.names -= names;
        if state.open == 0 {
            self.reopen(state);
        }
    }

    /// Allows further listings if the names are within the bound.
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
