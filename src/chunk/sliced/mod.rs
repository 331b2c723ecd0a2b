//! The vector kernels: as many fingerprints side by side as a vector has bytes.
//!
//! A fingerprint is kept as S = D * x^3, which is 56 bits long, so seven whole bytes: vector `j` of
//! the state holds byte `j` of every lane's S. Rolling by one byte is linear over GF(2) in each
//! byte involved, so every table look-up of the portable kernel becomes a multiplication of a
//! vector of bytes by an 8 by 8 bit matrix ([`vector`]), and the shift by a byte becomes a renaming
//! of vectors. All 53 bits are exact, so candidates need no verification.

mod step;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::kernel::Kernel;
use super::polynomial::Polynomial;

/// The kernels this processor can run, fastest first.
pub(super) fn kernels(polynomial: Polynomial) -> Vec<(&'static str, Box<dyn Kernel>)> {
    #[cfg(target_arch = "x86_64")]
    return x86::kernels(polynomial);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = polynomial;
        Vec::new()
    }
}
