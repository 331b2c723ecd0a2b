//! The queue: admits the oldest requests of a kind, up to a limit. It is counted from the objects
//! that exist, so that no state can leak or be lost at a restart.

use crate::controller::dialect::Dialect;
use crate::controller::domain::record::Stage;

/// A request as the queue sees it. Ordered by age, then by uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Seconds since 1970.
    pub created: i64,
    pub uid: String,
    pub state: QueueState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueState {
    Queued,
    /// Counts against the limit.
    Admitted,
    /// Ended, or being deleted.
    Out,
}

impl Entry {
    pub fn of<R: Dialect>(request: &R) -> Entry {
        let record = request.record();
        let is_deleted = request.meta().deletion_timestamp.is_some();
        let state = match record.stage {
            _ if record.is_admitted => QueueState::Admitted,
            Stage::New | Stage::Queued if !is_deleted => QueueState::Queued,
            _ => QueueState::Out,
        };
        let created = request.meta().creation_timestamp.as_ref().map_or(0, |created| created.0.as_second());
        Entry { created, uid: request.meta().uid.clone().unwrap_or_default(), state }
    }
}

/// The uids of the requests that may start now, oldest first.
pub fn next(all: &[Entry], limit: usize) -> Vec<&str> {
    let admitted = all.iter().filter(|entry| entry.state == QueueState::Admitted).count();
    let mut queued: Vec<&Entry> = all.iter().filter(|entry| entry.state == QueueState::Queued).collect();
    queued.sort();
    queued.into_iter().take(limit.saturating_sub(admitted)).map(|entry| entry.uid.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: i64, uid: &str, state: QueueState) -> Entry {
        Entry { created, uid: uid.into(), state }
    }

    #[test]
    fn the_oldest_are_admitted_up_to_the_limit() {
        let mut all = vec![
            entry(3, "c", QueueState::Queued),
            entry(1, "a", QueueState::Queued),
            entry(2, "b", QueueState::Queued),
            entry(0, "z", QueueState::Out),
        ];
        assert_eq!(next(&all, 2), ["a", "b"]);
        assert_eq!(next(&all, 9), ["a", "b", "c"]);
        all[1].state = QueueState::Admitted;
        assert_eq!(next(&all, 2), ["b"]);
        all[2].state = QueueState::Admitted;
        assert!(next(&all, 2).is_empty());
        // A request that has ended frees its slot, whatever its result.
        all[1].state = QueueState::Out;
        assert_eq!(next(&all, 2), ["c"]);
        assert!(next(&all, 0).is_empty());
    }

    #[test]
    fn the_uid_orders_two_requests_of_the_same_second() {
        let all = [entry(1, "b", QueueState::Queued), entry(1, "a", QueueState::Queued)];
        assert_eq!(next(&all, 1), ["a"]);
    }
}
