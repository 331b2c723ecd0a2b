//! A directory tree with every node type, name, time, attribute and file shape that has ever broken
//! a tool.
//!
//! The tables of limitations of the peers refer to its paths, so paths are stable.

use super::Random;
use super::loops::LoopFs;
use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

/// The name of the corpus directory below the file system's root.
pub const NAME: &str = "corpus";

/// The corpus on a file system of its own.
pub struct Corpus {
    fs: LoopFs,
}

impl Corpus {
    /// The one corpus that all running tests share, and that none may write to.
    pub fn shared() -> Arc<Corpus> {
        static SHARED: Mutex<Weak<Corpus>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let corpus = Arc::new(Corpus::new());
            *shared = Arc::downgrade(&corpus);
            corpus
        })
    }

    /// A corpus for one test.
    pub fn new() -> Corpus {
        let fs = LoopFs::new(512 << 20);
        build(&fs.path().join(NAME));
        Corpus { fs }
    }

    /// The directory that holds `corpus`: back up from here, with the relative path [`NAME`], so
    /// that no directory of this machine gets into the tree.
    pub fn parent(&self) -> &Path {
        self.fs.path()
    }

    pub fn root(&self) -> PathBuf {
        self.fs.path().join(NAME)
    }
}

/// Builds the corpus as the new directory `root`. Directories get their times at the end, deepest
/// first.
fn build(root: &Path) {
    let mut tree = Builder { root: root.to_owned(), times: Vec::new() };
    let top = tree.dir("");
    names(&mut tree);
    files(&mut tree);
    special(&mut tree);
    links(&mut tree);
    times(&mut tree);
    modes_and_owners(&mut tree);
    attributes(&mut tree);
    directories(&mut tree);
    // The root of a volume has an owner, a mode and attributes of its own.
    xattr::set(&top, "user.on the root", b"root").expect("an attribute");
    rustix::fs::chownat(CWD, &top, Some(Uid::from_raw(12345)), Some(Gid::from_raw(1)), AtFlags::empty())
        .expect("an owner");
    std::fs::set_permissions(&top, Permissions::from_mode(0o2775)).expect("a mode");
    tree.finish();
}

/// Makes nodes below a root and records the times that they get in the end.
struct Builder {
    root: PathBuf,
    times: Vec<(PathBuf, Timespec)>,
}

/// 2023-07-05 04:03:02.012345678 UTC: the time of all nodes without a time of their own, so that no
/// node shows when the corpus was made.
const USUAL: Timespec = Timespec { tv_sec: 1_688_529_782, tv_nsec: 12_345_678 };

impl Builder {
    fn at(&mut self, path: impl AsRef<Path>) -> PathBuf {
        let full = if path.as_ref().as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) };
        self.times.push((full.clone(), USUAL));
        full
    }

    fn dir(&mut self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.at(path);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
        path
    }

    fn file(&mut self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.at(path);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
        path
    }

    fn symlink(&mut self, path: impl AsRef<Path>, target: &[u8]) -> PathBuf {
        let path = self.at(path);
        symlink(OsStr::from_bytes(target), &path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        path
    }

    fn node(&mut self, path: impl AsRef<Path>, kind: FileType, mode: u32, device: Dev) -> PathBuf {
        let path = self.at(path);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), device)
            .unwrap_or_else(|error| panic!("{path:?}: {error}"));
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        path
    }

    fn link(&mut self, existing: &str, path: &str) {
        let path = self.at(path);
        std::fs::hard_link(self.root.join(existing), &path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }

    fn time(&mut self, path: &Path, tv_sec: i64, tv_nsec: i64) {
        self.times.push((path.to_owned(), Timespec { tv_sec, tv_nsec }));
    }

    /// Sets all times. Later entries win, and a directory comes after its content.
    fn finish(mut self) {
        self.times.reverse();
        self.times.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        let mut done = std::collections::HashSet::new();
        for (path, time) in self.times {
            if done.insert(path.clone()) {
                let times = Timestamps { last_access: USUAL, last_modification: time };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .unwrap_or_else(|error| panic!("{path:?}: {error}"));
            }
        }
    }
}

