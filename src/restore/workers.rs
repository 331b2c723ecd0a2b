//! Keeps many calls on the target in flight: a bounded queue of tasks, and the threads that run
//! them.
//!
//! A network file system answers each call after its latency, and many calls at the same time.
//! [`Limit`] finds the number of concurrent tasks with the highest throughput, independent of the
//! number of cores. Threads are started as tasks queue up. Queued and running tasks are bounded in
//! bytes, and queued tasks in number: submitting a task blocks until others have ended
//! (backpressure). The first error or panic of a task cancels all queued tasks. If the system
//! refuses to start another thread, the running threads do all the work; the stage fails only if
//! there is none.

use super::error::{Error, Result};
use super::panics::caught;
use crate::clock::Clock;
use crate::concurrency::Limit;
use crate::limits;
use crate::progress::Progress;
use crate::repo;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

/// Minimum number of concurrent tasks, independent of the number of cores: most tasks wait for the
/// target, and a search that began with one task would take hundreds of files.
const LEAST: usize = 4;

/// Runs the tasks of one restore, and learns the number of concurrent tasks that suits the target.
pub struct Workers<'p> {
    limit: Limit,
    progress: &'p Progress,
    /// Returns the builder for a new thread.
    builder: fn() -> Builder,
}

/// The tasks of one stage.
pub struct Queue<'scope, 'env: 'scope>(Arc<Shared<'scope, 'env>>);

struct Shared<'scope, 'env: 'scope> {
    scope: &'scope Scope<'scope, 'env>,
    workers: &'env Workers<'env>,
    /// Describes the tasks in the error of a panic.
    during: &'static str,
    state: Mutex<State<'scope>>,
    /// Signalled when a thread is woken, or the queue is closed.
    wakes: Condvar,
    /// Signalled when tasks have ended.
    ends: Condvar,
}

#[derive(Default)]
struct State<'scope> {
    queued: VecDeque<Queued<'scope>>,
    /// Bytes that queued and running tasks hold.
    bytes: usize,
    running: usize,
    threads: usize,
    /// The system has refused to start another thread.
    no_more_threads: bool,
    /// Idle threads, not counting those that have been woken.
    idle: usize,
    woken: usize,
    /// Threads that wait for tasks to end.
    waiting: usize,
    closed: bool,
    failure: Option<Error>,
}

struct Queued<'scope> {
    bytes: usize,
    task: Task<'scope>,
}

type Task<'scope> = Box<dyn FnOnce() -> Result<()> + Send + 'scope>;

impl<'p> Workers<'p> {
    /// At least `cores` tasks are admitted at a time.
    pub fn new(cores: usize, progress: &'p Progress) -> Workers<'p> {
        let limit = Limit::new(cores.max(LEAST), limits::RESTORE_TASKS, Clock::default());
        Workers { limit, progress, builder: Builder::new }
    }

    /// Runs `submit`, and all tasks that it submits. An error of a task takes precedence over an
    /// error of `submit`, which may be its consequence.
    pub fn run<'env, T>(
        &'env self,
        during: &'static str,
        submit: impl for<'scope> FnOnce(&Queue<'scope, 'env>) -> Result<T>,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            let (state, wakes, ends) = (Mutex::default(), Condvar::new(), Condvar::new());
            let queue = Queue(Arc::new(Shared { scope, workers: self, during, state, wakes, ends }));
            let outcome = submit(&queue).and_then(|value| queue.wait().map(|()| value));
            let failure = queue.0.lock().failure.take();
            failure.map_or(outcome, Err)
        })
    }
}

impl<'scope> Queue<'scope, '_> {
    /// Queues a task that holds about this number of bytes. An error means that the stage is over:
    /// a task has failed, or the run was interrupted.
    pub fn submit(&self, bytes: usize, task: impl FnOnce() -> Result<()> + Send + 'scope) -> Result<()> {
        let queued = Queued { bytes, task: Box::new(task) };
        let mut state = self.0.lock();
        while state.failure.is_none() && state.is_full(bytes) {
            state = self.0.wait_for_end(state);
        }
        if state.failure.is_some() || self.0.workers.progress.is_interrupted() {
            return Err(Error::interrupted());
        }
        state.bytes += bytes;
        state.queued.push_back(queued);
        self.0.admit(state);
        Ok(())
    }

    /// Waits until all tasks have ended. An error means that one has failed.
    pub fn wait(&self) -> Result<()> {
        let mut state = self.0.lock();
        while state.failure.is_none() && (state.running > 0 || !state.queued.is_empty()) {
            state = self.0.wait_for_end(state);
        }
        if state.failure.is_some() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

impl Drop for Queue<'_, '_> {
    /// Ends the threads, also if a panic unwinds the submitting thread.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.cancel();
        state.closed = true;
        drop(state);
        self.0.wakes.notify_all();
    }
}

