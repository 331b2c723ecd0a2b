//! A target that takes two names of a snapshot for one, as SMB, vfat and ext4 with casefolding do:
//! nothing replaces what the same restore has put there under the other name.

use crate::common::loops::run;
use crate::common::peers::{Peer, Repo, Run};
use crate::common::scratch;
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use vsm::progress::{Event, Progress};
use vsm::repo::Index;
use vsm::restore::{self, Options, Overwrite};

/// An NTFS that ignores case, mounted by lowntfs-3g.
struct OneCase {
    mount: PathBuf,
    _dir: TempDir,
}

impl OneCase {
    fn new() -> OneCase {
        let dir = scratch();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("an image file");
        run(Command::new("mkntfs").args(["-q", "-F"]).arg(&image));
        fs::create_dir(&mount).expect("a mount point");
        run(Command::new("lowntfs-3g").args(["-o", "ignore_case,permissions"]).arg(&image).arg(&mount));
        OneCase { mount, _dir: dir }
    }

    fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for OneCase {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).status();
    }
}

/// Pairs of names that differ in case only, of every kind.
fn repository() -> Repo {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    for name in ["DIR", "dir"] {
        fs::create_dir_all(volume.join(name)).expect("a directory");
        fs::write(volume.join(name).join(format!("in {name}")), name).expect("a file");
    }
    for name in ["FILE", "file"] {
        fs::write(volume.join(name), format!("content of {name}")).expect("a file");
    }
    for name in ["LINK", "link"] {
        std::os::unix::fs::symlink(format!("to {name}"), volume.join(name)).expect("a symlink");
    }
    run(Command::new("mkfifo").arg(volume.join("FIFO")).arg(volume.join("fifo")));
    // A symlink and a file, in either order of the names.
    std::os::unix::fs::symlink("to OTHER", volume.join("OTHER")).expect("a symlink");
    fs::write(volume.join("other"), "content of other").expect("a file");
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    repo
}

fn reported(run: &Run) -> Vec<String> {
    let errors = run.errors();
    errors.lines().filter(|line| line.contains("are one name")).map(str::to_owned).collect()
}

#[test]
fn two_names_that_the_target_takes_for_one_are_a_problem_and_replace_nothing() {
    let repo = repository();
    let target = OneCase::new();
    let (fresh, occupied) = (target.path().join("fresh"), target.path().join("occupied"));
    fs::create_dir_all(occupied.join("v")).expect("a directory");
    let mut content = Vec::new();
    for into in [&fresh, &occupied] {
        // The second restore meets what the first has left.
        for options in [&[][..], &[], &["--overwrite", "never"]] {
            let done = repo.restore_with(Peer::Vsm, "latest:/v", into, options).exits(1);
            let reported = reported(&done);
            let pairs = ["DIR", "FILE", "LINK", "FIFO", "OTHER"];
            let named =
                |pair: &str| reported.iter().filter(|line| line.to_uppercase().contains(&format!("/{pair}:"))).count();
            let kept = options.contains(&"never");
            for pair in pairs {
                // What is kept is not restored under either name.
                let expected = usize::from(!kept || pair == "DIR");
                assert_eq!(named(pair), expected, "{pair} into {into:?} with {options:?}\n{done}");
            }
            let file = fs::read_to_string(into.join("file")).expect("a file");
            assert!(["content of FILE", "content of file"].contains(&file.as_str()), "{file:?}");
            assert_eq!(fs::read_dir(into.join("dir")).expect("a directory").count(), 1, "one directory's entries");
            if kept {
                assert_eq!(content.last(), Some(&file), "kept");
            }
            content.push(file);
        }
    }
}

/// The same of a restore that goes through its files table by table, as a large one does: what it has
/// made is not taken for what was there before.
#[test]
fn no_later_file_is_written_into_one_that_was_restored_before() {
    let repo = repository();
    let target = OneCase::new();
    let opened = repo.opened();
    let index = Index::load(&opened).expect("an index");
    let (snapshots, _) = opened.snapshots().expect("snapshots");
    for overwrite in [Overwrite::Always, Overwrite::IfNewer] {
        // A new one each time: the kernel goes on knowing names of one that was removed.
        let into = target.path().join(format!("{overwrite:?}"));
        fs::create_dir(&into).expect("a directory");
        let options = Options { stretch_memory: Some(1), overwrite, ..Options::new(&into) };
        let problems = Arc::new(Mutex::new(Vec::new()));
        let told = problems.clone();
        let progress = Progress::new(move |event| {
            if let Event::Problem(problem) = event {
                told.lock().expect("no panic").push(format!("{}: {}", problem.item, problem.message));
            }
        });
        let report = restore::run(&opened, &index, &snapshots[0], b"v", &options, &progress).expect("a report");
        let problems = problems.lock().expect("no panic");
        for pair in ["DIR", "FILE", "LINK", "FIFO", "OTHER"] {
            let named = problems.iter().filter(|problem| problem.to_uppercase().starts_with(&format!("/{pair}:")));
            assert_eq!(named.count(), 1, "{pair}: {problems:?}");
        }
        assert_eq!((report.problems, report.files_skipped), (5, 0), "{problems:?}");
        assert_eq!(fs::read(into.join("file")).expect("a file"), b"content of FILE");
    }
}

