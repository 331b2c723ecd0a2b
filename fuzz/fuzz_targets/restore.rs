//! Fuzzes restores of a forged snapshot into a target with planted entries: nothing outside the
//! target changes, and a restore that reports no problem has restored every byte.
//!
//! The fuzzer has the rights of its user. An entry that escaped from the target would go where the
//! names below lead: beside the target.
#![no_main]
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use vsm::format::node::{Node, NodeType, Xattr};
use vsm::format::snapshot::Snapshot;
use vsm::format::time::Time;
use vsm::id::Id;
use vsm::progress::Progress;
use vsm::repo::writer::{WriteMode, Writer};
use vsm::repo::{Index, Repository, StoredSnapshot};
use vsm::restore::{Options, Overwrite, Restoring, run};
use vsm_fuzz::acts::open;
use vsm_fuzz::world::World;
use vsm_fuzz::{repository, scratch};

/// The parts of names. A part that climbs ends at the parent directory of the target.
const NAMES: [&str; 12] =
    ["a", "b", "c", "..", ".", "", "/", "../outside", "../outside/file", "a/b", "a\0b", "outside"];
/// The targets of links.
const TARGETS: [&str; 7] = ["../outside", "../outside/file", "..", "a", "b", ".", "/nowhere"];

#[derive(Arbitrary, Debug)]
struct Forged {
    /// The entries of each tree. A directory's tree is one of the earlier trees; the last tree is
    /// the root.
    trees: Vec<Vec<Entry>>,
    planted: Vec<Planted>,
    overwrite: u8,
    delete: bool,
    sparse: bool,
    verify: bool,
    dry_run: bool,
    volume: bool,
}

#[derive(Arbitrary, Debug)]
struct Entry {
    name: u8,
    kind: Kind,
    mode: u32,
    seconds: i32,
    owner: u16,
    links: u8,
    inode: u8,
    xattr: Option<(u8, u8)>,
    /// The size that the node claims, if not that of its content.
    size: Option<u64>,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    File(Vec<Piece>),
    Dir(u8),
    Link(u8),
    Device { character: bool, number: u64 },
    Fifo,
    Socket,
    Irregular,
}

#[derive(Arbitrary, Debug)]
enum Piece {
    Text(u8),
    Zeros(u16),
    /// A blob that does not exist.
    Missing,
}

#[derive(Arbitrary, Debug)]
enum Planted {
    File(u8),
    Dir(u8),
    Link(u8, u8),
}

const OVERWRITES: [Overwrite; 4] = [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never];
/// The maximum number of entries, trees and pieces: small cases are enough.
const MOST: usize = 6;

fn pick<T: Copy>(list: &[T], which: u8) -> T {
    list[usize::from(which) % list.len()]
}

fn plaintext(piece: &Piece) -> Option<Vec<u8>> {
    match piece {
        Piece::Text(seed) => Some(vec![*seed | 1; 1 + usize::from(*seed) * 40]),
        Piece::Zeros(length) => Some(vec![0; 1 + usize::from(*length)]),
        Piece::Missing => None,
    }
}

fn node(entry: &Entry, trees: &[Id], writer: &Writer) -> Node {
    let mut node = Node::new(pick(&NAMES, entry.name), NodeType::File);
    match &entry.kind {
        Kind::File(pieces) => {
            let store = |piece: &Piece| match plaintext(piece) {
                Some(bytes) => (writer.store_chunks(&[&bytes]).expect("stored")[0], bytes.len()),
                None => (Id::of(b"missing"), 0),
            };
            let stored: Vec<_> = pieces.iter().take(MOST).map(store).collect();
            node.size = stored.iter().map(|(_, length)| *length as u64).sum();
            node.content = Some(stored.into_iter().map(|(id, _)| id).collect());
        }
        Kind::Dir(which) => {
            node.ty = NodeType::Dir;
            node.subtree = trees.get(usize::from(*which) % (trees.len() + 1)).copied();
        }
        Kind::Link(target) => {
            node.ty = NodeType::Symlink;
            node.link_target = pick(&TARGETS, *target).into();
        }
        Kind::Device { character, number } => {
            node.ty = if *character { NodeType::CharDev } else { NodeType::Dev };
            node.device = *number;
        }
        Kind::Fifo => node.ty = NodeType::Fifo,
        Kind::Socket => node.ty = NodeType::Socket,
        Kind::Irregular => node.ty = NodeType::Irregular,
    }
    node.mode = entry.mode;
    node.mtime = Time::utc(i64::from(entry.seconds), 5);
    node.atime = node.mtime;
    (node.uid, node.gid) = (u32::from(entry.owner), u32::from(entry.owner >> 3));
    (node.links, node.inode) = (u64::from(entry.links), u64::from(entry.inode));
    if let Some((name, value)) = entry.xattr {
        let name =
            pick(&["user.a", "user.", "trusted.b", "security.capability", "a/b", "system.posix_acl_access"], name);
        node.xattrs.push(Xattr { name: name.into(), value: vec![value; usize::from(value)] });
    }
    node.size = entry.size.unwrap_or(node.size);
    node
}

