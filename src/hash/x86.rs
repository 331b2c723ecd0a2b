//! SHA-256 of two blocks at a time with the SHA extensions of x86-64.
//!
//! `sha256rnds2` does two rounds with a latency of four cycles and a throughput of two: the rounds
//! of the second block run in the gaps of the first.

use super::BLOCK;
use std::arch::x86_64::*;

/// FIPS 180-4, section 4.2.2, four words to a vector.
const K: [[u32; 4]; 16] = [
    [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5],
    [0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5],
    [0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3],
    [0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
    [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc],
    [0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da],
    [0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7],
    [0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
    [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13],
    [0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85],
    [0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3],
    [0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
    [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5],
    [0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3],
    [0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208],
    [0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
];

/// Whether this processor has the instructions that [`compress_pair`] needs.
pub(super) fn able() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")
}

/// Adds the same number of blocks to each of two states. `false` if this processor cannot; then it
/// does nothing.
pub(super) fn compress_pair(
    a: &mut [u32; 8],
    a_blocks: &[[u8; BLOCK]],
    b: &mut [u32; 8],
    b_blocks: &[[u8; BLOCK]],
) -> bool {
    let able = able();
    if able {
        // SAFETY: `able` has checked SHA and SSE4.1; SSSE3 is older than SSE4.1.
        unsafe { compress(a, a_blocks, b, b_blocks) };
    }
    able
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress(a: &mut [u32; 8], a_blocks: &[[u8; BLOCK]], b: &mut [u32; 8], b_blocks: &[[u8; BLOCK]]) {
    let mut states = [load(a), load(b)];
    for (a_block, b_block) in a_blocks.iter().zip(b_blocks) {
        let before = states;
        let mut words = [words(a_block), words(b_block)];
        // Unrolled: in a loop the words would live in memory, at addresses that are computed each
        // time.
        macro_rules! groups {
            ($($group:literal)*) => {$(
                rounds::<$group>(&mut states[0], &mut words[0]);
                rounds::<$group>(&mut states[1], &mut words[1]);
            )*};
        }
        groups!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for (state, before) in states.iter_mut().zip(before) {
            for (half, before) in state.iter_mut().zip(before) {
                *half = _mm_add_epi32(*half, before);
            }
        }
    }
    let [a_state, b_state] = states;
    store(a_state, a);
    store(b_state, b);
}

/// Four rounds, and the four words of the message schedule that group `GROUP + 4` needs.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds<const GROUP: usize>([abef, cdgh]: &mut [__m128i; 2], words: &mut [__m128i; 4]) {
    let now = words[GROUP % 4];
    let sum = _mm_add_epi32(now, vector(&K[GROUP]));
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(sum));
    if GROUP < 12 {
        let (second, third, fourth) = (words[(GROUP + 1) % 4], words[(GROUP + 2) % 4], words[(GROUP + 3) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(now, second), _mm_alignr_epi8::<4>(fourth, third));
        words[GROUP % 4] = _mm_sha256msg2_epu32(sum, fourth);
    }
}

/// The state as the instructions keep it: words A, B, E, F and C, D, G, H, the first of each
/// highest.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn load(state: &[u32; 8]) -> [__m128i; 2] {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
}

#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn store([abef, cdgh]: [__m128i; 2], state: &mut [u32; 8]) {
    let words = [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ];
    *state = words.map(i32::cast_unsigned);
}

#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn words(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let mut words = [_mm_setzero_si128(); 4];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        // SAFETY: 16 bytes are read from 16 bytes.
        let loaded = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        *word = _mm_shuffle_epi8(loaded, big_endian);
    }
    words
}

#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn vector(words: &[u32; 4]) -> __m128i {
    // SAFETY: 16 bytes are read from four words.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}
