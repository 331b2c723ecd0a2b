//! Tests with targets that already contain entries.

use super::*;
use rustix::fs::CWD;

#[test]
fn a_second_restore_skips_correct_entries() {
    let bed = Bed::new();
    let root = sample(&bed);
    bed.restore(root, |_| {}).whole();
    let inode = fs::metadata(bed.at("plain")).unwrap().ino();
    // A file with two names is replaced rather than compared.
    for (overwrite, skipped) in [(Overwrite::Always, (4, 18)), (Overwrite::IfChanged, (5, 24))] {
        let report = bed.restore(root, |options| options.overwrite = overwrite).whole();
        assert_eq!((report.files_skipped, report.bytes_skipped), skipped, "{overwrite:?}");
    }
    assert_eq!(fs::metadata(bed.at("plain")).unwrap().ino(), inode);
    for overwrite in [Overwrite::IfNewer, Overwrite::Never] {
        let report = bed.restore(root, |options| options.overwrite = overwrite).whole();
        assert_eq!((report.files_restored, report.files_skipped), (1, 8), "{overwrite:?}: only the directory");
    }
}

#[test]
fn a_file_that_differs_is_corrected_in_place() {
    let bed = Bed::new();
    let zeros = [0; 100_000];
    let root = bed.store(|blobs| blobs.tree(vec![blobs.file("file", &[b"one", &zeros, b"two"])]));
    fs::create_dir(bed.target()).unwrap();
    for old in [vec![0xff; 200_000], vec![0xff; 50_000], vec![]] {
        fs::write(bed.at("file"), [b"one", &old[..]].concat()).unwrap();
        let inode = fs::metadata(bed.at("file")).unwrap().ino();
        let report = bed.restore(root, |options| options.verify = true).whole();
        assert_eq!((report.bytes_restored, report.bytes_skipped), (100_003, 3), "{}", old.len());
        assert_eq!(fs::read(bed.at("file")).unwrap(), [b"one", &zeros[..], b"two"].concat());
        let found = fs::metadata(bed.at("file")).unwrap();
        assert_eq!(found.ino(), inode);
        assert!(found.blocks() * 512 >= 100_000, "zeros are written over old content");
    }
    // The file has the same size and time but other content; `if-changed` trusts it.
    fs::write(bed.at("file"), vec![7; 100_006]).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::options().write(true).open(bed.at("file")).unwrap().set_modified(time).unwrap();
    bed.restore(root, |options| options.overwrite = Overwrite::IfChanged).whole();
    assert_eq!(fs::read(bed.at("file")).unwrap()[0], 7);
}

#[test]
fn entries_in_the_way_are_replaced() {
    let bed = Bed::new();
    let root = sample(&bed);
    fs::create_dir_all(bed.at("link")).unwrap();
    fs::create_dir(bed.at("empty")).unwrap();
    symlink(bed.outside(), bed.at("dir")).unwrap();
    symlink(bed.outside().join("file"), bed.at("plain")).unwrap();
    fs::hard_link(bed.outside().join("file"), bed.at("setuid")).unwrap();
    fs::write(bed.at("fifo"), "a file").unwrap();
    bed.restore(root, |_| {}).whole();
    assert_eq!(fs::read(bed.at("plain")).unwrap(), b"first second");
    assert!(fs::symlink_metadata(bed.at("dir")).unwrap().is_dir());
    // A directory that is not empty stays, unless `--delete` is given.
    fs::remove_file(bed.at("plain")).unwrap();
    fs::create_dir_all(bed.at("plain/full")).unwrap();
    bed.restore(root, |_| {}).lacking(&["/plain"]);
    bed.restore(root, |options| options.delete = true).whole();
    assert_eq!(fs::read(bed.at("plain")).unwrap(), b"first second");
}

#[test]
fn deleting_stays_within_the_filters() {
    let bed = Bed::new();
    let root = sample(&bed);
    bed.restore(root, |_| {}).whole();
    let extra = |path: &str| {
        fs::create_dir_all(bed.at(path).parent().unwrap()).unwrap();
        fs::write(bed.at(path), "x").unwrap();
    };
    let make = || {
        ["extra", "dir/extra", "more/a.txt", "more/keep.log", "more/below/b.txt"].iter().for_each(|path| extra(path));
        let _ = symlink(bed.outside(), bed.at("more/out"));
    };
    make();
    let report = bed.restore(root, |options| (options.delete, options.dry_run) = (true, true)).whole();
    assert_eq!(report.files_deleted, 8);
    assert!(bed.at("more/below/b.txt").exists());
    let report = bed.restore(root, |options| (options.delete, options.exclude) = (true, patterns(&["*.log"]))).whole();
    assert_eq!(report.files_deleted, 6);
    assert!(bed.at("more/keep.log").exists() && !bed.at("more/below").exists() && !bed.at("dir/extra").exists());
    assert_eq!(mtime(&bed.at("dir")), STAMP, "a directory's time is set after all deletions in it");
    make();
    let report = bed.restore(root, |options| (options.delete, options.include) = (true, patterns(&["/dir"]))).whole();
    assert_eq!(report.files_deleted, 1);
    assert!(bed.at("extra").exists());
    assert_eq!(bed.restore(root, |options| options.delete = true).whole().files_deleted, 7);
    let refused = bed.restore(root, |options| (options.delete, options.target) = (true, "/".into()));
    assert!(matches!(refused.outcome, Err(Error::DeleteEverything)));
}