/// Names: each byte alone, invalid and unusual UTF-8, every case that a quoting rule treats
/// specially.
fn names(tree: &mut Builder) {
    tree.dir("names");
    tree.dir("names/byte");
    for byte in (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        tree.file(Path::new("names/byte").join(OsStr::from_bytes(&[byte])), b"");
    }
    tree.dir("names/odd");
    let code_points = [
        0x00A0, // no-break space
        0x00AD, // soft hyphen
        0x0300, // a combining mark, alone
        0x0378, // unassigned
        0x200B, 0x200D, 0x200E, 0x2028, 0x2029, 0x202E, 0x2060, // format characters and separators
        0x3000, // ideographic space
        0xD7FF, 0xE000, // the edges of the surrogates; private use
        0xFDD0, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, // noncharacters, byte order mark, replacement character
        0x1F4AF, 0x1FAE8, 0x31350, // emoji; assigned in Unicode 15.0
        0x2FFC, 0x2EBF0, 0x105C0, // assigned later: 15.1, 15.1, 16.0
        0xE0001, 0xF0000, 0x10FFFF, // tags, private use, the last one
    ];
    for point in code_points {
        let name = format!("u{point:04x} {}", char::from_u32(point).expect("a code point"));
        tree.file(format!("names/odd/{name}"), name.as_bytes());
    }
    let sequences: [&[u8]; 22] = [
        b"lone surrogate \xED\xA0\x80",
        b"surrogate pair \xED\xA0\xBD\xED\xB2\xA9",
        b"overlong \xC0\xAF \xE0\x80\xAF \xF0\x80\x80\xAF",
        b"beyond the last \xF4\x90\x80\x80 \xF8\x88\x80\x80\x80",
        b"cut short \xE2\x82",
        b"cut short, then ascii \xE2\x82a",
        b"latin-1 caf\xE9",
        b"quotes ' \" `",
        b"back\\slash \\n \\x41 \\u0041 \\101",
        b"ends in backslash\\",
        b"new\nline\ttab\rreturn",
        b"<html>&amp;",
        b"json \\u003c\\ud83d",
        b" leading and trailing ",
        b"-leading-dash",
        b"~tilde",
        b"*glob?[a]{b}",
        b"#comment",
        b"$HOME ${HOME} %s %d",
        b"...",
        b"..data",
        b"co:lon",
    ];
    for name in sequences {
        tree.file(Path::new("names/odd").join(OsStr::from_bytes(name)), name);
    }
    tree.file("names/odd/e\u{301} decomposed", b"e + acute");
    tree.file("names/odd/\u{e9} composed", b"e acute");
    tree.dir("names/odd/a \"quoted\"\n<dir>\u{ad}\u{2028}");
    tree.file("names/odd/a \"quoted\"\n<dir>\u{ad}\u{2028}/inside", b"inside");
    tree.dir("names/long");
    tree.file(format!("names/long/{}", "n".repeat(255)), b"255 bytes");
    tree.file(Path::new("names/long").join(OsString::from_vec(vec![0xFF; 255])), b"255 bytes that quote to 1020");
    tree.file(format!("names/long/{}", "\u{1F4AF}".repeat(63)), b"252 bytes of emoji");
    // Names that sort differently by bytes, by quoted form, and with or without the type.
    tree.dir("names/order");
    for name in ["a", "a-", "a.b", "a0", "A", "Z", "_", "\u{e9}", "\u{2028}", "\u{1F4AF}", "\u{FFFD}"] {
        tree.file(format!("names/order/{name}"), name.as_bytes());
    }
    for name in ["a\u{1}", "b", "aa"] {
        tree.dir(format!("names/order/{name}"));
    }
    let mut random = Random(7);
    tree.dir("names/random");
    for _ in 0..100 {
        let len = 1 + random.below(40) as usize;
        let name: Vec<u8> =
            random.bytes(len).into_iter().map(|byte| if byte == 0 || byte == b'/' { 1 } else { byte }).collect();
        if name != b"." && name != b".." {
            tree.file(Path::new("names/random").join(OsStr::from_bytes(&name)), b"");
        }
    }
}

