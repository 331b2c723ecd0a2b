//! Tests of the chunker: against published cut lists, and of a stream in pieces against one buffer.

use std::sync::Arc;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::testdata::{POLYNOMIALS, SplitMix, plant_candidate, polynomial, quiet_bytes};
use super::{Cutter, EndOfFile, MAX_SIZE, MIN_SIZE, Polynomial, Scanner, WINDOW, ZERO_CHUNK, is_zero_chunk, reference};

/// Cuts `data` like a reader that gets `portion()` more bytes at a time.
fn cut_in_pieces(scanner: Scanner, data: &[u8], mut portion: impl FnMut() -> usize) -> Vec<usize> {
    let mut cutter = Cutter::new(Arc::new(scanner));
    let (mut start, mut read) = (0, 0);
    let mut lengths = Vec::new();
    loop {
        let end = if read == data.len() { EndOfFile::Reached } else { EndOfFile::Ahead };
        if let Some(length) = cutter.next_cut(&data[start..read], end) {
            lengths.push(length);
            start += length;
        } else if read < data.len() {
            read = data.len().min(read + portion());
        } else {
            assert_eq!(start, data.len(), "bytes are left over at the end");
            return lengths;
        }
    }
}

/// Cuts `data` with every kernel, which must agree.
fn cut_whole(polynomial: Polynomial, data: &[u8]) -> Vec<usize> {
    let mut kernels = Scanner::with_each_kernel(polynomial).into_iter();
    let mut cut = || kernels.next().map(|(name, scanner)| (name, cut_in_pieces(scanner, data, || data.len())));
    let (fastest, lengths) = cut().expect("there is at least one");
    while let Some((name, others)) = cut() {
        assert_eq!(lengths, others, "{fastest} and {name} disagree");
    }
    lengths
}