#[test]
fn attributes_become_those_of_the_snapshot() {
    let bed = Bed::new();
    let root = bed.store(|blobs| {
        let xattrs = vec![
            Xattr { name: "user.a".into(), value: b"new".to_vec() },
            Xattr { name: "user.b".into(), value: vec![] },
        ];
        blobs.tree(vec![Node { xattrs, ..blobs.file("file", &[b"x"]) }])
    });
    fs::create_dir(bed.target()).unwrap();
    fs::write(bed.at("file"), "x").unwrap();
    xattr::set(bed.at("file"), "user.a", b"old").unwrap();
    xattr::set(bed.at("file"), "user.extra", b"old").unwrap();
    bed.restore(root, |_| {}).whole();
    let mut names: Vec<_> = xattr::list(bed.at("file")).unwrap().filter(|name| name != "security.selinux").collect();
    names.sort();
    assert_eq!(names, ["user.a", "user.b"]);
    assert_eq!(xattr::get(bed.at("file"), "user.a").unwrap().unwrap(), b"new");
}

#[test]
fn an_entry_that_replaces_a_file_during_the_restore_gets_no_content() {
    let bed = Bed::new();
    let tree = sample(&bed);
    fs::create_dir(bed.target()).unwrap();
    for (name, other) in [("plain", "../outside/file"), ("setuid", "")] {
        fs::write(bed.at(name), "to be corrected").unwrap();
        let swap = || {
            fs::remove_file(bed.at(name)).unwrap();
            if other.is_empty() {
                let name = bed.at(name);
                rustix::fs::mknodat(CWD, &name, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
            } else {
                symlink(other, bed.at(name)).unwrap();
            }
        };
        assert_eq!(disturbed(&bed, tree, swap, || {}), 1, "{name}");
        fs::remove_dir_all(bed.target()).unwrap();
        fs::create_dir(bed.target()).unwrap();
    }
}

#[test]
fn a_file_whose_name_is_taken_fails_and_does_not_write_into_the_other_entry() {
    let bed = Bed::new();
    let tree = bed.store(|blobs| blobs.tree(vec![blobs.file("name", &[b"one", b"two"])]));
    let (index, progress) = (Index::load(&bed.repo).unwrap(), Progress::silent());
    let origin = Origin::Dir { tree, meta: None };
    let options = Options { unprivileged: Unprivileged::Counted, ..Options::new(bed.target()) };
    let restoring = Restoring { repo: &bed.repo, index: &index, options: &options, progress: &progress };
    let (trees, selection) = (TreeReader::new(&bed.repo, &index), Selection::of(&options));
    let walk = Walk { trees: &trees, origin: &origin, selection, progress: &progress };
    let plan = planner::plan(&walk, &index, ALL).unwrap();
    let target = Target::new(&restoring, &plan);
    let root = open_root(&target).unwrap().unwrap();
    fs::write(bed.at("name"), "another entry").unwrap();
    let (dirs, table) = (Dirs::new(&root, &plan), plan.table(0).unwrap());
    let states = FileStates::planned(&table);
    let files = Files::new(&target, &dirs, &table, &states);
    // The thread of the second piece checked the state before the first piece failed.
    for &needed in &table.uses {
        assert!(!files.put(Piece { needed, bytes: b"piece", fill: Fill::Data }).unwrap());
        assert_eq!(states.of(0).state(), State::Failed);
    }
    assert_eq!(fs::read(bed.at("name")).unwrap(), b"another entry");
    assert_eq!(progress.problem_count(), 1);
}

/// A restore reports the same counts for a file in several tables as for a file in a single table.
#[test]
fn a_split_file_is_counted_like_a_whole_file() {
    let bed = Bed::new();
    let root = bed.store(|blobs| blobs.tree(vec![blobs.file("file", &[b"one", b"two", b"three"])]));
    fs::create_dir(bed.target()).unwrap();
    for old in ["onetwothree", "onetwothree and more", "onetwo", "one   three", ""] {
        let counts = [None, Some(1)].map(|table_memory| {
            [true, false].map(|dry_run| {
                fs::write(bed.at("file"), old).unwrap();
                let told = bed.restore(root, |options| {
                    (options.table_memory, options.dry_run) = (table_memory, dry_run);
                });
                let report = told.whole();
                assert_eq!(
                    fs::read_to_string(bed.at("file")).unwrap() == "onetwothree",
                    !dry_run || old == "onetwothree"
                );
                (report.files_restored, report.files_skipped, report.bytes_restored, report.bytes_skipped)
            })
        });
        assert_eq!(counts[0], counts[1], "{old:?}");
    }
}
