//! The vectors of x86-64: 64 lanes with AVX-512, 32 with AVX2, matrices by GFNI or, without it, by
//! look-ups of half bytes.

use super::step::Step;
use super::vector::Vector;
use crate::chunk::kernel::{Kernel, Tables};
use crate::chunk::polynomial::Polynomial;
use std::arch::x86_64::*;
use std::array::from_fn;

pub(super) fn kernels(polynomial: Polynomial) -> Vec<(&'static str, Box<dyn Kernel>)> {
    let mut kernels: Vec<(_, Box<dyn Kernel>)> = Vec::new();
    let gfni = is_x86_feature_detected!("gfni");
    if gfni && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        kernels.push(("AVX-512 with GFNI", Box::new(Avx512Gfni(Step::new(polynomial)))));
    }
    if gfni && is_x86_feature_detected!("avx2") {
        kernels.push(("AVX2 with GFNI", Box::new(Avx2Gfni(Step::new(polynomial)))));
    }
    if is_x86_feature_detected!("avx2") {
        kernels.push(("AVX2", Box::new(Avx2(Step::new(polynomial)))));
    }
    kernels
}

/// A kernel of `$vector`, compiled for the instructions `$features`. A value exists only if
/// [`kernels`] has detected them.
macro_rules! kernel {
    ($name:ident, $vector:ty, $features:literal) => {
        struct $name(Step<$vector>);

        impl Kernel for $name {
            fn find_first(&self, tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
                #[target_feature(enable = $features)]
                fn find(step: &Step<$vector>, tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
                    // SAFETY: the processor has the features of this function.
                    unsafe { step.find_first(tables, data, lo, end) }
                }
                // SAFETY: the value exists, so the processor has them.
                unsafe { find(&self.0, tables, data, lo, end) }
            }
        }
    };
}

kernel!(Avx512Gfni, Wide, "avx512f,avx512bw,gfni");
kernel!(Avx2Gfni, Narrow<Gfni>, "avx2,gfni");
kernel!(Avx2, Narrow<HalfBytes>, "avx2");

/// The matrix as GF2P8AFFINEQB takes it: row `i`, which gives bit `i`, is byte `7 - i`.
fn rows(columns: [u8; 8]) -> u64 {
    let row = |i: usize| (0..8).fold(0, |row, bit| row | (columns[bit] >> i & 1) << bit);
    u64::from_be_bytes(from_fn(row))
}

/// 64 lanes.
#[derive(Clone, Copy)]
struct Wide(__m512i);

// SAFETY of all: the caller guarantees AVX-512 F and BW and GFNI, and that loads are from readable
// memory.
impl Vector for Wide {
    const LANES: usize = 64;
    type Matrix = u64;

