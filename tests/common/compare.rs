//! Compares two directory trees node by node, without code of the engine.
//!
//! It compares everything that a restore must reproduce: type, content, owner, mode, modification
//! time to the nanosecond, extended attributes with ACLs, link targets, device numbers, and which
//! names are one file. It ignores change times, access times and inode numbers, which no tool can
//! restore.

use rustix::fs::SeekFrom;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The property in which two nodes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    Missing,
    Extra,
    Type,
    Content,
    Mode,
    Owner,
    Mtime,
    Attributes,
    Target,
    Device,
    /// The names that are one file with this one.
    Links,
    /// Holes became data, or data holes.
    Holes,
}

/// One difference. Paths are relative to the trees' roots; the root itself is ".".
#[derive(Clone, Debug)]
pub struct Difference {
    pub path: PathBuf,
    pub what: What,
    pub source: String,
    pub restored: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {:?}: {} became {}", self.path, self.what, self.source, self.restored)
    }
}

/// What to compare beyond the usual.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Compare the two root directories' own owner, mode, time and attributes.
    pub root: bool,
    /// Compare the space that files take on disk.
    pub holes: bool,
}

/// All differences between the tree at `source` and the one at `restored`.
pub fn trees(source: &Path, restored: &Path, options: Options) -> Vec<Difference> {
    let (left, right) = (Tree::read(source), Tree::read(restored));
    let mut found = Vec::new();
    for (path, old) in &left.nodes {
        match right.nodes.get(path) {
            Some(new) if path.as_os_str() != "." || options.root => compare(path, old, new, options, &mut found),
            Some(_) => {}
            None => found.push(difference(path, What::Missing, old.kind(), "nothing")),
        }
    }
    for (path, new) in &right.nodes {
        if !left.nodes.contains_key(path) {
            found.push(difference(path, What::Extra, "nothing", new.kind()));
        }
    }
    links(&left, &right, &mut found);
    found
}

/// Panics with all differences, if there are any.
pub fn assert_same(source: &Path, restored: &Path, options: Options) {
    let found = trees(source, restored, options);
    assert!(found.is_empty(), "{restored:?} is not {source:?}:\n{}", listed(&found));
}

/// restic stores sockets, but no tool restores them.
pub fn assert_only_the_socket_is_missing(source: &Path, restored: &Path, options: Options) {
    let mut found = trees(source, restored, options);
    found.retain(|one| one.path != Path::new("special/socket"));
    assert!(found.is_empty(), "{}", listed(&found));
}

pub fn listed(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("  {difference}\n")).collect()
}

fn difference(path: &Path, what: What, source: impl fmt::Display, restored: impl fmt::Display) -> Difference {
    Difference { path: path.to_owned(), what, source: source.to_string(), restored: restored.to_string() }
}

struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

struct Node {
    path: PathBuf,
    meta: Metadata,
}

impl Tree {
    fn read(root: &Path) -> Tree {
        let mut nodes = BTreeMap::new();
        let mut open = vec![(PathBuf::from("."), root.to_owned())];
        while let Some((relative, path)) = open.pop() {
            let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("{path:?}: {error}"));
            if meta.is_dir() {
                for entry in std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")) {
                    let entry = entry.expect("a directory entry");
                    let below = if relative.as_os_str() == "." {
                        entry.file_name().into()
                    } else {
                        relative.join(entry.file_name())
                    };
                    open.push((below, entry.path()));
                }
            }
            nodes.insert(relative, Node { path, meta });
        }
        Tree { nodes }
    }

    /// Maps each name of a node with several names in this tree to all of its names.
    fn groups(&self) -> HashMap<&Path, Vec<&Path>> {
        let mut by_inode: HashMap<(u64, u64), Vec<&Path>> = HashMap::new();
        for (path, node) in &self.nodes {
            if !node.meta.is_dir() && node.meta.nlink() > 1 {
                by_inode.entry((node.meta.dev(), node.meta.ino())).or_default().push(path);
            }
        }
        by_inode
            .into_values()
            .filter(|names| names.len() > 1)
            .flat_map(|names| names.clone().into_iter().map(move |name| (name, names.clone())))
            .collect()
    }
}

impl Node {
    fn kind(&self) -> &'static str {
        let kind = self.meta.file_type();
        match () {
            () if kind.is_file() => "a file",
            () if kind.is_dir() => "a directory",
            () if kind.is_symlink() => "a symlink",
            () if kind.is_fifo() => "a fifo",
            () if kind.is_socket() => "a socket",
            () if kind.is_char_device() => "a character device",
            () if kind.is_block_device() => "a block device",
            () => "something unknown",
        }
    }

    fn mtime(&self) -> String {
        format!("{}.{:09}", self.meta.mtime(), self.meta.mtime_nsec())
    }

    fn target(&self) -> String {
        let target = std::fs::read_link(&self.path).unwrap_or_else(|error| panic!("{:?}: {error}", self.path));
        format!("{target:?}")
    }

    /// Names and values of the extended attributes, in order of the names.
    fn attributes(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let names = xattr::list(&self.path).unwrap_or_else(|error| panic!("{:?}: {error}", self.path));
        let value = |name: &OsStr| {
            xattr::get(&self.path, name).ok().flatten().unwrap_or_else(|| panic!("{:?}: {name:?}", self.path))
        };
        names.map(|name| (name.as_bytes().to_vec(), value(&name))).collect()
    }
}

