//! Writes zip archives (PKWARE's APPNOTE 6.3.9) as a stream: the sizes of a file follow its
//! content, and the central directory comes last.
//!
//! Files of 4 GiB and more, more than 65,534 entries, and archives beyond 4 GiB use zip64. Besides
//! the name, mode and content an entry has Info-ZIP's extra fields for its modification time in UTC
//! (`UT`) and its owner's numbers (`ux`). The format cannot store special files, extended
//! attributes and access control lists.

use super::archive::{Archive, Begun};
use crate::format::node::{Node, NodeType, mode};
use crate::format::time::Time;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::io::{Read, Write};

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const END: u32 = 0x0605_4b50;

/// The sizes are in a descriptor behind the content.
const STREAMED: u16 = 1 << 3;
const NAME_IS_UTF8: u16 = 1 << 11;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Versions of the format: 2.0, and 4.5 with zip64. The upper byte of "made by" is 3 for Unix,
/// whose modes and names these are.
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
const MADE_ON_UNIX: u16 = 3 << 8;

/// The value of a field whose real value is in the zip64 extra field.
const IN_ZIP64: u32 = u32::MAX;
/// The sizes behind a file of at least this size have 8 bytes. Deflate may make a file a little
/// larger, and its header is written before that is known.
const LARGE: u64 = 0xf000_0000;

/// An archive that is being written.
pub struct Zip {
    written: u64,
    entries: u64,
    /// The central directory, compressed until it is written; with a million entries it takes about
    /// 20 MiB.
    directory: DeflateEncoder<Vec<u8>>,
    current: Option<Member>,
    /// The numbers of entries with properties that the format cannot hold.
    with_attributes: u64,
    with_odd_times: u64,
    with_raw_names: u64,
}

/// A file whose content is being written.
struct Member {
    entry: Entry,
    content: DeflateEncoder<Vec<u8>>,
    piece: Vec<u8>,
    crc: Crc,
    packed: u64,
}

/// The fields of an entry in the local header and in the central directory.
struct Entry {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    mode: u32,
    mtime: Time,
    owner: [u32; 2],
    offset: u64,
    crc: u32,
    packed: u64,
    size: u64,
    is_large: bool,
}

impl Default for Zip {
    fn default() -> Zip {
        Zip {
            written: 0,
            entries: 0,
            directory: DeflateEncoder::new(Vec::new(), Compression::fast()),
            current: None,
            with_attributes: 0,
            with_odd_times: 0,
            with_raw_names: 0,
        }
    }
}

impl Archive for Zip {
    fn begin(&mut self, path: &[u8], node: &Node) -> Result<Begun, String> {
        let (unix_type, stored): (u32, &[u8]) = match node.ty {
            NodeType::File => (0o100_000, b""),
            NodeType::Dir => (0o040_000, b""),
            NodeType::Symlink => (0o120_000, &node.link_target),
            NodeType::Dev
            | NodeType::CharDev
            | NodeType::Fifo
            | NodeType::Socket
            | NodeType::Irregular
            | NodeType::Unknown => return Err(format!("a zip archive cannot hold a {}", node.ty.name())),
        };
        if node.ty == NodeType::Symlink && (stored.is_empty() || stored.contains(&0)) {
            return Err("its link target is empty or contains a null byte".to_owned());
        }
        if path.len() > usize::from(u16::MAX) {
            return Err(format!("a zip archive cannot hold a path of {} bytes", path.len()));
        }
        let Ok(stored_size) = u32::try_from(stored.len()) else {
            return Err("a zip archive cannot hold its link target".to_owned());
        };
        let is_utf8 = std::str::from_utf8(path).is_ok();
        self.with_raw_names += u64::from(!is_utf8);
        self.with_attributes += u64::from(!node.xattrs.is_empty());
        self.with_odd_times += u64::from(unix_time(&node.mtime).is_none());
        let is_streamed = node.ty == NodeType::File && node.size > 0;
        let mut crc = Crc::new();
        crc.update(stored);
        let entry = Entry {
            name: path.to_vec(),
            flags: if is_utf8 { NAME_IS_UTF8 } else { 0 } | if is_streamed { STREAMED } else { 0 },
            method: if is_streamed { DEFLATED } else { STORED },
            mode: unix_type | mode::permissions(node.mode),
            mtime: node.mtime,
            owner: [node.uid, node.gid],
            offset: self.written,
            crc: crc.sum(),
            packed: stored_size.into(),
            size: stored_size.into(),
            is_large: is_streamed && node.size >= LARGE,
        };
        let mut bytes = entry.local_header();
        bytes.extend_from_slice(stored);
        self.written += bytes.len() as u64;
        if is_streamed {
            let content = DeflateEncoder::new(Vec::new(), Compression::default());
            self.current = Some(Member { entry, content, piece: Vec::new(), crc: Crc::new(), packed: 0 });
        } else {
            self.list(&entry);
        }
        Ok(Begun { bytes, ..Begun::default() })
    }

