//! Tests `mount`: the mounted tree equals the source of the backup.

use crate::common::compare::{self, Options, What};
use crate::common::corpus::Corpus;
use crate::common::peers::{Peer, Repo, Running};
use crate::common::{Random, files_below, scratch, wait_for};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// A mounted repository. It is unmounted even if the test fails.
struct Mounted {
    running: Option<Running>,
    dir: tempfile::TempDir,
}

impl Mounted {
    fn new(repo: &Repo, extra: &[&str]) -> Mounted {
        let dir = scratch();
        let mut command = repo.command(Peer::Vsm);
        command.arg("mount").arg(dir.path()).args(extra);
        let mut mounted = Mounted { running: Some(Running::start(command)), dir };
        wait_for("the mount", || {
            mounted.running.as_mut().expect("it runs").must_run();
            mounted.at("ids").is_dir().then_some(())
        });
        mounted
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn running(&mut self) -> Running {
        self.running.take().expect("it runs")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// The differences of a mounted tree from its source, except for hard links, which are separate
/// files in a mount, and for sockets, which no backup stores.
fn differences(source: &Path, mounted: &Path) -> Vec<compare::Difference> {
    let mut found = compare::trees(source, mounted, Options::default());
    let socket = |difference: &compare::Difference| {
        difference.what == What::Missing
            && source.join(&difference.path).metadata().is_ok_and(|it| it.file_type().is_socket())
    };
    found.retain(|difference| difference.what != What::Links && !socket(difference));
    found
}

#[test]
fn a_mounted_snapshot_equals_its_source() {
    let corpus = Corpus::shared();
    for by in [Peer::Restic019, Peer::Vsm] {
        let repo = Repo::empty(2);
        repo.backup(by, corpus.parent(), corpus.root().file_name().expect("a name").to_str().expect("UTF-8"), &[]);
        let mut mounted = Mounted::new(&repo, &[]);
        let name = corpus.root().file_name().expect("a name").to_owned();
        let found = differences(&corpus.root(), &mounted.at("snapshots/latest").join(name));
        assert!(found.is_empty(), "{by:?}:\n{}", compare::listed(&found));
        let running = mounted.running();
        running.signal(Signal::TERM);
        running.finish().ok();
        assert!(!mounted.at("ids").exists(), "it is unmounted");
        assert!(repo.lock_files().is_empty());
    }
}

#[test]
fn a_mount_can_be_browsed_and_not_changed() {
    let repo = Repo::empty(2);
    let source = repo.beside("source");
    let large = Random(3).bytes(9 << 20);
    for round in ["first", "second"] {
        fs::create_dir_all(source.join("many")).expect("a directory");
        fs::write(source.join("large"), &large).expect("a file");
        fs::write(source.join("round"), round).expect("a file");
        (0..3000).for_each(|number| fs::write(source.join(format!("many/{number:05}")), round).expect("a file"));
        repo.backup(Peer::Restic019, &repo.beside(""), "source", &["--tag", round, "--host", "a/b"]);
    }
    let mut mounted = Mounted::new(&repo, &["--owner-root"]);

    let names = |path: &str| {
        let entries = fs::read_dir(mounted.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["hosts", "ids", "snapshots", "tags"]);
    assert_eq!(names("hosts"), ["a_b"]);
    assert_eq!(names("tags"), ["first", "second"]);
    let mut ids: Vec<_> =
        repo.snapshots(Peer::Restic019).iter().map(|it| it["short_id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    assert_eq!(names("ids"), ids);
    assert_eq!(names("snapshots").len(), 3, "two times and the latest");
    for (path, expected) in
        [("tags/first/latest", "first"), ("hosts/a_b/latest", "second"), ("snapshots/latest", "second")]
    {
        assert_eq!(fs::read_to_string(mounted.at(path).join("source/round")).expect("a file"), expected, "{path}");
    }

    let many: Vec<_> = (0..3000).map(|number| format!("{number:05}")).collect();
    assert_eq!(names("snapshots/latest/source/many"), many);
    assert!(
        many.iter()
            .all(|name| fs::read(mounted.at("snapshots/latest/source/many").join(name)).expect("a file") == b"second")
    );

    let path = mounted.at("snapshots/latest/source/large");
    let file = fs::File::open(&path).expect("a file");
    let mut random = Random(4);
    for _ in 0..200 {
        let length = 1 + random.below(300_000) as usize;
        let offset = random.below((large.len() - length) as u64) as usize;
        let mut read = vec![0; length];
        file.read_exact_at(&mut read, offset as u64).expect("bytes");
        assert!(read == large[offset..offset + length], "{length} bytes at {offset}");
    }
    assert_eq!(file.read_at(&mut [0; 10], large.len() as u64).expect("the end"), 0);
    drop(file);

    for error in [
        fs::write(&path, "x"),
        fs::remove_file(&path),
        fs::create_dir(mounted.at("new")),
        fs::rename(&path, mounted.at("other")),
    ] {
        assert_eq!(error.expect_err("read-only").kind(), ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(fs::metadata(mounted.at("none")).expect_err("a missing file").kind(), ErrorKind::NotFound);

    // An unmount by another process ends the command, too.
    unmount(mounted.dir.path(), UnmountFlags::empty()).expect("it is unmounted");
    mounted.running().finish().ok();
    repo.check(Peer::Restic019).ok();
}

#[test]
fn an_unreadable_file_is_an_io_error_and_is_reported() {
    let repo = Repo::empty(2);
    let source = repo.beside("source");
    fs::create_dir_all(&source).expect("a directory");
    fs::write(source.join("lost"), Random(1).bytes(100_000)).expect("a file");
    repo.backup(Peer::Restic019, &repo.beside(""), "source", &[]);
    let before = files_below(&repo.path().join("data"));
    fs::write(source.join("whole"), Random(2).bytes(100_000)).expect("a file");
    repo.backup(Peer::Restic019, &repo.beside(""), "source", &[]);
    let holds_data = |pack: &&PathBuf| pack.metadata().expect("a pack").len() > 50_000;
    let pack = before.iter().find(holds_data).expect("a pack of data");
    let mut bytes = fs::read(pack).expect("a pack");
    bytes[1000] ^= 1;
    fs::write(pack, bytes).expect("a damaged pack");

    let mut mounted = Mounted::new(&repo, &["--no-lock"]);
    let below = mounted.at("snapshots/latest/source");
    assert!(fs::read(below.join("whole")).expect("a file") == Random(2).bytes(100_000));
    let error = fs::read(below.join("lost")).expect_err("it is damaged");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let running = mounted.running();
    running.signal(Signal::INT);
    let run = running.finish().exits(3);
    assert!(run.errors().contains("/source/lost"), "{run}");
}

#[test]
fn a_mountpoint_must_be_a_directory() {
    let repo = Repo::empty(2);
    let run = repo.run(Peer::Vsm, ["mount", repo.beside("none").to_str().expect("UTF-8")]).exits(1);
    assert!(run.errors().contains("is not a directory"), "{run}");
}
