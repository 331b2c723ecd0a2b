//! Tests of whole restores from handmade repositories: restored entries, untouched entries, and
//! reports.

mod bed;
mod hostile;
mod occupied;
mod outages;
mod roots;
mod rules;
mod sinks;

use super::directory::open_root;
use super::dirs::Dirs;
use super::durable::FileSystems;
use super::fetch::{Piece, Sink};
use super::file::Files;
use super::file_states::{FileStates, State};
use super::image::Image;
use super::origin::Origin;
use super::plan::memory::PlanBudget;
use super::plan::planner;
use super::plan::table::Use;
use super::prepare::compare::Compare;
use super::selection::Selection;
use super::target::Target;
use super::walk::Walk;
use super::zeros::Fill;
use super::*;
use crate::format::node::{Node, NodeType, Xattr, mode};
use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::format::tree::TreeWriter;
use crate::format::{BlobType, Version};
use crate::id::Id;
use crate::pattern::{Case, Patterns};
use crate::progress::{Event, Progress};
use crate::repo::writer::{WriteMode, Writer};
use crate::repo::{Index, InitOptions, Password, Repository, Settings};
use crate::store::folder::Folder;
use bed::*;
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A small tree with every type of entry that needs no privilege.
fn sample(bed: &Bed) -> Id {
    bed.store(|blobs| {
        let linked = |name: &str| Node { links: 2, inode: 77, ..blobs.file(name, &[b"linked"]) };
        let below = blobs.tree(vec![blobs.file("deep", &[b"deep"]), linked("other name")]);
        blobs.tree(vec![
            blobs.file("plain", &[b"first ", b"second"]),
            blobs.file("empty", &[]),
            linked("name"),
            link("link", "plain"),
            node("fifo", NodeType::Fifo, 0o600),
            Node { mode: mode::from_unix(0o106_750), ..blobs.file("setuid", &[b"#!"]) },
            dir("dir", below),
        ])
    })
}

#[test]
fn a_tree_is_restored_completely() {
    let bed = Bed::new();
    let root = sample(&bed);
    let report = bed.restore(root, |options| options.verify = true).whole();
    assert_eq!((report.files_restored, report.total_files, report.files_skipped), (9, 9, 0));
    assert_eq!((report.bytes_restored, report.total_bytes), (24, 24));
    assert_eq!(fs::read(bed.at("plain")).unwrap(), b"first second");
    assert_eq!(fs::read(bed.at("empty")).unwrap(), b"");
    assert_eq!(fs::read_link(bed.at("link")).unwrap(), Path::new("plain"));
    assert_eq!(fs::metadata(bed.at("setuid")).unwrap().mode() & 0o7777, 0o6750);
    let inode = |path| fs::metadata(bed.at(path)).unwrap().ino();
    assert_eq!(inode("name"), inode("dir/other name"));
    for path in ["plain", "empty", "name", "link", "fifo", "setuid", "dir", "dir/deep"] {
        assert_eq!(mtime(&bed.at(path)), STAMP, "{path}");
    }
    assert_eq!(fs::metadata(bed.at("dir")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn hard_links_with_different_content_are_restored_as_separate_files() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let named = |name: &str, content: &[u8]| Node { links: 4, inode: 77, ..blobs.file(name, &[content]) };
        let to = |name: &str, target: &str| Node { links: 2, inode: 78, ..link(name, target) };
        blobs.tree(vec![
            named("a", b"old"),
            named("b", b"new"),
            named("c", b"old"),
            named("d", b""),
            to("e", "a"),
            to("f", "b"),
        ])
    });
    bed.restore(root, |options| options.verify = true).whole();
    let content = |name: &str| fs::read(bed.at(name)).unwrap();
    assert_eq!(["a", "b", "c", "d"].map(content), [&b"old"[..], b"new", b"old", b""]);
    let inode = |name: &str| fs::metadata(bed.at(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("c"));
    assert_eq!(fs::read_link(bed.at("f")).unwrap(), Path::new("b"));
}

#[test]
fn zeros_in_new_files_stay_holes() {
    let bed = Bed::new();
    let zeros = vec![0; 1 << 20];
    let mixed = [&vec![1; 4096][..], &zeros, &[1; 4096]].concat();
    let root = bed.store(|blobs| {
        let pieces: Vec<&[u8]> = std::iter::once(&b"x"[..]).chain((0..64).map(|_| &zeros[..])).collect();
        blobs.tree(vec![
            blobs.file("zeros", &pieces),
            blobs.file("mixed", &[&mixed]),
            blobs.file("tail", &[&mixed, &zeros]),
            blobs.file("one", &[&zeros]),
        ])
    });
    let blocks = |path| fs::metadata(bed.at(path)).unwrap().blocks() * 512;
    bed.restore(root, |options| options.verify = true).whole();
    assert_eq!(fs::metadata(bed.at("zeros")).unwrap().len(), (64 << 20) + 1);
    for path in ["zeros", "mixed", "tail", "one"] {
        assert!(blocks(path) <= 16 << 10, "{path} takes {} bytes", blocks(path));
    }
    assert_eq!(fs::read(bed.at("tail")).unwrap(), [mixed, zeros].concat());
    fs::remove_dir_all(bed.target()).unwrap();
    bed.restore(root, |options| options.sparse = false).whole();
    assert!(blocks("mixed") >= 1 << 20);
}

#[test]
fn filters_restore_only_selected_entries_and_their_parents() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let deep = blobs.tree(vec![blobs.file("a.txt", &[b"a"]), blobs.file("b.log", &[b"b"])]);
        let other = blobs.tree(vec![dir("nothing", blobs.tree(vec![blobs.file("c.log", &[b"c"])]))]);
        blobs.tree(vec![dir("deep", deep), dir("other", other), blobs.file("top.txt", &[b"t"])])
    });
    let report = bed.restore(root, |options| options.include = patterns(&["*.txt"])).whole();
    assert_eq!((report.total_files, report.files_restored), (3, 3));
    assert!(bed.at("deep/a.txt").exists() && bed.at("top.txt").exists());
    assert!(!bed.at("deep/b.log").exists() && !bed.at("other").exists());
    assert_eq!(mtime(&bed.at("deep")), STAMP);
    let report = bed.restore(root, |options| options.exclude = patterns(&["/deep", "*.log"])).whole();
    assert_eq!(report.total_files, 3, "other, nothing, top.txt");
    // A directory above a selected entry is created whatever entry is in its place.
    fs::remove_dir_all(bed.at("deep")).unwrap();
    fs::write(bed.at("deep"), "a file").unwrap();
    bed.restore(root, |options| options.include = patterns(&["*.txt"])).whole();
    assert!(bed.at("deep/a.txt").exists());
}

