//! Compression and decompression with zstd, as repositories of version 2 use it.
//!
//! restic accepts any standard frame, and ids are over plaintext, so encoders may differ. Ours
//! write one frame without a checksum, with the content size if it is known beforehand. Decoding is
//! bounded by the length that the caller expects, never by the length that the frame claims.

use super::{FormatError, Result};
use crate::limits;
use std::cell::RefCell;
use std::io::{self, BufWriter, Cursor, Write};
use zstd::bulk::Compressor;
use zstd::stream::raw::{Decoder, Operation};
use zstd::stream::write::Encoder;
use zstd::zstd_safe::{CParameter, InBuffer, OutBuffer};

/// restic's `--compression`. Trees and unpacked files of version 2 are compressed in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    Off,
    /// zstd level 1.
    Fastest,
    /// [`THOROUGH`], or [`QUICK`] for data where the thorough level gains little.
    #[default]
    Auto,
    /// zstd level 7.
    Better,
    /// zstd level 15: restic's `max` asks its own encoder for about level 11.
    Max,
}

/// A zstd level, and the parameters that override its own.
type Level = (i32, &'static [CParameter]);

/// zstd level 3 with smaller tables, which fit into nearer CPU caches: it is a fifth to a third
/// faster, and its frames are 0.5 to 2 % larger, but still smaller than those of restic's encoder.
const THOROUGH: Level = (3, &[CParameter::HashLog(15), CParameter::ChainLog(14)]);
/// zstd level 1 with a smaller table: 1.3 to 1.4 times as fast as [`THOROUGH`]. Its frames are 1 %
/// larger on a volume of small files or a virtual machine's image, and 6 % on a directory of
/// libraries.
const QUICK: Level = (1, &[CParameter::HashLog(15)]);

/// The parameters of all frames: no checksum, because every blob has a better one, and restic's
/// window of 512 KiB. A streaming encoder or decoder needs as much memory as the window. The
/// smaller tables hold no references to older data in any case.
const FORM: [CParameter; 3] =
    [CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(false), CParameter::WindowLog(19)];

/// Bytes that are decompressed and passed on at a time.
const PIECE: usize = 64 << 10;

impl Compression {
    /// The level of a mode; `Auto` also has a quicker one.
    fn level(self) -> Level {
        match self {
            Compression::Fastest => (1, &[]),
            Compression::Off | Compression::Auto => THOROUGH,
            Compression::Better => (7, &[]),
            Compression::Max => (15, &[]),
        }
    }
}

/// The choice between the two levels of `Auto` for the data of a thread: both are tried regularly.
#[derive(Default)]
struct Choice {
    /// Frames until both are tried again.
    left: u32,
    /// Bytes of the frames that each level made of the same plaintexts; the latest count most.
    quick: u64,
    thorough: u64,
}

impl Choice {
    /// One frame of this number is compressed with both levels.
    const EVERY: u32 = 16;

    fn tries_both(&mut self) -> bool {
        let both = self.left == 0;
        self.left = if both { Choice::EVERY - 1 } else { self.left - 1 };
        both
    }

    fn learn(&mut self, quick: usize, thorough: usize) {
        for (sum, new) in [(&mut self.quick, quick), (&mut self.thorough, thorough)] {
            *sum = *sum - *sum / 8 + new as u64;
        }
    }

    /// Whether the quick level's frames are at most 2 % larger. The total then stays within 3 % of
    /// restic's, whose frames are no smaller than those of [`THOROUGH`].
    fn is_quick(&self) -> bool {
        self.quick * 100 <= self.thorough * 102
    }
}

/// The encoder of a thread. It costs more than a megabyte to set up, so each thread keeps its last
/// one.
struct BlobEncoder {
    how: Compression,
    level: Compressor<'static>,
    quick: Option<(Compressor<'static>, Choice)>,
}

impl BlobEncoder {
    fn new(how: Compression) -> BlobEncoder {
        let quick = (how == Compression::Auto).then(|| (compressor(QUICK), Choice::default()));
        BlobEncoder { how, level: compressor(how.level()), quick }
    }

    fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
        let BlobEncoder { level, quick, .. } = self;
        let Some((quick, choice)) = quick else { return append(level, plaintext, out) };
        if !choice.tries_both() {
            return append(if choice.is_quick() { quick } else { level }, plaintext, out);
        }
        let start = out.len();
        let length = |level, out: &mut Vec<u8>| {
            out.truncate(start);
            // Incompressible data is stored as it is.
            if append(level, plaintext, out) { out.len() - start } else { plaintext.len() }
        };
        let (quick, thorough) = (length(quick, out), length(level, out));
        choice.learn(quick, thorough);
        thorough < plaintext.len()
    }
}

fn compressor((level, tuning): Level) -> Compressor<'static> {
    let mut compressor = Compressor::new(level).expect("the level is one of ours");
    for &parameter in FORM.iter().chain(tuning) {
        compressor.set_parameter(parameter).expect("a parameter every zstd has");
    }
    compressor
}

