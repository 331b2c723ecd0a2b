//! The directories that are to be walked, and those that are listed, shared by the walkers.
//!
//! Directories are taken last in first out, which keeps the number of half-finished directories
//! small; entries of the listing that is the oldest come before any further directory. The names
//! in listings are bounded, so that walkers that all list at the same time do not each hold a
//! large directory and the parent's copy of it: beyond the bound they share one listing.

use super::Run;
use super::assemble::Dir;
use super::parent::ParentDir;
use super::read::Standing;
use super::source::Tops;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Names in listings beyond which there is no further one. With the parent's nodes, about 600 bytes
/// each, that is 12 MB.
const MOST_NAMES: usize = 20_000;

/// What there is to be walked.
#[derive(Default)]
pub struct Stack {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Directories to be listed.
    dirs: Vec<DirWork>,
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

/// What is known of a directory before it is listed.
#[derive(Default)]
pub struct Known {
    /// What the parent has in it, where that is not what the directory's previous node says.
    pub parent: Option<ParentDir>,
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

/// A directory that has been listed, whose entries are looked at.
pub struct Listing {
    pub dir: Arc<Dir>,
    pub scope: Scope,
    /// `None` if only what is named below it is taken.
    pub fd: Option<OwnedFd>,
    /// What the parent snapshot has in it, once that is read.
    parent: OnceLock<ParentDir>,
    /// The only entry that is taken, if there is a file of that name.
    pub tag: Option<String>,
    pub named: Mutex<Tops>,
    /// The first entry that no walker has taken.
    next: AtomicUsize,
}

impl Listing {
    pub fn new(
        dir: Arc<Dir>,
        scope: Scope,
        fd: Option<OwnedFd>,
        parent: OnceLock<ParentDir>,
        tag: Option<String>,
        named: Tops,
    ) -> Listing {
        Listing { dir, scope, fd, parent, tag, named: Mutex::new(named), next: AtomicUsize::new(0) }
    }

    /// The slot of the next entry.
    pub fn take(&self) -> Option<usize> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        (slot < self.dir.names().len()).then_some(slot)
    }

    /// What the parent snapshot has in the directory.
    pub fn parent(&self, run: &Run<'_>) -> &ParentDir {
        self.parent.get_or_init(|| run.parent_dir(self.dir.previous.as_ref(), &self.dir.path))
    }

    fn is_taken(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.dir.names().len()
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

    /// Shares the directory's entries; the listing that is next.
    pub fn share(&mut self, listing: Listing) -> Arc<Listing> {
        let names = listing.dir.names().len();
        let listing = Arc::new(listing);
        let mut state = self.stack.lock();
        state.recount(self.counted.take(), names);
        state.listings.push_back(listing.clone());
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
}

impl Stack {
    /// A stack with the snapshot's root on it; `parent` is what the parent snapshot has there.
    pub fn new(root: Arc<Dir>, parent: ParentDir, named: Tops) -> Stack {
        let stack = Stack::default();
        let known = Some(Box::new(Known { parent: Some(parent), named }));
        stack.push(DirWork { dir: root, scope: Scope::Named, standing: Standing::Found, known });
        stack
    }

    pub fn push(&self, work: DirWork) {
        let mut state = self.lock();
        state.dirs.push(work);
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

    /// What is next; `None` when there is nothing and no walker can add to it.
    pub fn pop(&self) -> Option<Popped<'_>> {
        let mut state = self.lock();
        loop {
            if let Some(popped) = self.take(&mut state) {
                return Some(popped);
            }
            if state.busy == 0 {
                self.changed.notify_all();
                return None;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn take(&self, state: &mut State) -> Option<Popped<'_>> {
        self.prune(state);
        let (work, counted) = match state.listings.front() {
            Some(listing) => (Work::Entries(listing.clone()), None),
            None if state.full => return None,
            None => {
                let work = Work::Dir(state.dirs.pop()?);
                state.open += 1;
                (work, Some(0))
            }
        };
        state.busy += 1;
        Some(Popped { stack: self, work: Some(work), counted })
    }

    /// Removes listings whose entries are all taken.
    fn prune(&self, state: &mut State) -> Vec<Arc<Listing>> {
        let mut ended = Vec::new();
        while let Some(listing) = state.listings.pop_front_if(|listing| listing.is_taken()) {
            self.close(state, listing.dir.names().len());
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
