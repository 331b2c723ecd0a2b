//! Finds cut candidates: positions whose 64-byte window has a fingerprint that ends in 20 zero
//! bits.
//!
//! A fingerprint depends on the bytes of its window alone, so a range can be searched in any order
//! and from several places at once, with the same result as in one pass. So kernels are
//! interchangeable: [`Scanner::new`] picks one for this processor, and all of them find the same
//! candidate. Callers ask for the *first* candidate, never for all of them, because in a run of
//! zeros every position is one.

use super::kernel::{Kernel, Tables, is_candidate, window};
use super::limits::WINDOW;
use super::polynomial::Polynomial;
use super::portable::Portable;
use super::sliced;

/// Searches data for cut candidates under one polynomial. Built once per repository and shared
/// between threads.
pub struct Scanner {
    polynomial: Polynomial,
    tables: Tables,
    kernel: Box<dyn Kernel>,
}

impl Scanner {
    /// Computes the tables (4 KiB) for `polynomial`; searches with the fastest kernel that this
    /// processor can run.
    pub fn new(polynomial: Polynomial) -> Self {
        let (_, fastest) = kernels(polynomial).swap_remove(0);
        Self::with_kernel(polynomial, fastest)
    }

    /// A scanner for each kernel that this processor can run, fastest first, with the kernel's
    /// name: for tests and benches. The last is the portable one, which every processor can run.
    pub fn with_each_kernel(polynomial: Polynomial) -> Vec<(&'static str, Self)> {
        kernels(polynomial).into_iter().map(|(name, kernel)| (name, Self::with_kernel(polynomial, kernel))).collect()
    }

    fn with_kernel(polynomial: Polynomial, kernel: Box<dyn Kernel>) -> Self {
        Self { polynomial, tables: Tables::new(polynomial), kernel }
    }

    /// The polynomial the fingerprints are taken modulo.
    pub fn polynomial(&self) -> Polynomial {
        self.polynomial
    }

    /// The first candidate `e` in `lo..=hi`, in bytes from the start of `data`: the low 20 bits of
    /// the fingerprint of `data[e - 64..e]` are zero. None if no position is one, or if `lo > hi`.
    ///
    /// # Panics
    /// If `lo < 64` (its window would start before the data) or `hi > data.len()`.
    pub fn find_first(&self, data: &[u8], lo: usize, hi: usize) -> Option<usize> {
        assert!(lo >= WINDOW, "the window of {lo} starts before the data");
        assert!(hi <= data.len(), "{hi} is past the {} bytes of data", data.len());
        if lo > hi {
            return None;
        }
        // The first position is checked alone: then a run of zeros, where every position is a
        // candidate, costs one window.
        if is_candidate(self.tables.fingerprint(window(data, lo))) {
            return Some(lo);
        }
        self.kernel.find_first(&self.tables, data, lo + 1, hi + 1)
    }
}

