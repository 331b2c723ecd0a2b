//! Limits the number of concurrent requests: to the number of connections, and to fewer after the
//! store has throttled a request.
//!
//! A throttled request (503 SlowDown, 429) halves the limit, once for all requests that were
//! under way. After as many successes as the limit, it grows by one.

use super::failure::{Failure, Kind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Permits {
    semaphore: Semaphore,
    state: Mutex<State>,
}

/// The limit, and the counts that change it.
struct State {
    most: usize,
    limit: usize,
    /// Permits that are retired when they are returned.
    surplus: usize,
    /// How often the limit was halved.
    halved: u64,
    /// Requests that have succeeded since the limit changed or a request was throttled.
    succeeded: usize,
}

impl State {
    fn new(most: usize) -> State {
        State { most, limit: most, surplus: 0, halved: 0, succeeded: 0 }
    }

    /// Records that a request was throttled that had begun after `halved` halvings. Returns the
    /// number of permits to retire.
    fn throttled(&mut self, halved: u64) -> usize {
        self.succeeded = 0;
        if halved != self.halved {
            return 0;
        }
        self.halved += 1;
        let before = self.limit;
        self.limit = (before / 2).max(1);
        before - self.limit
    }

    /// Records a success. Returns whether to add a permit.
    fn succeeded(&mut self) -> bool {
        self.succeeded += 1;
        if self.limit == self.most || self.succeeded < self.limit {
            return false;
        }
        (self.limit, self.succeeded) = (self.limit + 1, 0);
        // A surplus permit stays instead of a new one.
        !self.retires()
    }

    /// Whether to retire a permit that is returned.
    fn retires(&mut self) -> bool {
        let retires = self.surplus > 0;
        self.surplus -= usize::from(retires);
        retires
    }
}

/// One request may run while this exists.
pub(super) struct Permit<'p> {
    permits: &'p Permits,
    held: Option<SemaphorePermit<'p>>,
    halved: u64,
}

impl Permits {
    /// For `most` requests at a time.
    pub fn new(most: usize) -> Permits {
        Permits { semaphore: Semaphore::new(most), state: Mutex::new(State::new(most)) }
    }

    pub async fn acquire(&self) -> Permit<'_> {
        // The semaphore is never closed.
        let held = self.semaphore.acquire().await.ok();
        Permit { permits: self, held, halved: self.lock().halved }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Adjusts the limit to the outcome of the request.
    pub fn heed<T>(&self, outcome: &Result<T, Failure>) {
        let mut state = self.permits.lock();
        match outcome {
            Err(failure) if failure.kind == Kind::Throttled => {
                let too_many = state.throttled(self.halved);
                // Permits in use are retired when they are returned.
                state.surplus += too_many - self.permits.semaphore.forget_permits(too_many);
            }
            Err(_) => {}
            Ok(_) => {
                if state.succeeded() {
                    self.permits.semaphore.add_permits(1);
                }
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.permits.lock().retires()
            && let Some(held) = self.held.take()
        {
            held.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> Result<(), Failure> {
        Err(Failure::new(Kind::Throttled, "slow down"))
    }

    #[tokio::test]
    async fn throttling_halves_the_limit_and_successes_restore_it() {
        let permits = Permits::new(8);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(permits.acquire().await);
        }
        // All eight are throttled, which halves the limit once.
        held.iter().for_each(|permit| permit.heed(&throttled()));
        drop(held);
        assert_eq!(permits.semaphore.available_permits(), 4);
        let permit = permits.acquire().await;
        permit.heed(&throttled());
        drop(permit);
        assert_eq!(permits.semaphore.available_permits(), 2);
        for (successes, expected) in [(2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (20, 8)] {
            for _ in 0..successes {
                permits.acquire().await.heed(&Ok(()));
            }
            assert_eq!(permits.semaphore.available_permits(), expected);
        }
    }

    #[tokio::test]
    async fn one_request_may_always_run() {
        let permits = Permits::new(1);
        for _ in 0..3 {
            permits.acquire().await.heed(&throttled());
        }
        assert_eq!(permits.semaphore.available_permits(), 1);
    }

    #[tokio::test]
    async fn growth_before_surplus_permits_return_loses_no_permit() {
        let permits = Permits::new(4);
        let (one, other) = (permits.acquire().await, permits.acquire().await);
        let waiting = [permits.acquire().await, permits.acquire().await];
        one.heed(&throttled());
        // Two permits are surplus; the successes let one of them stay.
        other.heed(&Ok(()));
        other.heed(&Ok(()));
        drop((one, other, waiting));
        assert_eq!(permits.semaphore.available_permits(), 3);
    }
}