/// Restores into a directory that existed, by the command line.
fn restored(repo: &Repo, into: &Path, code: i32) -> Vec<String> {
    reported(&repo.restore_with(Peer::Vsm, "latest:/v", into, &[]).exits(code))
}

/// What has the place of both names has several names of its own, or is a directory: it may be replaced
/// once.
#[test]
fn what_replaced_something_is_not_replaced_by_another_entry() {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    fs::create_dir(&volume).expect("a directory");
    for name in ["FILE", "file"] {
        fs::write(volume.join(name), format!("content of {name}")).expect("a file");
    }
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    let target = OneCase::new();
    for round in 0..4 {
        let into = target.path().join(format!("into {round}"));
        fs::create_dir(&into).expect("a directory");
        if round % 2 == 0 {
            fs::write(into.join("file"), "of somebody").expect("a file");
            fs::hard_link(into.join("file"), into.join("other name")).expect("a hard link");
        } else {
            fs::create_dir(into.join("file")).expect("a directory");
        }
        assert_eq!(restored(&repo, &into, 1).len(), 1, "round {round}");
        let content = fs::read_to_string(into.join("file")).expect("a file");
        assert!(["content of FILE", "content of file"].contains(&&*content), "{content:?}");
    }
}

/// A restore is repeated; one of two names is a hard link to a third, which nobody disputes.
#[test]
fn a_hard_link_keeps_its_content_however_often_it_is_restored() {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    fs::create_dir(&volume).expect("a directory");
    fs::write(volume.join("FILE"), "content of FILE").expect("a file");
    fs::write(volume.join("file"), "content of file").expect("a file");
    fs::hard_link(volume.join("FILE"), volume.join("x")).expect("a hard link");
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    let target = OneCase::new();
    let into = target.path().join("into");
    fs::create_dir(&into).expect("a directory");
    for round in 0..4 {
        let problems = restored(&repo, &into, 1);
        assert!(!problems.is_empty(), "round {round}");
        if let Ok(content) = fs::read_to_string(into.join("x")) {
            assert_eq!(content, "content of FILE", "round {round}: {problems:?}");
        }
    }
}

/// Hard links, and a symlink beside a directory, in a directory that existed.
#[test]
fn what_is_no_file_does_not_replace_what_was_restored_before() {
    let target = OneCase::new();
    let into = target.path().join("into");
    fs::create_dir(&into).expect("a directory");
    let restored = |fill: &dyn Fn(&Path)| {
        let (repo, source) = (Repo::empty(2), scratch());
        let volume = source.path().join("v");
        fs::create_dir(&volume).expect("a directory");
        fill(&volume);
        repo.backup(Peer::Vsm, source.path(), "v", &[]);
        restored(&repo, &into, 1)
    };
    let problems = restored(&|volume| {
        for (name, link) in [("A", "FILE"), ("B", "file")] {
            fs::write(volume.join(name), format!("content of {name}")).expect("a file");
            fs::hard_link(volume.join(name), volume.join(link)).expect("a hard link");
        }
    });
    assert_eq!(problems.len(), 1, "{problems:?}");
    let content = |name: &str| fs::read_to_string(into.join(name)).expect("a file");
    assert_eq!((content("A"), content("B")), ("content of A".into(), "content of B".into()));
    // The first one has the place, and the other is reported.
    let lost = if content("file") == "content of A" { "file" } else { "FILE" };
    assert!(problems[0].contains(lost), "{problems:?}");

    let problems = restored(&|volume| {
        fs::create_dir(volume.join("DIR")).expect("a directory");
        std::os::unix::fs::symlink("A", volume.join("dir")).expect("a link");
    });
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(fs::symlink_metadata(into.join("dir")).expect("it is there").is_dir());
}

/// What `--delete` removed from the place of two files is not there when the second one comes.
#[test]
fn a_directory_that_is_deleted_makes_room_for_one_file() {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    fs::create_dir(&volume).expect("a directory");
    for name in ["FILE", "file"] {
        fs::write(volume.join(name), format!("content of {name}")).expect("a file");
    }
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    let target = OneCase::new();
    for round in 0..4 {
        let into = target.path().join(format!("into {round}"));
        fs::create_dir_all(into.join("file/below")).expect("a directory");
        let problems = reported(&repo.restore_with(Peer::Vsm, "latest:/v", &into, &["--delete"]).exits(1));
        assert_eq!(problems.len(), 1, "{problems:?}");
        let content = fs::read_to_string(into.join("file")).expect("a file");
        assert!(["content of FILE", "content of file"].contains(&&*content), "{content:?}");
    }
}
