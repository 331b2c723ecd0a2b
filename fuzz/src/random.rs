//! Random numbers from the fuzzer's input.

/// Draws the fuzzer's bytes, and zeros after their end.
#[derive(Default)]
pub struct Random {
    bytes: std::collections::VecDeque<u8>,
}

impl Random {
    pub fn new(bytes: &[u8]) -> Random {
        Random { bytes: bytes.iter().copied().collect() }
    }

    /// Takes all remaining draws.
    pub fn fork(&mut self) -> Random {
        std::mem::take(self)
    }

    /// A number below `bound`, which is at most 65,536: one byte where that is enough.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut next = || u64::from(self.bytes.pop_front().unwrap_or(0));
        let drawn = if bound <= 1 << 8 { next() } else { next() << 8 | next() };
        drawn % bound
    }
}
