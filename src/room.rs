//! [`Room`]: a semaphore that counts bytes, to bound what several threads hold together.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A number of bytes that several threads may hold together.
pub struct Room {
    total: u64,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: u64,
    /// Threads that wait for bytes.
    waiting: usize,
}

/// Bytes that are held, given back when dropped.
pub struct Held<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Room {
    pub fn new(total: u64) -> Room {
        Room { total, state: Mutex::new(State { free: total, waiting: 0 }), freed: Condvar::new() }
    }

    /// Waits until `bytes` are free, and holds them. A request for more than the total waits for
    /// the total and holds it alone.
    pub fn take(&self, bytes: u64) -> Held<'_> {
        let bytes = bytes.min(self.total);
        let mut state = self.lock();
        while state.free < bytes {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.free -= bytes;
        Held { room: self, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.free += self.bytes;
        if state.waiting > 0 {
            self.room.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_waits_until_enough_bytes_are_released() {
        let room = Room::new(100);
        let (first, second) = (room.take(60), room.take(40));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| drop(room.take(50)));
            while room.lock().waiting == 0 {
                std::thread::yield_now();
            }
            drop(second);
            assert!(!waiting.is_finished(), "40 bytes are free");
            drop(first);
            waiting.join().unwrap();
        });
        assert_eq!(room.lock().free, 100);
    }

    #[test]
    fn a_request_larger_than_the_total_holds_the_total() {
        let room = Room::new(10);
        let held = room.take(1000);
        assert_eq!(room.lock().free, 0);
        drop(held);
        assert_eq!(room.lock().free, 10);
    }
}
