//! A plain and slow implementation of the chunking rule: the oracle for tests, benches and fuzzing,
//! not part of the interface.
//!
//! It shares only the polynomial with the scanner: one lane, one byte at a time, over whole
//! buffers, with the two tables laid out as in restic's chunker (the leaving byte is removed before
//! the multiplication by x^8, not after).

use super::limits::{MASK_BITS, MAX_SIZE, MIN_SIZE, WINDOW};
use super::polynomial::Polynomial;

/// The fingerprint of `bytes` by definition: bit by bit, without tables.
pub fn fingerprint(polynomial: Polynomial, bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| polynomial.shift(value, 8) ^ u64::from(*byte))
}

/// [`super::Scanner::find_first`], one byte at a time.
pub fn find_first(polynomial: Polynomial, data: &[u8], lo: usize, hi: usize) -> Option<usize> {
    Oracle::new(polynomial).find_first(data, lo, hi)
}

/// The lengths of all chunks of a file that holds `data`.
pub fn chunk_lengths(polynomial: Polynomial, data: &[u8]) -> Vec<usize> {
    let oracle = Oracle::new(polynomial);
    let mut lengths = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let longest = rest.len().min(MAX_SIZE);
        let length = oracle.find_first(rest, MIN_SIZE, longest).unwrap_or(longest);
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}

struct Oracle {
    /// `out[b]` = b * x^504 mod P.
    out: [u64; 256],
    /// `mod[b]` = (b * x^53 mod P) + b * x^53.
    modulo: [u64; 256],
}

impl Oracle {
    fn new(polynomial: Polynomial) -> Self {
        Self {
            out: std::array::from_fn(|byte| polynomial.shift(byte as u64, 504)),
            modulo: std::array::from_fn(|byte| polynomial.shift(byte as u64, 53) ^ (byte as u64) << 53),
        }
    }

    fn find_first(&self, data: &[u8], lo: usize, hi: usize) -> Option<usize> {
        if lo > hi {
            return None;
        }
        // The search starts one window early, on zeros, so that the window of `lo` is complete when
        // its last byte has entered.
        let mut digest = 0;
        for at in lo - WINDOW..hi {
            let leaving = if at < lo { 0 } else { data[at - WINDOW] };
            digest ^= self.out[usize::from(leaving)];
            let top = (digest >> 45) as usize;
            digest = (digest << 8 | u64::from(data[at])) ^ self.modulo[top];
            if at + 1 >= lo && digest.trailing_zeros() >= MASK_BITS {
                return Some(at + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::testdata::polynomial;

    #[test]
    fn tables_hold_restics_values() {
        let oracle = Oracle::new(polynomial(0x3da3358b4dc173));
        assert_eq!(oracle.out[1], 0x17eb4232e19216);
        assert_eq!(oracle.out[255], 0xb80b98cecc39a);
        assert_eq!(oracle.modulo[1], 0x3da3358b4dc173);
        assert_eq!(oracle.modulo[255], 0x1ff7ac8a5af476a7);
    }
}
