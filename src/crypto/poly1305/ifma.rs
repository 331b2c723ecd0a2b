//! Poly1305, eight blocks at a time, with AVX-512's 52-bit multiplication.
//!
//! A number modulo 2^130 - 5 is kept in three limbs of 44, 44 and 42 bits. Each of eight lanes
//! takes every eighth block and multiplies by r^8; in the end, lane `l` is multiplied by r^(8-l)
//! and the lanes are added. Zero blocks in front make the number of blocks a multiple of eight:
//! leading zeros do not change a polynomial.

use super::BLOCK;
use std::arch::x86_64::*;

/// For shorter messages, in bytes, the setup takes longer than the message itself.
const SHORTEST: usize = 512;

const LANES: usize = 8;
const GROUP: usize = LANES * BLOCK;

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;

/// The bit above a whole block, in the limb it falls into.
const HIGH_BIT: u64 = 1 << (128 - 88);

/// A number in limbs, lowest first.
type Number = [u64; 3];

/// The tag, or `None` if the kernel does not pay off or cannot run.
pub(super) fn tag(key: &[u8; 32], message: &[u8]) -> Option<[u8; BLOCK]> {
    if message.len() < SHORTEST || !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("avx512ifma") {
        return None;
    }
    let (r, pad) = key.split_first_chunk::<BLOCK>().expect("32 bytes");
    let pad = u128::from_le_bytes(*pad.first_chunk().expect("16 bytes"));
    // RFC 8439, section 2.5: some bits of r are zero.
    let r = limbs(u128::from_le_bytes(*r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff);
    // SAFETY: the processor's features have been checked above.
    let hash = unsafe { polynomial(r, message) };
    Some(reduce(hash).wrapping_add(pad).to_le_bytes())
}

fn limbs(value: u128) -> Number {
    [value as u64 & MASK_44, (value >> 44) as u64 & MASK_44, (value >> 88) as u64]
}

/// A block as limbs. A block that is not whole gets its high bit after its last byte.
fn block(bytes: &[u8]) -> Number {
    let mut padded = [0; BLOCK];
    padded[..bytes.len()].copy_from_slice(bytes);
    if bytes.len() < BLOCK {
        padded[bytes.len()] = 1;
        return limbs(u128::from_le_bytes(padded));
    }
    let [low, middle, high] = limbs(u128::from_le_bytes(padded));
    [low, middle, high | HIGH_BIT]
}

/// The product modulo 2^130 - 5. Its limbs are within their widths, except that the middle one may
/// have a carry on top.
fn multiply(a: Number, b: Number) -> Number {
    let [a, b] = [a, b].map(|number| number.map(u128::from));
    // Limb 3 would begin at 2^132, which is 20 modulo 2^130 - 5.
    let low = a[0] * b[0] + 20 * (a[1] * b[2] + a[2] * b[1]);
    let middle = a[0] * b[1] + a[1] * b[0] + 20 * (a[2] * b[2]);
    let high = a[0] * b[2] + a[1] * b[1] + a[2] * b[0];
    let middle = middle + (low >> 44);
    let high = high + (middle >> 44);
    let low = (low as u64 & MASK_44) as u128 + 5 * (high >> 42);
    [low as u64 & MASK_44, (middle as u64 & MASK_44) + (low >> 44) as u64, high as u64 & MASK_42]
}

/// The low 128 bits of the number's remainder. Limbs may be a few bits too wide.
fn reduce(number: Number) -> u128 {
    // Twice, because the first reduction can carry.
    let [low, middle, high] = multiply(multiply(number, [1, 0, 0]), [1, 0, 0]);
    let whole = |low: u64| {
        let middle = middle + (low >> 44);
        let high = high + (middle >> 44);
        let bits = u128::from(low & MASK_44) | u128::from(middle & MASK_44) << 44 | u128::from(high) << 88;
        (bits, high >> 42)
    };
    // A number of 2^130 - 5 or more reaches 2^130 when 5 is added; the bits above are dropped.
    match whole(low + 5) {
        (_, 0) => whole(low).0,
        (less, _) => less,
    }
}

/// The factor of a vector of numbers: limbs r0, r1, r2, and 20 times the latter two.
struct Factor {
    limbs: [__m512i; 3],
    twenty: [__m512i; 2],
}

#[inline]
#[target_feature(enable = "avx512f")]
fn vectors(numbers: [Number; LANES]) -> [__m512i; 3] {
    let limb = |limb: usize| {
        let [a, b, c, d, e, f, g, h] = numbers.map(|number| number[limb].cast_signed());
        _mm512_set_epi64(h, g, f, e, d, c, b, a)
    };
    [limb(0), limb(1), limb(2)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn factor(numbers: [Number; LANES]) -> Factor {
    let [_, middle, high] = vectors(numbers.map(|number| number.map(|limb| 20 * limb)));
    Factor { limbs: vectors(numbers), twenty: [middle, high] }
}

/// The polynomial of the message's blocks at r, in limbs that may be a few bits too wide.
#[target_feature(enable = "avx512f,avx512ifma")]
fn polynomial(r: Number, message: &[u8]) -> Number {
    let mut powers = [r; LANES];
    for power in 1..LANES {
        powers[power] = multiply(powers[power - 1], r);
    }
    let r8 = factor([powers[LANES - 1]; LANES]);

    // The 1 to 8 blocks before the whole groups, preceded by zero blocks.
    let blocks = message.len().div_ceil(BLOCK);
    let first = (blocks - 1) % LANES + 1;
    let (head, rest) = message.split_at((first * BLOCK).min(message.len()));
    let mut numbers = [[0; 3]; LANES];
    for (number, bytes) in numbers[LANES - first..].iter_mut().zip(head.chunks(BLOCK)) {
        *number = block(bytes);
    }
    let mut sum = vectors(numbers);
    // Lanes hold blocks in this order from here on; see `load`.
    const ORDER: [usize; LANES] = [0, 4, 1, 5, 2, 6, 3, 7];
    sum = vectors_in_order(sum, ORDER);
    let (groups, tail) = rest.as_chunks::<GROUP>();
    for group in groups {
        sum = add(times(sum, &r8), load(group));
    }
    if !tail.is_empty() {
        let mut numbers = [[0; 3]; LANES];
        for (number, bytes) in numbers.iter_mut().zip(tail.chunks(BLOCK)) {
            *number = block(bytes);
        }
        sum = add(times(sum, &r8), vectors_in_order(vectors(numbers), ORDER));
    }
    let sum = times(sum, &factor(ORDER.map(|block| powers[LANES - 1 - block])));
    sum.map(|limb| _mm512_reduce_add_epi64(limb).cast_unsigned())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn vectors_in_order(numbers: [__m512i; 3], order: [usize; LANES]) -> [__m512i; 3] {
    let [a, b, c, d, e, f, g, h] = order.map(|lane| lane as i64);
    numbers.map(|limb| _mm512_permutexvar_epi64(_mm512_set_epi64(h, g, f, e, d, c, b, a), limb))
}

/// Eight whole blocks, the lanes in the order 0, 4, 1, 5, 2, 6, 3, 7.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(group: &[u8; GROUP]) -> [__m512i; 3] {
    // SAFETY: twice 64 bytes are read from 128.
    let (front, back) =
        unsafe { (_mm512_loadu_si512(group.as_ptr().cast()), _mm512_loadu_si512(group.as_ptr().add(64).cast())) };
    let (low, high) = (_mm512_unpacklo_epi64(front, back), _mm512_unpackhi_epi64(front, back));
    let mask = _mm512_set1_epi64(MASK_44.cast_signed());
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    let high_bit = _mm512_set1_epi64(HIGH_BIT.cast_signed());
    [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(middle, mask),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), high_bit),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: [__m512i; 3], b: [__m512i; 3]) -> [__m512i; 3] {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

/// The products lane by lane. The limbs of the input are below 2^46, those of the result below
/// 2^45.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn times(a: [__m512i; 3], factor: &Factor) -> [__m512i; 3] {
    let Factor { limbs: [r0, r1, r2], twenty: [s1, s2] } = factor;
    let zero = _mm512_setzero_si512();
    // The low 52 bits of a product belong to its limb, and the bits above to 52 bits higher.
    let low = |by: [&__m512i; 3]| {
        let sum = _mm512_madd52lo_epu64(zero, a[0], *by[0]);
        let sum = _mm512_madd52lo_epu64(sum, a[1], *by[1]);
        _mm512_madd52lo_epu64(sum, a[2], *by[2])
    };
    let high = |by: [&__m512i; 3]| {
        let sum = _mm512_madd52hi_epu64(zero, a[0], *by[0]);
        let sum = _mm512_madd52hi_epu64(sum, a[1], *by[1]);
        _mm512_madd52hi_epu64(sum, a[2], *by[2])
    };
    let by = [[r0, s2, s1], [r1, r0, s2], [r2, r1, r0]];
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44.cast_signed()), _mm512_set1_epi64(MASK_42.cast_signed()));
    let (low_0, high_0) = (low(by[0]), high(by[0]));
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low_0), _mm512_slli_epi64::<8>(high_0));
    let low_1 = _mm512_add_epi64(low(by[1]), carry);
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low_1), _mm512_slli_epi64::<8>(high(by[1])));
    let low_2 = _mm512_add_epi64(low(by[2]), carry);
    // 2^130 is 5 modulo 2^130 - 5.
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(low_2), _mm512_slli_epi64::<10>(high(by[2])));
    let five = _mm512_add_epi64(carry, _mm512_slli_epi64::<2>(carry));
    let low_0 = _mm512_add_epi64(_mm512_and_si512(low_0, mask_44), five);
    [
        _mm512_and_si512(low_0, mask_44),
        _mm512_add_epi64(_mm512_and_si512(low_1, mask_44), _mm512_srli_epi64::<44>(low_0)),
        _mm512_and_si512(low_2, mask_42),
    ]
}
