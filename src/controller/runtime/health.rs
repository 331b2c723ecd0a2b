//! Whether the controller lives and is ready, as kubelet asks.

use crate::controller::runtime::http_server::Answer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is still missing before requests are worked on.
#[derive(Debug, Default)]
pub struct Health {
    /// Kinds whose objects have not been listed yet.
    missing: AtomicUsize,
}

impl Health {
    /// From now on so many kinds are worked on, and have to be listed first. Before that it waits for its turn, which it is ready for.
    pub fn expect(&self, kinds: usize) {
        self.missing.store(kinds, Ordering::Relaxed);
    }

    /// All objects of one kind are known.
    pub fn listed(&self) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
    }

    /// The answer at a path. Who is answered at all lives: a process in which a watch has ended ends.
    pub fn answer(&self, path: &str) -> Option<Answer> {
        match (path, self.missing.load(Ordering::Relaxed)) {
            ("/healthz", _) | ("/readyz", 0) => Some(Answer::new(true, "ok\n")),
            ("/readyz", missing) => Some(Answer::new(false, format!("{missing} kinds are not listed yet\n"))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_it_waits_or_knows_all() {
        let health = Health::default();
        let ready = |health: &Health| health.answer("/readyz").unwrap().status.as_u16();
        assert_eq!(ready(&health), 200, "it waits for the lease");
        health.expect(2);
        assert_eq!((ready(&health), health.answer("/healthz").unwrap().status.as_u16()), (503, 200));
        health.listed();
        assert_eq!(ready(&health), 503);
        health.listed();
        assert_eq!(ready(&health), 200);
        assert_eq!(health.answer("/metrics"), None);
    }
}