fn id(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Published {
    polynomial: u64,
    lengths: &'static [usize],
    first: &'static str,
    last: &'static str,
}

/// Cut lists of 24 MiB of splitmix64 from seed 42, made with restic's chunker.
const PUBLISHED: [Published; 2] = [
    Published {
        polynomial: 0x3da3358b4dc173,
        lengths: &[
            2586782, 633802, 2258979, 1712431, 3309017, 977589, 1285624, 1033805, 906921, 858743, 838273, 3013192,
            593051, 1935449, 2243533, 978633,
        ],
        first: "a78ff41dff79af5d70323371c7088e45f1073a38a34ccce52d6b72f3e08a872b",
        last: "508c7f920a3254ef41bca31ab4de7af9bcdadf50e7e9924e49f3ecfb4532e8c0",
    },
    Published {
        polynomial: 0x25b468838dcb75,
        lengths: &[
            2223324, 1060598, 2782887, 2656947, 844274, 2956230, 2708172, 2122512, 629396, 724957, 1107846, 1509231,
            886274, 2428869, 524307,
        ],
        first: "9e198841ffc886a7f21b93c2397fc5b55c12c0690ec59ba07775085c0c7682ed",
        last: "219a729ca97ea14132eacb0633a5561d3d44ed09e49aee78a10902cf35fda107",
    },
];

#[test]
fn published_cut_lists_are_reproduced() {
    let data = SplitMix::new(42).bytes(24 << 20);
    assert_eq!(id(&data), "3381000e7a2fd52ebc9b1d50d159a0c35d73c47daee66ec9bcf498ed23b49541");
    for Published { polynomial: bits, lengths, first, last } in PUBLISHED {
        let polynomial = polynomial(bits);
        assert_eq!(cut_whole(polynomial, &data), lengths);
        assert_eq!(cut_in_pieces(Scanner::new(polynomial), &data, || 1 << 20), lengths);
        assert_eq!(reference::chunk_lengths(polynomial, &data), lengths);
        assert_eq!(id(&data[..lengths[0]]), first);
        assert_eq!(id(&data[data.len() - lengths[lengths.len() - 1]..]), last);
    }
    let last_window = &data[data.len() - WINDOW..];
    assert_eq!(reference::fingerprint(polynomial(PUBLISHED[0].polynomial), last_window), 0x1844e5b571d5aa);
}

#[test]
fn constant_bytes_are_cut_at_a_limit() {
    let published = polynomial(0x3da3358b4dc173);
    assert_eq!(cut_whole(published, &[1; 20 << 20]), [8388608, 8388608, 4194304]);
    for bits in POLYNOMIALS {
        assert_eq!(cut_whole(polynomial(bits), &[0; 2 << 20]), [524288; 4]);
    }
    assert_eq!(Sha256::digest(vec![0; MIN_SIZE]).as_slice(), ZERO_CHUNK);
    assert!(is_zero_chunk(&vec![0; MIN_SIZE]));
    for at in [0, 1, MIN_SIZE / 2, MIN_SIZE - 1] {
        let mut chunk = vec![0; MIN_SIZE];
        chunk[at] = 1;
        assert!(!is_zero_chunk(&chunk), "not zero at {at}");
    }
    assert!(!is_zero_chunk(&vec![0; MIN_SIZE - 1]) && !is_zero_chunk(&vec![0; MIN_SIZE + 1]));
    assert!(!is_zero_chunk(&vec![7; MIN_SIZE]), "equal bytes other than zero");
}

#[test]
fn files_up_to_the_minimum_are_one_chunk() {
    let published = polynomial(POLYNOMIALS[0]);
    assert!(cut_whole(published, &[]).is_empty());
    for length in [1, 63, 64, 65, MIN_SIZE - 65, MIN_SIZE - 1, MIN_SIZE] {
        assert_eq!(cut_whole(published, &vec![0; length]), [length]);
        assert_eq!(cut_whole(published, &SplitMix::new(3).bytes(length)), [length]);
    }
    assert_eq!(cut_whole(published, &vec![0; MIN_SIZE + 1]), [MIN_SIZE, 1]);
}

/// A single candidate is a cut if and only if it lies within the limits, wherever the reads are
/// split.
#[test]
fn a_candidate_is_a_cut_only_within_the_limits() {
    for bits in [POLYNOMIALS[0], POLYNOMIALS[2]] {
        let polynomial = polynomial(bits);
        let quiet = quiet_bytes(polynomial, bits, MAX_SIZE + 100_000);
        let places = [
            (MIN_SIZE - 1, MAX_SIZE),
            (MIN_SIZE, MIN_SIZE),
            (MIN_SIZE + 1, MIN_SIZE + 1),
            (MIN_SIZE + 63, MIN_SIZE + 63),
            (MIN_SIZE + 12_345, MIN_SIZE + 12_345),
            (MAX_SIZE - 1, MAX_SIZE - 1),
            (MAX_SIZE, MAX_SIZE),
            (MAX_SIZE + 1, MAX_SIZE),
        ];
        for (candidate, cut) in places {
            let mut data = quiet.clone();
            plant_candidate(polynomial, &mut data, candidate);
            let expected = [cut, data.len() - cut];
            assert_eq!(cut_whole(polynomial, &data), expected, "candidate at {candidate}");
            for (name, scanner) in Scanner::with_each_kernel(polynomial) {
                let mut portions = [candidate - 1, 1, 1, 62].into_iter();
                let pieces = cut_in_pieces(scanner, &data, || portions.next().unwrap_or(1 << 20));
                assert_eq!(pieces, expected, "candidate at {candidate}, in pieces, by {name}");
            }
        }
    }
}

/// The buffer of the reader holds one longest chunk, so the cutter must not need a byte after the
/// cut.
#[test]
fn a_chunk_is_cut_as_soon_as_its_bytes_are_read() {
    let scanner = Arc::new(Scanner::new(polynomial(POLYNOMIALS[0])));
    for (byte, length) in [(0, MIN_SIZE), (1, MAX_SIZE)] {
        let data = vec![byte; length];
        let mut cutter = Cutter::new(Arc::clone(&scanner));
        assert_eq!(cutter.next_cut(&data[..length - 1], EndOfFile::Ahead), None);
        assert_eq!(cutter.next_cut(&data, EndOfFile::Ahead), Some(length));
        assert_eq!(cutter.next_cut(&[], EndOfFile::Ahead), None);
        assert_eq!(cutter.next_cut(&[], EndOfFile::Reached), None);
    }
}

#[test]
fn a_reset_discards_the_current_chunk() {
    let data = SplitMix::new(42).bytes(3 << 20);
    let mut cutter = Cutter::new(Arc::new(Scanner::new(polynomial(POLYNOMIALS[0]))));
    assert_eq!(cutter.next_cut(&data[..2_000_000], EndOfFile::Ahead), None);
    cutter.reset();
    assert_eq!(cutter.next_cut(&data[..100], EndOfFile::Ahead), None);
    assert_eq!(cutter.next_cut(&data, EndOfFile::Ahead), Some(2586782));
}

/// Holes are cut as the documentation of [`ZERO_CHUNK`] says.
#[test]
fn a_hole_is_cut_into_zero_chunks() {
    for before in [0, 1, 1000, MIN_SIZE - 64, MIN_SIZE - 1, MIN_SIZE, MIN_SIZE + 5, 700_000] {
        for hole in [MIN_SIZE, 3 * MIN_SIZE, 4 * MIN_SIZE + 70_000] {
            for bits in [POLYNOMIALS[1], POLYNOMIALS[3]] {
                let polynomial = polynomial(bits);
                let mut data = quiet_bytes(polynomial, 5, before);
                data.resize(before + hole, 0);
                data.extend(SplitMix::new(6).bytes(100_000));
                let lengths = cut_whole(polynomial, &data);
                let entering = if before == 0 { 0 } else { lengths[0] };
                assert!(entering <= MIN_SIZE.max(before + WINDOW), "entering chunk of {entering}");
                let whole = (before + hole - entering) / MIN_SIZE;
                let first = usize::from(before > 0);
                assert!(lengths[first..first + whole].iter().all(|length| *length == MIN_SIZE));
            }
        }
    }
}

/// A stretch of a test file.
#[derive(Clone, Debug)]
enum Stretch {
    Random { seed: u64, length: usize },
    Constant { byte: u8, length: usize },
    Periodic { seed: u64, period: usize, length: usize },
    Planted { seed: u64, length: usize, candidates: usize },
}

impl Stretch {
    fn append_to(&self, data: &mut Vec<u8>, polynomial: Polynomial) {
        match *self {
            Self::Random { seed, length } => data.extend(SplitMix::new(seed).bytes(length)),
            Self::Constant { byte, length } => data.resize(data.len() + length, byte),
            Self::Periodic { seed, period, length } => {
                let unit = SplitMix::new(seed).bytes(period);
                data.extend(unit.iter().cycle().take(length));
            }
            Self::Planted { seed, length, candidates } => {
                let mut stream = SplitMix::new(seed);
                let mut bytes = stream.bytes(length);
                for _ in 0..candidates {
                    let end = WINDOW + stream.below(length - WINDOW + 1);
                    plant_candidate(polynomial, &mut bytes, end);
                }
                data.append(&mut bytes);
            }
        }
    }
}

fn stretches() -> impl Strategy<Value = Vec<Stretch>> {
    let near = |limit: usize| limit - 65..=limit + 65;
    let length = prop_oneof![
        4 => WINDOW..=1 << 21,
        2 => near(MIN_SIZE),
        1 => near(2 * MIN_SIZE),
        1 => near(MAX_SIZE),
        2 => WINDOW..=1000usize,
    ];
    let stretch = (any::<u64>(), length, 0..10).prop_flat_map(|(seed, length, kind)| match kind {
        0..3 => Just(Stretch::Random { seed, length }).boxed(),
        3..6 => {
            prop_oneof![3 => Just(0), 1 => any::<u8>()].prop_map(move |byte| Stretch::Constant { byte, length }).boxed()
        }
        6..8 => (1usize..=70_000).prop_map(move |period| Stretch::Periodic { seed, period, length }).boxed(),
        _ => (1usize..200).prop_map(move |candidates| Stretch::Planted { seed, length, candidates }).boxed(),
    });
    prop::collection::vec(stretch, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn pieces_are_cut_like_one_buffer(
        stretches in stretches(),
        which in 0..POLYNOMIALS.len(),
        seed in any::<u64>(),
        longest_piece in 8u32..24,
    ) {
        let polynomial = polynomial(POLYNOMIALS[which]);
        let mut data = Vec::new();
        for stretch in &stretches {
            stretch.append_to(&mut data, polynomial);
        }
        let expected = reference::chunk_lengths(polynomial, &data);
        for (name, scanner) in Scanner::with_each_kernel(polynomial) {
            let mut stream = SplitMix::new(seed);
            let pieces = cut_in_pieces(scanner, &data, || 1 + stream.below(1 << longest_piece));
            prop_assert_eq!(&pieces, &expected, "{}", name);
        }
    }
}
