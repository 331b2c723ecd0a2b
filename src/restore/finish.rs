//! Stage 7: the second walk, which completes the tree around the restored file contents.
//!
//! It creates symlinks, fifos, devices and the further names of hard-linked files, deletes entries
//! that the snapshot lacks, and applies all metadata that is still missing: to a directory after
//! all changes in it, so the deepest first and the target itself last. Files with incomplete
//! content get no metadata.
//!
//! The walk submits a task for each entry, and each directory counts its unfinished tasks
//! ([`open`]): the task that ends last finishes the directory. The first of several names is
//! created by the walk itself, so that the tasks of the others find it.

mod open;
mod place;

use super::dirs::Dirs;
use super::error::{Error, Result};
use super::file_states::State;
use super::meta::Meta;
use super::names::Names;
use super::outcomes::Outcomes;
use super::path::display;
use super::plan::link::link_key;
use super::report::Report;
use super::target::Target;
use super::walk::{Flaw, Role, Visitor, Walk};
use super::workers::Queue;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::progress::Action;
use open::Open;
use place::{Counts, Entry, Finished, First, Place, Special};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The inputs of this stage.
pub struct Finish<'f> {
    pub walk: &'f Walk<'f>,
    pub target: &'f Target<'f>,
    pub outcomes: &'f Outcomes,
    /// `None`: a dry run into a target that does not exist.
    pub dirs: Option<&'f Dirs<'f>>,
}

impl Finish<'_> {
    /// Walks the snapshot again, finishes all entries and fills the report.
    pub fn run(&self, report: &mut Report) -> Result<()> {
        let Finish { walk, target, outcomes, dirs } = *self;
        let place = Place { target, outcomes, dirs, selection: walk.selection, counts: Counts::default() };
        target.workers.run("entries were finished", |queue| {
            let mut second =
                Second { place: &place, queue, next_dir: 0, next_file: 0, above: Vec::new(), links: HashMap::new() };
            walk.run(&mut second)
        })?;
        place.counts.report(report);
        report.files_deleted = target.deleted.load(Ordering::Relaxed);
        Ok(())
    }
}

/// The visitor of the second walk.
struct Second<'w, 'scope, 'env> {
    place: &'scope Place<'scope>,
    queue: &'w Queue<'scope, 'env>,
    /// The numbers of the next directory and file in the plan.
    next_dir: u32,
    next_file: u32,
    /// The directories that the walk is in, the target first.
    above: Vec<Arc<Open>>,
    /// The first name in each group of hard links to entries that are not regular files.
    links: HashMap<Id, First>,
}

impl Visitor for Second<'_, '_, '_> {
    fn enter(&mut self, _: &[u8], _: Option<Id>, _: Option<&Meta>, _: Role) -> Result<bool> {
        let number = self.next_dir;
        let target = self.place.target;
        let dir = &target.plan.dirs[number as usize];
        self.above.push(Open::new(number, self.next_file, self.above.last()));
        self.next_dir += 1;
        let is_wanted = dir.needed && !target.dir(number).has_failed() && !dir.unreadable;
        if !is_wanted {
            (self.next_dir, self.next_file) = (dir.dirs_end, dir.files_end);
        }
        Ok(is_wanted)
    }

    fn entry(&mut self, path: &[u8], node: Node) -> Result<()> {
        if self.place.target.progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        let key = link_key(&node);
        if node.ty == NodeType::File {
            return match key.and_then(|key| self.place.target.plan.links.get(&key)) {
                Some(first) if first.file != self.next_file => {
                    let entry = Entry::of(&node);
                    self.submit(entry.weight(), move |place, open| place.link_file(open, &entry, first))
                }
                _ => {
                    self.next_file += 1;
                    self.file(self.next_file - 1, node)
                }
            };
        }
        self.special(path, node, key)
    }

    fn wants_names(&self) -> bool {
        let target = self.place.target;
        // If any names cannot be trusted, no listing can: neither here nor above or below.
        let fresh = target.dir(self.here().number).is_fresh();
        target.options.delete && !target.plan.doubtful && !fresh
    }

    fn listed(&mut self, _: &[u8], names: Names) -> Result<()> {
        let (place, open) = (self.place, self.here().clone());
        let weight = names.memory();
        open.begin();
        self.queue.submit(weight, move || {
            if let Some(names) = open.list(names) {
                place.sweep(&open, &names)?;
            }
            open.end(|open| place.finish_dir(open));
            Ok(())
        })
    }

    fn leave(&mut self, _: &[u8], meta: Option<Meta>) -> Result<()> {
        let (place, open) = (self.place, self.above.pop().expect("entered before"));
        let weight = meta.as_ref().map_or(0, Meta::weight);
        if let Some(meta) = meta {
            open.meta.get_or_init(|| meta);
        }
        self.queue.submit(weight, move || {
            open.end(|open| place.finish_dir(open));
            Ok(())
        })
    }

    fn flaw(&mut self, path: &[u8], flaw: Flaw, why: String) -> Result<()> {
        match flaw {
            // The planner has reported all other flaws. If a tree that was readable then is not any
            // more, all numbers would be wrong.
            Flaw::Unreadable => Err(Error::Changed { path: display(path), why }),
            Flaw::Truncated if !self.was_truncated() => Err(Error::Changed { path: display(path), why }),
            Flaw::Name | Flaw::Truncated | Flaw::Entry => Ok(()),
        }
    }
}

