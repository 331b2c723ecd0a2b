//! Tests that with `--device-id all` our trees equal restic's byte for byte, so that they have the
//! same ids.

use crate::common::compare::{self, Options};
use crate::common::corpus::{self, Corpus};
use crate::common::loops::LoopFs;
use crate::common::peers::{Peer, Repo};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Stores st_dev for every node, as restic does.
pub const EXACT: [&str; 2] = ["--device-id", "all"];

/// The options with which `peer` stores the same bytes as restic.
pub fn exact(peer: Peer) -> &'static [&'static str] {
    if peer == Peer::Vsm { &EXACT } else { &[] }
}

/// Backs up `from`/`target` with restic and with ours, each into its own repository, and asserts
/// that the tree ids are equal.
fn demand_same_tree(from: &Path, target: &str, zone: &str) {
    let (theirs, ours) = (Repo::empty(2).in_zone(zone), Repo::empty(2).in_zone(zone));
    theirs.backup(Peer::Restic019, from, target, &[]);
    ours.backup(Peer::Vsm, from, target, &EXACT);
    demand_same_newest_tree(&theirs, &ours, &format!("TZ={zone}"));
}

/// Asserts that the newest snapshots of two repositories have the same tree, and lists the nodes
/// that differ.
pub fn demand_same_newest_tree(theirs: &Repo, ours: &Repo, context: &str) {
    let (expected, found) = (theirs.newest_tree(), ours.newest_tree());
    if expected != found {
        let mut lines = Vec::new();
        explain((theirs, &expected), (ours, &found), Path::new("/"), &mut lines);
        panic!("{context}: restic's tree is {expected}, ours {found}:\n{}", lines.join("\n"));
    }
}

