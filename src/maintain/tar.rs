//! Writes tar archives in the POSIX.1-2001 ("pax") format: a ustar header for each entry, after an
//! extended header if the fields of ustar are too small.
//!
//! Nodes have names of any length and of any bytes, times with nanoseconds, sizes and owners beyond
//! ustar's octal fields, and extended attributes; each of these goes into an extended header, which
//! GNU tar, bsdtar and Python read. Access control lists go in as text, which is what tar programs
//! restore. A value that fits nowhere is reported, never truncated.

use super::archive::{Archive, Begun};
use super::posix_acl;
use crate::format::node::{Node, NodeType, Xattr, mode};
use crate::format::text::lossy;
use std::borrow::Cow;

const BLOCK: usize = 512;
/// The largest values of octal fields of 7 and 11 digits.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// The two blocks that end an archive.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// An archive that is being written.
#[derive(Default)]
pub struct Tar {
    /// The number of zeros to write after the content of the current file.
    padding: usize,
}

impl Archive for Tar {
    fn begin(&mut self, path: &[u8], node: &Node) -> Result<Begun, String> {
        let begun = headers(path, node)?;
        self.padding = if node.ty == NodeType::File { padding(node.size) } else { 0 };
        Ok(begun)
    }

    fn content<'b>(&'b mut self, bytes: &'b [u8]) -> &'b [u8] {
        bytes
    }

    fn end(&mut self) -> Vec<u8> {
        vec![0; std::mem::take(&mut self.padding)]
    }

    fn finish<E>(self, write: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Vec<String>, E> {
        write(&END)?;
        Ok(Vec::new())
    }
}

/// The number of zeros that follow `size` bytes of content.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (BLOCK - over) % BLOCK
}

/// The headers of an entry, or why an archive cannot hold it. `path` is relative; a directory's
/// ends with a slash.
fn headers(path: &[u8], node: &Node) -> Result<Begun, String> {
    let kind = match node.ty {
        NodeType::File => b'0',
        NodeType::Symlink => b'2',
        NodeType::CharDev => b'3',
        NodeType::Dev => b'4',
        NodeType::Dir => b'5',
        NodeType::Fifo => b'6',
        NodeType::Socket | NodeType::Irregular | NodeType::Unknown => {
            return Err(format!("a tar archive cannot hold a {}", node.ty.name()));
        }
    };
    if node.ty == NodeType::Symlink && (node.link_target.is_empty() || node.link_target.contains(&0)) {
        return Err("its link target is empty or contains a null byte".to_owned());
    }
    let (major, minor) = (rustix::fs::major(node.device), rustix::fs::minor(node.device));
    let is_device = matches!(node.ty, NodeType::Dev | NodeType::CharDev);
    if is_device && u64::from(major.max(minor)) > OCTAL_7 {
        return Err(format!("a tar archive cannot hold the device number {major}:{minor}"));
    }
    let mut begun = Begun::default();
    let records = records(path, node, &mut begun);
    let mut out = Vec::new();
    if !records.is_empty() {
        let mut header = [0; BLOCK];
        text(&mut header, 0..100, b"pax/extended");
        fill(&mut header, b'x', records.len() as u64);
        out.extend_from_slice(&header);
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64), 0);
    }
    let mut header = [0; BLOCK];
    text(&mut header, 0..100, path);
    octal(&mut header, 100..108, u64::from(mode::permissions(node.mode)));
    octal(&mut header, 108..116, u64::from(node.uid));
    octal(&mut header, 116..124, u64::from(node.gid));
    octal(&mut header, 136..148, u64::try_from(node.mtime.seconds).unwrap_or(0));
    text(&mut header, 157..257, &node.link_target);
    text(&mut header, 265..297, name(&node.user));
    text(&mut header, 297..329, name(&node.group));
    if is_device {
        octal(&mut header, 329..337, u64::from(major));
        octal(&mut header, 337..345, u64::from(minor));
    }
    fill(&mut header, kind, if node.ty == NodeType::File { node.size } else { 0 });
    out.extend_from_slice(&header);
    begun.bytes = out;
    Ok(begun)
}

/// The name of a user or group; empty if it contains a null byte, at which readers would cut it.
/// The number identifies the owner.
fn name(name: &str) -> &[u8] {
    if name.contains('\0') { b"" } else { name.as_bytes() }
}

/// The records of an extended header, for values that do not fit into the plain header.
fn records(path: &[u8], node: &Node, begun: &mut Begun) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut out, key, value);
    if path.len() > 100 {
        add(b"path", path);
    }
    if node.link_target.len() > 100 {
        add(b"linkpath", &node.link_target);
    }
    if node.ty == NodeType::File && node.size > OCTAL_11 {
        add(b"size", node.size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", node.uid), (b"gid", node.gid)] {
        if u64::from(id) > OCTAL_7 {
            add(key, id.to_string().as_bytes());
        }
    }
    for (key, text) in [(b"uname", &node.user), (b"gname", &node.group)] {
        if name(text).len() > 32 {
            add(key, name(text));
        }
        if text.contains('\0') {
            begun.losses.push(format!("the name {text:?} contains a null byte; only its number is stored"));
        }
    }
    let seconds = node.mtime.seconds;
    if node.mtime.nanos != 0 || u64::try_from(seconds).is_ok_and(|seconds| seconds > OCTAL_11) || seconds < 0 {
        add(b"mtime", decimal_time(seconds, node.mtime.nanos).as_bytes());
    }
    for xattr in &node.xattrs {
        match attribute(xattr, &mut begun.warnings) {
            Ok((key, value)) => add(&key, &value),
            Err(why) => begun.losses.push(why),
        }
    }
    out
}

