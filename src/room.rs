//! Bytes that several threads may hold together: a semaphore that counts bytes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many bytes there are, and how many of them are free.
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

    /// Waits until `bytes` are free, and holds them. What is larger than all of the room has it alone.
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
    fn what_does_not_fit_waits_for_what_is_given_back() {
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
    fn what_is_larger_than_the_room_has_it_alone() {
        let room = Room::new(10);
        let held = room.take(1000);
        assert_eq!(room.lock().free, 0);
        drop(held);
        assert_eq!(room.lock().free, 10);
    }
}
