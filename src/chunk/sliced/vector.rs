//! The operations on vectors of bytes that a kernel needs from the processor.

/// A vector of bytes, one per lane.
///
/// # Safety
/// All functions require a processor with the instructions that the implementation names.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// An 8 by 8 bit matrix in the form that [`Vector::multiply`] takes.
    type Matrix: Copy;

    /// The matrix whose columns are the images of the bytes 1, 2, 4, … 128.
    fn matrix(columns: [u8; 8]) -> Self::Matrix;
    unsafe fn multiply(matrix: &Self::Matrix, bytes: Self) -> Self;
    unsafe fn splat(byte: u8) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    /// The lesser of each pair of unsigned bytes.
    unsafe fn min(self, other: Self) -> Self;
    /// Bit `l` is set if lane `l` is zero.
    unsafe fn zero_lanes(self) -> u64;
    /// 16 bytes of each lane, lane `l` from `from + l * stride`: 128-bit part `p` of vector `i` is
    /// that of lane `16 * p + i`.
    unsafe fn load(from: *const u8, stride: usize) -> [Self; 16];
    /// Interleaves the bytes of both vectors, from the lower half of each 128-bit part.
    unsafe fn interleave_low(self, other: Self) -> Self;
    /// Interleaves the bytes of both vectors, from the upper half of each 128-bit part.
    unsafe fn interleave_high(self, other: Self) -> Self;
    unsafe fn prefetch(at: *const u8);
}
