//! Tests restores into a target that ignores case, as SMB, vfat and ext4 with casefolding do: no
//! entry replaces one that the same restore has created under the other name.

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
use vsm::restore::{self, Options, Overwrite, Restoring};

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

/// Pairs of names that differ in case only, for every kind of entry.
fn repository() -> Repo {
    repository_of(|volume| {
        for name in ["DIR", "dir"] {
            fs::create_dir(volume.join(name)).expect("a directory");
            fs::write(volume.join(name).join(format!("in {name}")), name).expect("a file");
        }
        fill_with_two(volume);
        for name in ["LINK", "link"] {
            std::os::unix::fs::symlink(format!("to {name}"), volume.join(name)).expect("a symlink");
        }
        run(Command::new("mkfifo").arg(volume.join("FIFO")).arg(volume.join("fifo")));
        // A symlink and a file, in either order of the names.
        std::os::unix::fs::symlink("to OTHER", volume.join("OTHER")).expect("a symlink");
        fs::write(volume.join("other"), content_of("other")).expect("a file");
    })
}

fn reported(run: &Run) -> Vec<String> {
    let errors = run.errors();
    errors.lines().filter(|line| line.contains("are one name")).map(str::to_owned).collect()
}

#[test]
fn two_names_that_collide_in_the_target_are_a_problem_and_replace_nothing() {
    let repo = repository();
    let target = OneCase::new();
    let (fresh, occupied) = (target.path().join("fresh"), target.path().join("occupied"));
    fs::create_dir_all(occupied.join("v")).expect("a directory");
    let mut content = Vec::new();
    for into in [&fresh, &occupied] {
        // The second restore finds the entries of the first one.
        for options in [&[][..], &[], &["--overwrite", "never"]] {
            let done = repo.restore_with(Peer::Vsm, "latest:/v", into, options).exits(1);
            let reported = reported(&done);
            let pairs = ["DIR", "FILE", "LINK", "FIFO", "OTHER"];
            let named =
                |pair: &str| reported.iter().filter(|line| line.to_uppercase().contains(&format!("/{pair}:"))).count();
            let kept = options.contains(&"never");
            for pair in pairs {
                // An entry that is kept is not restored under either name.
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

/// A large restore processes its files table by table: it does not take files that it has created
/// for files that existed before.
#[test]
fn no_file_is_written_into_one_that_was_restored_before() {
    let repo = repository();
    let target = OneCase::new();
    let opened = repo.opened();
    let index = Index::load(&opened).expect("an index");
    let (snapshots, _) = opened.snapshots().expect("snapshots");
    for overwrite in [Overwrite::Always, Overwrite::IfNewer] {
        // A new directory each time, because the kernel caches the names of a removed one.
        let into = target.path().join(format!("{overwrite:?}"));
        fs::create_dir(&into).expect("a directory");
        let options = Options { table_memory: Some(1), overwrite, ..Options::new(&into) };
        let problems = Arc::new(Mutex::new(Vec::new()));
        let told = problems.clone();
        let progress = Progress::new(move |event| {
            if let Event::Problem(problem) = event {
                told.lock().expect("no panic").push(format!("{}: {}", problem.item, problem.message));
            }
        });
        let restoring = Restoring { repo: &opened, index: &index, options: &options, progress: &progress };
        let report = restore::run(&restoring, &snapshots[0], b"v").expect("a report");
        let problems = problems.lock().expect("no panic");
        for pair in ["DIR", "FILE", "LINK", "FIFO", "OTHER"] {
            let named = problems.iter().filter(|problem| problem.to_uppercase().starts_with(&format!("/{pair}:")));
            assert_eq!(named.count(), 1, "{pair}: {problems:?}");
        }
        assert_eq!((report.problems, report.files_skipped), (5, 0), "{problems:?}");
        assert_eq!(fs::read(into.join("file")).expect("a file"), b"content of FILE");
    }
}

/// A repository with a snapshot of a volume that `fill` filled.
fn repository_of(fill: impl FnOnce(&Path)) -> Repo {
    let repo = Repo::empty(2);
    let source = scratch();
    let volume = source.path().join("v");
    fs::create_dir(&volume).expect("a directory");
    fill(&volume);
    repo.backup(Peer::Vsm, source.path(), "v", &[]);
    repo
}

/// Two files whose names differ in case only.
fn fill_with_two(volume: &Path) {
    for name in ["FILE", "file"] {
        fs::write(volume.join(name), content_of(name)).expect("a file");
    }
}

fn content_of(name: &str) -> String {
    format!("content of {name}")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).expect("a file")
}

/// Restores both files, and asserts that one is reported and that the other has the place of both.
fn restore_one_of_two(repo: &Repo, into: &Path, options: &[&str]) {
    let problems = reported(&repo.restore_with(Peer::Vsm, "latest:/v", into, options).exits(1));
    let [lost] = &problems[..] else { panic!("{problems:?}") };
    let there = if lost.contains("/file:") { "FILE" } else { "file" };
    assert_eq!(read(into.join("file")), content_of(there), "{lost}");
}

/// The place of both names holds a file with several names, or a directory, which may be replaced
/// once.
#[test]
fn an_entry_that_replaced_another_is_not_replaced_again() {
    let repo = repository_of(fill_with_two);
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
        restore_one_of_two(&repo, &into, &[]);
    }
}

/// `--delete` removes a directory from the place of two files, which is free for one of them only.
#[test]
fn a_deleted_directory_is_replaced_by_one_of_two_files() {
    let repo = repository_of(fill_with_two);
    let target = OneCase::new();
    for round in 0..4 {
        let into = target.path().join(format!("into {round}"));
        fs::create_dir_all(into.join("file/below")).expect("a directory");
        restore_one_of_two(&repo, &into, &["--delete"]);
    }
}

/// A restore is repeated; one of the two names is a hard link to a third name, which collides with
/// none.
#[test]
fn a_hard_link_keeps_its_content_in_repeated_restores() {
    let repo = repository_of(|volume| {
        fill_with_two(volume);
        fs::hard_link(volume.join("FILE"), volume.join("x")).expect("a hard link");
    });
    let target = OneCase::new();
    let into = target.path().join("into");
    fs::create_dir(&into).expect("a directory");
    for round in 0..4 {
        let done = repo.restore_with(Peer::Vsm, "latest:/v", &into, &[]).exits(1);
        let problems = reported(&done);
        let [lost] = &problems[..] else { panic!("round {round}: {done}") };
        match lost.contains("/FILE:") {
            // The other name of the file is reported as missing, and is as an earlier round left
            // it.
            true => assert!(done.errors().contains("it is a hard link to"), "round {round}: {done}"),
            false => assert_eq!(read(into.join("x")), content_of("FILE"), "round {round}: {done}"),
        }
        if let Ok(content) = fs::read_to_string(into.join("x")) {
            assert_eq!(content, content_of("FILE"), "round {round}: {done}");
        }
    }
}

/// A file that the options keep in the target has several names there: the other entry does not
/// replace it.
#[test]
fn a_kept_file_with_several_names_is_not_replaced() {
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let fill = |dir: &Path| {
        fs::write(dir.join("FILE"), content_of("FILE")).expect("a file");
        File::open(dir.join("FILE")).and_then(|file| file.set_modified(then)).expect("a time");
        fs::hard_link(dir.join("FILE"), dir.join("x")).expect("a hard link");
    };
    let repo = repository_of(|volume| {
        fill(volume);
        // This file is newer than the one in the target.
        fs::write(volume.join("file"), content_of("file")).expect("a file");
    });
    let target = OneCase::new();
    for overwrite in ["if-changed", "if-newer"] {
        let into = target.path().join(overwrite);
        fs::create_dir(&into).expect("a directory");
        fill(&into);
        let done = repo.restore_with(Peer::Vsm, "latest:/v", &into, &["--overwrite", overwrite]).exits(1);
        assert!(matches!(&reported(&done)[..], [lost] if lost.contains("/file:")), "{done}");
        assert_eq!([read(into.join("FILE")), read(into.join("x"))], [content_of("FILE"), content_of("FILE")], "{done}");
    }
}

/// On a case-sensitive file system, several names of one inode are separate targets.
#[test]
fn names_of_one_inode_become_the_files_of_the_snapshot() {
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let fill = |dir: &Path| {
        fs::write(dir.join("A"), content_of("A")).expect("a file");
        File::open(dir.join("A")).and_then(|file| file.set_modified(then)).expect("a time");
        fs::hard_link(dir.join("A"), dir.join("to A")).expect("a hard link");
    };
    let repo = repository_of(|volume| {
        fill(volume);
        fs::write(volume.join("B"), content_of("B")).expect("a file");
        fs::hard_link(volume.join("B"), volume.join("to B")).expect("a hard link");
        fs::write(volume.join("file"), content_of("file")).expect("a file");
    });
    let target = scratch();
    for overwrite in ["if-changed", "if-newer", "always"] {
        let into = target.path().join(overwrite);
        fs::create_dir(&into).expect("a directory");
        fill(&into);
        for other in ["B", "to B", "file"] {
            fs::hard_link(into.join("A"), into.join(other)).expect("a hard link");
        }
        repo.restore_with(Peer::Vsm, "latest:/v", &into, &["--overwrite", overwrite]).ok();
        for (name, of) in [("A", "A"), ("to A", "A"), ("B", "B"), ("to B", "B"), ("file", "file")] {
            assert_eq!(read(into.join(name)), content_of(of), "{name} with {overwrite}");
        }
    }
}

/// Hard links, and a symlink beside a directory, in a directory that existed before.
#[test]
fn links_do_not_replace_entries_that_were_restored_before() {
    let target = OneCase::new();
    let into = target.path().join("into");
    fs::create_dir(&into).expect("a directory");
    let restored = |fill: &dyn Fn(&Path)| {
        let problems = reported(&repository_of(fill).restore_with(Peer::Vsm, "latest:/v", &into, &[]).exits(1));
        let [lost] = &problems[..] else { panic!("{problems:?}") };
        lost.clone()
    };
    let lost = restored(&|volume| {
        for (name, link) in [("A", "FILE"), ("B", "file")] {
            fs::write(volume.join(name), content_of(name)).expect("a file");
            fs::hard_link(volume.join(name), volume.join(link)).expect("a hard link");
        }
    });
    assert_eq!([read(into.join("A")), read(into.join("B"))], [content_of("A"), content_of("B")]);
    // The first link has the place, and the other one is reported.
    let there = if lost.contains("/file:") { "A" } else { "B" };
    assert_eq!(read(into.join("file")), content_of(there), "{lost}");

    restored(&|volume| {
        fs::create_dir(volume.join("DIR")).expect("a directory");
        std::os::unix::fs::symlink("A", volume.join("dir")).expect("a link");
    });
    assert!(fs::symlink_metadata(into.join("dir")).expect("an entry").is_dir());
}
