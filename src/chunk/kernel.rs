//! The Rabin fingerprint of a window of bytes, and the trait of the kernels that search with it.
//!
//! The fingerprint at `e` is D(e) = sum of data[e-1-k] * x^(8k) for k in 0..64, modulo P: a byte is
//! the polynomial its bits spell, the earliest byte has the highest power.

use super::limits::{MASK, WINDOW};
use super::polynomial::Polynomial;

/// A way to search for candidates.
pub(super) trait Kernel: Send + Sync {
    /// The lowest candidate in `lo..end`, where `WINDOW <= lo <= end <= data.len() + 1`.
    fn find_first(&self, tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize>;
}

/// Whether a position with this fingerprint may be a cut.
#[inline(always)]
pub(super) fn is_candidate(fingerprint: u64) -> bool {
    fingerprint & MASK == 0
}

/// The bytes whose fingerprint decides about `end`.
#[inline(always)]
pub(super) fn window(data: &[u8], end: usize) -> &[u8] {
    &data[end - WINDOW..end]
}

/// Multiplication tables that roll a fingerprint by one byte.
pub(super) struct Tables {
    /// `reduce[t]` = (t * x^53 mod P) + t * x^53: added to a value with `t` above bit 52, it
    /// clears and folds `t` in.
    reduce: [u64; 256],
    /// `expire[o]` = o * x^512 mod P: the contribution of the byte that leaves the window, once the
    /// next one has entered.
    expire: [u64; 256],
}

impl Tables {
    pub(super) fn new(polynomial: Polynomial) -> Self {
        let degree = polynomial.degree();
        let entry = |byte: usize, power| polynomial.shift(byte as u64, power);
        Self {
            reduce: std::array::from_fn(|byte| entry(byte, degree) | (byte as u64) << degree),
            expire: std::array::from_fn(|byte| entry(byte, 8 * WINDOW as u32)),
        }
    }

    /// The fingerprint of `bytes`: their polynomial modulo P.
    #[inline]
    pub(super) fn fingerprint(&self, bytes: &[u8]) -> u64 {
        bytes.iter().fold(0, |fingerprint, byte| self.push(fingerprint, *byte))
    }

    /// Rolls the window by one byte.
    #[inline(always)]
    pub(super) fn roll(&self, fingerprint: u64, leaving: u8, entering: u8) -> u64 {
        self.push(fingerprint, entering) ^ self.expire[usize::from(leaving)]
    }

    #[inline(always)]
    pub(super) fn push(&self, fingerprint: u64, entering: u8) -> u64 {
        let top = (fingerprint >> (Polynomial::DEGREE - 8)) as u8;
        (fingerprint << 8) ^ u64::from(entering) ^ self.reduce[usize::from(top)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::reference;
    use crate::chunk::testdata::{POLYNOMIALS, SplitMix, polynomial};

    #[test]
    fn tables_hold_restics_values() {
        let published = polynomial(0x3da3358b4dc173);
        let tables = Tables::new(published);
        assert_eq!(tables.reduce[1], 0x3da3358b4dc173);
        assert_eq!(tables.reduce[255], 0x1ff7ac8a5af476a7);
        // restic removes the leaving byte before the multiplication by x^8, this table holds it
        // after.
        assert_eq!(tables.expire[1], published.shift(0x17eb4232e19216, 8));
        assert_eq!(tables.expire[255], published.shift(0xb80b98cecc39a, 8));
    }

    #[test]
    fn rolling_equals_the_definition() {
        let data = SplitMix::new(1).bytes(4096);
        for bits in POLYNOMIALS {
            let tables = Tables::new(polynomial(bits));
            let mut rolled = tables.fingerprint(&data[..WINDOW]);
            for end in WINDOW..data.len() {
                assert_eq!(rolled, reference::fingerprint(polynomial(bits), window(&data, end)), "at {end}");
                rolled = tables.roll(rolled, data[end - WINDOW], data[end]);
            }
        }
    }
}
