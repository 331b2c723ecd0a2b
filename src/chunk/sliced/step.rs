//! The search with any vector type: rolls the state of all lanes byte by byte, over blocks of
//! positions.
//!
//! Positions are searched in blocks; each lane owns the same number of successive positions of a
//! block. Its bytes are gathered in tiles of 64 steps, transposed so that one vector holds one step
//! of all lanes. As the window is 64 bytes, too, the bytes of the previous tile leave it.

use super::vector::Vector;
use crate::chunk::kernel::Tables;
use crate::chunk::limits::{MASK_BITS, WINDOW};
use crate::chunk::polynomial::Polynomial;
use crate::chunk::portable;
use std::array::from_fn;

/// Steps in a tile: a window's length, so that the bytes of one tile leave during the next.
const TILE: usize = WINDOW;

/// Maximum number of tiles in a block. Odd, like every number of tiles: the lanes' bytes are then
/// an odd number of cache lines apart, which spreads them over all sets of the first-level cache.
const MOST_TILES: usize = 17;

/// Ranges with fewer positions are left to the portable kernel, which is done before a block is set
/// up.
const FEW: usize = 256;

/// The matrices that multiply the bytes involved in a step, for each byte of the state.
pub(super) struct Step<V: Vector> {
    /// The top byte, shifted out: its multiple of x^56, reduced.
    reduce: [V::Matrix; 7],
    /// The byte that leaves the window: its multiple of x^512, times x^3.
    expire: [V::Matrix; 7],
    /// The byte that enters, rotated by the three bits that S is shifted.
    enter: V::Matrix,
}

impl<V: Vector> Step<V> {
    pub(super) fn new(polynomial: Polynomial) -> Step<V> {
        const { assert!(MASK_BITS == 20 && Polynomial::DEGREE == 53, "the layout of S holds for these") };
        // x^3 * (value mod P) is x^3 * value mod x^3 * P: the byte's multiple of x^53, shifted, is
        // that of x^56.
        let byte_of =
            |power: u32, j: usize| V::matrix(from_fn(|bit| (polynomial.shift(1 << bit, power) << 3).to_le_bytes()[j]));
        Step {
            reduce: from_fn(|j| byte_of(Polynomial::DEGREE, j)),
            expire: from_fn(|j| byte_of(8 * WINDOW as u32, j)),
            enter: V::matrix(from_fn(|bit| (1u8 << bit).rotate_left(3))),
        }
    }