    fn matrix(columns: [u8; 8]) -> u64 {
        rows(columns)
    }
    #[inline(always)]
    unsafe fn multiply(matrix: &u64, bytes: Self) -> Self {
        unsafe { Self(_mm512_gf2p8affine_epi64_epi8::<0>(bytes.0, _mm512_set1_epi64(matrix.cast_signed()))) }
    }
    #[inline(always)]
    unsafe fn splat(byte: u8) -> Self {
        unsafe { Self(_mm512_set1_epi8(byte.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        unsafe { Self(_mm512_xor_si512(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        unsafe { Self(_mm512_or_si512(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        unsafe { Self(_mm512_and_si512(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { Self(_mm512_min_epu8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn zero_lanes(self) -> u64 {
        unsafe { _mm512_testn_epi8_mask(self.0, self.0) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8, stride: usize) -> [Self; 16] {
        unsafe {
            let mut vectors = [Self::splat(0); 16];
            for (i, vector) in vectors.iter_mut().enumerate() {
                let from = from.add(i * stride).cast::<__m128i>();
                let next = 16 * stride / size_of::<__m128i>();
                // Broadcasts from memory into one part each: they need no shuffle unit, as
                // insertions do.
                let bytes = _mm512_castsi128_si512(_mm_loadu_si128(from));
                let bytes = _mm512_mask_broadcast_i32x4(bytes, 0x00f0, _mm_loadu_si128(from.add(next)));
                let bytes = _mm512_mask_broadcast_i32x4(bytes, 0x0f00, _mm_loadu_si128(from.add(2 * next)));
                *vector = Self(_mm512_mask_broadcast_i32x4(bytes, 0xf000, _mm_loadu_si128(from.add(3 * next))));
            }
            vectors
        }
    }
    #[inline(always)]
    unsafe fn interleave_low(self, other: Self) -> Self {
        unsafe { Self(_mm512_unpacklo_epi8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn interleave_high(self, other: Self) -> Self {
        unsafe { Self(_mm512_unpackhi_epi8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// How 32 bytes are multiplied by a matrix.
trait Multiply: Copy {
    type Matrix: Copy;
    fn matrix(columns: [u8; 8]) -> Self::Matrix;
    unsafe fn multiply(matrix: &Self::Matrix, bytes: __m256i) -> __m256i;
}

#[derive(Clone, Copy)]
struct Gfni;

impl Multiply for Gfni {
    type Matrix = u64;

    fn matrix(columns: [u8; 8]) -> u64 {
        rows(columns)
    }
    #[inline(always)]
    unsafe fn multiply(matrix: &u64, bytes: __m256i) -> __m256i {
        // SAFETY: the caller guarantees AVX2 and GFNI.
        unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(bytes, _mm256_set1_epi64x(matrix.cast_signed())) }
    }
}

/// The images of the 16 lower and of the 16 upper halves of a byte, twice each.
#[derive(Clone, Copy)]
struct HalfBytes;

impl Multiply for HalfBytes {
    type Matrix = [[u8; 32]; 2];

    fn matrix(columns: [u8; 8]) -> [[u8; 32]; 2] {
        let image = |half: usize, columns: &[u8]| {
            columns
                .iter()
                .enumerate()
                .filter(|(bit, _)| half >> bit & 1 == 1)
                .fold(0, |image, (_, column)| image ^ column)
        };
        [&columns[..4], &columns[4..]].map(|columns| from_fn(|half| image(half % 16, columns)))
    }
    #[inline(always)]
    unsafe fn multiply([low, high]: &[[u8; 32]; 2], bytes: __m256i) -> __m256i {
        // SAFETY: the caller guarantees AVX2.
        unsafe {
            let half = _mm256_set1_epi8(0x0f);
            let low = _mm256_shuffle_epi8(_mm256_loadu_si256(low.as_ptr().cast()), _mm256_and_si256(bytes, half));
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
            let high = _mm256_shuffle_epi8(_mm256_loadu_si256(high.as_ptr().cast()), upper);
            _mm256_xor_si256(low, high)
        }
    }
}

/// 32 lanes.
#[derive(Clone, Copy)]
struct Narrow<M>(__m256i, std::marker::PhantomData<M>);

impl<M> Narrow<M> {
    #[inline(always)]
    fn of(bytes: __m256i) -> Self {
        Self(bytes, std::marker::PhantomData)
    }
}

// SAFETY of all: the caller guarantees AVX2 and the instructions that `M` needs, and that loads are
// from readable memory.
impl<M: Multiply> Vector for Narrow<M> {
    const LANES: usize = 32;
    type Matrix = M::Matrix;

    fn matrix(columns: [u8; 8]) -> M::Matrix {
        M::matrix(columns)
    }
    #[inline(always)]
    unsafe fn multiply(matrix: &M::Matrix, bytes: Self) -> Self {
        unsafe { Self::of(M::multiply(matrix, bytes.0)) }
    }
    #[inline(always)]
    unsafe fn splat(byte: u8) -> Self {
        unsafe { Self::of(_mm256_set1_epi8(byte.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        unsafe { Self::of(_mm256_xor_si256(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        unsafe { Self::of(_mm256_or_si256(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        unsafe { Self::of(_mm256_and_si256(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { Self::of(_mm256_min_epu8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn zero_lanes(self) -> u64 {
        unsafe {
            let zero = _mm256_cmpeq_epi8(self.0, _mm256_setzero_si256());
            u64::from(_mm256_movemask_epi8(zero).cast_unsigned())
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8, stride: usize) -> [Self; 16] {
        unsafe {
            let mut vectors = [Self::splat(0); 16];
            for (i, vector) in vectors.iter_mut().enumerate() {
                let (low, high) = (from.add(i * stride).cast(), from.add((16 + i) * stride).cast());
                let low = _mm256_castsi128_si256(_mm_loadu_si128(low));
                *vector = Self::of(_mm256_inserti128_si256::<1>(low, _mm_loadu_si128(high)));
            }
            vectors
        }
    }
    #[inline(always)]
    unsafe fn interleave_low(self, other: Self) -> Self {
        unsafe { Self::of(_mm256_unpacklo_epi8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn interleave_high(self, other: Self) -> Self {
        unsafe { Self::of(_mm256_unpackhi_epi8(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
