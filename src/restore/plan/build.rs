//! The first walk: every entry that is meant is entered in the tables, and what is wrong with the snapshot is told.

use super::{Dir, File, Flag, NO_ACCESS, Plan, State, count, link_key};
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::limits;
use crate::progress::Phase;
use crate::repo::Index;
use crate::restore::error::{Error, Result};
use crate::restore::meta::{Access, Meta};
use crate::restore::names::Names;
use crate::restore::origin::Origin;
use crate::restore::walk::{Flaw, Visitor, Walk, display};
use crate::restore::weigh;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Plans the whole restore. `max` bounds the tables' bytes.
pub fn build(walk: &Walk<'_>, index: &Index, max: u64) -> Result<Plan> {
    // Everything is counted in 32 bits.
    let max = max.min(u64::from(u32::MAX));
    let plan = Plan::default();
    let mut planner = Planner {
        walk,
        index,
        max,
        plan,
        above: Vec::new(),
        trees_seen: HashSet::new(),
        repeats: 0,
        accesses: HashMap::new(),
    };
    walk.run(&mut planner)?;
    let Planner { mut plan, .. } = planner;
    plan.shrink();
    walk.progress.files_total.store(plan.entries, Ordering::Relaxed);
    walk.progress.bytes_total.store(plan.bytes, Ordering::Relaxed);
    Ok(plan)
}

struct Planner<'p> {
    walk: &'p Walk<'p>,
    index: &'p Index,
    max: u64,
    plan: Plan,
    /// The directories that are open, the target first.
    above: Vec<u32>,
    /// The beginnings of the ids of the trees met so far, and how often one came again.
    trees_seen: HashSet<u64>,
    repeats: u64,
    /// Where each owner and mode is in the plan.
    accesses: HashMap<Access, u16>,
}

impl Visitor for Planner<'_> {
    fn enter(&mut self, path: &[u8], tree: Option<Id>, meta: Option<&Meta>, selected: bool) -> Result<bool> {
        self.check_memory()?;
        self.check_repeats(tree)?;
        let number = count(self.plan.dirs.len());
        let name = self.plan.keep_name(path);
        self.plan.dirs.push(Dir {
            parent: self.above.last().copied().unwrap_or(0),
            name,
            mtime: meta.map_or((0, 0), Meta::mtime),
            dirs_end: 0,
            files_end: 0,
            needed: self.above.is_empty(),
            unreadable: false,
            truncated: false,
            fresh: Flag::default(),
            failed: Flag::default(),
            hands_down: Flag::default(),
        });
        self.above.push(number);
        if selected {
            self.need(number);
        }
        Ok(true)
    }

    fn entry(&mut self, path: &[u8], node: Node) -> Result<()> {
        if node.ty == NodeType::Socket {
            return Ok(());
        }
        let dir = *self.above.last().expect("entries are in directories");
        self.need(dir);
        self.plan.entries += 1;
        if node.ty == NodeType::File { self.file(path, dir, &node) } else { Ok(()) }
    }

    fn listed(&mut self, _: &[u8], _: Names) -> Result<()> {
        Ok(())
    }

    fn leave(&mut self, _: &[u8], _: Option<Meta>) -> Result<()> {
        let number = self.above.pop().expect("entered before");
        let (dirs_end, files_end) = (count(self.plan.dirs.len()), count(self.plan.files.len()));
        let dir = &mut self.plan.dirs[number as usize];
        (dir.dirs_end, dir.files_end) = (dirs_end, files_end);
        Ok(())
    }

    fn flaw(&mut self, path: &[u8], flaw: Flaw, why: String) -> Result<()> {
        match flaw {
            Flaw::Name => self.plan.doubtful = true,
            Flaw::Unreadable => {
                let dir = *self.above.last().expect("it was entered");
                self.plan.dirs[dir as usize].unreadable = true;
            }
            Flaw::Truncated if path.is_empty() => {
                self.plan.root_damage = Some(why);
                return Ok(());
            }
            Flaw::Truncated => {
                let dir = *self.above.last().expect("it was entered");
                self.plan.dirs[dir as usize].truncated = true;
            }
            Flaw::Entry => {}
        }
        self.problem(path, why);
        Ok(())
    }
}

impl Planner<'_> {
    /// Marks a directory and those above it.
    fn need(&mut self, number: u32) {
        let mut at = number;
        while !self.plan.dirs[at as usize].needed {
            self.plan.dirs[at as usize].needed = true;
            self.plan.entries += 1;
            at = self.plan.dirs[at as usize].parent;
        }
    }

    fn file(&mut self, path: &[u8], dir: u32, node: &Node) -> Result<()> {
        let number = count(self.plan.files.len());
        if let Some(key) = link_key(node)
            && *self.plan.links.entry(key).or_insert(number) != number
        {
            return Ok(());
        }
        let first = self.plan.uses.len();
        let (size, state) = match self.plan.place_blobs(self.index, node, number) {
            Ok(size) => (size, State::Planned),
            Err(why) => {
                self.plan.uses.truncate(first);
                self.problem(path, why);
                (node.size, State::Failed)
            }
        };
        if state == State::Planned && size != node.size {
            self.problem(path, format!("the snapshot gives it {} bytes and lists content of {size}", node.size));
        }
        let name = self.plan.keep_name(path);
        let access = Access::of_plain(node).map_or(NO_ACCESS, |access| self.keep_access(access));
        self.plan.bytes = self.plan.bytes.saturating_add(size);
        let (left, state) = (AtomicU32::new(count(self.plan.uses.len() - first)), AtomicU8::new(state as u8));
        self.plan.files.push(File {
            dir,
            name,
            size,
            mtime: node.mtime.instant(),
            access,
            present: AtomicU64::new(0),
            left,
            lacking: false.into(),
            occupied: false.into(),
            state,
        });
        self.check_memory()
    }

    /// Where an owner and mode is in the plan. A snapshot with more of them than fit gets the metadata
    /// of the others when the restore is finished.
    fn keep_access(&mut self, access: Access) -> u16 {
        let Plan { accesses, .. } = &mut self.plan;
        match u16::try_from(accesses.len()) {
            Ok(next) if next < NO_ACCESS => *self.accesses.entry(access).or_insert_with(|| {
                accesses.push(access);
                next
            }),
            _ => self.accesses.get(&access).copied().unwrap_or(NO_ACCESS),
        }
    }

    fn check_memory(&self) -> Result<()> {
        let seen = 2 * size_of::<u64>() * self.trees_seen.len();
        if self.plan.memory() + seen as u64 > self.max { Err(Error::PlanTooLarge { max: self.max }) } else { Ok(()) }
    }

    /// A tree that comes again and again may be there to come without end: then all entries are counted, each tree read only once,
    /// before the tables grow any further.
    fn check_repeats(&mut self, tree: Option<Id>) -> Result<()> {
        let Some(tree) = tree else { return Ok(()) };
        let start = u64::from_le_bytes(*tree.0.first_chunk().expect("32 bytes"));
        if self.trees_seen.insert(start) {
            return Ok(());
        }
        self.repeats += 1;
        if self.repeats == limits::REPEATED_TREES
            && let Origin::Dir { tree, .. } = self.walk.origin
        {
            let entries = weigh::entries(self.walk.trees, *tree)?;
            if entries.saturating_mul(size_of::<Dir>() as u64) > self.max {
                return Err(Error::TooManyEntries { entries, max: self.max });
            }
        }
        Ok(())
    }

    fn problem(&self, path: &[u8], why: String) {
        self.walk.progress.problem(Phase::Restore, display(path), why);
    }
}
