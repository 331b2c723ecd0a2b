//! Walks over the entries to restore, twice in the same order: first to plan, then to finish.
//!
//! The walk is depth first with a stack of its own, so that a deep tree cannot overflow the call
//! stack, and holds the remaining subdirectories of each level. Both walks see the same entries in
//! the same order, because trees are named by their content, and everything that excludes an entry
//! is decided here: names, lengths, filters.

use super::error::{Error, Result, is_lost};
use super::meta::Meta;
use super::names::Names;
use super::origin::Origin;
use super::path::relative;
use super::selection::Selection;
use crate::format::node::{Node, NodeType};
use crate::id::Id;
use crate::limits;
use crate::progress::Progress;
use crate::repo::{self, TreeReader};

/// A flaw of the snapshot itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A name that is invalid or a duplicate, so that the real content of the directory is unknown.
    Name,
    /// A directory whose tree cannot be read.
    Unreadable,
    /// A directory whose tree can be read, but not to its end.
    Truncated,
    /// An entry that cannot be restored.
    Entry,
}

/// Why a directory is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is selected itself.
    Selected,
    /// An entry below it may be selected.
    OnTheWay,
}

/// Called by a walk. Paths are relative to the target, as in [`super::path`].
pub trait Visitor {
    /// Enters a directory, the root first. `false`: its entries are skipped.
    fn enter(&mut self, path: &[u8], tree: Option<Id>, meta: Option<&Meta>, role: Role) -> Result<bool>;

    /// Visits an entry that is not a directory, in the directory entered last.
    fn entry(&mut self, path: &[u8], node: Node) -> Result<()>;

    /// Whether [`Visitor::listed`] is wanted for the directory entered last.
    fn wants_names(&self) -> bool {
        false
    }

    /// Called with the complete list of names in the directory entered last, selected or not.
    fn listed(&mut self, path: &[u8], names: Names) -> Result<()> {
        let _ = (path, names);
        Ok(())
    }

    /// The directory and everything below it has been visited.
    fn leave(&mut self, path: &[u8], meta: Option<Meta>) -> Result<()>;

    fn flaw(&mut self, path: &[u8], flaw: Flaw, why: String) -> Result<()>;
}

pub struct Walk<'w> {
    pub trees: &'w TreeReader<'w>,
    pub origin: &'w Origin,
    pub selection: Selection<'w>,
    pub progress: &'w Progress,
}

/// A directory that the walk has not left.
struct Frame {
    meta: Option<Meta>,
    path_length: usize,
    /// The remaining subdirectories, the next one last.
    below: Vec<SubDir>,
}

struct SubDir {
    name: Box<[u8]>,
    tree: Id,
    meta: Meta,
    role: Role,
}

