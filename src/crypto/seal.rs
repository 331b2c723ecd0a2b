//! The envelope around everything that a repository stores:
//! `nonce(16) | AES-256-CTR ciphertext | Poly1305-AES tag(16)`.
//!
//! Encrypt-then-MAC: the tag of the ciphertext is Poly1305(r, AES-128(k, nonce)) as in D. J.
//! Bernstein's "The Poly1305-AES message-authentication code". The nonce is also the initial
//! counter block of AES-256-CTR, counted as a 128-bit big-endian integer. There is no additional
//! data. A nonce must never be used twice with the same key.

use super::{ctr, poly1305};
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of a nonce in bytes.
pub const NONCE: usize = 16;
/// Length of a tag in bytes.
pub const TAG: usize = 16;
/// Bytes that are decrypted at a time: whole blocks, and few enough for the first-level cache.
const PIECE: usize = 16 << 10;
/// Bytes by which a sealed message is longer than its plaintext.
pub const OVERHEAD: usize = NONCE + TAG;

/// Encryption key and the two halves of the authentication key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    pub encrypt: [u8; 32],
    pub mac_k: [u8; 16],
    /// As stored, possibly unclamped; clamped where it is used.
    pub mac_r: [u8; 16],
}

/// Why a sealed message cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("{0} bytes are too few for a sealed message")]
    TooShort(usize),
    #[error("the message does not authenticate: it is damaged, or sealed with another key")]
    Unauthentic,
}

impl Key {
    /// Splits 64 derived or random bytes: encryption key, k, r.
    pub fn from_bytes(bytes: &[u8; 64]) -> Key {
        let part = |range: std::ops::Range<usize>| bytes[range].try_into().expect("the range has the array's length");
        Key { encrypt: bytes[..32].try_into().expect("32 bytes"), mac_k: part(32..48), mac_r: part(48..64) }
    }

    /// Whether every part of the key has at least one bit set; restic refuses any other key.
    pub fn is_usable(&self) -> bool {
        [&self.encrypt[..], &self.mac_k, &self.mac_r].iter().all(|part| part.iter().any(|&byte| byte != 0))
    }

    /// Appends the sealed form of `plaintext` to `out`: `plaintext.len() + OVERHEAD` bytes.
    pub fn seal(&self, nonce: &[u8; NONCE], plaintext: &[u8], out: &mut Vec<u8>) {
        debug_assert!(nonce.iter().any(|&byte| byte != 0), "an all-zero nonce is refused by every reader");
        out.reserve(plaintext.len() + OVERHEAD);
        out.extend_from_slice(nonce);
        let start = out.len();
        ctr::append(&self.encrypt, nonce, plaintext, out);
        let tag = self.tag(nonce, &out[start..]);
        out.extend_from_slice(&tag);
    }

    /// Seals `out` in place from `start` on, where it holds a nonce and the plaintext.
    pub fn seal_in_place(&self, out: &mut Vec<u8>, start: usize) {
        let (nonce, message) = out[start..].split_first_chunk_mut::<NONCE>().expect("it begins with a nonce");
        debug_assert!(nonce.iter().any(|&byte| byte != 0), "an all-zero nonce is refused by every reader");
        ctr::apply(&self.encrypt, nonce, message);
        let tag = self.tag(nonce, message);
        out.extend_from_slice(&tag);
    }

    /// Authenticates `sealed`, then appends its plaintext to `out`: `sealed.len() - OVERHEAD`
    /// bytes. On an error `out` is unchanged.
    pub fn open(&self, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let (nonce, ciphertext) = self.authenticate(sealed)?;
        ctr::append(&self.encrypt, nonce, ciphertext, out);
        Ok(())
    }

