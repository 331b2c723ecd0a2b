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
use std::sync::{Arc, Mutex};

/// A directory whose entries are being backed up.
pub struct Dir {
    pub path: PathBuf,
    /// The directory itself; the root of a snapshot has none.
    pub node: Option<Node>,
    /// The directory's node in the parent snapshot.
    pub previous: Option<Node>,
    /// The directory it is in, and its slot there.
    up: Option<(Arc<Dir>, usize)>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    slots: Vec<Slot>,
    /// Slots not yet filled, and one until [`Dir::listed`].
    open: usize,
}

struct Slot {
    name: Vec<u8>,
    /// Empty while it is not known, and for an entry that is left out.
    json: Box<[u8]>,
}

impl Dir {
    pub fn new(path: PathBuf, node: Option<Node>, previous: Option<Node>, up: Option<(Arc<Dir>, usize)>) -> Arc<Dir> {
        Arc::new(Dir { path, node, previous, up, entries: Mutex::new(Entries { slots: Vec::new(), open: 1 }) })
    }

    /// Opens a slot for an entry. Entries come in the order of their names.
    pub fn open_slot(&self, name: &[u8]) -> usize {
        let mut entries = self.lock();
        entries.slots.push(Slot { name: name.to_vec(), json: Box::default() });
        entries.open += 1;
        entries.slots.len() - 1
    }

    /// Fills a slot with a finished node, or with nothing if the entry is left out.
    pub fn fill(self: &Arc<Dir>, run: &Run<'_>, slot: usize, node: Option<&Node>) -> Result<()> {
        let mut json = Vec::new();
        if let Some(node) = node {
            node.write_json(&mut json);
        }
        self.close_one(run, Some((slot, json)))
    }

    /// No more slots will be opened.
    pub fn listed(self: &Arc<Dir>, run: &Run<'_>) -> Result<()> {
        self.close_one(run, None)
    }

    /// Leaves the whole directory out of its parent.
    pub fn leave_out(&self, run: &Run<'_>) -> Result<()> {
        match &self.up {
            Some((up, slot)) => up.close_one(run, Some((*slot, Vec::new()))),
            None => Ok(()),
        }
    }

    /// Fills one slot and, while that was the last of its directory, the directory's own: a loop, because trees can be 10,000 levels deep.
    fn close_one(self: &Arc<Dir>, run: &Run<'_>, filled: Option<(usize, Vec<u8>)>) -> Result<()> {
        let mut dir = self.clone();
        let mut filled = filled;
        loop {
            let slots = {
                let mut entries = dir.lock();
                if let Some((slot, json)) = filled.take() {
                    entries.slots[slot].json = json.into_boxed_slice();
                }
                entries.open -= 1;
                if entries.open > 0 {
                    return Ok(());
                }
                std::mem::take(&mut entries.slots)
            };
            let tree = save_tree(run, slots)?;
            let Some((up, slot)) = &dir.up else {
                run.set_root(tree);
                return Ok(());
            };
            let mut node = dir.node.clone().expect("only the root has none, and the root has no parent");
            node.subtree = Some(tree);
            run.count_dir(&dir, &node);
            let mut json = Vec::new();
            node.write_json(&mut json);
            filled = Some((*slot, json));
            dir = up.clone();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Writes the tree of a directory, unless the repository has it.
fn save_tree(run: &Run<'_>, slots: Vec<Slot>) -> Result<Id> {
    // Reserved at once: growing step by step would hold a large directory up to three times.
    let mut tree = TreeWriter::with_capacity(slots.iter().map(|slot| slot.json.len() + 1).sum());
    for Slot { name, json } in slots {
        if !json.is_empty() {
            tree.add_json(&name, &json).expect("slots are opened in order");
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
