//! [`Id`]: a SHA-256 hash, which names the blobs and files of a repository.
//!
//! The id of a blob is the hash of its plaintext. The id of a file, which is its name, is the hash
//! of its stored bytes. Both are written as 64 lower-case hex digits.

use crate::hash::Sha256;
use std::fmt;
use std::str::FromStr;

/// A SHA-256 hash used as a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 32]);

/// The text is not 64 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an id (64 hex digits)")]
pub struct InvalidId(String);

impl Id {
    /// All zero bytes, which name no object. Refused where an id must name an object.
    pub const NULL: Id = Id([0; 32]);

    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Id {
        let mut hash = Sha256::new();
        hash.update(bytes);
        Id(hash.finish())
    }

    pub fn is_null(&self) -> bool {
        *self == Id::NULL
    }

    /// The first 8 hex digits, as lists show ids.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// The id as 64 ASCII hex digits, without an allocation.
    pub fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// Parses exactly 64 hex digits of either case.
    pub fn parse(text: &[u8]) -> Option<Id> {
        if text.len() != 64 {
            return None;
        }
        let mut id = [0u8; 32];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high << 4 | low).expect("two hex digits fit a byte");
        }
        Some(Id(id))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Id, InvalidId> {
        Id::parse(text.as_bytes()).ok_or_else(|| InvalidId(text.chars().take(80).collect()))
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.hex()).expect("hex digits are ASCII"))
    }
}

impl<'de> serde::Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Hex;
        impl serde::de::Visitor<'_> for Hex {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id of 64 hex digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hashed_and_printed_as_in_the_published_vector() {
        // FIPS 180-4, "abc".
        let id = Id::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse::<Id>().unwrap(), id);
        assert_eq!(id.short(), "ba7816bf");
    }

    #[test]
    fn a_text_other_than_64_hex_digits_is_refused() {
        for text in ["", "ba78", &"g".repeat(64), &"a".repeat(65)] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
