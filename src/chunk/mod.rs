//! Content-defined chunking: cuts the bytes of a file into blobs at exactly the same places as
//! restic.
//!
//! A chunk ends after `L` bytes when `L >= MIN_SIZE` and the low `MASK_BITS` bits of the Rabin
//! fingerprint of its last `WINDOW` bytes are zero, or when `L == MAX_SIZE`, or at the end of the
//! file. The seed byte restic feeds into a fresh window has left it again at `L = MIN_SIZE`, so
//! whether a position may be a cut depends on the bytes before it alone.
//!
//! * `limits` -- the sizes that are fixed for every restic repository.
//! * `polynomial` -- the repository's secret: an irreducible polynomial of degree 53.
//! * `kernel` -- the Rabin fingerprint, and the trait of the kernels that search with it.
//! * `portable`, `sliced` -- the kernels: in safe scalar code, and in vectors of bytes.
//! * `scanner` -- [`Scanner`]: the first candidate in a range; picks the kernel for this processor.
//! * `cutter` -- [`Cutter`]: minimum, maximum and end of file, on data that arrives in pieces.
//! * `reference` -- slow and plain forms of the same functions, for tests, benches and fuzzing.

mod cutter;
mod kernel;
mod limits;
mod polynomial;
mod portable;
#[doc(hidden)]
pub mod reference;
mod scanner;
mod sliced;
#[cfg(test)]
mod testdata;
#[cfg(test)]
mod tests;

pub use cutter::{Cutter, EndOfFile, ZERO_CHUNK, is_zero_chunk};
pub use limits::{MASK_BITS, MAX_SIZE, MIN_SIZE, WINDOW};
pub use polynomial::{Polynomial, PolynomialError};
pub use scanner::Scanner;
