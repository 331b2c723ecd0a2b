//! The clock and the random source: the only module that reads time, waits, and draws random bytes.
//!
//! Code whose timing is tested takes a [`Clock`], which a test replaces by a fake one. Other code
//! calls the functions of this module.

#[cfg(test)]
pub(crate) mod testing;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, as seconds and nanoseconds since 1970-01-01 UTC.
pub fn now() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX), 0),
    }
}

/// A reading of a monotonic clock that also advances while the machine is suspended
/// (`CLOCK_BOOTTIME`), like the clocks of other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// Now, to be compared with an earlier or later moment of this process.
pub fn moment() -> Moment {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Moment(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
}

pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// The source of time of a [`Clock`].
pub trait TimeSource: Send + Sync {
    fn now(&self) -> (i64, u32);

    fn moment(&self) -> Moment;

    fn sleep(&self, duration: Duration);

    /// Waits until all senders of `end` are dropped and returns `true`, or returns `false` after
    /// `timeout`.
    fn wait(&self, end: &Receiver<Infallible>, timeout: Duration) -> bool;
}

/// A handle to a clock: the system's, or a fake one in tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    pub fn new(source: Arc<dyn TimeSource>) -> Clock {
        Clock(source)
    }

    /// [`now`] on this clock.
    pub fn now(&self) -> (i64, u32) {
        self.0.now()
    }

    /// [`moment`] on this clock.
    pub fn moment(&self) -> Moment {
        self.0.moment()
    }

    pub fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
    }

    /// [`TimeSource::wait`].
    pub fn wait(&self, end: &Receiver<Infallible>, timeout: Duration) -> bool {
        self.0.wait(end, timeout)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock(Arc::new(System))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

struct System;

impl TimeSource for System {
    fn now(&self) -> (i64, u32) {
        now()
    }

    fn moment(&self) -> Moment {
        moment()
    }

    fn sleep(&self, duration: Duration) {
        sleep(duration);
    }

    fn wait(&self, end: &Receiver<Infallible>, timeout: Duration) -> bool {
        match end.recv_timeout(timeout) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        }
    }
}

/// Fills `bytes` from the kernel's random source.
///
/// # Panics
/// If the kernel has no random bytes: without them no secret can be made, and there is no fallback.
pub fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random source answers");
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    random(&mut bytes);
    bytes
}