impl<'scope> State<'scope> {
    fn cancel(&mut self) {
        self.bytes -= self.queued.iter().map(|queued| queued.bytes).sum::<usize>();
        self.queued.clear();
    }

    /// Ends the stage.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.cancel();
    }

    /// Whether a task that holds `bytes` has to wait. A task larger than the bound runs alone.
    fn is_full(&self, bytes: usize) -> bool {
        self.queued.len() >= limits::RESTORE_QUEUE
            || self.bytes > 0 && self.bytes + bytes > limits::RESTORE_QUEUED_BYTES
    }

    /// Whether to wake threads that wait for free capacity: not for each task that ends.
    fn is_roomy(&self) -> bool {
        self.queued.is_empty()
            || self.queued.len() <= limits::RESTORE_QUEUE / 2 && self.bytes <= limits::RESTORE_QUEUED_BYTES / 2
    }
}

impl<'scope, 'env> Shared<'scope, 'env> {
    /// Wakes or starts a thread if a task is queued and the limit admits another. Threads do not
    /// wait in the limit itself, where they would alternate with running threads.
    fn admit(self: &Arc<Self>, mut state: MutexGuard<'_, State<'scope>>) {
        let limit = &self.workers.limit;
        let busy = state.threads - state.idle;
        if state.queued.is_empty() || busy >= limit.slots() {
            return;
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.woken += 1;
            drop(state);
            self.wakes.notify_one();
        } else if state.threads < limit.most() && !state.no_more_threads {
            state.threads += 1;
            drop(state);
            self.start();
        }
    }

    /// Starts a thread that `threads` counts already. If the system refuses, the running threads do
    /// all the work.
    fn start(self: &Arc<Self>) {
        let shared = self.clone();
        let started = (self.workers.builder)().spawn_scoped(self.scope, move || shared.serve());
        let Err(source) = started else { return };
        let mut state = self.lock();
        state.threads -= 1;
        state.no_more_threads = true;
        if state.threads == 0 {
            state.fail(repo::Error::Thread { purpose: "works on the target", source }.into());
            self.ends.notify_all();
        }
    }

    /// Runs tasks until the queue is closed. A panic outside of a task ends the stage, too;
    /// counters that the thread has not restored do no harm, because no thread waits for them after
    /// a failure.
    fn serve(self: Arc<Self>) {
        let served = caught(self.during, || {
            self.work();
            Ok(())
        });
        if let Err(error) = served {
            self.lock().fail(error);
            self.ends.notify_all();
        }
    }

    fn work(self: &Arc<Self>) {
        let limit = &self.workers.limit;
        let mut state = self.lock();
        while !state.closed {
            let next = if state.running < limit.slots() { state.queued.pop_front() } else { None };
            let Some(Queued { bytes, task }) = next else {
                state = self.rest(state);
                continue;
            };
            state.running += 1;
            self.admit(state);
            let outcome = {
                let _flight = limit.begin();
                caught(self.during, task)
            };
            state = self.lock();
            state.bytes -= bytes;
            state.running -= 1;
            if let Err(error) = outcome {
                state.fail(error);
            }
            if state.waiting > 0 && state.is_roomy() {
                self.ends.notify_all();
            }
        }
    }

