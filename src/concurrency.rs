//! An adaptive limit of the operations in flight on a volume.
//!
//! A local disk answers from memory and keeps a few threads busy; a network file system answers
//! each call after its latency, and many at the same time. [`Limit`] measures the rate of
//! completed operations in short windows and tries twice or half as many in flight: it keeps a
//! change that pays (hill climbing) and reverts one that does not.

use crate::clock::{Clock, Moment};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Minimum duration of a window, so that the scheduler's time slices do not dominate the rate.
const WINDOW: Duration = Duration::from_millis(20);
/// Minimum number of operations in a window; also at least [`PER_SLOT`] for each slot.
const LEAST_OPERATIONS: u64 = 16;
const PER_SLOT: u64 = 4;

/// A semaphore for operations on a volume. Its number of slots follows the highest measured rate.
#[derive(Debug)]
pub struct Limit {
    most: usize,
    clock: Clock,
    /// A copy of the number in `state`, for reads without the lock.
    slots: AtomicUsize,
    state: Mutex<State>,
    freed: Condvar,
}

/// One operation in flight. Dropping it counts the operation as completed and frees its slot.
#[derive(Debug)]
pub struct Flight<'l>(&'l Limit);

#[derive(Debug)]
struct State {
    slots: usize,
    in_flight: usize,
    /// Threads that wait for a slot.
    waiting: usize,
    window: Window,
    search: Search,
}

/// The counters from one decision to the next.
#[derive(Debug)]
struct Window {
    start: Moment,
    completed: u64,
    /// Operations begun, and the sum of those in flight at each beginning.
    begun: u64,
    in_flight: u64,
    /// The number of completed operations at which the clock is read next.
    next_reading: u64,
}