    /// The state with one more byte in each lane, and nothing leaving.
    #[inline(always)]
    unsafe fn push(&self, state: [V; 7], entering: V) -> [V; 7] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let top = state[6];
            let entering = V::multiply(&self.enter, entering);
            let mut next = [V::multiply(&self.reduce[0], top).xor(entering.and(V::splat(0xf8))); 7];
            for j in 1..7 {
                next[j] = state[j - 1].xor(V::multiply(&self.reduce[j], top));
            }
            next[1] = next[1].xor(entering.and(V::splat(0x07)));
            next
        }
    }

    /// The state with the window of each lane rolled by one byte.
    #[inline(always)]
    unsafe fn roll(&self, state: [V; 7], leaving: V, entering: V) -> [V; 7] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut next = self.push(state, entering);
            for (byte, expire) in next.iter_mut().zip(&self.expire) {
                *byte = byte.xor(V::multiply(expire, leaving));
            }
            next
        }
    }

    /// The lowest candidate in `lo..end`, where `WINDOW <= lo <= end <= data.len() + 1`.
    ///
    /// # Safety
    /// The processor must have the instructions that `V` needs.
    #[inline(always)]
    pub(super) unsafe fn find_first(&self, tables: &Tables, data: &[u8], mut lo: usize, end: usize) -> Option<usize> {
        while lo < end {
            let left = end - lo;
            let tiles = (left.div_ceil(V::LANES * TILE) | 1).min(MOST_TILES);
            let size = V::LANES * tiles * TILE;
            // The last block begins below `lo` instead of reaching past the end.
            let first = end.min(lo + size).saturating_sub(size);
            if left < FEW || first <= WINDOW {
                return portable::find_first(tables, data, lo, end);
            }
            // SAFETY: the caller guarantees the processor; `WINDOW < first` and `first + size <=
            // end <= data.len() + 1`.
            let found = unsafe { self.find_in_block(tables, data, Block { first, tiles }, lo) };
            if found.is_some() {
                return found;
            }
            lo = first + size;
        }
        None
    }

    /// The lowest candidate of a block that is not below `lo`.
    ///
    /// # Safety
    /// The processor must have the instructions that `V` needs, and the block's positions and the
    /// window before them must lie in `data`.
    #[inline(always)]
    unsafe fn find_in_block(&self, tables: &Tables, data: &[u8], block: Block, lo: usize) -> Option<usize> {
        let Block { first, tiles } = block;
        let stride = tiles * TILE;
        debug_assert!(first > WINDOW && first + V::LANES * stride <= data.len() + 1 && lo >= first);
        // The lanes still to be searched: not those wholly below `lo`, and after a hit only the
        // lower lanes.
        let mut lanes = (u64::MAX >> (64 - V::LANES)) << ((lo - first) / stride);
        let mut found = None;
        // SAFETY: guaranteed by the caller. The last byte that enters lane `l` is before `first +
        // (l + 1) * stride - 1`.
        unsafe {
            let base = data.as_ptr().add(first - 1);
            // Two alternating tiles: the bytes that enter with one leave during the next.
            let mut buffers = [[V::splat(0); TILE]; 2];
            let [mut leaving, mut entering] = buffers.each_mut();
            gather(base.sub(WINDOW), stride, leaving);
            let mut state = [V::splat(0); 7];
            for bytes in &*leaving {
                state = self.push(state, *bytes);
            }
            for tile_index in 0..tiles {
                let start = tile_index * TILE;
                gather(base.add(start), stride, entering);
                // Prefetch the bytes of the next block into the first-level cache, evenly over this
                // block.
                let next = base.wrapping_add(V::LANES * stride + V::LANES * start);
                let mut least = V::splat(0xff);
                for step in 0..TILE {
                    V::prefetch(next.wrapping_add(step * V::LANES));
                    state = self.roll(state, leaving[step], entering[step]);
                    // Bits 3 to 22 of S are the low 20 of the fingerprint; bits 0 to 2 are always
                    // zero.
                    least = least.min(state[0].or(state[1]).or(state[2].and(V::splat(0x7f))));
                }
                let mut hits = least.zero_lanes() & lanes;
                while hits != 0 {
                    let lane = hits.trailing_zeros();
                    let start = first + lane as usize * stride + start;
                    // The only candidate may be below `lo`.
                    let at = portable::find_in_lane(tables, data, start.max(lo), start + TILE);
                    if at.is_some() {
                        found = at;
                        lanes &= (1 << lane) - 1;
                        break;
                    }
                    hits &= hits - 1;
                }
                if lanes == 0 {
                    break;
                }
                std::mem::swap(&mut leaving, &mut entering);
            }
        }
        found
    }
}

/// Positions `first..first + LANES * tiles * TILE`.
struct Block {
    first: usize,
    tiles: usize,
}

/// Fills a tile with 64 bytes of each lane, lane `l` from `from + l * stride`: vector `s` holds
/// byte `s` of every lane.
///
/// # Safety
/// These bytes must be readable, and the processor must have the instructions that `V` needs.
#[inline(always)]
unsafe fn gather<V: Vector>(from: *const u8, stride: usize, tile: &mut [V; TILE]) {
    for (quarter, rows) in tile.chunks_exact_mut(16).enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe {
            // Four perfect shuffles of 16 vectors transpose each 16 by 16 square of bytes.
            let bytes = V::load(from.add(16 * quarter), stride);
            rows.copy_from_slice(&shuffle(shuffle(shuffle(shuffle(bytes)))));
        }
    }
}

/// Interleaves the vectors of both halves.
///
/// # Safety
/// The processor must have the instructions that `V` needs.
#[inline(always)]
unsafe fn shuffle<V: Vector>(vectors: [V; 16]) -> [V; 16] {
    // Written out: a loop would keep the vectors in memory.
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = vectors;
    // SAFETY: guaranteed by the caller.
    unsafe {
        [
            a.interleave_low(i),
            a.interleave_high(i),
            b.interleave_low(j),
            b.interleave_high(j),
            c.interleave_low(k),
            c.interleave_high(k),
            d.interleave_low(l),
            d.interleave_high(l),
            e.interleave_low(m),
            e.interleave_high(m),
            f.interleave_low(n),
            f.interleave_high(n),
            g.interleave_low(o),
            g.interleave_high(o),
            h.interleave_low(p),
            h.interleave_high(p),
        ]
    }
}
