//! The plaintext of index, snapshot and lock files: bare JSON, or in version 2 the byte 2 and a zstd frame of the JSON.

use super::compression::{decompress, into_frame};
use super::{FormatError, Result, Version};
use std::io::{self, Write};

const COMPRESSED: u8 = 2;

/// The plaintext to seal for the JSON document that `json` writes. What an index file says is four times as long as the file, and
/// never in memory as a whole.
pub fn encode(version: Version, json: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Vec<u8> {
    match version {
        Version::V1 => {
            let mut bare = Vec::new();
            json(&mut bare).map(|()| bare)
        }
        Version::V2 => into_frame(vec![COMPRESSED], json),
    }
    .expect("nothing but memory is written to")
}

/// The JSON in an opened file, of at most `max` bytes. Bare JSON is valid in both versions, and so is no plaintext at all.
pub fn decode(what: &'static str, plaintext: Vec<u8>, max: u64) -> Result<Vec<u8>> {
    match plaintext.first() {
        None | Some(b'{' | b'[') => Ok(plaintext),
        Some(&COMPRESSED) => {
            let mut json = Vec::new();
            decompress(&plaintext[1..], None, max, &mut json).map_err(|error| FormatError::new(what, error.why))?;
            Ok(json)
        }
        Some(byte) => Err(FormatError::new(what, format!("its encoding {byte:#04x} is unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_encodings_and_refuses_others() {
        let json = b"{\"packs\":[]}".to_vec();
        for version in [Version::V1, Version::V2] {
            let plaintext = encode(version, |out| out.write_all(&json));
            assert_eq!(decode("x", plaintext, 100).unwrap(), json);
        }
        assert_eq!(decode("x", Vec::new(), 100).unwrap(), b"");
        assert!(decode("x", vec![1, 2, 3], 100).is_err());
        assert!(decode("x", encode(Version::V2, |out| out.write_all(&[b'{'; 1000])), 100).is_err());
    }
}
