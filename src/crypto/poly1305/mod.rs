//! Poly1305 of a whole message: with our own kernel for long messages on processors with AVX-512
//! IFMA, which is four times as fast, and with the `poly1305` crate otherwise.

#[cfg(target_arch = "x86_64")]
mod ifma;

use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};

/// Bytes in a block.
const BLOCK: usize = 16;

/// The tag of `message` under a key that is used for nothing else: `r` (clamped here), then the
/// pad.
pub(super) fn tag(key: &[u8; 32], message: &[u8]) -> [u8; BLOCK] {
    #[cfg(target_arch = "x86_64")]
    if let Some(tag) = ifma::tag(key, message) {
        return tag;
    }
    library(key, message)
}

fn library(key: &[u8; 32], message: &[u8]) -> [u8; BLOCK] {
    let mut state = Poly1305::new(key.into());
    let (blocks, rest) = poly1305::Block::slice_as_chunks(message);
    // All blocks at once: `compute_unpadded` would take them one by one.
    state.update(blocks);
    state.compute_unpadded(rest).into()
}

/// The tag of a message that comes in pieces, by the library. Each piece but the last has whole
/// blocks.
pub(super) struct Pieces {
    state: Poly1305,
    /// The bytes of the last piece after its whole blocks.
    rest: Vec<u8>,
}

impl Pieces {
    /// Starts a tag under a key as for [`tag`].
    pub fn new(key: &[u8; 32]) -> Pieces {
        Pieces { state: Poly1305::new(key.into()), rest: Vec::new() }
    }

    pub fn add(&mut self, piece: &[u8]) {
        debug_assert!(self.rest.is_empty(), "only the last piece ends inside a block");
        let (blocks, rest) = poly1305::Block::slice_as_chunks(piece);
        self.state.update(blocks);
        self.rest.extend_from_slice(rest);
    }

    pub fn finish(self) -> [u8; BLOCK] {
        self.state.compute_unpadded(&self.rest).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// RFC 8439, section 2.5.2, and the vectors of appendix A.3 with rare carries.
    #[test]
    fn agrees_with_the_published_vectors() {
        let key = bytes("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b");
        let text = b"Cryptographic Forum Research Group";
        assert_eq!(tag(&key, text), bytes("a8061dc1305136c6c22b8baf0c0127a9"));
        let f = "ffffffffffffffffffffffffffffffff";
        let two = "02000000000000000000000000000000";
        let one = "01000000000000000000000000000000";
        let zero = "00000000000000000000000000000000";
        for (r, s, message, expected) in [
            (two, zero, f.to_owned(), "03000000000000000000000000000000"),
            (two, f, two.to_owned(), "03000000000000000000000000000000"),
            (
                one,
                zero,
                [f, "f0ffffffffffffffffffffffffffffff", "11000000000000000000000000000000"].concat(),
                "05000000000000000000000000000000",
            ),
            (one, zero, [f, "fbfefefefefefefefefefefefefefefe", "01010101010101010101010101010101"].concat(), zero),
            (two, zero, "fdffffffffffffffffffffffffffffff".to_owned(), "faffffffffffffffffffffffffffffff"),
        ] {
            let key: [u8; 32] = bytes(&[r, s].concat());
            let message: Vec<u8> =
                message.as_bytes().chunks(2).flat_map(|pair| bytes::<1>(std::str::from_utf8(pair).unwrap())).collect();
            assert_eq!(tag(&key, &message), bytes(expected));
        }
    }

    /// Bytes that make long carries likely: all ones, all zeros and their neighbours, besides any.
    fn bytes_with_carries() -> impl Strategy<Value = u8> {
        prop_oneof![4 => Just(0xff), 1 => Just(0), 1 => Just(0xfe), 2 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn agrees_with_the_library(
            key in prop::array::uniform32(bytes_with_carries()),
            message in prop::collection::vec(bytes_with_carries(), 0..2000),
        ) {
            prop_assert_eq!(tag(&key, &message), library(&key, &message));
        }
    }

    #[test]
    fn agrees_with_the_library_at_every_length() {
        let key: [u8; 32] = std::array::from_fn(|i| 0xff - i as u8);
        for byte in [0xff, 0x80, 0] {
            let message = vec![byte; 1100];
            for length in 0..message.len() {
                assert_eq!(tag(&key, &message[..length]), library(&key, &message[..length]), "{length} of {byte}");
            }
        }
    }
}