/// Contents: sizes around the chunker's limits, incompressible, periodic and zero data, holes in
/// every position.
fn files(tree: &mut Builder) {
    const MIN: usize = 512 << 10;
    tree.dir("files");
    tree.file("files/empty", b"");
    tree.file("files/one byte", b"x");
    tree.file("files/text", "All work and no play makes Jack a dull boy.\n".repeat(2000).as_bytes());
    for size in [MIN - 65, MIN - 64, MIN - 1, MIN, MIN + 1] {
        tree.file(format!("files/random {size}"), &Random(size as u64).bytes(size));
    }
    tree.file("files/random 12 MiB", &Random(42).bytes((12 << 20) + 4321));
    let period = Random(5).bytes(4099);
    tree.file("files/periodic", &period.iter().copied().cycle().take(3 << 20).collect::<Vec<_>>());
    // Data without a cut point: chunks of the largest size.
    tree.file("files/ones 17 MiB", &vec![1; 17 << 20]);
    tree.file("files/zeros", &vec![0; (3 << 20) + 17]);
    tree.file("files/duplicate of zeros", &vec![0; (3 << 20) + 17]);
    let mut zero_run = Random(9).bytes(6 << 20);
    zero_run[2_000_000..4_500_000].fill(0);
    tree.file("files/zero run inside", &zero_run);

    tree.dir("files/sparse");
    let mut sparse = |name: &str, len: u64, data: &[(u64, usize)]| {
        let path = tree.at(format!("files/sparse/{name}"));
        let mut file = File::create(&path).expect("a sparse file");
        file.set_len(len).expect("its length");
        for (at, size) in data {
            file.seek(SeekFrom::Start(*at)).expect("a place in it");
            file.write_all(&Random(*at + 1).bytes(*size)).expect("its data");
        }
        file.set_permissions(Permissions::from_mode(0o644)).expect("a mode");
    };
    sparse("hole only", 5 << 20, &[]);
    sparse("hole of odd length", (1 << 20) + 1, &[]);
    sparse("small hole", 4096, &[]);
    sparse("hole at the start", 8 << 20, &[(7 << 20, 4096)]);
    sparse("hole at the end", 8 << 20, &[(0, 100_000)]);
    sparse("holes between", 24 << 20, &[(0, 4096), (5 << 20, 700_000), (12_345_678, 4096), (23 << 20, 1 << 20)]);
    sparse("64 MiB, one byte at the end", 64 << 20, &[((64 << 20) - 1, 1)]);
}

/// FIFOs, devices with small and large numbers, a socket.
fn special(tree: &mut Builder) {
    use rustix::fs::makedev;
    tree.dir("special");
    tree.node("special/fifo", FileType::Fifo, 0o640, 0);
    tree.node("special/chardev", FileType::CharacterDevice, 0o666, makedev(1, 3));
    tree.node("special/chardev 0,0", FileType::CharacterDevice, 0o600, makedev(0, 0));
    tree.node("special/chardev large numbers", FileType::CharacterDevice, 0o620, makedev(4095, 1_048_575));
    tree.node("special/blockdev", FileType::BlockDevice, 0o660, makedev(7, 200));
    tree.node("special/blockdev large numbers", FileType::BlockDevice, 0o600, makedev(259, 70_000));
    tree.node("special/socket", FileType::Socket, 0o755, 0);
}

/// Symbolic links with every kind of target, and hard links of every kind of node.
fn links(tree: &mut Builder) {
    tree.dir("links");
    tree.symlink("links/relative", b"../files/text");
    tree.symlink("links/dangling", b"/no/such/file");
    tree.symlink("links/to a directory", b"../names");
    tree.symlink("links/loop", b"loop");
    tree.symlink("links/not utf-8", b"caf\xE9/\xFF\xFE/\xED\xA0\x80");
    tree.symlink("links/escapes", b"a\x08b\x0cc\nd\re\tf\x01g\x7fh\"i\\j<k>l&m");
    tree.symlink("links/unicode", "\u{2028}\u{2029}\u{a0}\u{ad}\u{fffd}\u{1F4AF}\u{0378}".as_bytes());
    tree.symlink("links/long", "t".repeat(4095).as_bytes());
    for dir in ["links/a", "links/b", "links/b/c"] {
        tree.dir(dir);
    }
    tree.file("links/a/group of three", &Random(3).bytes(700_000));
    tree.link("links/a/group of three", "links/b/group of three");
    tree.link("links/a/group of three", "links/b/c/another name");
    tree.file("links/a/empty pair", b"");
    tree.link("links/a/empty pair", "links/a/empty pair too");
    tree.file("links/a/outside", b"its other name is not in the corpus");
    std::fs::hard_link(tree.root.join("links/a/outside"), tree.root.with_extension("outside")).expect("a hard link");
    tree.symlink("links/a/symlink pair", b"group of three");
    tree.link("links/a/symlink pair", "links/b/symlink pair");
    tree.node("links/a/fifo pair", FileType::Fifo, 0o600, 0);
    tree.link("links/a/fifo pair", "links/b/fifo pair");
    tree.node("links/a/chardev pair", FileType::CharacterDevice, 0o600, rustix::fs::makedev(1, 5));
    tree.link("links/a/chardev pair", "links/b/chardev pair");
}