fn append(compressor: &mut Compressor<'_>, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.reserve(plaintext.len());
    let mut room = Cursor::new(&mut *out);
    room.set_position(start as u64);
    // This fails if the frame exceeds the capacity, which is at least the plaintext's length.
    let smaller = compressor.compress_to_buffer(plaintext, &mut room).is_ok_and(|length| length < plaintext.len());
    if !smaller {
        out.truncate(start);
    }
    smaller
}

thread_local! {
    static ENCODER: RefCell<Option<BlobEncoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

/// Appends a frame of `plaintext` to `out` if that is smaller, and returns whether it is.
pub fn append_smaller(how: Compression, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
    ENCODER.with_borrow_mut(|kept| match kept {
        Some(encoder) if encoder.how == how => encoder.append(plaintext, out),
        _ => kept.insert(BlobEncoder::new(how)).append(plaintext, out),
    })
}

/// A streaming encoder that writes one frame to `out`.
pub fn frame<W: Write>(out: W) -> io::Result<Encoder<'static, W>> {
    let (level, tuning) = THOROUGH;
    let mut encoder = Encoder::new(out, level)?;
    for &parameter in FORM.iter().chain(tuning) {
        encoder.set_parameter(parameter)?;
    }
    Ok(encoder)
}

/// Appends to `out` one frame of the bytes that `write` writes, as a stream.
pub fn into_frame(out: Vec<u8>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut pieces = BufWriter::new(frame(out)?);
    write(&mut pieces)?;
    pieces.into_inner()?.finish()
}

/// Appends the decompressed form of `frames` to `out`: exactly `length` bytes if that is known, and
/// at most `max` in any case. Memory grows with the decompressed bytes, not with the length that a
/// frame claims.
pub fn decompress(frames: &[u8], length: Option<u64>, max: u64, out: &mut Vec<u8>) -> Result<()> {
    let bad = |why: String| FormatError::new("compressed data", why);
    let bound = length.unwrap_or(max);
    if bound > max {
        return Err(bad(format!("it claims to hold {bound} bytes, more than the {max} allowed")));
    }
    let start = out.len();
    // With the capacity for all bytes, zstd needs no window of its own.
    out.reserve(usize::try_from(length.unwrap_or(0).min(limits::RESERVED)).expect("bounded above"));
    let outcome = with_decoder(|decoder| {
        let mut input = InBuffer::around(frames);
        loop {
            if out.len() == out.capacity() {
                out.reserve(32 << 10);
            }
            let full = out.capacity();
            let end = out.len();
            let mut output = OutBuffer::around_pos(out, end);
            let wanted = decoder.run(&mut input, &mut output).map_err(|error| bad(error.to_string()))?;
            let got = (out.len() - start) as u64;
            if got > bound {
                return Err(bad(format!("it holds {got} bytes or more, not {bound}")));
            }
            if input.pos() == frames.len() && (wanted == 0 || out.len() < full) {
                return match length {
                    _ if wanted > 0 => Err(bad("it ends before its last frame does".to_owned())),
                    Some(length) if got != length => Err(bad(format!("it holds {got} bytes, not {length}"))),
                    _ => Ok(()),
                };
            }
        }
    });
    if outcome.is_err() {
        out.truncate(start);
    }
    outcome
}

/// Decompresses the one frame that `feed` delivers in pieces, and passes the plaintext to `take`
/// until that returns `false`. Returns whether the frame was complete, and `take` and `feed`
/// returned `true`.
pub fn expand_in_pieces(
    feed: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> bool,
    mut take: impl FnMut(&[u8]) -> bool,
) -> bool {
    let mut expanded = Vec::with_capacity(PIECE);
    with_decoder(|decoder| {
        let mut ended = false;
        let fed = feed(&mut |piece| {
            if ended {
                return piece.is_empty();
            }
            let mut input = InBuffer::around(piece);
            loop {
                expanded.clear();
                let Ok(wanted) = decoder.run(&mut input, &mut OutBuffer::around(&mut expanded)) else { return false };
                if !take(&expanded) {
                    return false;
                }
                ended = wanted == 0;
                let consumed = input.pos() == piece.len();
                if ended {
                    return consumed;
                }
                // More output would have filled the buffer.
                if consumed && expanded.len() < expanded.capacity() {
                    return true;
                }
            }
        });
        fed && ended
    })
}