#[test]
fn a_path_restores_only_that_part_of_the_snapshot() {
    let bed = Bed::new();
    let root = sample(&bed);
    bed.restore_path(root, "/dir/", |_| {}).whole();
    assert!(bed.at("deep").exists());
    let metadata = fs::metadata(bed.target()).unwrap();
    assert_eq!((metadata.mode() & 0o7777, mtime(&bed.target())), (0o750, STAMP), "the directory became the target");
    let report = bed.restore_path(root, "dir/deep", |_| {}).whole();
    assert_eq!(report.total_files, 1);
    for missing in ["dir/none", "plain/below", "none"] {
        let error = bed.restore_path(root, missing, |_| {}).outcome.unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn a_volume_is_restored_from_either_layout() {
    let bed = Bed::new();
    let content = sample(&bed);
    let volume = bed.store(|blobs| blobs.tree(vec![Node { mode: mode::from_unix(0o042_770), ..dir("data", content) }]));
    bed.restore_path(volume, "volume", |options| options.volume = true).whole();
    assert_eq!(fs::read(bed.at("plain")).unwrap(), b"first second");
    assert_eq!((fs::metadata(bed.target()).unwrap().mode() & 0o7777, mtime(&bed.target())), (0o2770, STAMP));
    fs::remove_dir_all(bed.target()).unwrap();
    bed.restore(content, |options| options.volume = true).whole();
    assert_eq!(fs::read(bed.at("plain")).unwrap(), b"first second");
    // Without the option, and without the tag, `data` is a directory like any other.
    bed.restore_path(volume, "volume", |_| {}).whole();
    bed.restore(volume, |options| options.volume = true).whole();
    assert_eq!(fs::read(bed.at("data/plain")).unwrap(), b"first second");
}

#[test]
fn a_dry_run_reports_and_changes_nothing() {
    let bed = Bed::new();
    let root = sample(&bed);
    let report = bed.restore(root, |options| options.dry_run = true).whole();
    assert_eq!((report.files_restored, report.bytes_restored), (9, 24));
    assert!(!bed.target().exists());
    fs::create_dir(bed.target()).unwrap();
    fs::write(bed.at("plain"), "first ......").unwrap();
    let report = bed.restore(root, |options| options.dry_run = true).whole();
    assert_eq!((report.files_restored, report.bytes_restored, report.bytes_skipped), (9, 18, 6));
    assert_eq!(fs::read(bed.at("plain")).unwrap(), b"first ......");
    assert_eq!(fs::read_dir(bed.target()).unwrap().count(), 1);
}

#[test]
fn refused_metadata_is_counted_by_kind() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let odd = |name: &str, xattr: &str| {
            let xattrs = vec![Xattr { name: xattr.into(), value: b"x".to_vec() }];
            Node { xattrs, ..blobs.file(name, &[b"x"]) }
        };
        blobs.tree(vec![
            odd("a", "nowhere.a"),
            odd("b", "nowhere.b"),
            odd("c", "security.unheard-of.\u{1}"),
            Node { uid: u32::MAX, mode: mode::from_unix(0o106_755), ..blobs.file("d", &[b"x"]) },
            node("socket", NodeType::Socket, 0o600),
        ])
    });
    let told = bed.restore(root, |_| {});
    assert!(
        told.warnings.iter().any(|text| text.contains("socket") && text.contains("/socket")),
        "{:?}",
        told.warnings
    );
    let report =
        told.lacking(&["/a: xattr of other name spaces not applied to 2 entries", "/d: owner not applied to 1 entry"]);
    assert_eq!(report.not_applied["xattr of other name spaces"], 2);
    assert_eq!((report.not_applied["owner"], report.not_applied["socket"]), (1, 1));
    assert_eq!((report.files_restored, report.total_files), (4, 4));
    let lent = fs::metadata(bed.at("d")).unwrap().mode() & 0o7777;
    assert_eq!(lent, 0o755, "a set-id bit must not grant the rights of the restoring user");
}

