//! Tests of `--overwrite`: existing entry × entry of the snapshot × rule.

use super::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    File,
    Symlink,
    Fifo,
    EmptyDir,
    FullDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    File,
    Symlink,
    Fifo,
    Dir,
    /// The second name of a file.
    HardLink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The snapshot's entry is in its place.
    Restored,
    /// The existing entry is untouched, as requested.
    Kept,
    /// The existing entry is untouched, and that is a problem.
    Problem,
}

const THERE: [There; 6] = [There::Nothing, There::File, There::Symlink, There::Fifo, There::EmptyDir, There::FullDir];
const HAS: [Has; 5] = [Has::File, Has::Symlink, Has::Fifo, Has::Dir, Has::HardLink];
const RULES: [Overwrite; 4] = [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never];

/// The outcome as with restic 0.19, except for an entry that the rule keeps in the place of a
/// directory: restic replaces it.
fn expected(there: There, has: Has, rule: Overwrite, there_is_newer: bool) -> Outcome {
    let is_dir = matches!(there, There::EmptyDir | There::FullDir);
    if there == There::Nothing || is_dir && has == Has::Dir {
        return Outcome::Restored;
    }
    if rule == Overwrite::Never || rule == Overwrite::IfNewer && there_is_newer {
        return if has == Has::Dir { Outcome::Problem } else { Outcome::Kept };
    }
    if there == There::FullDir { Outcome::Problem } else { Outcome::Restored }
}

fn root_with(bed: &Bed, has: Has) -> Id {
    bed.store(|blobs| {
        let linked = |name: &str| Node { links: 2, inode: 9, ..blobs.file(name, &[b"snapshot's"]) };
        let nodes = match has {
            Has::File => vec![blobs.file("x", &[b"snapshot's"])],
            Has::Symlink => vec![link("x", "snapshot's")],
            Has::Fifo => vec![node("x", NodeType::Fifo, 0o600)],
            Has::Dir => vec![dir("x", blobs.tree(vec![blobs.file("child", &[b"snapshot's"])]))],
            Has::HardLink => vec![linked("first"), linked("x")],
        };
        blobs.tree(nodes)
    })
}

fn make(path: &Path, there: There, seconds: i64) {
    let fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    match there {
        There::Nothing => return,
        There::File => fs::write(path, "old").unwrap(),
        There::Symlink => symlink("old", path).unwrap(),
        There::Fifo => fifo(path),
        There::EmptyDir => fs::create_dir(path).unwrap(),
        There::FullDir => fs::create_dir_all(path.join("old")).unwrap(),
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn demand_restored(bed: &Bed, has: Has, case: &str) {
    let path = bed.at("x");
    let found = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
    match has {
        Has::File => assert_eq!(fs::read(&path).unwrap(), b"snapshot's", "{case}"),
        Has::Symlink => assert_eq!(fs::read_link(&path).unwrap(), Path::new("snapshot's"), "{case}"),
        Has::Fifo => assert!(rustix::fs::FileType::from_raw_mode(found.mode()) == FileType::Fifo, "{case}"),
        Has::Dir => assert_eq!(fs::read(path.join("child")).unwrap(), b"snapshot's", "{case}"),
        Has::HardLink => assert_eq!(found.ino(), fs::metadata(bed.at("first")).unwrap().ino(), "{case}"),
    }
}

#[test]
fn overwrite_rules_hold_for_all_pairs_of_types() {
    let bed = Bed::new();
    for has in HAS {
        let root = root_with(&bed, has);
        for (there, rule, newer) in THERE
            .iter()
            .flat_map(|&there| RULES.iter().flat_map(move |&rule| [false, true].map(|newer| (there, rule, newer))))
        {
            let case = format!("{there:?} where the snapshot has {has:?}, {rule:?}, newer: {newer}");
            let _ = fs::remove_dir_all(bed.target());
            fs::create_dir(bed.target()).unwrap();
            make(&bed.at("x"), there, STAMP.0 + if newer { 5 } else { -5 });
            let before =
                fs::symlink_metadata(bed.at("x")).ok().map(|found| (found.ino(), found.mode(), mtime(&bed.at("x"))));
            let dry = bed.restore(root, |options| (options.overwrite, options.dry_run) = (rule, true));
            let told = bed.restore(root, |options| options.overwrite = rule);
            let outcome = expected(there, has, rule, newer);
            if outcome == Outcome::Restored {
                demand_restored(&bed, has, &case);
            } else {
                let after = fs::symlink_metadata(bed.at("x")).unwrap();
                assert_eq!(before, Some((after.ino(), after.mode(), mtime(&bed.at("x")))), "{case}");
            }
            let problems = usize::from(outcome == Outcome::Problem);
            assert_eq!(told.problems.len(), problems, "{case}: {:?}", told.problems);
            assert!(told.problems.iter().all(|problem| problem.starts_with("/x: ")), "{case}: {:?}", told.problems);
            match told.outcome {
                Ok(report) => assert_eq!(report.files_skipped, u64::from(outcome == Outcome::Kept), "{case}"),
                // A further name of a hard link is not the only entry.
                Err(Error::NothingTaken { .. }) if outcome == Outcome::Problem && has != Has::HardLink => {}
                Err(error) => panic!("{case}: {error}"),
            }
            if has == Has::Dir || has == Has::File {
                assert_eq!(dry.problems, told.problems, "{case}: a dry run reports the same");
            }
        }
    }
}

#[test]
fn a_further_hard_link_to_a_kept_file_is_not_created() {
    let bed = Bed::new();
    let root = root_with(&bed, Has::HardLink);
    fs::create_dir(bed.target()).unwrap();
    fs::write(bed.at("first"), "old").unwrap();
    bed.restore(root, |options| options.overwrite = Overwrite::Never).lacking(&["/x: it is a hard link, not restored"]);
    assert!(!bed.at("x").exists(), "it would have the content of the kept file");
    assert_eq!(fs::read(bed.at("first")).unwrap(), b"old");
}

#[test]
fn existing_directories_get_their_metadata_with_every_rule() {
    let bed = Bed::new();
    let root = root_with(&bed, Has::Dir);
    for rule in RULES {
        let _ = fs::remove_dir_all(bed.target());
        fs::create_dir_all(bed.at("x")).unwrap();
        bed.restore(root, |options| options.overwrite = rule).whole();
        assert_eq!(mtime(&bed.at("x")), STAMP, "{rule:?}");
    }
}