/// Modification times over the whole range of the file system: 1901 to 2446, with nanoseconds.
fn times(tree: &mut Builder) {
    tree.dir("times");
    let moments: [(&str, i64, i64); 15] = [
        ("1901, the first", -2_147_483_648, 0),
        ("1915, before time zones settled", -1_735_689_599, 1),
        ("1960, in a zone of odd seconds", -315_619_200, 5_000_000),
        ("1969, the last nanosecond", -1, 999_999_999),
        ("1970, the first", 0, 0),
        ("1970, one nanosecond in", 0, 1),
        ("summer", 1_720_000_000, 120_000_000),
        ("winter", 1_705_000_000, 999_999_990),
        ("leap day", 1_709_251_199, 100),
        ("repeated hour", 1_699_163_999, 1_000),
        ("2038", 2_147_483_648, 10),
        ("2106", 4_294_967_296, 999_999_999),
        ("2262, the last of 64-bit nanoseconds", 9_223_372_036, 854_775_807),
        ("2262, one past", 9_223_372_036, 854_775_808),
        ("2446, the last", 15_032_385_535, 999_999_999),
    ];
    for (name, seconds, nanoseconds) in moments {
        let path = tree.file(format!("times/{name}"), name.as_bytes());
        tree.time(&path, seconds, nanoseconds);
    }
    let dir = tree.dir("times/old directory");
    tree.time(&dir, -1_000_000_000, 7);
    let link = tree.symlink("times/old symlink", b"target");
    tree.time(&link, -1_000_000_001, 700);
    let fifo = tree.node("times/old fifo", FileType::Fifo, 0o644, 0);
    tree.time(&fifo, -1_000_000_002, 70_000);
}

fn modes_and_owners(tree: &mut Builder) {
    tree.dir("modes");
    for mode in [0, 0o400, 0o111, 0o777, 0o4755, 0o2755, 0o1644, 0o7777, 0o6000] {
        let file = tree.file(format!("modes/file {mode:04o}"), format!("{mode:o}").as_bytes());
        let dir = tree.dir(format!("modes/dir {mode:04o}"));
        tree.file(format!("modes/dir {mode:04o}/inside"), b"");
        for path in [file, dir] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
        }
    }
    let fifo = tree.node("modes/fifo 1777", FileType::Fifo, 0o1777, 0);
    std::fs::set_permissions(fifo, Permissions::from_mode(0o1777)).expect("a mode");

    tree.dir("owners");
    // Owners with and without a name on this machine, up to the largest number.
    for (uid, gid) in [(0, 1), (1, 0), (1, 1), (65534, 65534), (12345, 54321), (4_294_967_294, 4_294_967_294)] {
        let file = tree.file(format!("owners/file {uid} {gid}"), b"");
        let dir = tree.dir(format!("owners/dir {uid} {gid}"));
        let link = tree.symlink(format!("owners/symlink {uid} {gid}"), b"target");
        let setuid = tree.file(format!("owners/setuid {uid} {gid}"), b"");
        for path in [&file, &dir, &link, &setuid] {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).expect("an owner");
        }
        std::fs::set_permissions(setuid, Permissions::from_mode(0o6755)).expect("a mode");
    }
}

/// A POSIX ACL as the kernel stores it: version 2, then (tag, permissions, id) in order of tag and
/// id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut raw = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        raw.extend(tag.to_le_bytes());
        raw.extend(permissions.to_le_bytes());
        raw.extend(id.to_le_bytes());
    }
    raw
}