    fn content<'b>(&'b mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(member) = &mut self.current else { return &[] };
        member.crc.update(bytes);
        member.entry.size += bytes.len() as u64;
        member.content.write_all(bytes).expect(IN_MEMORY);
        member.piece.clear();
        std::mem::swap(&mut member.piece, member.content.get_mut());
        member.packed += member.piece.len() as u64;
        &member.piece
    }

    fn end(&mut self) -> Vec<u8> {
        let Some(Member { mut entry, content, crc, packed, .. }) = self.current.take() else { return Vec::new() };
        let mut out = content.finish().expect(IN_MEMORY);
        entry.packed = packed + out.len() as u64;
        entry.crc = crc.sum();
        put(&mut out, &DESCRIPTOR.to_le_bytes());
        put(&mut out, &entry.crc.to_le_bytes());
        for size in [entry.packed, entry.size] {
            if entry.is_large {
                put(&mut out, &size.to_le_bytes());
            } else {
                put(&mut out, &field(size).to_le_bytes());
            }
        }
        // The content has been counted piece by piece.
        self.written += packed + out.len() as u64;
        self.list(&entry);
        out
    }

    fn finish<E>(self, write: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Vec<String>, E> {
        let losses = self.losses();
        let compressed = self.directory.finish().expect(IN_MEMORY);
        let mut directory = DeflateDecoder::new(&compressed[..]);
        let (mut piece, mut size) = (vec![0; 1 << 16], 0u64);
        loop {
            let length = directory.read(&mut piece).expect(IN_MEMORY);
            if length == 0 {
                break;
            }
            write(&piece[..length])?;
            size += length as u64;
        }
        write(&ending(self.entries, size, self.written))?;
        Ok(losses)
    }
}

/// Why neither compression nor decompression fails.
const IN_MEMORY: &str = "the data is in memory, and our own";

impl Zip {
    fn list(&mut self, entry: &Entry) {
        self.entries += 1;
        self.directory.write_all(&entry.central_header()).expect(IN_MEMORY);
    }

    fn losses(&self) -> Vec<String> {
        let losses = [
            (
                self.with_attributes,
                "a zip archive cannot hold extended attributes and access control lists; it lacks those of",
            ),
            (
                self.with_odd_times,
                "a zip archive holds times of 1970 to 2038 in seconds, and later times up to 2107 in steps of two seconds; the time differs from the snapshot in",
            ),
            (
                self.with_raw_names,
                "names that are not UTF-8 are stored as they are, byte by byte, and not marked as UTF-8:",
            ),
        ];
        let losses = losses.into_iter().filter(|(entries, _)| *entries > 0);
        losses.map(|(entries, what)| format!("{what} {entries} entries")).collect()
    }
}

impl Entry {
    fn local_header(&self) -> Vec<u8> {
        let mut out = LOCAL_HEADER.to_le_bytes().to_vec();
        put(&mut out, &(if self.is_large { VERSION_64 } else { VERSION }).to_le_bytes());
        self.common(&mut out);
        let mut extra = Vec::new();
        if self.is_large {
            put(&mut out, &[IN_ZIP64.to_le_bytes(), IN_ZIP64.to_le_bytes()].concat());
            extra_field(&mut extra, 1, &[0; 16]);
        } else {
            put(&mut out, &[field(self.packed).to_le_bytes(), field(self.size).to_le_bytes()].concat());
        }
        self.extras(&mut extra);
        put(&mut out, &length(&self.name).to_le_bytes());
        put(&mut out, &length(&extra).to_le_bytes());
        [out, self.name.clone(), extra].concat()
    }