fn compare(path: &Path, old: &Node, new: &Node, options: Options, found: &mut Vec<Difference>) {
    if old.kind() != new.kind() {
        found.push(difference(path, What::Type, old.kind(), new.kind()));
        return;
    }
    let mut differ = |what, source: String, restored: String| {
        if source != restored {
            found.push(difference(path, what, source, restored));
        }
    };
    let kind = old.meta.file_type();
    differ(What::Owner, owner(&old.meta), owner(&new.meta));
    differ(What::Mtime, old.mtime(), new.mtime());
    differ(What::Attributes, readable(&old.attributes()), readable(&new.attributes()));
    if kind.is_symlink() {
        differ(What::Target, old.target(), new.target());
    } else {
        differ(What::Mode, format!("{:o}", old.meta.mode()), format!("{:o}", new.meta.mode()));
    }
    if kind.is_char_device() || kind.is_block_device() {
        differ(What::Device, device(&old.meta), device(&new.meta));
    }
    if kind.is_file() {
        if let Some((source, restored)) = contents(old, new) {
            differ(What::Content, source, restored);
        }
        if options.holes && room_differs(&old.meta, &new.meta) {
            differ(What::Holes, room(&old.meta), room(&new.meta));
        }
    }
}

fn owner(meta: &Metadata) -> String {
    format!("{}:{}", meta.uid(), meta.gid())
}

fn device(meta: &Metadata) -> String {
    format!("{},{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
}

fn readable(attributes: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let one = |(name, value): (&Vec<u8>, &Vec<u8>)| format!("{}={}", name.escape_ascii(), value.escape_ascii());
    format!("[{}]", attributes.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn room(meta: &Metadata) -> String {
    format!("{} of {} bytes on disk", meta.blocks() * 512, meta.len())
}

/// A restored file may take up to 1/64 or 64 KiB more space than the source (extents, partial
/// blocks), and any amount less: a restore may turn runs of zeros into holes.
fn room_differs(old: &Metadata, new: &Metadata) -> bool {
    new.blocks() * 512 > old.blocks() * 512 + (old.blocks() * 512 / 64).max(64 << 10)
}

/// The first difference in content, or `None`. Skips ranges that are holes in both files: both read
/// as zeros there.
fn contents(old: &Node, new: &Node) -> Option<(String, String)> {
    let lens = (old.meta.len(), new.meta.len());
    if lens.0 != lens.1 {
        return Some((format!("{} bytes", lens.0), format!("{} bytes", lens.1)));
    }
    let open = |node: &Node| File::open(&node.path).unwrap_or_else(|error| panic!("{:?}: {error}", node.path));
    let (left, right) = (open(old), open(new));
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < lens.0 {
        at = next_data(&left, at, lens.0).min(next_data(&right, at, lens.0));
        let len = (lens.0 - at).min(1 << 20) as usize;
        left.read_exact_at(&mut one[..len], at).expect("the source is readable");
        right.read_exact_at(&mut other[..len], at).expect("the restored file is readable");
        if let Some(offset) = (0..len).find(|offset| one[*offset] != other[*offset]) {
            let place = at + offset as u64;
            return Some((format!("byte {place} = {:#04x}", one[offset]), format!("{:#04x}", other[offset])));
        }
        at += len as u64;
    }
    None
}

fn next_data(file: &File, at: u64, len: u64) -> u64 {
    rustix::fs::seek(file, SeekFrom::Data(at)).unwrap_or(len)
}

/// Reports each group of names once, at its first name.
fn links(left: &Tree, right: &Tree, found: &mut Vec<Difference>) {
    let (old, new) = (left.groups(), right.groups());
    let mut seen = std::collections::HashSet::new();
    let mut paths: Vec<&Path> = old.keys().chain(new.keys()).copied().collect();
    paths.sort();
    for path in paths {
        let alone = vec![path];
        let (source, restored) = (old.get(path).unwrap_or(&alone), new.get(path).unwrap_or(&alone));
        let fresh = seen.insert((source.clone(), restored.clone()));
        if fresh && source != restored && !restored.is_empty() && right.nodes.contains_key(path) {
            found.push(difference(path, What::Links, format!("one of {source:?}"), format!("one of {restored:?}")));
        }
    }
}