    /// Waits until the thread is woken, or the queue is closed.
    fn rest<'s>(&'s self, mut state: MutexGuard<'s, State<'scope>>) -> MutexGuard<'s, State<'scope>> {
        state.idle += 1;
        while state.woken == 0 && !state.closed {
            state = self.wakes.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.woken = state.woken.saturating_sub(1);
        state
    }

    fn wait_for_end<'s>(&'s self, mut state: MutexGuard<'s, State<'scope>>) -> MutexGuard<'s, State<'scope>> {
        state.waiting += 1;
        let mut state = self.ends.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State<'scope>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    /// No system has the address space for this stack, so it refuses the thread.
    fn refused() -> Builder {
        Builder::new().stack_size(1 << 62)
    }

    #[test]
    fn a_stage_that_gets_no_thread_fails() {
        let progress = Progress::silent();
        let workers = Workers { builder: refused, ..Workers::new(4, &progress) };
        let outcome = workers.run("a task was to run", |queue| queue.submit(1, || Ok(())));
        assert!(matches!(outcome, Err(Error::Repo(repo::Error::Thread { .. }))), "{outcome:?}");
    }

    #[test]
    fn a_stage_that_gets_one_thread_runs_all_tasks_in_it() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        fn once() -> Builder {
            if ASKED.fetch_add(1, Ordering::SeqCst) == 0 { Builder::new() } else { refused() }
        }
        let progress = Progress::silent();
        let workers = Workers { builder: once, ..Workers::new(4, &progress) };
        let ended = AtomicUsize::new(0);
        let (begins, begun) = mpsc::channel();
        let (resumes, resumed) = mpsc::channel();
        let outcome = workers.run("tasks were counted", |queue| {
            queue.submit(1, move || {
                begins.send(()).unwrap();
                resumed.recv().unwrap();
                Ok(())
            })?;
            begun.recv().unwrap();
            for _ in 0..50 {
                queue.submit(1, || {
                    ended.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })?;
            }
            resumes.send(()).unwrap();
            queue.wait()
        });
        outcome.unwrap();
        assert_eq!(ended.into_inner(), 50);
        assert_eq!(ASKED.load(Ordering::SeqCst), 2, "the system is not asked again for each task");
    }

    #[test]
    fn submitting_waits_while_tasks_hold_too_many_bytes() {
        let progress = Progress::silent();
        let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let piece = limits::RESTORE_QUEUED_BYTES / 3;
        Workers::new(8, &progress)
            .run("pieces were held", |queue| {
                for _ in 0..100 {
                    queue.submit(piece, || {
                        most.fetch_max(held.fetch_add(piece, Ordering::SeqCst) + piece, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(piece, Ordering::SeqCst);
                        Ok(())
                    })?;
                }
                // A task larger than the bound does not wait forever.
                queue.submit(2 * limits::RESTORE_QUEUED_BYTES, || Ok(()))
            })
            .unwrap();
        assert!((piece..=limits::RESTORE_QUEUED_BYTES).contains(&most.into_inner()));
    }

    #[test]
    fn an_error_of_a_task_cancels_queued_tasks() {
        let progress = Progress::silent();
        let ran = AtomicUsize::new(0);
        let outcome = Workers::new(1, &progress).run("tasks failed", |queue| {
            for _ in 0..10_000 {
                queue.submit(0, || {
                    ran.fetch_add(1, Ordering::SeqCst);
                    Err(Error::DeleteEverything)
                })?;
            }
            Ok(())
        });
        assert!(matches!(outcome, Err(Error::DeleteEverything)), "not the error of submitting another task");
        assert!(ran.into_inner() < 10_000);
    }

    fn broken() -> Result<()> {
        panic!("it is broken")
    }

    #[test]
    fn a_panic_of_a_task_is_an_error_and_a_panic_of_the_submitter_ends_the_threads() {
        let progress = Progress::silent();
        let workers = Workers::new(2, &progress);
        let outcome = workers.run("a task panicked", |queue| queue.submit(0, broken));
        assert!(matches!(outcome, Err(Error::Panicked { during: "a task panicked", .. })));
        let outcome = caught("tasks were submitted", || {
            workers.run("nothing went wrong", |queue| {
                queue.submit(0, || Ok(()))?;
                broken()
            })
        });
        assert!(matches!(outcome, Err(Error::Panicked { during: "tasks were submitted", .. })));
    }

    #[test]
    fn all_tasks_have_ended_after_waiting_and_at_the_end() {
        let progress = Progress::silent();
        let ended = AtomicUsize::new(0);
        let count = || {
            std::thread::yield_now();
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let after_waiting = Workers::new(4, &progress)
            .run("tasks were counted", |queue| {
                (0..50).try_for_each(|_| queue.submit(0, count))?;
                queue.wait()?;
                let after_waiting = ended.load(Ordering::SeqCst);
                (0..50).try_for_each(|_| queue.submit(0, count))?;
                Ok(after_waiting)
            })
            .unwrap();
        assert_eq!((after_waiting, ended.into_inner()), (50, 100));
    }
}