    fn central_header(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        // In this order, and only the values that do not fit.
        let large: Vec<u8> = [self.size, self.packed, self.offset]
            .iter()
            .filter(|&&value| field(value) == IN_ZIP64)
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let version = if self.is_large || !large.is_empty() { VERSION_64 } else { VERSION };
        if !large.is_empty() {
            extra_field(&mut extra, 1, &large);
        }
        self.extras(&mut extra);
        let mut out = CENTRAL_HEADER.to_le_bytes().to_vec();
        put(&mut out, &(MADE_ON_UNIX | VERSION_64).to_le_bytes());
        put(&mut out, &version.to_le_bytes());
        self.common(&mut out);
        put(&mut out, &field(self.packed).to_le_bytes());
        put(&mut out, &field(self.size).to_le_bytes());
        put(&mut out, &length(&self.name).to_le_bytes());
        put(&mut out, &length(&extra).to_le_bytes());
        // No comment, the first disk, binary.
        put(&mut out, &[0; 6]);
        // MS-DOS marks directories with a bit of its own.
        let dos = if self.name.ends_with(b"/") { 0x10 } else { 0 };
        put(&mut out, &((self.mode << 16) | dos).to_le_bytes());
        put(&mut out, &field(self.offset).to_le_bytes());
        [out, self.name.clone(), extra].concat()
    }

    /// Flags, method, time and checksum. A streamed entry has its checksum in the central directory
    /// and behind the content.
    fn common(&self, out: &mut Vec<u8>) {
        let (time, date) = dos_time(&self.mtime);
        for value in [self.flags, self.method, time, date] {
            put(out, &value.to_le_bytes());
        }
        put(out, &self.crc.to_le_bytes());
    }

    fn extras(&self, extra: &mut Vec<u8>) {
        if let Some(seconds) = unix_time(&self.mtime) {
            // Bit 0: the field has a modification time.
            extra_field(extra, 0x5455, &[&[1][..], &seconds.to_le_bytes()].concat());
        }
        let [uid, gid] = self.owner.map(u32::to_le_bytes);
        extra_field(extra, 0x7875, &[&[1, 4][..], &uid, &[4], &gid].concat());
    }
}

/// Everything behind the central directory, which has `size` bytes and begins at `offset`.
fn ending(entries: u64, size: u64, offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let few = u16::try_from(entries).ok().filter(|&entries| entries < u16::MAX);
    if few.is_none() || field(size) == IN_ZIP64 || field(offset) == IN_ZIP64 {
        put(&mut out, &END_64.to_le_bytes());
        // The size of the rest of this record.
        put(&mut out, &44u64.to_le_bytes());
        put(&mut out, &[(MADE_ON_UNIX | VERSION_64).to_le_bytes(), VERSION_64.to_le_bytes()].concat());
        put(&mut out, &[0; 8]);
        for value in [entries, entries, size, offset] {
            put(&mut out, &value.to_le_bytes());
        }
        put(&mut out, &END_64_LOCATOR.to_le_bytes());
        put(&mut out, &[0; 4]);
        put(&mut out, &offset.saturating_add(size).to_le_bytes());
        // One disk.
        put(&mut out, &1u32.to_le_bytes());
    }
    put(&mut out, &END.to_le_bytes());
    put(&mut out, &[0; 4]);
    let entries = few.unwrap_or(u16::MAX);
    put(&mut out, &[entries.to_le_bytes(), entries.to_le_bytes()].concat());
    put(&mut out, &[field(size).to_le_bytes(), field(offset).to_le_bytes()].concat());
    put(&mut out, &[0; 2]);
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

/// A number for a field of four bytes, or the sign that the number is in the zip64 extra field.
fn field(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(IN_ZIP64)
}

/// The length of a name, which has been checked, or of our extra fields.
fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("the length has been checked")
}

fn extra_field(extra: &mut Vec<u8>, id: u16, bytes: &[u8]) {
    put(extra, &id.to_le_bytes());
    put(extra, &length(bytes).to_le_bytes());
    put(extra, bytes);
}

/// A time for Info-ZIP's extra field. Readers disagree whether its 32 bits have a sign, so only
/// times that all of them read alike are stored.
fn unix_time(time: &Time) -> Option<i32> {
    i32::try_from(time.seconds).ok().filter(|seconds| *seconds >= 0)
}