/// Runs `work` with this thread's decoder, which is reset to the start of a frame.
fn with_decoder<T>(work: impl FnOnce(&mut Decoder<'static>) -> T) -> T {
    DECODER.with_borrow_mut(|slot| {
        let decoder = slot.get_or_insert_with(|| Decoder::new().expect("memory for a decoder"));
        decoder.reinit().expect("a decoder can always be reset");
        work(decoder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(append_smaller(Compression::Auto, plaintext, &mut out));
        out
    }

    /// The plaintext of a frame that is fed in pieces of `piece` bytes.
    fn expanded(frame: &[u8], piece: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let take = |piece: &[u8]| {
            out.extend_from_slice(piece);
            true
        };
        expand_in_pieces(|give| frame.chunks(piece).all(give), take).then_some(out)
    }

    #[test]
    fn reads_frames_of_every_kind() {
        let mut out = Vec::new();
        // A raw-block frame with a content size, from the format's documentation.
        let raw = b"\x28\xb5\x2f\xfd\x20\x0c\x61\x00\x00{\"packs\":[]}";
        decompress(raw, None, 100, &mut out).unwrap();
        assert_eq!(out, b"{\"packs\":[]}");
        // Several frames, and one without a content size.
        let mut frames = compressed(&[b'1'; 100]);
        frames.extend(zstd::stream::encode_all(&b"two"[..], 19).unwrap());
        out.clear();
        decompress(&frames, Some(103), 1000, &mut out).unwrap();
        assert_eq!(out, [&[b'1'; 100][..], b"two"].concat());
    }

    /// Before version 0.8, zstd had other formats. restic reads none of them, and their parsers
    /// would only be a target for an attacker.
    #[test]
    fn refuses_legacy_frames() {
        // zstd's own program, which reads them, decompresses this to "hello".
        let frame = b"\x27\xb5\x2f\xfd\x20\x05\x40\x00\x05hello\xc0\x00\x00";
        assert!(decompress(frame, None, 100, &mut Vec::new()).is_err());
        assert!(decompress(frame, Some(5), 100, &mut Vec::new()).is_err());
    }

    #[test]
    fn the_quick_level_is_used_if_its_frames_are_hardly_larger() {
        let mut choice = Choice::default();
        assert_eq!((0..48).filter(|_| choice.tries_both()).count(), 3);
        let settled = |quick, thorough| {
            let mut choice = Choice::default();
            (0..20).for_each(|_| choice.learn(quick, thorough));
            choice.is_quick()
        };
        assert!(settled(1019, 1000) && settled(1000, 1000) && settled(900, 1000));
        assert!(!settled(1021, 1000));
        // The choice soon adapts to other data.
        (0..100).for_each(|_| choice.learn(1000, 1000));
        assert!(choice.is_quick());
        (0..8).for_each(|_| choice.learn(1080, 1000));
        assert!(!choice.is_quick());
    }

    #[test]
    fn frames_of_both_levels_decompress_to_the_plaintext() {
        let words = ["alpha ", "beta ", "gamma\n", "delta/", "0x1f ", "\0\0\0\0"];
        let mut state = 1u32;
        for length in (0..60).map(|n| n * 997) {
            let mut plaintext = Vec::new();
            while plaintext.len() < length {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                plaintext.extend_from_slice(words[(state >> 24) as usize % words.len()].as_bytes());
            }
            for level in [THOROUGH, QUICK] {
                let mut frame = Vec::new();
                let is_smaller = append(&mut compressor(level), &plaintext, &mut frame);
                if length == 0 {
                    // An empty plaintext gets no smaller and is not compressed.
                    assert!(!is_smaller && frame.is_empty(), "{frame:?}");
                    continue;
                }
                assert!(is_smaller);
                for piece in [1, 1000, 16 << 10, 1 << 20] {
                    assert!(expanded(&frame, piece).as_ref() == Some(&plaintext));
                }
            }
        }
    }

    #[test]
    fn incompressible_data_appends_nothing() {
        let noise = crate::clock::random_bytes::<3000>();
        for plaintext in [&[][..], b"x", &noise] {
            for how in [Compression::Auto, Compression::Max] {
                let mut out = b"kept".to_vec();
                assert!(!append_smaller(how, plaintext, &mut out));
                assert_eq!(out, b"kept");
            }
        }
    }

    #[test]
    fn only_one_whole_frame_expands_in_pieces() {
        // Shorter than the buffer, as long as it, and longer.
        for length in [100, PIECE, PIECE + 1, 1 << 20] {
            let plaintext = vec![7; length];
            let frame = compressed(&plaintext);
            assert!(expanded(&frame, 5).unwrap() == plaintext);
            assert_eq!(expanded(&frame[..frame.len() - 1], 5), None, "torn");
            assert_eq!(expanded(&[&frame[..], b"x"].concat(), 5), None, "with something behind it");
            assert_eq!(expanded(&[&frame[..], b"x"].concat(), frame.len()), None, "in a piece of its own");
            assert_eq!(expanded(&[&frame[..], &frame].concat(), 5), None, "twice");
        }
        assert_eq!(expanded(b"", 5), None);
    }

    #[test]
    fn decompression_never_exceeds_the_expected_length() {
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