/// The record of an extended attribute, or why it cannot be stored.
fn attribute<'x>(xattr: &'x Xattr, warnings: &mut Vec<String>) -> Result<(Vec<u8>, Cow<'x, [u8]>), String> {
    let Xattr { name, value } = xattr;
    let shown = || lossy(name);
    if let Some((_, key)) = posix_acl::RECORDS.iter().find(|(attribute, _)| attribute == name) {
        match posix_acl::to_text(value) {
            // The attribute is not stored as well: a program that restores both in the wrong order
            // would lose the list.
            Ok(text) => return Ok((key.to_vec(), text.into_bytes().into())),
            Err(why) => warnings.push(format!("{} is stored as a plain attribute: {why}", shown())),
        }
    }
    if name.is_empty() || name.contains(&0) {
        return Err(format!("the extended attribute {:?} has a name that an archive cannot hold", shown()));
    }
    let mut key = b"SCHILY.xattr.".to_vec();
    for &byte in name {
        // A key ends at the first `=`, so `=` and `%` are escaped as GNU tar writes and reads them.
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(byte),
        }
    }
    Ok((key, value.as_slice().into()))
}

/// `length key=value\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Seconds with a fraction; before 1970 the fraction counts downwards from zero as the sign does.
fn decimal_time(seconds: i64, nanos: u32) -> String {
    let (sign, whole, nanos) = match (seconds < 0, nanos) {
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{whole}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes type, size, magic and checksum.
fn fill(header: &mut [u8; BLOCK], kind: u8, size: u64) {
    octal(header, 124..136, size.min(OCTAL_11));
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    octal(header, 148..155, sum);
}

/// Writes a text into a field, cut to its length.
fn text(header: &mut [u8; BLOCK], field: std::ops::Range<usize>, value: &[u8]) {
    let length = value.len().min(field.len());
    header[field.start..field.start + length].copy_from_slice(&value[..length]);
}

/// Writes a number as octal digits and a final null byte; a number that is too large becomes the
/// largest that fits.
fn octal(header: &mut [u8; BLOCK], field: std::ops::Range<usize>, value: u64) {
    let digits = field.len() - 1;
    let largest = (1 << (3 * digits)) - 1;
    let number = format!("{:0digits$o}", value.min(largest));
    header[field.start..field.start + digits].copy_from_slice(number.as_bytes());
    header[field.start + digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::time::Time;
    use std::io::Read;

    /// An independent reader finds the entries that were written.
    #[test]
    fn another_implementation_reads_every_kind_of_entry() {
        let long = "x".repeat(150);
        let file = Node {
            size: 5,
            mode: 0o640 | mode::SETUID,
            uid: 1_000_000_000,
            gid: 7,
            user: "someone".into(),
            mtime: Time::utc(1_700_000_000, 120_000_000),
            xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"\x00\xff=".to_vec() }],
            ..Node::new("f", NodeType::File)
        };
        let entries = [
            (format!("d/{long}\u{e9}").into_bytes(), file),
            (b"d/".to_vec(), Node::new("d", NodeType::Dir)),
            (b"l".to_vec(), Node { link_target: long.clone().into_bytes(), ..Node::new("l", NodeType::Symlink) }),
            (b"c".to_vec(), Node { device: rustix::fs::makedev(5, 1), ..Node::new("c", NodeType::CharDev) }),
            (b"\xff".to_vec(), Node { mtime: Time::utc(-2, 750_000_000), ..Node::new("p", NodeType::Fifo) }),
        ];
        let mut archive = Vec::new();
        for (path, node) in &entries {
            archive.extend(headers(path, node).unwrap().bytes);
            if node.ty == NodeType::File {
                archive.extend_from_slice(b"hello");
                archive.resize(archive.len() + padding(5), 0);
            }
        }
        archive.extend_from_slice(&END);
        let mut reader = tar::Archive::new(&archive[..]);
        let mut count = 0;
        for (entry, (path, node)) in reader.entries().unwrap().zip(&entries) {
            let mut entry = entry.unwrap();
            count += 1;
            assert_eq!(&*entry.path_bytes(), &path[..]);
            assert_eq!(entry.header().mode().unwrap() & 0o7777, mode::permissions(node.mode));
            assert_eq!(entry.link_name_bytes().unwrap_or_default(), &node.link_target[..]);
            if node.ty == NodeType::CharDev {
                assert_eq!(
                    (entry.header().device_major().unwrap(), entry.header().device_minor().unwrap()),
                    (Some(5), Some(1))
                );
            }
            let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
            for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
                let extension = extension.unwrap();
                pax.push((extension.key().unwrap().to_owned(), extension.value_bytes().to_vec()));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            match node.ty {
                NodeType::File => {
                    assert_eq!(content, b"hello");
                    let expected: [(&str, &[u8]); 4] = [
                        ("path", path),
                        ("uid", b"1000000000"),
                        ("mtime", b"1700000000.12"),
                        ("SCHILY.xattr.user.a", b"\x00\xff="),
                    ];
                    assert_eq!(pax, expected.map(|(key, value)| (key.to_owned(), value.to_vec())));
                }
                NodeType::Fifo => assert_eq!(pax, [("mtime".to_owned(), b"-1.25".to_vec())]),
                _ => {}
            }
        }
        assert_eq!(count, entries.len());
        assert!(headers(b"s", &Node::new("s", NodeType::Socket)).is_err());
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for value in [0, 86, 87, 88, 89, 985, 986, 987] {
            let mut out = Vec::new();
            record(&mut out, b"key", &vec![b'v'; value]);
            let (length, _) = out.split_at(out.iter().position(|&byte| byte == b' ').unwrap());
            assert_eq!(std::str::from_utf8(length).unwrap(), out.len().to_string());
        }
    }
}
