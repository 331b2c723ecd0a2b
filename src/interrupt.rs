//! [`Interrupt`]: the request to end a run early, and the time that has passed since.

use crate::clock::{self, Moment};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A request to end a run, shared by all parts of the run. It is made once and never withdrawn.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<OnceLock<Moment>>);

impl Interrupt {
    /// Makes the request. A second one changes nothing.
    pub fn set(&self) {
        self.0.get_or_init(clock::moment);
    }

    pub fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether the request was made at least `time` ago.
    pub fn is_older_than(&self, time: Duration) -> bool {
        self.0.get().is_some_and(|&since| clock::moment().since(since) >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_interrupt_counts_from_the_first_request() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.is_set() && !interrupt.is_older_than(Duration::ZERO));
        let shared = interrupt.clone();
        shared.set();
        let since = interrupt.0.get().copied();
        interrupt.set();
        assert_eq!(interrupt.0.get().copied(), since);
        assert!(interrupt.is_set() && interrupt.is_older_than(Duration::ZERO));
        assert!(!interrupt.is_older_than(Duration::from_secs(3600)));
    }
}
