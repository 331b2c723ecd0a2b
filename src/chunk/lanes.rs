//! The portable kernel: four fingerprints rolled side by side.
//!
//! One rolling fingerprint is bound by latency, not by work: each byte's table look-up needs the one before it. Four
//! stretches of the same data are independent, so their look-ups overlap. The range is taken in blocks; lane `l` of a
//! block owns the `l`-th quarter of its positions. A block ends the search if it holds a candidate, so what the upper
//! lanes do in vain is at most three quarters of one block per chunk, however repetitive the data.

use super::WINDOW;
use super::rabin::{Tables, is_candidate, window};

/// Fastest of 1, 2, 4, 6 and 8 on x86-64: more lanes no longer fit the registers.
const LANES: usize = 4;

/// Positions per lane and block. The 64 bytes that warm up a lane are 2 % of it. Not a power of two, so that the lanes do
/// not meet in the same cache sets.
const STRIDE: usize = 3 * 1024 + 64;

/// Shorter lanes are not worth their warm-up.
const MIN_STRIDE: usize = 2 * WINDOW;

/// The lowest candidate in `lo..end`, where `WINDOW <= lo <= end <= data.len() + 1`.
pub(super) fn find_first(tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
    let mut start = lo;
    loop {
        let stride = STRIDE.min((end - start) / LANES);
        if stride < MIN_STRIDE {
            return find_in_lane(tables, data, start, end);
        }
        if let Some(hit) = find_in_block(tables, data, start, stride) {
            return Some(hit);
        }
        start += LANES * stride;
    }
}

/// The lowest candidate among the `LANES * stride` positions from `start` on.
fn find_in_block(tables: &Tables, data: &[u8], start: usize, stride: usize) -> Option<usize> {
    let starts: [usize; LANES] = std::array::from_fn(|lane| start + lane * stride);
    let (lane, step) = first_step_with_hit(tables, data, starts, stride)?;
    // The lanes below have seen nothing in as many steps; what they have left comes before this hit.
    for lower in &starts[..lane] {
        if let Some(hit) = find_in_lane(tables, data, lower + step + 1, lower + stride) {
            return Some(hit);
        }
    }
    Some(starts[lane] + step)
}

/// The first step at which any lane stands on a candidate, with the lowest such lane.
fn first_step_with_hit(tables: &Tables, data: &[u8], starts: [usize; LANES], stride: usize) -> Option<(usize, usize)> {
    // A lane's k-th step takes in the byte at its start + k, and lets go of the one a window before.
    let entering: [&[u8]; LANES] = starts.map(|at| &data[at..at + stride - 1]);
    let leaving: [&[u8]; LANES] = starts.map(|at| &data[at - WINDOW..at - WINDOW + stride - 1]);
    let mut fingerprints = starts.map(|at| tables.fingerprint(window(data, at)));
    let hit = |fingerprints: &[u64; LANES]| fingerprints.iter().position(|f| is_candidate(*f));
    if let Some(lane) = hit(&fingerprints) {
        return Some((lane, 0));
    }
    for byte in 0..stride - 1 {
        for lane in 0..LANES {
            fingerprints[lane] = tables.roll(fingerprints[lane], leaving[lane][byte], entering[lane][byte]);
        }
        if let Some(lane) = hit(&fingerprints) {
            return Some((lane, byte + 1));
        }
    }
    None
}

/// The lowest candidate in `lo..end`, by one rolling fingerprint.
fn find_in_lane(tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
    if lo >= end {
        return None;
    }
    let mut fingerprint = tables.fingerprint(window(data, lo));
    if is_candidate(fingerprint) {
        return Some(lo);
    }
    let last = end - 1;
    let bytes = data[lo - WINDOW..last - WINDOW].iter().zip(&data[lo..last]);
    for (step, (leaving, entering)) in bytes.enumerate() {
        fingerprint = tables.roll(fingerprint, *leaving, *entering);
        if is_candidate(fingerprint) {
            return Some(lo + step + 1);
        }
    }
    None
}