impl<'scope> Second<'_, 'scope, '_> {
    /// Whether the plan knows that the directory's listing is truncated.
    fn was_truncated(&self) -> bool {
        let plan = self.place.target.plan;
        match self.here().number {
            0 => plan.root_damage.is_some(),
            number => plan.dirs[number as usize].truncated,
        }
    }

    /// The directory that the walk entered last.
    fn here(&self) -> &Arc<Open> {
        self.above.last().expect("entries are in directories")
    }

    /// Submits a task for an entry of the directory that the walk entered last.
    fn submit(&self, bytes: usize, task: impl FnOnce(&Place<'_>, &Open) -> Result<()> + Send + 'scope) -> Result<()> {
        let (place, open) = (self.place, self.here().clone());
        open.begin_entry();
        self.queue.submit(bytes, move || {
            task(place, &open)?;
            if let Some(names) = open.end_entry() {
                place.sweep(&open, &names)?;
            }
            open.end(|open| place.finish_dir(open));
            Ok(())
        })
    }

    /// Submits the metadata of a regular file whose content is correct.
    fn file(&mut self, number: u32, node: Node) -> Result<()> {
        let place = self.place;
        let state = place.outcomes.state(number);
        let action = match state {
            State::Failed | State::Made => return Ok(()),
            State::Kept | State::Correct => Action::Skipped,
            State::Done | State::Finished | State::Planned => Action::Restored,
            State::Corrected | State::Correcting => Action::Updated,
        };
        let file =
            Finished { name: node.name[..].into(), number, size: place.target.plan.size(number, node.size), action };
        if matches!(state, State::Kept | State::Finished) || place.dirs.is_none() || place.target.options.dry_run {
            place.count_file(self.here(), &file);
            return Ok(());
        }
        let meta = Meta::of(node);
        let weight = file.name.len() + meta.weight();
        self.submit(weight, move |place, open| place.finish_file(open, &file, &meta))
    }

    /// Creates an entry that is neither a regular file nor a directory.
    fn special(&mut self, path: &[u8], node: Node, key: Option<Id>) -> Result<()> {
        let place = self.place;
        let ty = node.ty;
        let Some(special) = Special::of(node) else {
            if ty == NodeType::Socket {
                place.target.refusals.add_harmless("socket", &|| path.to_vec(), Errno::OPNOTSUPP);
            } else {
                place.target.problems.report(path, format!("entries of type {} cannot be restored", ty.name()));
            }
            return Ok(());
        };
        let Some(key) = key else {
            return self.submit(special.weight(), move |place, open| place.special(open, &special).map(drop));
        };
        if let Some(first) = self.links.get(&key).cloned() {
            let entry = special.entry;
            return self.submit(entry.weight(), move |place, open| place.link(open, &entry, &first).map(drop));
        }
        let open = self.here().clone();
        if place.special(&open, &special)? {
            self.links.insert(key, First { dir: open.number, name: special.entry.name });
        }
        Ok(())
    }
}