    /// Authenticates `sealed`, then passes its plaintext to `take` piece by piece, until `take`
    /// returns `false`. Returns whether `take` always returned `true`.
    pub fn open_in_pieces(&self, sealed: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> Result<bool, SealError> {
        let (nonce, ciphertext) = self.authenticate(sealed)?;
        let mut opened = Vec::with_capacity(PIECE.min(ciphertext.len()));
        Ok(ciphertext.chunks(PIECE).enumerate().all(|(number, piece)| {
            opened.clear();
            ctr::append(&self.encrypt, &ctr::skip(nonce, number * PIECE), piece, &mut opened);
            take(&opened)
        }))
    }

    /// Checks the tag and splits the message.
    fn authenticate<'a>(&self, sealed: &'a [u8]) -> Result<(&'a [u8; NONCE], &'a [u8]), SealError> {
        if sealed.len() < OVERHEAD {
            return Err(SealError::TooShort(sealed.len()));
        }
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().expect("longer than a nonce");
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>().expect("longer than a tag");
        if nonce.iter().all(|&byte| byte == 0) {
            return Err(SealError::Unauthentic);
        }
        if equal(&self.tag(nonce, ciphertext), tag) { Ok((nonce, ciphertext)) } else { Err(SealError::Unauthentic) }
    }

    /// Begins a message that is sealed or opened piece by piece.
    pub fn pieces(&self, nonce: &[u8; NONCE]) -> Pieces {
        let mac = poly1305::Pieces::new(&self.one_time(nonce));
        Pieces { key: self.clone(), nonce: *nonce, at: 0, mac }
    }

    fn tag(&self, nonce: &[u8; NONCE], ciphertext: &[u8]) -> [u8; TAG] {
        poly1305::tag(&self.one_time(nonce), ciphertext)
    }

    /// The key of Poly1305 for one message.
    fn one_time(&self, nonce: &[u8; NONCE]) -> Zeroizing<[u8; 32]> {
        let mut pad = (*nonce).into();
        Aes128::new(&self.mac_k.into()).encrypt_block(&mut pad);
        let mut one_time = Zeroizing::new([0u8; 32]);
        one_time[..16].copy_from_slice(&self.mac_r);
        one_time[16..].copy_from_slice(&pad);
        one_time
    }
}

/// A message that is sealed or opened piece by piece. Each piece but the last has whole blocks of
/// 16 bytes.
pub struct Pieces {
    key: Key,
    nonce: [u8; NONCE],
    /// Bytes processed so far.
    at: usize,
    mac: poly1305::Pieces,
}

impl Pieces {
    /// Appends the sealed form of a piece to `out`.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.append(plaintext, out);
        self.mac.add(&out[start..]);
    }

    /// Appends the plaintext of a piece to `out`. It must not be trusted before
    /// [`Pieces::authenticate`] has succeeded.
    pub fn open(&mut self, ciphertext: &[u8], out: &mut Vec<u8>) {
        self.mac.add(ciphertext);
        self.append(ciphertext, out);
    }

    /// Authenticates a piece of ciphertext without decrypting it.
    pub fn pass(&mut self, ciphertext: &[u8]) {
        self.mac.add(ciphertext);
        self.at += ciphertext.len();
    }

    fn append(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        ctr::append(&self.key.encrypt, &ctr::skip(&self.nonce, self.at), piece, out);
        self.at += piece.len();
    }

    /// The tag, which follows the sealed pieces.
    pub fn tag(self) -> [u8; TAG] {
        self.mac.finish()
    }

    /// Compares the tag that follows the pieces with the computed one.
    pub fn authenticate(self, tag: &[u8; TAG]) -> Result<(), SealError> {
        let is_usable = self.nonce.iter().any(|&byte| byte != 0);
        if is_usable && equal(&self.tag(), tag) { Ok(()) } else { Err(SealError::Unauthentic) }
    }
}