fn kernels(polynomial: Polynomial) -> Vec<(&'static str, Box<dyn Kernel>)> {
    let mut kernels = sliced::kernels(polynomial);
    kernels.push(("portable", Box::new(Portable)));
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::reference;
    use crate::chunk::testdata::{POLYNOMIALS, SplitMix, plant_candidate, polynomial, quiet_bytes};

    #[test]
    fn every_planted_candidate_is_found() {
        for bits in POLYNOMIALS {
            let polynomial = polynomial(bits);
            let quiet = quiet_bytes(polynomial, bits, 160_000);
            for (name, scanner) in Scanner::with_each_kernel(polynomial) {
                let mut data = quiet.clone();
                // Positions where lanes, tiles and blocks of any kernel begin and end, and some in
                // between.
                let seams = (0..39).flat_map(|k| [64, 65, 66, 200].map(|at| at + 4096 * k));
                let lanes = (0..130).flat_map(|k| [64, 65, 66].map(|at| at + 1088 * k));
                for end in seams.chain(lanes).chain([67, 127, 128, 129, 159_999, 160_000]) {
                    let saved = data[end - 3..end].to_vec();
                    plant_candidate(polynomial, &mut data, end);
                    let find = |lo, hi| scanner.find_first(&data, lo, hi);
                    assert_eq!(find(64, data.len()), Some(end), "{name}");
                    assert_eq!(find(end - 3.min(end - 64), data.len()), Some(end), "{name}");
                    assert_eq!(find(end, end), Some(end), "{name}");
                    assert_eq!(find(64, end - 1), None, "{name}");
                    assert_eq!(find(end + 1, data.len()), None, "{name}");
                    data[end - 3..end].copy_from_slice(&saved);
                }
            }
        }
    }

    #[test]
    fn a_candidate_in_a_lower_lane_wins_even_if_it_is_found_later() {
        let polynomial = polynomial(POLYNOMIALS[3]);
        let quiet = quiet_bytes(polynomial, 4, 80_000);
        for (name, scanner) in Scanner::with_each_kernel(polynomial) {
            for stride in [4096, 1088] {
                for (lane, steps_later) in [(1, 1), (1, 0), (3, 1), (4, 2), (2, 500)] {
                    let mut data = quiet.clone();
                    let upper = 65 + stride * 5 + 500;
                    let lower = 65 + stride * lane + 500 + steps_later;
                    plant_candidate(polynomial, &mut data, upper);
                    plant_candidate(polynomial, &mut data, lower);
                    assert_eq!(scanner.find_first(&data, 64, data.len()), Some(lower), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_lowest_of_many_candidates_wins() {
        let polynomial = polynomial(POLYNOMIALS[0]);
        let scanners = Scanner::with_each_kernel(polynomial);
        let mut stream = SplitMix::new(9);
        for _ in 0..400 {
            let length = WINDOW + stream.below(200_000);
            let mut data = stream.bytes(length);
            for _ in 0..1 + stream.below(12) {
                let end = WINDOW + stream.below(data.len() - WINDOW + 1);
                plant_candidate(polynomial, &mut data, end);
            }
            let lo = WINDOW + stream.below(data.len() - WINDOW + 1);
            let hi = lo + stream.below(data.len() - lo + 1);
            let expected = reference::find_first(polynomial, &data, lo, hi);
            for (name, scanner) in &scanners {
                assert_eq!(scanner.find_first(&data, lo, hi), expected, "{lo}..={hi} of {} by {name}", data.len());
            }
        }
    }

    #[test]
    fn zeros_are_candidates_everywhere() {
        for (name, scanner) in Scanner::with_each_kernel(polynomial(POLYNOMIALS[1])) {
            let mut data = vec![0; 200_000];
            let find = |data: &[u8], lo| scanner.find_first(data, lo, data.len());
            assert_eq!(find(&data, 64), Some(64), "{name}");
            assert_eq!(find(&data, 777), Some(777), "{name}");
            // A single bit is in the low 20 bits for three positions, then above them; all later
            // positions are candidates.
            data[776] = 1;
            assert_eq!(find(&data, 777), Some(780), "{name}");
            // Zeros below the range do not count.
            data[100_000..].fill(1);
            let expected = reference::find_first(scanner.polynomial(), &data, 100_001, data.len());
            assert_eq!(find(&data, 100_001), expected, "{name}");
        }
    }

    #[test]
    fn an_empty_range_has_no_candidate() {
        let scanner = Scanner::new(polynomial(POLYNOMIALS[0]));
        assert_eq!(scanner.find_first(&[0; 64], 65, 64), None);
        assert_eq!(scanner.find_first(&[], 64, 0), None);
    }

    #[test]
    #[should_panic(expected = "starts before the data")]
    fn a_window_before_the_data_is_refused() {
        Scanner::new(polynomial(POLYNOMIALS[0])).find_first(&[0; 100], 63, 100);
    }
}