/// One table for all files.
const ALL: PlanBudget<'_> = PlanBudget { total: u64::MAX, table: u64::MAX, spill: None };

/// Runs the stages up to the content of the files, with a function called before it is fetched and
/// one after. Returns the number of problems.
fn disturbed(bed: &Bed, tree: Id, before: impl FnOnce(), after: impl FnOnce()) -> u64 {
    let progress = Progress::silent();
    disturbed_with(bed, tree, &progress, before, after).unwrap();
    progress.problem_count()
}

fn disturbed_with(bed: &Bed, tree: Id, progress: &Progress, before: impl FnOnce(), after: impl FnOnce()) -> Result<()> {
    let index = &Index::load(&bed.repo).unwrap();
    let trees = TreeReader::new(&bed.repo, index);
    let options = Options { verify: true, ..Options::new(bed.target()) };
    let restoring = Restoring { repo: &bed.repo, index, options: &options, progress };
    let origin = Origin::Dir { tree, meta: None };
    let walk = Walk { trees: &trees, origin: &origin, selection: Selection::of(&options), progress };
    let plan = planner::plan(&walk, index, ALL).unwrap();
    let target = &Target::new(&restoring, &plan);
    let root = open_root(target).unwrap().unwrap();
    let mut systems = FileSystems::of(&root, &options.target).unwrap();
    let dirs = &Dirs::new(&root, &plan);
    let outcomes = prepare::run(target, Some(dirs), Some(&mut systems)).unwrap();
    let table = &plan.table(0).unwrap();
    let states = &outcomes.resume(table);
    Compare { target, dirs, index, table, states }.run().unwrap();
    let files = Files::new(target, dirs, table, states);
    before();
    let held = plan.memory() + table.memory();
    files.fill(|sink| fetch::run(&restoring, &table.uses, held, sink)).unwrap();
    after();
    verify::run(&files, index)
}

#[test]
fn a_file_that_fails_verification_is_a_problem() {
    let bed = Bed::new();
    let tree = sample(&bed);
    let problems = disturbed(
        &bed,
        tree,
        || {},
        || {
            fs::write(bed.at("plain"), "first secund").unwrap();
            fs::write(bed.at("empty"), "not empty").unwrap();
        },
    );
    assert_eq!(problems, 2);
}

#[test]
fn an_interrupted_restore_exits_with_130_and_creates_nothing() {
    let bed = Bed::new();
    let root = sample(&bed);
    let index = Index::load(&bed.repo).unwrap();
    let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{root}","paths":[]}}"#);
    let snapshot = StoredSnapshot { id: Id::of(b"s"), snapshot: Snapshot::decode(json.as_bytes()).unwrap() };
    let progress = Progress::silent();
    progress.interrupt();
    let options = Options::new(bed.target());
    let restoring = Restoring { repo: &bed.repo, index: &index, options: &options, progress: &progress };
    let error = run(&restoring, &snapshot, b"").unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert!(!bed.target().exists());
}