impl Limit {
    /// Starts with `least` slots. The number of slots stays between `least` and `most`.
    pub fn new(least: usize, most: usize, clock: Clock) -> Limit {
        let least = least.max(1);
        let most = most.max(least);
        let window = Window::new(clock.moment(), least);
        let state = State { slots: least, in_flight: 0, waiting: 0, window, search: Search::new(least, most) };
        Limit { most, clock, slots: AtomicUsize::new(least), state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Waits for a free slot, and takes it.
    pub fn begin(&self) -> Flight<'_> {
        let mut state = self.lock();
        while state.in_flight >= state.slots {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.in_flight += 1;
        state.window.begun += 1;
        state.window.in_flight += state.in_flight as u64;
        Flight(self)
    }

    /// The current number of slots.
    pub fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// The upper bound. With this number of threads, only the limit restricts the operations in
    /// flight.
    pub fn most(&self) -> usize {
        self.most
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        state.window.completed += 1;
        if state.window.completed >= state.window.next_reading {
            state.close_window(self.0.clock.moment());
            self.0.slots.store(state.slots, Ordering::Relaxed);
        }
        let wake = state.slots.saturating_sub(state.in_flight).min(state.waiting);
        drop(state);
        match wake {
            0 => {}
            1 => self.0.freed.notify_one(),
            _ => self.0.freed.notify_all(),
        }
    }
}

impl State {
    /// Ends the window with a decision if its minimum duration has passed.
    fn close_window(&mut self, now: Moment) {
        let window = &mut self.window;
        let lasted = now.since(window.start);
        if lasted < WINDOW {
            // The number that the window will reach at this rate; at most twice the current number,
            // because operations may become slower.
            let share = WINDOW.as_nanos() / lasted.as_nanos().max(1);
            let factor = if share >= 2 { 2.0 } else { WINDOW.as_secs_f64() / lasted.as_secs_f64() };
            window.next_reading = ((window.completed as f64 * factor) as u64).max(window.completed + 1);
            return;
        }
        if window.is_saturated(self.slots) {
            let rate = window.completed as f64 / lasted.as_secs_f64();
            self.slots = self.search.observe(rate);
        }
        self.window = Window::new(now, self.slots);
    }
}

impl Window {
    fn new(start: Moment, slots: usize) -> Window {
        let next_reading = (slots as u64 * PER_SLOT).max(LEAST_OPERATIONS);
        Window { start, completed: 0, begun: 0, in_flight: 0, next_reading }
    }

    /// Whether the slots limited the rate. With fewer operations in flight than slots, the rate
    /// does not depend on the number of slots.
    fn is_saturated(&self, slots: usize) -> bool {
        self.in_flight * 3 >= self.begun * slots as u64 * 2
    }
}

/// A doubled number of slots is kept if the rate rises by at least this factor. A volume that
/// answers in parallel gains a factor of 2, others 1; windows differ by chance.
const WORTH_DOUBLING: f64 = 1.25;
/// A halved number of slots is kept if at least this share of the rate remains.
const WORTH_HALVING: f64 = 0.85;
/// Windows between two trials: initially, and after many unsuccessful trials.
const PATIENCE: u32 = 8;
const MOST_PATIENCE: u32 = 64;

/// The decision of the limit: takes the rates of windows, and returns the number of slots.
#[derive(Debug)]
struct Search {
    least: usize,
    most: usize,
    slots: usize,
    next: Direction,
    phase: Phase,
    patience: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

#[derive(Debug)]
enum Phase {
    /// No change for this number of windows.
    Hold(u32),
    /// Another number of slots is tried and compared with the rate of `from` slots: for one window,
    /// and for a second one if the first does not pay.
    Trial { from: usize, rate: f64, again: bool },
}

impl Search {
    fn new(least: usize, most: usize) -> Search {
        let (next, phase) = (Direction::Up, Phase::Hold(0));
        Search { least, most, slots: least, next, phase, patience: PATIENCE }
    }

    /// Takes the rate of a window in which all slots were in use.
    fn observe(&mut self, rate: f64) -> usize {
        match self.phase {
            Phase::Hold(0) => self.start_trial(rate),
            Phase::Hold(windows) => self.phase = Phase::Hold(windows - 1),
            Phase::Trial { from, rate: before, again } => {
                let worth = if self.slots > from { WORTH_DOUBLING } else { WORTH_HALVING };
                if rate >= before * worth {
                    self.patience = PATIENCE;
                    self.start_trial(rate);
                } else if !again {
                    // One window may be slow by chance, because other programs use the cores, too.
                    self.phase = Phase::Trial { from, rate: before, again: true };
                } else {
                    self.slots = from;
                    self.hold();
                }
            }
        }
        self.slots
    }

    /// Tries the next number of slots in the current direction.
    fn start_trial(&mut self, rate: f64) {
        let from = self.slots;
        self.slots = match self.next {
            Direction::Up => (from * 2).min(self.most),
            Direction::Down => (from / 2).max(self.least),
        };
        if self.slots == from {
            self.hold();
        } else {
            self.phase = Phase::Trial { from, rate, again: false };
        }
    }

    /// Holds the number of slots before a trial in the other direction; longer each time, until a
    /// trial pays.
    fn hold(&mut self) {
        self.next = match self.next {
            Direction::Up if self.slots > self.least => Direction::Down,
            Direction::Down if self.slots == self.most => Direction::Down,
            Direction::Up | Direction::Down => Direction::Up,
        };
        self.phase = Phase::Hold(self.patience);
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::FakeClock;
    use std::collections::VecDeque;

    /// The slots after each of `windows` windows on a volume that answers `rate(window, slots)`
    /// operations per second, with a noise of ±8 %.
    fn slots(windows: usize, rate: impl Fn(usize, usize) -> f64) -> Vec<usize> {
        let mut search = Search::new(2, 128);
        let mut random = 1_u32;
        let observe = |window| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = 0.92 + 0.16 * f64::from(random >> 16) / 65536.0;
            search.observe(rate(window, search.slots) * noise)
        };
        (0..windows).map(observe).collect()
    }

    fn mean(slots: &[usize]) -> usize {
        slots.iter().sum::<usize>() / slots.len()
    }

    /// A volume that answers `lanes` operations in parallel, each after 1 ms.
    fn parallel(lanes: usize) -> impl Fn(usize, usize) -> f64 {
        move |_, slots| 1000.0 * slots.min(lanes) as f64
    }

    #[test]
    fn the_limit_of_a_parallel_volume_grows_within_a_few_windows() {
        let found = slots(500, parallel(usize::MAX));
        assert_eq!(found[5], 128, "{found:?}");
        assert!(mean(&found) > 110, "the limit stays high: {found:?}");
        let found = slots(500, parallel(32));
        assert_eq!(found[4..8], [64, 64, 32, 32], "64 were tried without success: {found:?}");
        assert!((28..40).contains(&mean(&found)), "{found:?}");
    }

    #[test]
    fn the_limit_of_a_serial_volume_stays_small() {
        let found = slots(500, |_, _| 100_000.0);
        assert!(found.iter().all(|&slots| slots <= 4), "{found:?}");
        assert!(mean(&found) <= 2, "{found:?}");
        // Threads that compete for the cores make the volume slower.
        let found = slots(500, |_, slots| 100_000.0 / (1.0 + slots as f64 / 50.0));
        assert!(mean(&found) <= 2, "{found:?}");
    }

    #[test]
    fn the_limit_follows_a_volume_that_changes() {
        let (slow, fast) = (parallel(64), |_, _| 100_000.0);
        let changing = |window, count| if (200..400).contains(&window) { slow(0, count) } else { fast(0, count) };
        let found = slots(1200, changing);
        assert!(mean(&found[100..200]) <= 3, "{found:?}");
        assert!(mean(&found[300..400]) >= 48, "{found:?}");
        assert!(mean(&found[1000..]) <= 3, "{found:?}");
    }

    /// Runs operations of 1 ms each, with the concurrency that the limit admits.
    fn run_at_one_millisecond(limit: &Limit, time: &FakeClock, operations: usize) -> usize {
        let mut flights = VecDeque::new();
        for _ in 0..operations {
            while flights.len() < limit.slots() {
                flights.push_back(limit.begin());
            }
            time.advance(Duration::from_millis(1) / u32::try_from(flights.len()).unwrap());
            flights.pop_front();
        }
        limit.slots()
    }

    #[test]
    fn the_limit_grows_to_its_bound_with_completed_operations() {
        let time = FakeClock::new();
        let limit = Limit::new(2, 50, time.clock());
        assert_eq!(run_at_one_millisecond(&limit, &time, 42), 4, "one window of 20 ms");
        assert_eq!(run_at_one_millisecond(&limit, &time, 5000), 50);
        assert_eq!(limit.most(), 50);
    }

    #[test]
    fn the_limit_does_not_grow_without_demand() {
        let time = FakeClock::new();
        let limit = Limit::new(4, 50, time.clock());
        for _ in 0..1000 {
            let flight = limit.begin();
            time.advance(Duration::from_millis(1));
            drop(flight);
        }
        assert_eq!(limit.slots(), 4);
    }

    #[test]
    fn a_thread_without_a_slot_waits_for_one() {
        let time = FakeClock::new();
        let limit = Limit::new(1, 1, time.clock());
        let flight = limit.begin();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| drop(limit.begin()));
            while limit.lock().waiting == 0 {
                std::thread::yield_now();
            }
            drop(flight);
            waiting.join().unwrap();
        });
        let state = limit.lock();
        assert_eq!((state.in_flight, state.window.completed), (0, 2));
    }
}
