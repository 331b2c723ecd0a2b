//! The sizes of chunks and of the window, fixed for every restic repository.

/// Bytes in the shortest chunk that is not the last of its file: 512 KiB (restic's chunker,
/// `MinSize`).
pub const MIN_SIZE: usize = 512 * 1024;

/// Bytes in the longest chunk: 8 MiB (restic's chunker, `MaxSize`).
pub const MAX_SIZE: usize = 8 * 1024 * 1024;

/// Bytes under the fingerprint (restic's chunker, `windowSize`).
pub const WINDOW: usize = 64;

/// Low bits of the fingerprint that are zero at a cut: one position in 2^20 on random data
/// (restic's chunker, the default of `averageBits`).
pub const MASK_BITS: u32 = 20;

/// The bits of the fingerprint that are zero at a cut.
pub(super) const MASK: u64 = (1 << MASK_BITS) - 1;
