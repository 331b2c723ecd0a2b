//! A clock that stands still until a test moves it.

use super::{Clock, Moment, TimeSource};
use crossbeam_channel::{Receiver, TryRecvError};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// [`TimeSource::sleep`] moves it on; [`TimeSource::wait`] waits until the test has moved it on.
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<Times>>);

struct Times {
    /// Seconds from 1970-01-01 UTC to the moment of zero.
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

    /// Time passes, for this machine and for all others.
    pub fn advance(&self, duration: Duration) {
        self.0.lock().unwrap().moment += duration;
    }

    /// [`FakeClock::advance`] as soon as a thread waits for that.
    pub fn advance_a_waiting_thread(&self, duration: Duration) {
        while self.0.lock().unwrap().waiting == 0 {
            std::thread::yield_now();
        }
        self.advance(duration);
    }

    /// Somebody sets this machine's wall clock.
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
