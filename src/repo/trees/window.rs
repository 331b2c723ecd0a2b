//! An LRU cache of windows of packs.

use crate::id::Id;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Size limit of the cache, in bytes: sealed trees of about a third of a million entries.
pub(super) const KEPT: u64 = 16 << 20;

/// The cached windows, by pack and number.
#[derive(Default)]
pub(super) struct Kept {
    windows: HashMap<(Id, u64), Window>,
    bytes: u64,
    uses: u64,
}

struct Window {
    length: u64,
    used: u64,
    /// Empty until it has been read. The thread that reads it holds the lock, so that it is read
    /// once.
    content: Arc<Mutex<Option<Bytes>>>,
}

impl Kept {
    /// The window of this key, which has `length` bytes and becomes the most recently used one.
    pub fn window(&mut self, key: (Id, u64), length: u64) -> Arc<Mutex<Option<Bytes>>> {
        self.uses += 1;
        let window = self.windows.entry(key).or_insert_with(|| {
            self.bytes += length;
            Window { length, used: 0, content: Arc::default() }
        });
        window.used = self.uses;
        let content = window.content.clone();
        while self.bytes > KEPT && self.windows.len() > 1 {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.used).map(|(&key, _)| key);
            let dropped = oldest.and_then(|key| self.windows.remove(&key)).expect("there are several");
            self.bytes -= dropped.length;
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::lock;

    #[test]
    fn the_least_recently_used_window_is_evicted() {
        let mut kept = Kept::default();
        let mut read = |number: u64| {
            let content = kept.window((Id::NULL, number), KEPT / 4);
            lock(&content).replace(Bytes::new()).is_some()
        };
        let asked = [0, 1, 2, 3, 0, 4, 0, 2, 3, 1, 4];
        let there = asked.map(&mut read);
        assert_eq!(there, [false, false, false, false, true, false, true, true, true, false, false]);
        // A window that is larger than the limit is cached alone.
        kept.window((Id::NULL, 9), 2 * KEPT);
        assert_eq!((kept.windows.len(), kept.bytes), (1, 2 * KEPT));
    }
}
