//! Cuts a stream into chunks: applies minimum, maximum and end of file to the candidates of the
//! scanner.
//!
//! The reader keeps the bytes of the current chunk contiguous and calls the cutter after each read.
//! The cutter keeps one number, the length that it has searched, so it searches no byte twice.
//! Nothing else carries over: the window of a position lies inside its chunk, because a chunk is at
//! least [`MIN_SIZE`] long, and after a cut the search starts again.

use super::limits::{MAX_SIZE, MIN_SIZE};
use super::scanner::Scanner;
use std::sync::Arc;

/// The blob ID of [`MIN_SIZE`] zero bytes: their SHA-256.
///
/// Zeros have the fingerprint 0 under every polynomial, so a chunk that *starts* in a run of zeros
/// is exactly `MIN_SIZE` zeros if that many are left of the run, and so is the one after it. A hole
/// in a sparse file therefore needs neither reading nor hashing except at its edges:
///
/// * The chunk that enters the hole after `n > 0` bytes of its own gets zeros appended until the
///   cutter cuts it, if the hole is long enough: at `max(MIN_SIZE, n + 64)` bytes at the latest,
///   and at [`MAX_SIZE`] in any case.
/// * Then come `left / MIN_SIZE` chunks with this ID, `left` being what remains of the hole.
/// * The `left % MIN_SIZE` zeros after them begin the chunk that leaves the hole, or are the last
///   chunk of the file.
pub const ZERO_CHUNK: [u8; 32] = [
    0x07, 0x85, 0x4d, 0x2f, 0xef, 0x29, 0x7a, 0x06, //
    0xba, 0x81, 0x68, 0x5e, 0x66, 0x0c, 0x33, 0x2d, //
    0xe3, 0x6d, 0x5d, 0x18, 0xd5, 0x46, 0x92, 0x7d, //
    0x30, 0xda, 0xad, 0x6d, 0x7f, 0xda, 0x15, 0x41, //
];

/// Whether a chunk is [`ZERO_CHUNK`]; comparing its bytes costs a tenth of hashing them.
pub fn is_zero_chunk(chunk: &[u8]) -> bool {
    chunk.len() == MIN_SIZE && chunk[0] == 0 && chunk[1..] == chunk[..MIN_SIZE - 1]
}

/// Whether the bytes at hand are the last of their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfFile {
    /// More bytes may follow.
    Ahead,
    /// No byte follows.
    Reached,
}

/// Decides where the chunks of one file end. One per file being read; cheap to make.
pub struct Cutter {
    scanner: Arc<Scanner>,
    /// Lengths up to this one are known not to be a cut of the current chunk.
    tested: usize,
}

impl Cutter {
    /// A cutter at the start of a file.
    pub fn new(scanner: Arc<Scanner>) -> Self {
        Self { scanner, tested: 0 }
    }

    /// The length in bytes of the current chunk, or None if more bytes are needed to know it.
    ///
    /// `chunk` is the current chunk from its first byte, as far as it has been read; bytes of later
    /// chunks may follow. Until the chunk is cut, each call repeats the bytes of the one before and
    /// adds to them, in portions of any size: a call costs one window and the added bytes, so
    /// portions should be of some KiB. After a cut, the next call starts at the first byte past it.
    /// If `chunk` ends where the file ends, only an empty `chunk` gives None: the file has no
    /// further chunk.
    pub fn next_cut(&mut self, chunk: &[u8], end: EndOfFile) -> Option<usize> {
        debug_assert!(chunk.len() >= self.tested, "the chunk has shrunk");
        let longest = chunk.len().min(MAX_SIZE);
        let shortest = MIN_SIZE.max(self.tested + 1);
        let candidate = self.scanner.find_first(chunk, shortest, longest);
        let must_end = longest == MAX_SIZE || (end == EndOfFile::Reached && longest > 0);
        let length = candidate.or(must_end.then_some(longest));
        self.tested = if length.is_some() { 0 } else { longest };
        length
    }

    /// Discards the current chunk: the next call starts a new one, as at the start of a file.
    pub fn reset(&mut self) {
        self.tested = 0;
    }
}
