//! Keeps the most recently used directories of the target open (LRU), so that a call needs only the
//! name of an entry.
//!
//! On a network file system, resolving a path from the target costs a call for each component. A
//! directory that is not open is opened from its nearest open ancestor.

use super::confine::{Dir, Root};
use super::plan::Plan;
use crate::limits;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The open directories of a plan.
pub struct Dirs<'d> {
    root: &'d Root,
    plan: &'d Plan,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_number: HashMap<u32, Recent>,
    /// Number of uses so far.
    now: u64,
}

struct Recent {
    used: u64,
    slot: Arc<Slot>,
}

/// Empty until the directory is open. Threads that need the same directory wait until one of them
/// has opened it.
type Slot = Mutex<Option<Arc<Dir>>>;

impl<'d> Dirs<'d> {
    pub fn new(root: &'d Root, plan: &'d Plan) -> Dirs<'d> {
        Dirs { root, plan, kept: Mutex::default() }
    }

    /// The target.
    pub fn root(&self) -> &'d Root {
        self.root
    }

    /// A directory by its number in the plan.
    pub fn get(&self, number: u32) -> rustix::io::Result<Arc<Dir>> {
        let slot = self.slot(number);
        let mut kept = lock(&slot);
        if let Some(dir) = &*kept {
            return Ok(dir.clone());
        }
        let dir = Arc::new(self.open(number)?);
        *kept = Some(dir.clone());
        Ok(dir)
    }

    /// The parent of a directory of the plan, and the name of the directory in it.
    pub fn above(&self, number: u32) -> rustix::io::Result<(Arc<Dir>, &'d [u8])> {
        Ok((self.get(self.plan.dirs[number as usize].parent)?, self.plan.dir_name(number)))
    }

    fn slot(&self, number: u32) -> Arc<Slot> {
        let mut kept = lock(&self.kept);
        let Kept { by_number, now } = &mut *kept;
        *now += 1;
        if let Some(recent) = by_number.get_mut(&number) {
            recent.used = *now;
            return recent.slot.clone();
        }
        let oldest = by_number.iter().min_by_key(|(_, recent)| recent.used).map(|(&oldest, _)| oldest);
        let evicted = match oldest {
            Some(oldest) if by_number.len() >= limits::RESTORE_OPEN_DIRS => by_number.remove(&oldest),
            _ => None,
        };
        let slot = Arc::<Slot>::default();
        by_number.insert(number, Recent { used: *now, slot: slot.clone() });
        drop(kept);
        // Closes a directory, which must not block the other threads.
        drop(evicted);
        slot
    }

    fn open(&self, number: u32) -> rustix::io::Result<Dir> {
        let (mut at, mut names) = (number, Vec::new());
        while at != 0 {
            names.push(self.plan.dir_name(at));
            at = self.plan.dirs[at as usize].parent;
            if let Some(above) = self.kept(at) {
                names.reverse();
                return self.root.dir_below(&above, &names.join(&b'/'));
            }
        }
        self.root.dir(&self.plan.dir_path(number))
    }

    /// Returns a directory if it is open already.
    fn kept(&self, number: u32) -> Option<Arc<Dir>> {
        let slot = lock(&self.kept).by_number.get(&number)?.slot.clone();
        slot.try_lock().ok()?.clone()
    }
}
