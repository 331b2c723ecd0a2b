//! Finds zeros in plaintext, which need not be written where a file has a hole.

use std::ops::Range;

/// The granularity of holes in bytes: the block of most file systems.
const BLOCK: usize = 4096;

/// Whether plaintext consists of zeros only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros only.
    Zeros,
    /// At least one byte that is not zero.
    Data,
}

impl Fill {
    pub fn of(plaintext: &[u8]) -> Fill {
        if is_zero(plaintext) { Fill::Zeros } else { Fill::Data }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// The parts of `bytes` that are not whole blocks of zeros; blocks begin at multiples of their size
/// in the file, where `bytes` starts at `offset`.
pub fn without_zero_blocks(bytes: &[u8], offset: u64) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    let next_block = move || {
        let into = usize::try_from((offset + at as u64) % BLOCK as u64).expect("less than a block");
        let end = (at + BLOCK - into).min(bytes.len());
        let block = at..end;
        at = end;
        (!block.is_empty()).then_some(block)
    };
    let mut blocks = std::iter::from_fn(next_block).peekable();
    std::iter::from_fn(move || {
        let mut piece = blocks.find(|block| !is_zero(&bytes[block.clone()]))?;
        while let Some(block) = blocks.next_if(|block| !is_zero(&bytes[block.clone()])) {
            piece.end = block.end;
        }
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_blocks_are_aligned_to_offsets_in_the_file() {
        let mut bytes = vec![0u8; 5 * BLOCK];
        bytes[BLOCK + 7] = 1;
        bytes[2 * BLOCK] = 1;
        bytes[4 * BLOCK] = 1;
        let pieces = |offset| without_zero_blocks(&bytes, offset).collect::<Vec<_>>();
        assert_eq!(pieces(0), [BLOCK..3 * BLOCK, 4 * BLOCK..5 * BLOCK]);
        // One byte further into the file, every block begins one byte earlier in the buffer.
        assert_eq!(pieces(1), [BLOCK - 1..3 * BLOCK - 1, 4 * BLOCK - 1..5 * BLOCK - 1]);
        assert_eq!(without_zero_blocks(&[0; 10], 3).count(), 0);
        assert_eq!(without_zero_blocks(&[0, 1], BLOCK as u64 - 1).next(), Some(1..2));
        assert_eq!(without_zero_blocks(&[], 0).count(), 0);
    }
}