impl Walk<'_> {
    pub fn run(&self, visitor: &mut impl Visitor) -> Result<()> {
        // Every component has a slash before it, as patterns need it.
        let mut path = Vec::new();
        let mut stack = vec![self.root(&mut path, visitor)?];
        while let Some(frame) = stack.last_mut() {
            path.truncate(frame.path_length);
            if let Some(SubDir { name, tree, meta, role }) = frame.below.pop() {
                path.push(b'/');
                path.extend_from_slice(&name);
                let below = if visitor.enter(relative(&path), Some(tree), Some(&meta), role)? {
                    self.list(&mut path, tree, visitor)?
                } else {
                    Vec::new()
                };
                stack.push(Frame { meta: Some(meta), path_length: path.len(), below });
            } else {
                visitor.leave(relative(&path), frame.meta.take())?;
                stack.pop();
            }
        }
        Ok(())
    }

    fn root(&self, path: &mut Vec<u8>, visitor: &mut impl Visitor) -> Result<Frame> {
        let (tree, meta) = match self.origin {
            Origin::Dir { tree, meta } => (Some(*tree), meta.as_ref()),
            Origin::Entry(_) => (None, None),
        };
        let wanted = visitor.enter(b"", tree, meta, Role::Selected)?;
        let mut frame = Frame { meta: None, path_length: 0, below: Vec::new() };
        match self.origin {
            Origin::Dir { tree, meta } => {
                frame.meta.clone_from(meta);
                if wanted {
                    frame.below = self.list(path, *tree, visitor)?;
                }
            }
            Origin::Entry(node) => {
                let mut listing = self.listing(path, Names::default());
                listing.add(Node::clone(node), visitor)?;
            }
        }
        Ok(frame)
    }

    /// Visits the entries of a directory, and returns its subdirectories in reverse order.
    fn list(&self, path: &mut Vec<u8>, id: Id, visitor: &mut impl Visitor) -> Result<Vec<SubDir>> {
        if self.progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        let tree = match self.trees.open(id) {
            Ok(tree) => tree,
            // Without the root's tree, nothing can be restored.
            Err(error) if is_lost(&error) && !path.is_empty() => {
                visitor.flaw(relative(path), Flaw::Unreadable, error.to_string())?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let is_asked = visitor.wants_names();
        let mut listing = self.listing(path, if is_asked { Names::default() } else { Names::forgetting() });
        let mut damage = None;
        for (number, node) in tree.enumerate() {
            match node {
                Ok(node) => {
                    if listing.names.has_forgotten(&node.name) {
                        listing.names = self.names(id, number)?;
                    }
                    listing.add(node, visitor)?;
                }
                Err(error) if is_lost(&error) => {
                    damage = Some(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        match damage {
            None if is_asked => visitor.listed(relative(listing.path), listing.names)?,
            None => {}
            // The entries before the damage have been visited. As the end is unknown, so are the
            // names that the directory lacks.
            Some(error) => {
                let why = match error {
                    repo::Error::Tree { source, .. } => source.to_string(),
                    error => error.to_string(),
                };
                let why = format!("the end of tree {id} is lost: {why}");
                visitor.flaw(relative(listing.path), Flaw::Truncated, why)?;
            }
        }
        let mut below = listing.below;
        below.reverse();
        Ok(below)
    }

    fn listing<'l>(&'l self, path: &'l mut Vec<u8>, names: Names) -> Listing<'l> {
        Listing { path, selection: self.selection, names, below: Vec::new() }
    }

    /// The names of the first nodes of an unsorted tree.
    fn names(&self, id: Id, count: usize) -> Result<Names> {
        let mut names = Names::default();
        for node in self.trees.open(id)?.take(count) {
            let node = node?;
            if node.has_safe_name() {
                names.insert(&node.name);
            }
        }
        Ok(names)
    }
}

/// A directory while its nodes are read.
struct Listing<'l> {
    path: &'l mut Vec<u8>,
    selection: Selection<'l>,
    names: Names,
    below: Vec<SubDir>,
}

impl Listing<'_> {
    fn add(&mut self, node: Node, visitor: &mut impl Visitor) -> Result<()> {
        if !node.has_safe_name() {
            let why = format!("the name {:?} is not a valid name of an entry; it is not restored", node.display_name());
            return visitor.flaw(relative(self.path), Flaw::Name, why);
        }
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(&node.name);
        let outcome = self.place(node, visitor);
        self.path.truncate(length);
        outcome
    }

    /// Decides about a node whose path is set.
    fn place(&mut self, mut node: Node, visitor: &mut impl Visitor) -> Result<()> {
        let path = &self.path[..];
        let name: Box<[u8]> = node.name[..].into();
        if !self.names.insert(&name) {
            let why = "the snapshot has this name twice in one directory; only the first is restored".into();
            return visitor.flaw(relative(path), Flaw::Name, why);
        }
        for (what, length, max) in
            [("name", name.len(), limits::PATH), ("path", relative(path).len(), limits::RESTORE_PATH)]
        {
            if length > max {
                let why = format!("its {what} is too long: {length} bytes, and at most {max} are restored");
                return visitor.flaw(relative(path), Flaw::Entry, why);
            }
        }
        let selected = self.selection.takes(path);
        if node.ty != NodeType::Dir {
            return if selected { visitor.entry(relative(path), node) } else { Ok(()) };
        }
        if selected || self.selection.leads_below(path) {
            let Some(tree) = node.subtree.take() else {
                let why = "the snapshot names no tree for this directory".into();
                return visitor.flaw(relative(path), Flaw::Entry, why);
            };
            let role = if selected { Role::Selected } else { Role::OnTheWay };
            self.below.push(SubDir { name, tree, meta: Meta::of(node), role });
        }
        Ok(())
    }
}