/// The time and date of MS-DOS, in UTC; the nearest time from 1980 to 2107.
fn dos_time(time: &Time) -> (u16, u16) {
    let (year, month, day, hour, minute, second) = Time::utc(time.seconds, 0).civil();
    let part = |value: u32| u16::try_from(value).expect("a part of a date or a time is small");
    match year {
        ..1980 => (0, (1 << 5) | 1),
        1980..=2107 => {
            let year = u16::try_from(year - 1980).expect("128 years");
            (part((hour << 11) | (minute << 5) | (second / 2)), (year << 9) | part((month << 5) | day))
        }
        _ => ((23 << 11) | (59 << 5) | 29, (127 << 9) | (12 << 5) | 31),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |number, &byte| (number << 8) | u64::from(byte))
    }

    fn entry(size: u64, offset: u64) -> Entry {
        Entry {
            name: b"f".to_vec(),
            flags: STREAMED,
            method: DEFLATED,
            mode: 0o100_644,
            mtime: Time::utc(0, 0),
            owner: [0, 0],
            offset,
            crc: 0,
            packed: size,
            size,
            is_large: size >= LARGE,
        }
    }

    /// By the offsets and ids of APPNOTE, 4.3.7, 4.3.12 and 4.5.3.
    #[test]
    fn values_that_exceed_four_bytes_are_in_the_zip64_field() {
        for (size, offset, expected) in [
            (LARGE - 1, 0, vec![]),
            (LARGE, 0, vec![]),
            (u64::from(u32::MAX) - 1, u64::from(u32::MAX) - 1, vec![]),
            (u64::from(u32::MAX), 7, vec![u64::from(u32::MAX); 2]),
            (5 << 30, 6 << 30, vec![5 << 30, 5 << 30, 6 << 30]),
            (1, 6 << 30, vec![6 << 30]),
        ] {
            let entry = entry(size, offset);
            let central = entry.central_header();
            let mut extra = &central[46 + 1..];
            let mut found = Vec::new();
            while let [a, b, c, d, rest @ ..] = extra {
                let (bytes, rest) = rest.split_at(usize::try_from(number(&[*c, *d])).unwrap());
                if number(&[*a, *b]) == 1 {
                    found = bytes.chunks(8).map(number).collect();
                }
                extra = rest;
            }
            assert_eq!(found, expected, "{size} at {offset}");
            let in_field = |value: u64| value.min(u32::MAX.into());
            assert_eq!(number(&central[20..24]), in_field(size));
            assert_eq!(number(&central[24..28]), in_field(size));
            assert_eq!(number(&central[42..46]), in_field(offset));
            let is_64 = size >= LARGE || !expected.is_empty();
            assert_eq!(number(&central[6..8]), if is_64 { 45 } else { 20 });
            let local = entry.local_header();
            assert_eq!(number(&local[4..6]), if size >= LARGE { 45 } else { 20 });
            assert_eq!(local[31..33] == [1, 0], size >= LARGE, "its sizes follow with 8 bytes each");
        }
    }

    #[test]
    fn archives_with_many_entries_or_bytes_end_with_zip64_records() {
        assert_eq!(ending(65_534, 1, 2).len(), 22);
        for (entries, size, offset) in [(65_535, 1, 2), (1, 5 << 30, 2), (1, 1, 5 << 30)] {
            let end = ending(entries, size, offset);
            assert_eq!(end.len(), 56 + 20 + 22);
            let values: Vec<u64> = end[24..56].chunks(8).map(number).collect();
            assert_eq!(values, [entries, entries, size, offset]);
            assert_eq!(number(&end[64..72]), offset + size, "where that record begins");
            assert_eq!(number(&end[76 + 8..76 + 10]), entries.min(65_535));
        }
    }

    #[test]
    fn dos_times_are_in_utc_and_clamped_to_the_years_of_the_format() {
        // 2024-02-29 23:59:58
        assert_eq!(dos_time(&Time::utc(1_709_251_198, 5)), ((23 << 11) | (59 << 5) | 29, (44 << 9) | (2 << 5) | 29));
        assert_eq!(dos_time(&Time::utc(0, 0)), (0, (1 << 5) | 1));
        assert_eq!(dos_time(&Time::utc(i64::MAX, 0)).1, (127 << 9) | (12 << 5) | 31);
    }
}