/// Compares in constant time: the time taken does not reveal the position of the first difference.
fn equal(one: &[u8; TAG], other: &[u8; TAG]) -> bool {
    one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let all: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        all.try_into().unwrap()
    }

    #[test]
    fn the_tag_equals_that_of_the_poly1305_aes_paper() {
        let key = Key {
            encrypt: [1; 32],
            mac_k: bytes("ec074c835580741701425b623235add6"),
            mac_r: bytes("851fc40c3467ac0be05cc20404f3f700"),
        };
        let tag = key.tag(&bytes("fb447350c4e868c52ac3275cf9d4327e"), &[0xf3, 0xf6]);
        assert_eq!(tag, bytes("f4c633c3044fc145f84f335cb81953de"));
    }

    #[test]
    fn opens_a_message_sealed_by_restic() {
        let key = Key {
            encrypt: bytes("303e8687b1d7db18421bdc6bb8588ccadac4d59ee87b8ff70c44e635790cafef"),
            mac_k: bytes("ef4d8824cb80b2bcc5fbff8a9b12a42c"),
            mac_r: bytes("cc8d4b948ee0ebfe1d415de921d10353"),
        };
        let sealed: [u8; 50] = bytes(
            "69fb41c62d12def4593bd71757138606338f621aeaeb39da0fe4f99233f8037a54ea63338a813bcf3f75d8c3cc75dddf8750",
        );
        let mut plaintext = Vec::new();
        key.open(&sealed, &mut plaintext).unwrap();
        assert_eq!(plaintext, b"Dies ist ein Test!");
    }

    #[test]
    fn a_flipped_bit_and_a_truncated_message_are_refused() {
        let key = Key::from_bytes(&[7; 64]);
        let mut sealed = Vec::new();
        key.seal(&[9; 16], b"some text", &mut sealed);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&damaged, &mut Vec::new()), Err(SealError::Unauthentic), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(&sealed[..length], &mut Vec::new()).is_err(), "length {length}");
        }
    }

    proptest! {
        /// An independent implementation of the same construction seals and opens the same bytes.
        #[test]
        fn agrees_with_another_implementation(key: [u8; 32], k: [u8; 16], r: [u8; 16], nonce: [u8; 16], text: Vec<u8>) {
            use aes256ctr_poly1305aes::aead::Aead;
            prop_assume!(nonce != [0; 16]);
            let ours = Key { encrypt: key, mac_k: k, mac_r: r };
            let mut joined = [0u8; 64];
            joined[..32].copy_from_slice(&key);
            joined[32..48].copy_from_slice(&k);
            joined[48..].copy_from_slice(&r);
            let theirs = aes256ctr_poly1305aes::Aes256CtrPoly1305Aes::new(&joined.into());
            let mut sealed = Vec::new();
            ours.seal(&nonce, &text, &mut sealed);
            let expected = theirs.encrypt(&nonce.into(), &text[..]).unwrap();
            prop_assert_eq!(&sealed[16..], &expected[..]);
            let mut in_place = [b"before", &nonce[..], &text].concat();
            ours.seal_in_place(&mut in_place, 6);
            prop_assert_eq!(&in_place[6..], &sealed[..]);
            let mut opened = Vec::new();
            ours.open(&sealed, &mut opened).unwrap();
            prop_assert_eq!(&opened, &text);
            for piece in [16, 64, 4096] {
                let (mut pieces, mut in_pieces) = (ours.pieces(&nonce), nonce.to_vec());
                text.chunks(piece).for_each(|piece| pieces.seal(piece, &mut in_pieces));
                in_pieces.extend_from_slice(&pieces.tag());
                prop_assert_eq!(&in_pieces, &sealed);
                let (mut pieces, mut opened) = (ours.pieces(&nonce), Vec::new());
                let (ciphertext, tag) = sealed[NONCE..].split_last_chunk::<TAG>().unwrap();
                ciphertext.chunks(piece).for_each(|piece| pieces.open(piece, &mut opened));
                prop_assert!(pieces.authenticate(tag).is_ok());
                prop_assert_eq!(&opened, &text);
                let mut pieces = ours.pieces(&nonce);
                ciphertext.chunks(piece).for_each(|piece| pieces.open(piece, &mut opened));
                let other = std::array::from_fn(|at| tag[at] ^ u8::from(at == 15));
                prop_assert!(pieces.authenticate(&other).is_err());
            }
        }
    }
}
