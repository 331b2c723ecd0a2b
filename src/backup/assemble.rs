//! Builds the trees of directories from the bottom up, as their entries are finished.
//!
//! The entries of a directory are in parts, each with a slot per entry. The thread that finishes an
//! entry (a walker, a reader or a chunk job) fills its slot with the entry's JSON. The thread that
//! fills the last slot of a part adds it to the directory's tree, in the order of the parts, and
//! the one that adds the last part stores the tree and fills the directory's own slot in its
//! parent, and so on up to the root. No stage waits for a directory. Of a finished entry, only its
//! JSON is held, and of a large directory only the parts that are not complete.

use super::run::Run;
use super::source::Standing;
use super::stat::display;
use crate::format::content::Json;
use crate::format::node::Node;
use crate::id::Id;
use crate::progress::Action;
use crate::repo::Result;
use crate::repo::writer::NewTree;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The maximum number of parts of a directory outside its tree; each takes about 1.5 MB.
const MOST_PARTS: usize = 6;

/// A directory whose entries are being backed up.
pub struct Dir {
    pub path: PathBuf,
    /// The node of the directory; the root of a snapshot has none.
    pub node: Option<Node>,
    /// The directory's node in the parent snapshot.
    pub previous: Option<Node>,
    standing: Standing,
    /// Its slot in its parent.
    up: Option<Slot>,
    assembly: Mutex<Assembly>,
    /// The number of parts outside the tree, to be read without the lock.
    outstanding: AtomicUsize,
}

/// Entries of a directory that are neighbours in the order of names.
pub struct Part {
    pub dir: Arc<Dir>,
    /// The number of parts before this one.
    number: usize,
    /// The names of the entries, sorted.
    pub names: Vec<Vec<u8>>,
    entries: Mutex<Entries>,
}

/// Whether a part is the last of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    MoreFollow,
    Last,
}

/// The slot of an entry, to be filled once.
pub struct Slot {
    pub part: Arc<Part>,
    pub number: usize,
}

struct Entries {
    /// The JSON of each entry: empty while it is not known, and for an entry that is left out.
    slots: Vec<Json>,
    /// Slots not yet filled.
    open: usize,
}

/// The tree of a directory, as far as its parts are complete.
#[derive(Default)]
struct Assembly {
    tree: NewTree,
    /// Parts that have begun, and those that are in the tree.
    begun: usize,
    added: usize,
    /// No other part will begin.
    is_last: bool,
    /// The nodes of complete parts that wait for an earlier part.
    waiting: BTreeMap<usize, Json>,
    /// The user named an entry below this directory.
    leads_to_named: bool,
    /// The tree could not be stored, which has been reported.
    is_lost: bool,
}

impl Dir {
    /// The root of a snapshot.
    pub fn root() -> Arc<Dir> {
        Dir::new(PathBuf::new(), None, None, Standing::Found, None)
    }

