//! Content-defined chunking: where a file's bytes are cut into blobs, exactly where restic cuts
//! them.
//!
//! A chunk ends after `L` bytes when `L >= MIN_SIZE` and the low `MASK_BITS` bits of the Rabin
//! fingerprint of its last `WINDOW` bytes are zero, or when `L == MAX_SIZE`, or at the end of the
//! file. The seed byte restic feeds into a fresh window has left it again at `L = MIN_SIZE`, so
//! whether a position may be a cut depends on the bytes around it alone.
//!
//! * `polynomial` -- the repository's secret: an irreducible polynomial of degree 53.
//! * `rabin` -- [`Scanner`]: the first candidate in a range; picks the kernel for this processor.
//! * `portable`, `sliced` -- the kernels: in safe scalar code, and in vectors of bytes.
//! * `cutter` -- [`Cutter`]: minimum, maximum and end of file, on data that arrives in pieces.
//! * `reference` -- slow and plain forms of the same functions, for tests, benches and fuzzing.

mod cutter;
mod polynomial;
mod portable;
mod rabin;
#[doc(hidden)]
pub mod reference;
mod sliced;
#[cfg(test)]
mod testdata;
#[cfg(test)]
mod tests;

pub use cutter::{Cutter, ZERO_CHUNK, is_zero_chunk};
pub use polynomial::{Polynomial, PolynomialError};
pub use rabin::Scanner;

/// Bytes in the shortest chunk that is not the last of its file: 512 KiB (restic's chunker,
/// `MinSize`). Fixed for every restic repository, as are the other limits.
pub const MIN_SIZE: usize = 512 * 1024;

/// Bytes in the longest chunk: 8 MiB (restic's chunker, `MaxSize`).
pub const MAX_SIZE: usize = 8 * 1024 * 1024;

/// Bytes under the fingerprint (restic's chunker, `windowSize`).
pub const WINDOW: usize = 64;

/// Low bits of the fingerprint that are zero at a cut: one position in 2^20 on random data
/// (restic's chunker, the default of `averageBits`).
pub const MASK_BITS: u32 = 20;

/// The bits of the fingerprint that decide.
const MASK: u64 = (1 << MASK_BITS) - 1;
