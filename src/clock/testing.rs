//! A fake clock, which only a test advances.

use super::{Clock, Moment, TimeSource};
use crossbeam_channel::{Receiver, TryRecvError};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A fake clock. [`TimeSource::sleep`] advances it; [`TimeSource::wait`] waits until the test has
/// advanced it.
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<Times>>);

struct Times {
    /// The wall clock at the moment 0, in seconds since 1970-01-01 UTC.
    start: i64,
    moment: Duration,
    /// Threads in [`TimeSource::wait`].
    waiting: usize,
}

impl FakeClock {
    pub fn new() -> FakeClock {
        // Early in 2026, on a machine that has run for a day.
        FakeClock(Arc::new(Mutex::new(Times { start: 1_770_000_000, moment: Duration::from_secs(86_400), waiting: 0 })))
    }

    pub fn clock(&self) -> Clock {
        Clock::new(Arc::new(self.clone()))
    }

    /// Advances the wall clock and the monotonic clock.
    pub fn advance(&self, duration: Duration) {
        self.0.lock().unwrap().moment += duration;
    }

    /// Waits until a thread is in [`TimeSource::wait`], and then advances the clock.
    pub fn advance_a_waiting_thread(&self, duration: Duration) {
        while self.0.lock().unwrap().waiting == 0 {
            std::thread::yield_now();
        }
        self.advance(duration);
    }

    /// Sets the wall clock of this machine only.
    pub fn set_wall_by(&self, seconds: i64) {
        self.0.lock().unwrap().start += seconds;
    }
}

impl TimeSource for FakeClock {
    fn now(&self) -> (i64, u32) {
        let times = self.0.lock().unwrap();
        (times.start + i64::try_from(times.moment.as_secs()).unwrap(), times.moment.subsec_nanos())
    }

    fn moment(&self) -> Moment {
        Moment(self.0.lock().unwrap().moment)
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }

    fn wait(&self, end: &Receiver<Infallible>, timeout: Duration) -> bool {
        let until = {
            let mut times = self.0.lock().unwrap();
            times.waiting += 1;
            Moment(times.moment + timeout)
        };
        let ended = loop {
            match end.try_recv() {
                Ok(never) => match never {},
                Err(TryRecvError::Disconnected) => break true,
                Err(TryRecvError::Empty) if self.moment() >= until => break false,
                Err(TryRecvError::Empty) => std::thread::yield_now(),
            }
        };
        self.0.lock().unwrap().waiting -= 1;
        ended
    }
}