    pub fn new(
        path: PathBuf,
        node: Option<Node>,
        previous: Option<Node>,
        standing: Standing,
        up: Option<Slot>,
    ) -> Arc<Dir> {
        let (assembly, outstanding) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Dir { path, node, previous, standing, up, assembly, outstanding })
    }

    /// Records that the user named an entry below this directory, which would be lost with it.
    pub fn leads_to_named(&self) {
        self.lock().leads_to_named = true;
    }

    /// Whether the tree could not be stored, so that nothing more of the directory is needed.
    pub fn is_lost(&self) -> bool {
        self.lock().is_lost
    }

    /// Whether too many parts are outside the tree for another one to begin (backpressure).
    pub fn is_crowded(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) >= MOST_PARTS
    }

    /// Begins the next part of the directory, with a slot for each name (at least one). Each slot
    /// must be filled once.
    pub fn part(self: &Arc<Dir>, names: Vec<Vec<u8>>, position: Position) -> Arc<Part> {
        let number = {
            let mut assembly = self.lock();
            assembly.is_last = position == Position::Last;
            assembly.begun += 1;
            self.count(&assembly);
            assembly.begun - 1
        };
        let (slots, open) = (vec![Json::default(); names.len()], names.len());
        Arc::new(Part { dir: self.clone(), number, names, entries: Mutex::new(Entries { slots, open }) })
    }

    /// Completes a directory without entries.
    pub fn complete_empty(self: &Arc<Dir>, run: &Run<'_>) -> Result<()> {
        {
            let mut assembly = self.lock();
            (assembly.begun, assembly.is_last) = (1, true);
        }
        complete(run, self.clone(), 0, Json::default())
    }

    /// Leaves the whole directory out of its parent.
    pub fn leave_out(&self, run: &Run<'_>) -> Result<()> {
        match &self.up {
            Some(up) => up.fill(run, None),
            None => Ok(()),
        }
    }

    /// Adds the nodes of a part. Returns the id of the tree if that was the last part.
    fn add(&self, run: &Run<'_>, number: usize, nodes: Json) -> Result<Option<Id>> {
        let mut assembly = self.lock();
        if assembly.is_lost {
            return Ok(None);
        }
        let added = assembly.add(run, number, nodes);
        // Set before another part is added, so that the loss is reported once.
        assembly.is_lost = added.is_err();
        self.count(&assembly);
        let tree = added.map(|is_complete| is_complete.then(|| std::mem::take(&mut assembly.tree)));
        drop(assembly);
        tree?.map(|tree| tree.finish(run.writer)).transpose()
    }

    /// Publishes the number of outstanding parts, which is 0 for a lost directory.
    fn count(&self, assembly: &Assembly) {
        let outstanding = if assembly.is_lost { 0 } else { assembly.begun - assembly.added };
        self.outstanding.store(outstanding, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Assembly> {
        self.assembly.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assembly {
    /// Adds a part, and those that waited for it. Returns whether the tree is complete.
    fn add(&mut self, run: &Run<'_>, number: usize, nodes: Json) -> Result<bool> {
        self.waiting.insert(number, nodes);
        while let Some(nodes) = self.waiting.remove(&self.added) {
            self.tree.add_nodes(run.writer, nodes.borrow())?;
            self.added += 1;
        }
        Ok(self.is_last && self.added == self.begun)
    }
}

impl Slot {
    /// Fills the slot with a finished node, or with nothing if the entry is left out.
    pub fn fill(&self, run: &Run<'_>, node: Option<&Node>) -> Result<()> {
        self.part.fill(run, self.number, node)
    }
}

impl Part {
    /// Whether this is the first part of its directory.
    pub fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Fills a slot with a finished node, or with nothing if the entry is left out.
    pub fn fill(self: &Arc<Part>, run: &Run<'_>, slot: usize, node: Option<&Node>) -> Result<()> {
        let json = node.map(Node::json).unwrap_or_default();
        match self.close_slot(slot, json) {
            Some(nodes) => complete(run, self.dir.clone(), self.number, nodes),
            None => Ok(()),
        }
    }

    /// Fills one slot. Returns the nodes of the whole part if that was the last slot.
    fn close_slot(&self, slot: usize, json: Json) -> Option<Json> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.slots[slot] = json;
        entries.open -= 1;
        (entries.open == 0).then(|| join(std::mem::take(&mut entries.slots)))
    }
}

fn join(slots: Vec<Json>) -> Json {
    let text = Vec::with_capacity(slots.iter().map(|json| json.text.len() + 1).sum());
    let mut nodes = Json { text, lists: Vec::new() };
    slots.into_iter().for_each(|json| nodes.append(json));
    nodes
}

/// Adds a part to its directory. If that was the last, fills the directory's own slot, and so on
/// upwards while that was the last of a part: a loop, because trees can be 10,000 levels deep.
fn complete(run: &Run<'_>, dir: Arc<Dir>, number: usize, nodes: Json) -> Result<()> {
    let (mut dir, mut number, mut nodes) = (dir, number, nodes);
    loop {
        let tree = match dir.add(run, number, nodes) {
            Ok(Some(tree)) => Some(tree),
            Ok(None) => return Ok(()),
            // Only this directory is lost; the rest of the volume is backed up.
            Err(error) if error.is_too_large() && dir.up.is_some() && !dir.lock().leads_to_named => {
                run.leave_out(dir.standing, &dir.path, error);
                None
            }
            Err(error) => return Err(error),
        };
        let Some(Slot { part, number: slot }) = &dir.up else {
            tree.into_iter().for_each(|tree| run.set_root(tree));
            return Ok(());
        };
        let mut json = Json::default();
        if let Some(tree) = tree {
            let mut node = dir.node.clone().expect("only the root has none, and the root has no parent");
            node.subtree = Some(tree);
            count_dir(run, &dir, &node);
            json = node.json();
        }
        let Some(all) = part.close_slot(*slot, json) else { return Ok(()) };
        (dir, number, nodes) = (part.dir.clone(), part.number, all);
    }
}

impl Drop for Dir {
    /// Drops the parents in a loop, because trees can be 10,000 levels deep.
    fn drop(&mut self) {
        let mut up = self.up.take();
        while let Some(part) = up.and_then(|slot| Arc::into_inner(slot.part)) {
            up = Arc::into_inner(part.dir).and_then(|mut dir| dir.up.take());
        }
    }
}

fn count_dir(run: &Run<'_>, dir: &Dir, node: &Node) {
    let (counter, action) = match &dir.previous {
        None => (&run.counts.dirs_new, Action::New),
        Some(before) if before == node => (&run.counts.dirs_unmodified, Action::Unchanged),
        Some(_) => (&run.counts.dirs_changed, Action::Changed),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    run.progress.item(action, || display(&dir.path), 0);
}
