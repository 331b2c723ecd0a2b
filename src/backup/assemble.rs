//! Directories complete from the bottom up.
//!
//! Every directory has a slot per entry. Whoever finishes an entry (a walker, a reader or a chunk job) fills its slot with the entry's JSON;
//! whoever fills the last one writes the tree and fills the directory's own slot in its parent, and so on up to the root. No stage waits for
//! a directory, and no more is held of a finished entry than its JSON.

use super::{Run, stat};
use crate::format::node::Node;
use crate::format::tree::TreeWriter;
use crate::id::Id;
use crate::progress::Action;
use crate::repo::Result;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

/// A directory whose entries are being backed up.
pub struct Dir {
    pub path: PathBuf,
    /// The directory itself; the root of a snapshot has none.
    pub node: Option<Node>,
    /// The directory's node in the parent snapshot.
    pub previous: Option<Node>,
    /// The directory it is in, and its slot there.
    up: Option<(Arc<Dir>, usize)>,
    /// The names of its entries, sorted; known when it has been listed.
    names: OnceLock<Vec<Vec<u8>>>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// The JSON of each entry: empty while it is not known, and for an entry that is left out.
    slots: Vec<Box<[u8]>>,
    /// Slots not yet filled.
    open: usize,
}

impl Dir {
    pub fn new(path: PathBuf, node: Option<Node>, previous: Option<Node>, up: Option<(Arc<Dir>, usize)>) -> Arc<Dir> {
        Arc::new(Dir { path, node, previous, up, names: OnceLock::new(), entries: Mutex::default() })
    }

    /// Opens a slot for each entry, numbered in the order of the names, which are sorted. Each slot
    /// is to be filled once; a directory without entries is complete.
    pub fn listed(self: &Arc<Dir>, run: &Run<'_>, names: Vec<Vec<u8>>) -> Result<()> {
        let count = names.len();
        self.names.set(names).expect("a directory is listed once");
        if count == 0 {
            return self.complete(run, Vec::new());
        }
        *self.lock() = Entries { slots: vec![Box::default(); count], open: count };
        Ok(())
    }

    /// The names of the entries, by slot.
    pub fn names(&self) -> &[Vec<u8>] {
        self.names.get().map_or(&[], Vec::as_slice)
    }

    /// Fills a slot with a finished node, or with nothing if the entry is left out.
    pub fn fill(self: &Arc<Dir>, run: &Run<'_>, slot: usize, node: Option<&Node>) -> Result<()> {
        let mut json = Vec::new();
        if let Some(node) = node {
            node.write_json(&mut json);
        }
        match self.close_slot(slot, json) {
            Some(slots) => self.complete(run, slots),
            None => Ok(()),
        }
    }

    /// Leaves the whole directory out of its parent.
    pub fn leave_out(&self, run: &Run<'_>) -> Result<()> {
        match &self.up {
            Some((up, slot)) => up.fill(run, *slot, None),
            None => Ok(()),
        }
    }

    /// Fills one slot; all of them if that was the last.
    fn close_slot(&self, slot: usize, json: Vec<u8>) -> Option<Vec<Box<[u8]>>> {
        let mut entries = self.lock();
        entries.slots[slot] = json.into_boxed_slice();
        entries.open -= 1;
        (entries.open == 0).then(|| std::mem::take(&mut entries.slots))
    }

    /// Writes the directory's tree and fills its own slot, and so on upwards while that was the
    /// last one: a loop, because trees can be 10,000 levels deep.
    fn complete(self: &Arc<Dir>, run: &Run<'_>, slots: Vec<Box<[u8]>>) -> Result<()> {
        let (mut dir, mut slots) = (self.clone(), slots);
        loop {
            let tree = save_tree(run, dir.names(), slots)?;
            let Some((up, slot)) = &dir.up else {
                run.set_root(tree);
                return Ok(());
            };
            let mut node = dir.node.clone().expect("only the root has none, and the root has no parent");
            node.subtree = Some(tree);
            run.count_dir(&dir, &node);
            let mut json = Vec::new();
            node.write_json(&mut json);
            let Some(all) = up.close_slot(*slot, json) else { return Ok(()) };
            (dir, slots) = (up.clone(), all);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Writes the tree of a directory, unless the repository has it.
fn save_tree(run: &Run<'_>, names: &[Vec<u8>], slots: Vec<Box<[u8]>>) -> Result<Id> {
    // Reserved at once: growing step by step would hold a large directory up to three times.
    let mut tree = TreeWriter::with_capacity(slots.iter().map(|json| json.len() + 1).sum());
    for (name, json) in names.iter().zip(slots) {
        if !json.is_empty() {
            tree.add_json(name, &json).expect("names are sorted");
        }
    }
    run.writer.store_tree(&tree.finish())
}

impl Run<'_> {
    fn count_dir(&self, dir: &Dir, node: &Node) {
        let (counter, action) = match &dir.previous {
            None => (&self.counts.dirs_new, Action::New),
            Some(before) if before == node => (&self.counts.dirs_unmodified, Action::Unchanged),
            Some(_) => (&self.counts.dirs_changed, Action::Changed),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.progress.item(action, || stat::display(&dir.path), 0);
    }
}
