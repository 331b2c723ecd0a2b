//! Visits every tree below a root once, however often it is referenced, with all threads of a pool.
//!
//! Trees are jobs on a queue, not recursive calls, so ten thousand levels need no stack. Each tree
//! is visited once, so a directory that references the same subtree twice on every level costs no
//! more than its distinct trees.

use crate::id::Id;
use rayon::{Scope, ThreadPool};

/// The work on each tree.
pub trait Visitor: Sync {
    /// Whether the tree has to be visited: `false` if it already was.
    fn enter(&self, id: Id) -> bool;

    /// Visits a tree and passes its subtrees to `below`.
    fn look(&self, id: Id, below: &mut dyn FnMut(Id));
}

/// Visits every tree below a root, and returns when all have been visited.
pub fn walk(pool: &ThreadPool, root: Id, visitor: &impl Visitor) {
    pool.scope(|scope| add(scope, root, visitor));
}

fn add<'s, V: Visitor>(scope: &Scope<'s>, id: Id, visitor: &'s V) {
    if visitor.enter(id) {
        scope.spawn(move |scope| visitor.look(id, &mut |below| add(scope, below, visitor)));
    }
}