/// Extended attributes: user, trusted, capabilities, labels, ACLs; empty, binary and large values;
/// many at once.
fn attributes(tree: &mut Builder) {
    const NOBODY: u32 = u32::MAX;
    let set = |path: &Path, name: &str, value: &[u8]| {
        xattr::set(path, name, value).unwrap_or_else(|error| panic!("{name} on {path:?}: {error}"));
    };
    tree.dir("xattrs");
    let file = tree.file("xattrs/user", b"user");
    set(&file, "user.text", b"value");
    set(&file, "user.empty", b"");
    set(&file, "user.binary", &[0, 255, 254, 10, 13, 0]);
    set(&file, "user.name with <odd> \"characters\" \u{2028}\u{1F4AF}\\", b"odd");
    set(&file, "user.a", b"set after others, sorts before them");
    let file = tree.file("xattrs/many", b"many");
    for number in 0..40 {
        set(&file, &format!("user.number {number}"), format!("value {number}").as_bytes());
    }
    let file = tree.file("xattrs/large", b"large");
    set(&file, "user.large", &Random(11).bytes(3500));
    let file = tree.file("xattrs/trusted", b"trusted");
    set(&file, "trusted.overlay.opaque", b"y");
    let dir = tree.dir("xattrs/dir");
    set(&dir, "user.on a directory", b"dir");
    set(&dir, "trusted.on a directory", b"dir");
    let link = tree.symlink("xattrs/symlink", b"nowhere");
    set(&link, "trusted.on a symlink", b"link");
    let fifo = tree.node("xattrs/fifo", FileType::Fifo, 0o644, 0);
    set(&fifo, "trusted.on a fifo", b"fifo");
    let device = tree.node("xattrs/chardev", FileType::CharacterDevice, 0o644, rustix::fs::makedev(1, 3));
    set(&device, "trusted.on a device", b"device");
    let read_only = tree.file("xattrs/read-only file", b"0444");
    set(&read_only, "user.kept", b"kept");
    std::fs::set_permissions(read_only, Permissions::from_mode(0o444)).expect("a mode");

    // cap_net_bind_service+ep, revision 2; and with a root user id, revision 3.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let file = tree.file("xattrs/capability", b"#!/bin/true\n");
    std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("a mode");
    set(&file, "security.capability", &capability);
    let file = tree.file("xattrs/capability of an owner", b"#!/bin/true\n");
    rustix::fs::chownat(CWD, &file, Some(Uid::from_raw(12345)), None, AtFlags::empty()).expect("an owner");
    set(&file, "security.capability", &capability);
    let file = tree.file("xattrs/label", b"label");
    set(&file, "security.selinux", b"system_u:object_r:container_file_t:s0:c1,c2\0");

    let access = acl(&[
        (1, 6, NOBODY),
        (2, 4, 1),
        (2, 7, 12345),
        (4, 4, NOBODY),
        (8, 5, 54321),
        (16, 7, NOBODY),
        (32, 0, NOBODY),
    ]);
    let default = acl(&[(1, 7, NOBODY), (2, 5, 12345), (4, 5, NOBODY), (16, 5, NOBODY), (32, 1, NOBODY)]);
    let file = tree.file("xattrs/acl", b"acl");
    set(&file, "system.posix_acl_access", &access);
    let dir = tree.dir("xattrs/acl dir");
    // A file made before the default ACL: restoring must not let it inherit one.
    tree.file("xattrs/acl dir/inherits nothing", b"");
    set(&dir, "system.posix_acl_access", &access);
    set(&dir, "system.posix_acl_default", &default);
    tree.file("xattrs/acl dir/inherits", b"");
}

/// Deep, empty, and marked directories.
fn directories(tree: &mut Builder) {
    tree.dir("dirs");
    tree.dir("dirs/empty");
    let mut deep = String::from("dirs/deep");
    tree.dir(&deep);
    for level in 0..60 {
        deep.push_str(&format!("/level {level}"));
        tree.dir(&deep);
    }
    tree.file(format!("{deep}/bottom"), b"bottom");
    tree.dir("dirs/cache");
    tree.file("dirs/cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");
    tree.file("dirs/cache/cached", b"kept unless asked otherwise");
    tree.dir("dirs/wide");
    for number in 0..500 {
        tree.file(format!("dirs/wide/{number}"), number.to_string().as_bytes());
    }
}

/// Adds an entry that every tool must store but none can restore faithfully. It is not part of the
/// corpus, which is restored.
pub fn add_unrestorable(root: &Path) {
    let path = root.join("attribute name not utf-8");
    std::fs::write(&path, b"").expect("a file");
    xattr::set(&path, OsStr::from_bytes(b"user.caf\xE9 \xED\xA0\x80"), b"value").expect("an attribute");
}
