//! AES-256-CTR, 32 blocks at a time, with the vector AES instructions of AVX-512.

use super::BLOCK;
use std::arch::x86_64::*;

/// Blocks in a vector.
const LANES: usize = 4;
/// Vectors in flight: enough to hide the latency of an AES round.
const VECTORS: usize = 8;
const VECTOR: usize = LANES * BLOCK;
const GROUP: usize = VECTORS * VECTOR;

/// The rounds of AES-256.
const ROUNDS: usize = 14;

/// Appends `bytes`, XORed with the key stream. `false` if the kernel cannot run; then it does
/// nothing.
pub(super) fn append(key: &[u8; 32], counter: u128, bytes: &[u8], out: &mut Vec<u8>) -> bool {
    if !runs(counter, bytes.len()) {
        return false;
    }
    out.reserve(bytes.len());
    let room = out.spare_capacity_mut();
    // SAFETY: `runs` has checked the processor's features; the spare capacity holds all bytes, and
    // all of them are written.
    unsafe {
        xor(key, counter, bytes.as_ptr(), room.as_mut_ptr().cast(), bytes.len());
        out.set_len(out.len() + bytes.len());
    }
    true
}

/// XORs `bytes` with the key stream. `false` if the kernel cannot run; then it does nothing.
pub(super) fn apply(key: &[u8; 32], counter: u128, bytes: &mut [u8]) -> bool {
    if !runs(counter, bytes.len()) {
        return false;
    }
    let start = bytes.as_mut_ptr();
    // SAFETY: `runs` has checked the processor's features; only `bytes` is read and written.
    unsafe { xor(key, counter, start, start, bytes.len()) };
    true
}

fn runs(counter: u128, length: usize) -> bool {
    // The kernel increments only the lower half of the counter; the one message in 2^40 that
    // carries is left to the library.
    let carries = (counter as u64).checked_add(length.div_ceil(BLOCK) as u64).is_none();
    !carries
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("aes")
}

/// Reads `length` bytes at `from`, XORs them with the key stream, and writes them to `to`.
///
/// # Safety
/// Both ranges must be valid for that. They may be identical, and must not overlap otherwise.
#[target_feature(enable = "aes,vaes,avx512f,avx512bw")]
unsafe fn xor(key: &[u8; 32], counter: u128, from: *const u8, to: *mut u8, length: usize) {
    let round_keys = expand(key).map(|key| _mm512_broadcast_i32x4(key));
    let (low, high) = ((counter as u64).cast_signed(), ((counter >> 64) as u64).cast_signed());
    let mut next =
        _mm512_add_epi64(_mm512_set_epi64(high, low, high, low, high, low, high, low), offsets([0, 1, 2, 3]));
    let step = offsets([LANES as i64; LANES]);
    let big_endian = _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    let mut counters = || {
        let now = _mm512_shuffle_epi8(next, big_endian);
        next = _mm512_add_epi64(next, step);
        now
    };

    let groups = length / GROUP;
    for number in 0..groups {
        let mut blocks = [_mm512_setzero_si512(); VECTORS];
        for vector in &mut blocks {
            *vector = _mm512_xor_si512(counters(), round_keys[0]);
        }
        for key in &round_keys[1..ROUNDS] {
            for vector in &mut blocks {
                *vector = _mm512_aesenc_epi128(*vector, *key);
            }
        }
        for (place, vector) in blocks.into_iter().enumerate() {
            let stream = _mm512_aesenclast_epi128(vector, round_keys[ROUNDS]);
            let at = number * GROUP + place * VECTOR;
            // SAFETY: `at` is within a whole group.
            unsafe {
                let text = _mm512_loadu_si512(from.add(at).cast());
                _mm512_storeu_si512(to.add(at).cast(), _mm512_xor_si512(text, stream));
            }
        }
    }
    for at in (groups * GROUP..length).step_by(VECTOR) {
        let mut vector = _mm512_xor_si512(counters(), round_keys[0]);
        for key in &round_keys[1..ROUNDS] {
            vector = _mm512_aesenc_epi128(vector, *key);
        }
        let stream = _mm512_aesenclast_epi128(vector, round_keys[ROUNDS]);
        let mask = u64::MAX >> VECTOR.saturating_sub(length - at);
        // SAFETY: the mask has a bit for each byte that is left.
        unsafe {
            let text = _mm512_maskz_loadu_epi8(mask, from.add(at).cast());
            _mm512_mask_storeu_epi8(to.add(at).cast(), mask, _mm512_xor_si512(text, stream));
        }
    }
}

/// A vector that adds a number to the lower half of each block's counter.
#[inline]
#[target_feature(enable = "avx512f")]
fn offsets([a, b, c, d]: [i64; LANES]) -> __m512i {
    _mm512_set_epi64(0, d, 0, c, 0, b, 0, a)
}

/// FIPS 197, section 5.2: the round keys.
#[inline]
#[target_feature(enable = "aes,sse2")]
fn expand(key: &[u8; 32]) -> [__m128i; ROUNDS + 1] {
    let mut keys = [_mm_setzero_si128(); ROUNDS + 1];
    // SAFETY: twice 16 bytes are read from 32.
    unsafe {
        keys[0] = _mm_loadu_si128(key.as_ptr().cast());
        keys[1] = _mm_loadu_si128(key.as_ptr().add(BLOCK).cast());
    }
    // An even key uses the last word of the previous key, substituted, rotated, and XORed with the
    // round's constant; an odd key uses it substituted only.
    macro_rules! next {
        ($number:literal: rotated with $constant:literal) => {
            let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(keys[$number - 1]));
            keys[$number] = _mm_xor_si128(spread(keys[$number - 2]), word);
        };
        ($number:literal) => {
            let word = _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(keys[$number - 1]));
            keys[$number] = _mm_xor_si128(spread(keys[$number - 2]), word);
        };
    }
    next!(2: rotated with 1);
    next!(3);
    next!(4: rotated with 2);
    next!(5);
    next!(6: rotated with 4);
    next!(7);
    next!(8: rotated with 8);
    next!(9);
    next!(10: rotated with 16);
    next!(11);
    next!(12: rotated with 32);
    next!(13);
    next!(14: rotated with 64);
    keys
}

/// XORs each word with all words before it.
#[inline]
#[target_feature(enable = "sse2")]
fn spread(key: __m128i) -> __m128i {
    let key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    _mm_xor_si128(key, _mm_slli_si128::<8>(key))
}
