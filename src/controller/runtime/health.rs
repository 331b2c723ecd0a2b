//! Liveness and readiness of the controller, for kubelet.

use super::http_server::Answer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The state before the first reconcile.
#[derive(Debug, Default)]
pub struct Health {
    /// The number of kinds whose objects have not been listed yet.
    missing: AtomicUsize,
}

impl Health {
    /// Sets the number of kinds that must be listed. Until this call the controller waits for the
    /// Lease, and counts as ready.
    pub fn expect(&self, kinds: usize) {
        self.missing.store(kinds, Ordering::Relaxed);
    }

    /// The objects of one kind have been listed.
    pub fn listed(&self) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
    }

    /// The answer at a path. Any answer shows liveness: the process exits if a watch ends.
    pub fn answer(&self, path: &str) -> Option<Answer> {
        match (path, self.missing.load(Ordering::Relaxed)) {
            ("/healthz", _) | ("/readyz", 0) => Some(Answer::ok("ok\n")),
            ("/readyz", missing) => Some(Answer::unavailable(format!("{missing} kinds are not listed yet\n"))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_without_the_lease_or_when_all_kinds_are_listed() {
        let health = Health::default();
        let ready = |health: &Health| health.answer("/readyz").unwrap().status.as_u16();
        assert_eq!(ready(&health), 200, "it has no lease yet");
        health.expect(2);
        assert_eq!((ready(&health), health.answer("/healthz").unwrap().status.as_u16()), (503, 200));
        health.listed();
        assert_eq!(ready(&health), 503);
        health.listed();
        assert_eq!(ready(&health), 200);
        assert_eq!(health.answer("/metrics"), None);
    }
}
