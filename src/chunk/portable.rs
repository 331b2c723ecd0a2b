//! The portable kernel: several fingerprints rolled side by side.
//!
//! One rolling fingerprint is bound by latency, not by work: the table look-up of each byte needs
//! the one before it. Stretches of the same data are independent, so their look-ups overlap. The
//! range is searched in blocks; lane `l` of a block owns the `l`-th part of its positions. A block
//! with a candidate ends the search, so the wasted work of the upper lanes is less than one block
//! per chunk, however repetitive the data.

use super::kernel::{Kernel, Tables, is_candidate, window};
use super::limits::WINDOW;

/// The kernel that every processor can run.
pub(super) struct Portable;

impl Kernel for Portable {
    fn find_first(&self, tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
        find_first(tables, data, lo, end)
    }
}

/// The fastest number on x86-64 of 1 to 8: with fewer, latency is exposed; with more, registers run
/// out.
const LANES: usize = 6;

/// Positions per lane in the blocks that most of a search consists of. Warming up costs 64 bytes
/// per lane and block. A constant, so that all lanes are addressed from one pointer.
const LONG_STRIDE: usize = 4096;

/// Positions per lane towards the end of a range.
const SHORT_STRIDE: usize = 256;

/// The lowest candidate in `lo..end`, where `WINDOW <= lo <= end <= data.len() + 1`.
pub(super) fn find_first(tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
    let mut start = lo;
    find_in_blocks::<LONG_STRIDE>(tables, data, &mut start, end)
        .or_else(|| find_in_blocks::<SHORT_STRIDE>(tables, data, &mut start, end))
        .or_else(|| find_in_lane(tables, data, start, end))
}

/// The lowest candidate in as many whole blocks as fit `start..end`; moves `start` past them.
fn find_in_blocks<const STRIDE: usize>(tables: &Tables, data: &[u8], start: &mut usize, end: usize) -> Option<usize> {
    while end - *start >= LANES * STRIDE {
        if let Some((lane, step)) = first_step_with_hit::<STRIDE>(tables, &data[*start - WINDOW..]) {
            let first_of = |lane| *start + lane * STRIDE;
            // The lower lanes found nothing up to this step; their remaining positions come first.
            return (0..lane)
                .find_map(|l| find_in_lane(tables, data, first_of(l) + step + 1, first_of(l + 1)))
                .or(Some(first_of(lane) + step));
        }
        *start += LANES * STRIDE;
    }
    None
}

/// The first step at which any lane stands on a candidate, with the lowest such lane. `block`
/// starts a window before the first position of lane 0.
fn first_step_with_hit<const STRIDE: usize>(tables: &Tables, block: &[u8]) -> Option<(usize, usize)> {
    // Of constant length, which spares the loops their bounds checks.
    let block = &block[..WINDOW + LANES * STRIDE - 1];
    let hit = |fingerprints: &[u64; LANES]| fingerprints.iter().position(|f| is_candidate(*f));

    let mut fingerprints = [0; LANES];
    for at in 0..WINDOW {
        for (lane, fingerprint) in fingerprints.iter_mut().enumerate() {
            *fingerprint = tables.push(*fingerprint, block[lane * STRIDE + at]);
        }
    }
    if let Some(lane) = hit(&fingerprints) {
        return Some((lane, 0));
    }
    for step in 1..STRIDE {
        for (lane, fingerprint) in fingerprints.iter_mut().enumerate() {
            let leaving = lane * STRIDE + step - 1;
            let entering = leaving + WINDOW;
            *fingerprint = tables.roll(*fingerprint, block[leaving], block[entering]);
        }
        if let Some(lane) = hit(&fingerprints) {
            return Some((lane, step));
        }
    }
    None
}

/// The lowest candidate in `lo..end`, by one rolling fingerprint.
pub(super) fn find_in_lane(tables: &Tables, data: &[u8], lo: usize, end: usize) -> Option<usize> {
    if lo >= end {
        return None;
    }
    let mut fingerprint = tables.fingerprint(window(data, lo));
    if is_candidate(fingerprint) {
        return Some(lo);
    }
    let last = end - 1;
    let leaving_and_entering = data[lo - WINDOW..last - WINDOW].iter().zip(&data[lo..last]);
    for (step, (leaving, entering)) in leaving_and_entering.enumerate() {
        fingerprint = tables.roll(fingerprint, *leaving, *entering);
        if is_candidate(fingerprint) {
            return Some(lo + step + 1);
        }
    }
    None
}