/// Walks two trees and lists the first nodes that differ; only subtrees with different ids are
/// entered.
fn explain(theirs: (&Repo, &str), ours: (&Repo, &str), path: &Path, lines: &mut Vec<String>) {
    const LINES_MAX: usize = 40;
    let (left, right) = (theirs.0.tree(theirs.1), ours.0.tree(ours.1));
    let before = lines.len();
    for index in 0..left.len().max(right.len()) {
        let (old, new) = (left.get(index).unwrap_or(&Value::Null), right.get(index).unwrap_or(&Value::Null));
        if old == new || lines.len() >= LINES_MAX {
            continue;
        }
        let below = path.join(old["name"].as_str().or(new["name"].as_str()).unwrap_or("?"));
        let subtrees = (old["subtree"].as_str(), new["subtree"].as_str());
        if let (Some(one), Some(other)) = subtrees
            && one != other
        {
            explain((theirs.0, one), (ours.0, other), &below, lines);
        }
        let fields = old.as_object().into_iter().chain(new.as_object()).flat_map(|node| node.keys());
        for field in fields.collect::<BTreeSet<_>>() {
            if old[field] != new[field] && (field != "subtree" || subtrees.0.is_none() || subtrees.1.is_none()) {
                lines.push(format!(
                    "{}: {field}\n  restic {}\n  ours   {}",
                    below.display(),
                    short(&old[field]),
                    short(&new[field])
                ));
            }
        }
    }
    if lines.len() == before && left == right {
        lines.push(format!("{}: equal nodes, but other bytes (order of fields, escapes or spaces)", path.display()));
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(400).collect()
}

/// The corpus has every kind of node, name, time and attribute.
#[test]
fn tree_ids_are_restics() {
    let corpus = Corpus::shared();
    demand_same_tree(corpus.parent(), corpus::NAME, "UTC");
}

/// Times are stored with the writer's offset at that instant. The zones have summer time, half
/// hours, and (Monrovia before 1972) an offset with seconds; the corpus has times from 1901 to
/// 2446.
#[test]
fn tree_ids_are_restics_in_other_time_zones() {
    let corpus = Corpus::shared();
    for zone in ["America/New_York", "Asia/Kolkata", "Africa/Monrovia"] {
        demand_same_tree(corpus.parent(), corpus::NAME, zone);
    }
}

/// Entries that cannot be restored must be stored alike, too.
#[test]
fn tree_ids_are_restics_for_what_cannot_be_restored() {
    let fs = LoopFs::new(64 << 20);
    let root = fs.path().join("unrestorable");
    std::fs::create_dir(&root).expect("a directory");
    corpus::add_unrestorable(&root);
    demand_same_tree(fs.path(), "unrestorable", "UTC");
}

/// Each code point of Unicode in a name: both tools must quote the same ones.
#[test]
fn tree_ids_are_restics_for_every_code_point() {
    let fs = LoopFs::with_options(256 << 20, &["-N", "60000"]);
    let root = fs.path().join("code points");
    std::fs::create_dir(&root).expect("a directory");
    let mut points = (1..=0x10FFFF).filter_map(char::from_u32).filter(|point| *point != '/');
    let mut named = 0;
    for number in 0.. {
        // The "x" prevents the names "." and "..".
        let name: String = std::iter::once('x').chain(points.by_ref().take(60)).collect();
        if name.len() == 1 {
            break;
        }
        named += name.chars().count() - 1;
        let dir = root.join((number / 1000).to_string());
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join(&name), b"").unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
    assert_eq!(named, 0x110000 - 0x800 - 2, "all code points but surrogates, NUL and the slash");
    demand_same_tree(fs.path(), "code points", "UTC");
}

/// The second tool in a repository, with a parent or without, adds neither data nor trees.
#[test]
fn the_second_tool_adds_nothing() {
    let corpus = Corpus::shared();
    for format in [1, 2] {
        for (first, second) in [(Peer::Restic019, Peer::Vsm), (Peer::Vsm, Peer::Restic019)] {
            let repo = Repo::empty(format);
            let made = repo.backup(first, corpus.parent(), corpus::NAME, exact(first));
            assert!(made["data_blobs"].as_u64() > Some(20) && made["tree_blobs"].as_u64() > Some(50), "{made}");
            let expected = repo.newest_tree();
            for force in [false, true] {
                let extra: Vec<&str> = exact(second).iter().copied().chain(force.then_some("--force")).collect();
                let added = repo.backup(second, corpus.parent(), corpus::NAME, &extra);
                let context = format!("format {format}, {second:?} after {first:?}, force {force}: {added}");
                assert_eq!(repo.newest_tree(), expected, "{context}");
                assert_eq!((&added["data_blobs"], &added["tree_blobs"]), (&0.into(), &0.into()), "{context}");
                let unmodified = if force { 0 } else { made["files_new"].as_u64().expect("a count") };
                assert_eq!(added["files_unmodified"], unmodified, "{context}");
                assert_eq!(added["total_bytes_processed"], made["total_bytes_processed"], "{context}");
            }
            repo.check(Peer::Restic019).ok();
        }
    }
}

/// Without the option, the source's own device number is left out, so that a snapshot clone mounted
/// under another one adds no tree; hard links have a fixed number in its place, because rustic
/// links nothing without one. Everything else is as restic stores it.
#[test]
fn without_the_option_only_device_ids_are_left_out() {
    let corpus = Corpus::shared();
    let (theirs, ours) = (Repo::empty(2), Repo::empty(2));
    let dir = format!("{}/links", corpus::NAME);
    theirs.backup(Peer::Restic019, corpus.parent(), &dir, &[]);
    ours.backup(Peer::Vsm, corpus.parent(), &dir, &[]);
    let mut nodes = 0;
    let mut open = vec![(theirs.newest_tree(), ours.newest_tree())];
    while let Some((one, other)) = open.pop() {
        let (left, right) = (theirs.tree(&one), ours.tree(&other));
        assert_eq!(left.len(), right.len());
        for (mut old, mut new) in left.into_iter().zip(right) {
            if old["subtree"].is_string() {
                let below = |node: &mut Value| node["subtree"].take().as_str().expect("a tree id").to_owned();
                open.push((below(&mut old), below(&mut new)));
            }
            let device = old.as_object_mut().expect("a node").remove("device_id");
            assert!(device.is_some(), "restic stores it: {old}");
            let fixed = new.as_object_mut().expect("a node").remove("device_id");
            let linked = old["links"].as_u64().is_some_and(|links| links > 1);
            assert_eq!(fixed, linked.then(|| (1u64 << 32).into()), "{old}");
            assert_eq!(old, new);
            nodes += 1;
        }
    }
    assert!(nodes > 20, "{nodes} nodes");
}

/// A volume's clone, mounted under another device number, is the same tree and adds nothing.
#[test]
fn a_clone_adds_nothing() {
    let volume = LoopFs::new(32 << 20);
    let root = volume.path().join("volume");
    std::fs::create_dir_all(root.join("dir/empty")).expect("directories");
    std::fs::write(root.join("dir/file"), b"content").expect("a file");
    std::fs::hard_link(root.join("dir/file"), root.join("dir/same file")).expect("a hard link");
    std::os::unix::fs::symlink("file", root.join("dir/link")).expect("a link");
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a fifo");
    let clone = volume.duplicate();
    let device = |fs: &LoopFs| fs.path().metadata().expect("a directory").dev();
    assert_ne!(device(&volume), device(&clone));
    let repo = Repo::empty(2);
    let first = repo.backup(Peer::Vsm, volume.path(), "volume", &[]);
    assert_eq!(first["tree_blobs"], 4, "{first}");
    let second = repo.backup(Peer::Vsm, clone.path(), "volume", &[]);
    assert_eq!((&second["data_blobs"], &second["tree_blobs"]), (&0.into(), &0.into()), "{second}");
}

/// Trees that restic wrote in another zone restore to the same instants.
#[test]
fn times_stored_in_any_zone_restore_alike() {
    let corpus = Corpus::shared();
    let repo = Repo::empty(2).in_zone("America/New_York");
    repo.backup(Peer::Restic019, corpus.parent(), &format!("{}/times", corpus::NAME), &[]);
    let repo = repo.in_zone("Asia/Kolkata");
    let fs = LoopFs::new(64 << 20);
    repo.restore(Peer::Vsm, &format!("latest:/{}/times", corpus::NAME), &fs.path().join("times")).ok();
    compare::assert_same(&corpus.root().join("times"), &fs.path().join("times"), Options::default());
}
