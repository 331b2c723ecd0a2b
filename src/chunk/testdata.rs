//! Data for the chunker's tests: a portable random stream, and cut candidates at chosen places.
//!
//! The stream is splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
//! 2014): six lines in any language, so that a cut list can be checked against another
//! implementation without shipping the data.

use super::limits::{MASK, WINDOW};
use super::polynomial::Polynomial;
use super::reference;
use super::scanner::Scanner;

/// Irreducible polynomials: the one in the tests of restic's chunker, and others.
pub(super) const POLYNOMIALS: [u64; 4] = [0x3da3358b4dc173, 0x2482734cacca49, 0x25b468838dcb75, 0x2431fa3c80db07];

/// The polynomial with these bits, which must be valid.
pub(super) fn polynomial(bits: u64) -> Polynomial {
    Polynomial::new(bits).expect("irreducible, of degree 53")
}

/// The splitmix64 generator.
pub(super) struct SplitMix(u64);

impl SplitMix {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// `count` bytes: the words, little-endian.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.word().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }
}

/// Changes the three bytes before `end` so that `end` is a cut candidate.
///
/// The last three bytes of a window enter its fingerprint unreduced, as its low 24 bits.
pub(super) fn plant_candidate(polynomial: Polynomial, data: &mut [u8], end: usize) {
    data[end - 3..end].fill(0);
    let low = reference::fingerprint(polynomial, &data[end - WINDOW..end]) & MASK;
    data[end - 3..end].copy_from_slice(&low.to_be_bytes()[5..]);
    assert_eq!(reference::fingerprint(polynomial, &data[end - WINDOW..end]) & MASK, 0);
}

/// Random bytes without a single cut candidate.
pub(super) fn quiet_bytes(polynomial: Polynomial, seed: u64, count: usize) -> Vec<u8> {
    let mut data = SplitMix::new(seed).bytes(count);
    let scanner = Scanner::new(polynomial);
    let mut clean = WINDOW;
    while let Some(hit) = scanner.find_first(&data, clean, count) {
        // One bit of the low 20 is set now, so this is no candidate any more.
        data[hit - 1] ^= 1;
        clean = hit;
    }
    data
}
