//! zstd, as repositories of version 2 use it.
//!
//! restic accepts any standard frame, and ids are over plaintext, so encoders may differ. Ours writes one frame with the content
//! size and without a checksum. Decoding is bounded by the length the caller expects, never by what the frame claims.

use super::{FormatError, Result};
use std::cell::RefCell;
use std::io::Read;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// restic's `--compression`. Trees and unpacked files of version 2 are compressed in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    Off,
    /// zstd level 1.
    Fastest,
    /// zstd level 3.
    #[default]
    Auto,
    /// zstd level 7.
    Better,
    /// zstd level 15: restic's `max` asks its own encoder for about level 11.
    Max,
}

impl Compression {
    /// The zstd level; `Off` still compresses what the format always compresses.
    pub fn level(self) -> i32 {
        match self {
            Compression::Fastest => 1,
            Compression::Off | Compression::Auto => 3,
            Compression::Better => 7,
            Compression::Max => 15,
        }
    }
}

thread_local! {
    /// A context costs a megabyte and more to set up, so each thread keeps its last one.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
}

/// Compresses `plaintext` into one frame at the end of `out`.
pub fn compress(level: i32, plaintext: &[u8], out: &mut Vec<u8>) {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(kept, _)| *kept != level) {
            let mut compressor = Compressor::new(level).expect("the level is one of ours");
            for parameter in [CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(false)] {
                compressor.set_parameter(parameter).expect("a parameter every zstd has");
            }
            *slot = Some((level, compressor));
        }
        let (_, compressor) = slot.as_mut().expect("set above");
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(plaintext.len()), 0);
        let length =
            compressor.compress_to_buffer(plaintext, &mut out[start..]).expect("the buffer has zstd's own bound");
        out.truncate(start + length);
    });
}

/// Appends the decompressed form of `frames` to `out`, which must have exactly `length` bytes if that is known and at most `max`
/// in any case. Memory grows with the bytes that really come out, not with what is claimed.
pub fn decompress(frames: &[u8], length: Option<u64>, max: u64, out: &mut Vec<u8>) -> Result<()> {
    let bad = |why: String| FormatError::new("compressed data", why);
    let bound = length.unwrap_or(max);
    if bound > max {
        return Err(bad(format!("it claims to hold {bound} bytes, more than the {max} allowed")));
    }
    let start = out.len();
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frames).map_err(|error| bad(error.to_string()))?;
    // Up to this much is reserved at once on the word of the index; a false word costs no more than that.
    const TRUSTED: u64 = 16 << 20;
    out.reserve(usize::try_from(length.unwrap_or(0).min(TRUSTED)).expect("bounded above"));
    (&mut decoder).take(bound + 1).read_to_end(out).map_err(|error| bad(error.to_string()))?;
    let got = (out.len() - start) as u64;
    if got > bound || length.is_some_and(|length| got != length) {
        out.truncate(start);
        return Err(bad(format!("it holds {}{got} bytes, not {bound}", if got > bound { "more than " } else { "" })));
    }
    Ok(())
}

/// Whether the frames decompress to exactly these bytes; compared piece by piece, so that no second copy of them is needed.
pub fn expands_to(frames: &[u8], plaintext: &[u8]) -> bool {
    let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(frames) else { return false };
    let mut piece = [0; 32 << 10];
    let mut rest = plaintext;
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return rest.is_empty(),
            Ok(got) => match rest.split_at_checked(got) {
                Some((expected, after)) if expected == &piece[..got] => rest = after,
                _ => return false,
            },
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(3, plaintext, &mut out);
        out
    }

    #[test]
    fn reads_frames_of_every_kind() {
        let mut out = Vec::new();
        // A raw-block frame with a content size, from the format's documentation.
        let raw = b"\x28\xb5\x2f\xfd\x20\x0c\x61\x00\x00{\"packs\":[]}";
        decompress(raw, None, 100, &mut out).unwrap();
        assert_eq!(out, b"{\"packs\":[]}");
        // Several frames, and one without a content size.
        let mut frames = compressed(b"one ");
        frames.extend(zstd::stream::encode_all(&b"two"[..], 19).unwrap());
        out.clear();
        decompress(&frames, Some(7), 100, &mut out).unwrap();
        assert_eq!(out, b"one two");
    }

    #[test]
    fn never_grows_beyond_what_was_expected() {
        let bomb = compressed(&vec![0; 1 << 20]);
        for (length, max) in
            [(None, 1000), (Some(1000), 1 << 30), (Some(u64::from(u32::MAX)), 1 << 20), (Some((1 << 20) + 1), 1 << 30)]
        {
            let mut out = b"kept".to_vec();
            assert!(decompress(&bomb, length, max, &mut out).is_err());
            assert_eq!(out, b"kept");
        }
        assert!(decompress(&bomb[..bomb.len() - 1], Some(1 << 20), 1 << 30, &mut Vec::new()).is_err(), "a torn frame");
    }
}
