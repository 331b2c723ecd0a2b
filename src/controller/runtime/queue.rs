//! Whose turn it is: as many at a time as the limit says, the oldest first. Counted from the objects that are there, so that nothing
//! is remembered, and nothing can leak.

/// One backup or restore, as far as the queue is concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Seconds; then whatever tells two of the same second apart.
    pub created: i64,
    pub uid: String,
    pub state: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Waiting,
    Working,
    /// It has ended, or is being deleted.
    Out,
}

/// Those that may start now, oldest first.
pub fn next(all: &[Entry], limit: usize) -> Vec<&str> {
    let working = all.iter().filter(|entry| entry.state == Place::Working).count();
    let mut waiting: Vec<&Entry> = all.iter().filter(|entry| entry.state == Place::Waiting).collect();
    waiting.sort();
    waiting.into_iter().take(limit.saturating_sub(working)).map(|entry| entry.uid.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: i64, uid: &str, state: Place) -> Entry {
        Entry { created, uid: uid.into(), state }
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_the_limit() {
        let mut all = vec![
            entry(3, "c", Place::Waiting),
            entry(1, "a", Place::Waiting),
            entry(2, "b", Place::Waiting),
            entry(0, "z", Place::Out),
        ];
        assert_eq!(next(&all, 2), ["a", "b"]);
        assert_eq!(next(&all, 9), ["a", "b", "c"]);
        all[1].state = Place::Working;
        assert_eq!(next(&all, 2), ["b"]);
        all[2].state = Place::Working;
        assert!(next(&all, 2).is_empty());
        // However one ends, its place is free.
        all[1].state = Place::Out;
        assert_eq!(next(&all, 2), ["c"]);
        assert!(next(&all, 0).is_empty());
    }

    #[test]
    fn two_of_one_second_are_told_apart() {
        let all = [entry(1, "b", Place::Waiting), entry(1, "a", Place::Waiting)];
        assert_eq!(next(&all, 1), ["a"]);
    }
}
