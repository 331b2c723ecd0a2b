//! Stage 2: the first walk adds each selected entry to the tables of the plan, and reports the
//! flaws of the snapshot. It does not touch the target.

use super::link::{Link, link_key};
use super::memory::PlanBudget;
use super::name::{Name, count};
use super::spill::TableWriter;
use super::table::{File, Part, Use};
use super::{DIR_MEMORY, Dir, Plan};
use crate::format::BlobType;
use crate::format::content::Content;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::limits;
use crate::progress::Phase;
use crate::repo::{self, Index};
use crate::restore::error::{Error, Result};
use crate::restore::meta::{Access, Meta};
use crate::restore::origin::Origin;
use crate::restore::path::display;
use crate::restore::problems::NO_CONTENT;
use crate::restore::walk::{Flaw, Role, Visitor, Walk};
use crate::restore::weigh;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// [`File::access`] of a file whose owner and mode are not in the plan.
const NO_ACCESS: u16 = u16::MAX;

/// Plans the whole restore.
pub fn plan(walk: &Walk<'_>, index: &Index, budget: PlanBudget<'_>) -> Result<Plan> {
    // Everything is counted in 32 bits.
    let max = budget.total.min(u64::from(u32::MAX));
    let mut planner = Planner {
        walk,
        index,
        max,
        plan: Plan::default(),
        writer: TableWriter::new(budget),
        above: Vec::new(),
        trees_seen: HashSet::new(),
        repeats: 0,
        accesses: HashMap::new(),
    };
    walk.run(&mut planner)?;
    let Planner { mut plan, writer, .. } = planner;
    plan.files = writer.next_number();
    plan.tables = writer.finish()?;
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
    writer: TableWriter,
    /// The directories that the walk is in, the target first.
    above: Vec<u32>,
    /// Prefixes of the ids of the trees seen so far, and the number of repetitions.
    trees_seen: HashSet<u64>,
    repeats: u64,
    /// The position of each owner and mode in the plan.
    accesses: HashMap<Access, u16>,
}

impl Visitor for Planner<'_> {
    fn enter(&mut self, path: &[u8], tree: Option<Id>, meta: Option<&Meta>, role: Role) -> Result<bool> {
        self.check_memory()?;
        self.check_repeats(tree)?;
        let number = count(self.plan.dirs.len());
        let name = Name::keep(&mut self.plan.names, path);
        self.plan.dirs.push(Dir {
            parent: self.above.last().copied().unwrap_or(0),
            name,
            mtime: meta.map_or((0, 0), Meta::mtime),
            dirs_end: 0,
            files_end: 0,
            needed: self.above.is_empty(),
            unreadable: false,
            truncated: false,
        });
        self.above.push(number);
        if role == Role::Selected {
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

    fn leave(&mut self, _: &[u8], _: Option<Meta>) -> Result<()> {
        let number = self.above.pop().expect("entered before");
        let (dirs_end, files_end) = (count(self.plan.dirs.len()), self.writer.next_number());
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
    /// Marks a directory and its ancestors as needed.
    fn need(&mut self, number: u32) {
        let mut at = number;
        while !self.plan.dirs[at as usize].needed {
            self.plan.dirs[at as usize].needed = true;
            self.plan.entries += 1;
            at = self.plan.dirs[at as usize].parent;
        }
    }

    fn file(&mut self, path: &[u8], dir: u32, node: &Node) -> Result<()> {
        if self.writer.is_full() {
            self.writer.turn(self.writer.next_number())?;
        }
        let number = self.writer.next_number();
        if let Some(key) = link_key(node) {
            let Entry::Vacant(first) = self.plan.links.entry(key) else { return Ok(()) };
            first.insert(Link { file: number, dir, name: Name::keep(&mut self.plan.names, path) });
        }
        let before = self.writer.table.uses.len();
        let content = node.content.as_ref().ok_or_else(|| NO_CONTENT.to_owned());
        let is_split = content.as_ref().is_ok_and(|content| self.writer.is_more_than_one(content.len()));
        let placed = match &content {
            // Spilled uses cannot be removed again, so the content of a split file is checked
            // first.
            Ok(content) if is_split => self.measure(content),
            Ok(content) => self.place(content),
            Err(why) => Err(why.clone()),
        };
        let (size, is_usable) = match placed {
            Ok(size) => (size, true),
            Err(why) => {
                self.writer.table.uses.truncate(before);
                self.problem(path, why);
                (node.size, false)
            }
        };
        if size != node.size {
            self.plan.sizes.insert(number, size);
            self.problem(
                path,
                format!("the snapshot records {} bytes for it but lists content of {size} bytes", node.size),
            );
        }
        self.plan.bytes = self.plan.bytes.saturating_add(size);
        let access = Access::of_plain(node).map_or(NO_ACCESS, |access| self.keep_access(access));
        let (name, mtime) = (Name::default(), node.mtime.instant());
        let part = |part| File { dir, name, size, mtime, access, part, is_usable };
        let mut last = Part::Whole;
        if is_split && is_usable {
            let mut offset = 0;
            for id in node.content.iter().flatten() {
                if self.writer.is_full() {
                    let ended = if last == Part::Whole { Part::First } else { Part::Middle };
                    last = Part::Last;
                    self.writer.add(path, part(ended));
                    self.check_memory()?;
                    self.writer.turn(number)?;
                }
                offset = self.place_one(id, offset).map_err(|why| Error::Changed { path: display(path), why })?;
            }
        }
        self.writer.add(path, part(last));
        self.check_memory()
    }

    /// The total bytes of some blobs.
    fn measure(&self, content: &Content) -> std::result::Result<u64, String> {
        content.iter().try_fold(0u64, |size, id| Ok(size.saturating_add(self.find(id)?.1)))
    }

    /// Places blobs one after the other; returns their total bytes.
    fn place(&mut self, content: &Content) -> std::result::Result<u64, String> {
        content.iter().try_fold(0, |offset, id| self.place_one(id, offset))
    }

    fn place_one(&mut self, id: Id, offset: u64) -> std::result::Result<u64, String> {
        let (blob, length) = self.find(id)?;
        let file = count(self.writer.table.files.len());
        self.writer.table.uses.push(Use { blob, file, offset });
        Ok(offset.saturating_add(length))
    }

    /// A blob's position in the index, and its bytes.
    fn find(&self, id: Id) -> std::result::Result<(u32, u64), String> {
        let missing = || repo::Error::BlobMissing { ty: BlobType::Data, id }.to_string();
        let position = self.index.position(BlobType::Data, id).ok_or_else(missing)?;
        Ok((count(position), self.index.at(BlobType::Data, position).blob.plain_length()))
    }

    /// The position of an owner and mode in the plan. If a snapshot has more of them than fit, the
    /// files with the others get their metadata in the last stage.
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
        if self.plan.memory() + self.writer.bytes() + seen as u64 > self.max {
            Err(Error::PlanTooLarge { max: self.max })
        } else {
            Ok(())
        }
    }

    /// Repeated trees may be crafted to repeat without end. After a number of repetitions, all
    /// entries are counted, reading each tree only once, before the tables grow any further.
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
            if entries.saturating_mul(DIR_MEMORY as u64) > self.max {
                return Err(Error::TooManyEntries { entries, max: self.max });
            }
        }
        Ok(())
    }

    fn problem(&self, path: &[u8], why: String) {
        self.walk.progress.problem(Phase::Restore, display(path), why);
    }
}
