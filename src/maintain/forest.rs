//! Every tree below a root, each looked at once however often it is named, by all threads of a
//! pool.
//!
//! Trees are jobs on a queue, not calls: neither ten thousand levels nor a tree that names itself
//! twice per level costs more than its number of different trees.

use crate::id::Id;
use rayon::{Scope, ThreadPool};

/// What is done with each tree.
pub trait Visitor: Sync {
    /// Whether a tree is still to be looked at, which it is once at most.
    fn enter(&self, id: Id) -> bool;

    /// Looks at a tree and passes the trees that it names to `below`.
    fn look(&self, id: Id, below: &mut dyn FnMut(Id));
}

/// Returns when everything below a root has been looked at.
pub fn walk(pool: &ThreadPool, root: Id, visitor: &impl Visitor) {
    pool.scope(|scope| add(scope, root, visitor));
}

fn add<'s, V: Visitor>(scope: &Scope<'s>, id: Id, visitor: &'s V) {
    if visitor.enter(id) {
        scope.spawn(move |scope| visitor.look(id, &mut |below| add(scope, below, visitor)));
    }
}
