//! Runs calls in parallel on plain threads, so that their waits for a store overlap.

use crate::sync::{into_inner, lock};
use std::sync::Mutex;

/// Runs two calls at the same time, the second one on this thread, and waits for both.
pub fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// Runs `work` for each item on a few threads. The calling thread is one of them, because it has
/// open connections. The results are in the items' order.
pub fn side_by_side<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (queue, done) = (Mutex::new(items.iter().enumerate()), Mutex::new(Vec::with_capacity(items.len())));
    let next = || lock(&queue).next();
    let run = || {
        while let Some((index, item)) = next() {
            let outcome = work(item);
            lock(&done).push((index, outcome));
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(items.len())).for_each(|_| drop(scope.spawn(run)));
        run();
    });
    let mut done = into_inner(done);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