/// Stores the trees in the repository, and returns the id of the last one.
fn forge(repo: &Arc<Repository>, forged: &Forged) -> Id {
    let writer =
        Writer::new(repo.clone(), Arc::new(Index::load(repo).expect("an index")), WriteMode::Upload).expect("a writer");
    let mut trees = Vec::new();
    for entries in forged.trees.iter().take(MOST) {
        let mut json = b"{\"nodes\":[".to_vec();
        for (number, entry) in entries.iter().take(MOST).enumerate() {
            json.extend_from_slice(if number == 0 { b"" } else { b"," });
            node(entry, &trees, &writer).write_json(&mut json);
        }
        json.extend_from_slice(b"]}\n");
        trees.push(writer.store_tree(&json).expect("stored"));
    }
    let root = trees.last().copied().unwrap_or_else(|| writer.store_tree(b"{\"nodes\":[]}\n").expect("stored"));
    writer.finish().expect("written");
    root
}

/// The entries outside the target, with the metadata that would show a change.
fn outside(dir: &Path) -> Vec<(Vec<u8>, u32, u32, i64, i64, u64)> {
    let mut seen = Vec::new();
    for path in [dir.to_owned(), dir.join("outside"), dir.join("outside/file")] {
        let about = fs::symlink_metadata(&path).expect("an entry");
        seen.push((
            path.as_os_str().as_bytes().to_vec(),
            about.mode(),
            about.uid(),
            about.mtime(),
            about.mtime_nsec(),
            about.nlink(),
        ));
    }
    seen
}

fuzz_target!(|forged: Forged| {
    let dir = scratch();
    fs::create_dir(dir.path().join("outside")).expect("a directory");
    fs::write(dir.path().join("outside/file"), "precious").expect("a file");
    let target = dir.path().join("target");
    fs::create_dir(&target).expect("a directory");
    for planted in forged.planted.iter().take(MOST) {
        let at = |name: &u8| target.join(pick(&["a", "b", "c", "a/b", "outside"], *name));
        let (Planted::File(name) | Planted::Dir(name) | Planted::Link(name, _)) = planted;
        // Nothing is planted through a link that was planted before.
        if at(name).parent().is_some_and(Path::is_symlink) {
            continue;
        }
        // An entry that cannot be planted is skipped.
        let _ = match planted {
            Planted::File(name) => fs::File::create_new(at(name)).and_then(|mut file| file.write_all(b"planted")),
            Planted::Dir(name) => fs::create_dir(at(name)),
            Planted::Link(name, leads) if !leads.is_multiple_of(8) => symlink(pick(&TARGETS, *leads), at(name)),
            Planted::Link(name, _) => symlink(dir.path().join("outside"), at(name)),
        };
    }
    let before = outside(dir.path());

    let repo = open(Arc::new(World::alone(repository()))).expect("it opens");
    let root = forge(&repo, &forged);
    let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{root}","paths":[]}}"#);
    let snapshot =
        StoredSnapshot { id: Id::of(b"s"), snapshot: Snapshot::decode(json.as_bytes()).expect("a snapshot") };
    let options = Options {
        overwrite: pick(&OVERWRITES, forged.overwrite),
        delete: forged.delete,
        sparse: forged.sparse,
        verify: forged.verify,
        dry_run: forged.dry_run,
        volume: forged.volume,
        plan_memory: 1 << 20,
        ..Options::new(&target)
    };
    let index = Index::load(&repo).expect("an index");
    let progress = Progress::silent();
    let restoring = Restoring { repo: &repo, index: &index, options: &options, progress: &progress };
    let restored = run(&restoring, &snapshot, b"");

    assert_eq!(outside(dir.path()), before);
    assert_eq!(fs::read(dir.path().join("outside/file")).expect("the file"), b"precious");
    let names = |path: &Path| fs::read_dir(path).expect("a directory").count();
    assert_eq!((names(dir.path()), names(&dir.path().join("outside"))), (2, 1));
    let whole = restored.is_ok_and(|report| report.problems == 0);
    if whole && !options.dry_run && options.overwrite == Overwrite::Always {
        demand_content(&forged, &target);
    }
});

/// Asserts that every file of the root has the bytes of its pieces.
fn demand_content(forged: &Forged, target: &Path) {
    for entry in forged.trees.iter().take(MOST).next_back().into_iter().flat_map(|entries| entries.iter().take(MOST)) {
        let Kind::File(pieces) = &entry.kind else { continue };
        let expected: Vec<u8> =
            pieces.iter().take(MOST).flat_map(|piece| plaintext(piece).expect("a missing one is a problem")).collect();
        let path = target.join(pick(&NAMES, entry.name));
        assert_eq!(fs::read(&path).expect("restored"), expected, "{}", path.display());
    }
}
