//! Fuzzes the cutter, fed in pieces, against the reference on one whole buffer, and the scanner on
//! any range, with every kernel that this processor can run.
//!
//! Chunks have at least 512 KiB, far more than a fuzzer invents, so the input is a recipe:
//! stretches of random, constant and periodic bytes with lengths around the limits, and windows of
//! zeros, each a certain candidate, at any place on top.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vsm::chunk::{Cutter, EndOfFile, MAX_SIZE, MIN_SIZE, Polynomial, Scanner, WINDOW, reference};

const POLYNOMIALS: [u64; 3] = [0x3da3358b4dc173, 0x25b468838dcb75, 0x2431fa3c80db07];

/// The maximum length of a file: enough for a chunk of maximum size and some more after it.
const LONGEST: usize = MAX_SIZE + 2 * MIN_SIZE;

#[derive(Arbitrary, Debug)]
struct Recipe {
    polynomial: u8,
    stretches: Vec<(Length, Fill)>,
    /// The ends of the windows of zeros.
    candidates: Vec<Length>,
    /// The sizes of the pieces, used cyclically.
    portions: Vec<Length>,
    range: (Length, Length),
}

#[derive(Arbitrary, Debug)]
enum Length {
    Small(u16),
    Medium(u32),
    NearMinimum(i8),
    NearMaximum(i8),
}

#[derive(Arbitrary, Debug)]
enum Fill {
    Random(u64),
    Constant(u8),
    Periodic(Vec<u8>),
}

impl Length {
    fn bytes(&self) -> usize {
        match *self {
            Self::Small(bytes) => bytes.into(),
            Self::Medium(bytes) => bytes as usize % (2 * MIN_SIZE),
            Self::NearMinimum(offset) => MIN_SIZE.saturating_add_signed(offset.into()),
            Self::NearMaximum(offset) => MAX_SIZE.saturating_add_signed(offset.into()),
        }
    }
}

impl Recipe {
    fn data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for (length, fill) in &self.stretches {
            let length = length.bytes().min(LONGEST - data.len());
            match fill {
                Fill::Random(seed) => append_random(&mut data, length, *seed),
                Fill::Constant(byte) => data.resize(data.len() + length, *byte),
                Fill::Periodic(unit) => data.extend(unit.iter().cycle().take(length)),
            }
        }
        for end in &self.candidates {
            let end = end.bytes();
            if (WINDOW..=data.len()).contains(&end) {
                data[end - WINDOW..end].fill(0);
            }
        }
        data
    }
}

/// Splitmix64.
fn append_random(data: &mut Vec<u8>, length: usize, mut state: u64) {
    let end = data.len() + length;
    while data.len() < end {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        data.extend_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    data.truncate(end);
}

fn cut_in_pieces(scanner: &Arc<Scanner>, data: &[u8], portions: &[Length]) -> Vec<usize> {
    // The last portion bounds the number of rounds, because each call costs a window.
    let portions = portions.iter().map(Length::bytes).chain([data.len() / 64 + 1]);
    let mut portions = portions.collect::<Vec<_>>().into_iter().cycle();
    let mut cutter = Cutter::new(Arc::clone(scanner));
    let (mut start, mut read) = (0, 0);
    let mut lengths = Vec::new();
    loop {
        let end = if read == data.len() { EndOfFile::Reached } else { EndOfFile::Ahead };
        if let Some(length) = cutter.next_cut(&data[start..read], end) {
            lengths.push(length);
            start += length;
        } else if read < data.len() {
            read += portions.next().unwrap_or(1).min(data.len() - read);
        } else {
            return lengths;
        }
    }
}

fuzz_target!(|recipe: Recipe| {
    let bits = POLYNOMIALS[usize::from(recipe.polynomial) % POLYNOMIALS.len()];
    let polynomial = Polynomial::new(bits).expect("irreducible");
    let data = recipe.data();
    let lengths = reference::chunk_lengths(polynomial, &data);
    let (lo, hi) = (recipe.range.0.bytes().max(WINDOW), recipe.range.1.bytes().min(data.len()));
    let candidate = reference::find_first(polynomial, &data, lo, hi);
    for (name, scanner) in Scanner::with_each_kernel(polynomial) {
        let found = scanner.find_first(&data, lo, hi);
        assert_eq!(found, candidate, "{name} in {lo}..={hi}");
        let pieces = cut_in_pieces(&Arc::new(scanner), &data, &recipe.portions);
        assert_eq!(pieces, lengths, "{name}");
    }
});
