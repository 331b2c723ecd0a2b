//! Tests that a source which is named and cannot be read is an error, and makes no snapshot: every
//! kind of source, every place at which a read can fail, by the command line and by a mover's Job.
//!
//! The faults are real: a FUSE file system that fails on demand, a loop device over a file in it, a
//! loop device whose backing file has been truncated, a device node without a driver, a listing
//! that breaks off.

use super::work::Pod;
use crate::common::faulty::{At, Faulty};
use crate::common::loops::{LoopDevice, run};
use crate::common::peers::{HOST, Peer, Repo, Run};
use crate::common::{Random, scratch};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: usize = 1 << 20;
/// The size of the file, the stream and the device that are backed up.
const SIZE: usize = 9 * MIB;

/// The offsets in a content of [`SIZE`] bytes at which a read fails.
const READS: [(&str, u64); 3] =
    [("at the start", 0), ("in the middle", (SIZE / 2) as u64), ("at the end", (SIZE - 4096) as u64)];

/// A directory of six entries and a file, on a file system that fails on demand, and a repository.
struct Bed {
    repo: Repo,
    faulty: Faulty,
}

impl Bed {
    fn new() -> Bed {
        let faulty = Faulty::new();
        let dir = faulty.content().join("dir");
        fs::create_dir(&dir).expect("a directory");
        for number in 0..6 {
            fs::write(dir.join(format!("f{number}")), Random(number).bytes(10_000)).expect("a file");
        }
        fs::write(faulty.content().join("file"), Random(9).bytes(SIZE)).expect("a file");
        Bed { repo: Repo::empty(2), faulty }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.faulty.path().join(name)
    }

    /// A symlink outside the faulty file system.
    fn link_to(&self, target: &Path) -> PathBuf {
        let link = self.repo.beside("link");
        let _ = fs::remove_file(&link);
        symlink(target, &link).expect("a symlink");
        link
    }

    fn backup(&self, arguments: &[&str], path: &Path) -> Run {
        let mut command = self.repo.command(Peer::Vsm);
        command.args(["backup", "--json", "--host", HOST]).args(arguments).arg(path);
        Run::of(&mut command)
    }

    fn backup_stdin(&self, input: &Path) -> Run {
        let mut command = self.repo.command(Peer::Vsm);
        command.args(["backup", "--json", "--host", HOST, "--stdin"]);
        command.stdin(Stdio::from(File::open(input).expect("it can be opened")));
        Run::of(&mut command)
    }

    fn mover(&self, source: &Path, exit: i32) -> Value {
        let pod = Pod::new(&self.repo);
        pod.run(&pod.backup(source, "vsb:1"), exit)
    }

    fn has_no_snapshot(&self, case: &str) {
        assert!(self.repo.list("snapshots").is_empty(), "{case}: there is a snapshot");
    }

    /// Asserts that the command line fails, names the source, and makes no snapshot.
    fn cli_fails(&self, case: &str, named: &Path, run: Run) {
        assert_eq!(run.code(), 1, "{case}\n{run}");
        let name = named.to_str().expect("a path");
        let fatal = run.errors().lines().last().unwrap_or_default().to_owned();
        assert!(fatal.contains("exit_error") && fatal.contains(name), "{case}: {name} is not named\n{run}");
        assert!(!run.text().contains("\"summary\""), "{case}: a summary as of a success\n{run}");
        self.has_no_snapshot(case);
    }

    /// Asserts that the mover reports a failure that a retry may resolve, and makes no snapshot.
    fn mover_fails(&self, case: &str, source: &Path) {
        let report = self.mover(source, 1);
        let failed = &report["outcome"]["failed"];
        assert_eq!(failed["reason"], "VolumeUnreadable", "{case}: {report}");
        assert!(failed["message"].as_str().is_some_and(|text| text.contains("cannot")), "{case}: {report}");
        self.has_no_snapshot(case);
    }
}

#[test]
fn a_directory_that_cannot_be_listed_to_its_end_makes_no_snapshot() {
    let bed = Bed::new();
    let dir = bed.path("dir");
    let faults = [("cannot open", At::Open), ("start", At::List(0)), ("middle", At::List(4)), ("end", At::List(6))];
    for (case, fault) in faults {
        bed.faulty.fail("dir", fault, Errno::IO);
        let link = bed.link_to(&dir);
        bed.cli_fails(case, &dir, bed.backup(&[], &dir));
        bed.cli_fails(case, &dir, bed.backup(&["--volume"], &dir));
        // The volume's root is the target of the symlink.
        bed.cli_fails(case, &dir, bed.backup(&["--volume"], &link));
        let mut inside = bed.repo.command(Peer::Vsm);
        inside.current_dir(&dir).args(["backup", "--json", "."]);
        bed.cli_fails(case, Path::new("."), Run::of(&mut inside));
        bed.mover_fails(case, &dir);
        bed.mover_fails(case, &link);
        bed.faulty.heal();
    }
    bed.backup(&[], &dir).ok();
    assert_eq!(bed.mover(&dir, 0)["outcome"]["saved"]["files"], 6);
}

/// An entry that is lost below a named directory is counted, and the others are stored.
#[test]
fn a_lost_entry_below_a_named_directory_is_counted() {
    for (lost, fault, missing) in
        [("dir/f3", At::Open, 1), ("dir/f3", At::Read(4096), 1), ("dir/f3", At::Stat, 1), ("dir", At::List(3), 3)]
    {
        let bed = Bed::new();
        bed.faulty.fail(lost, fault, Errno::IO);
        let run = bed.backup(&[], &bed.faulty.path()).exits(3);
        assert!(run.errors().contains(lost), "{run}");
        let files = bed.repo.ls(Peer::Restic019, "latest").iter().filter(|node| node["type"] == "file").count();
        assert_eq!(files, 7 - missing, "{lost} {fault:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_makes_no_snapshot() {
    let bed = Bed::new();
    let file = bed.path("file");
    let opens = [("cannot open", At::Open), ("cannot stat", At::Stat)];
    for (case, fault) in opens.into_iter().chain(READS.map(|(case, at)| (case, At::Read(at)))) {
        bed.faulty.fail("file", fault, Errno::IO);
        bed.cli_fails(case, &file, bed.backup(&[], &file));
        bed.cli_fails(case, &file, bed.backup(&["--read-special", "--force"], &file));
        // If all of several sources are lost, each is named.
        let mut both = bed.repo.command(Peer::Vsm);
        both.args(["backup", "--json"]).arg(&file).arg(bed.path("missing"));
        let both = Run::of(&mut both);
        for name in [&file, &bed.path("missing")] {
            assert!(both.errors().contains(name.to_str().expect("a path")), "{case}\n{both}");
        }
        assert_eq!(both.code(), 1, "{case}\n{both}");
        bed.has_no_snapshot(case);
        bed.faulty.heal();
    }
    // A mover's volume is never a file.
    let report = bed.mover(&file, 13);
    assert_eq!(report["outcome"]["failed"]["reason"], "VolumeMissing", "{report}");
    bed.has_no_snapshot("a mover's file");
    // A symlink is stored as a symlink, as in restic, so the unreadable target is no problem.
    bed.faulty.fail("file", At::Open, Errno::IO);
    bed.backup(&[], &bed.link_to(&file)).ok();
    let types: Vec<_> = bed.repo.ls(Peer::Restic019, "latest").into_iter().map(|node| node["type"].clone()).collect();
    assert_eq!(types.last(), Some(&json!("symlink")), "{types:?}");
}

/// A lost source of several is a problem, and the others are stored, as in restic.
#[test]
fn one_lost_source_of_several_is_counted() {
    let bed = Bed::new();
    bed.faulty.fail("file", At::Read(5), Errno::IO);
    let mut command = bed.repo.command(Peer::Vsm);
    command.args(["backup", "--json"]).arg(bed.path("file")).arg(bed.path("dir"));
    let run = Run::of(&mut command).exits(3);
    assert!(run.errors().contains("/file"), "{run}");
    let files = bed.repo.ls(Peer::Restic019, "latest").iter().filter(|node| node["type"] == "file").count();
    assert_eq!(files, 6);
}

#[test]
fn standard_input_that_cannot_be_read_to_its_end_makes_no_snapshot() {
    let bed = Bed::new();
    for (case, at) in READS {
        bed.faulty.fail("file", At::Read(at), Errno::IO);
        bed.cli_fails(case, Path::new("standard input"), bed.backup_stdin(&bed.path("file")));
        bed.cli_fails(case, Path::new("standard input"), bed.backup_stdin(&bed.link_to(&bed.path("file"))));
        bed.faulty.heal();
    }
    bed.backup_stdin(&bed.path("file")).ok();
    let dumped = bed.repo.run(Peer::Restic019, ["dump", "latest", "/stdin"]).ok();
    assert!(dumped.stdout() == Random(9).bytes(SIZE), "{} bytes", dumped.stdout().len());
}

/// A loop device over a file of the faulty file system; detached on drop.
struct Device(PathBuf);

impl Device {
    fn over(file: &Path) -> Device {
        Device(PathBuf::from(run(Command::new("losetup").args(["--find", "--show"]).arg(file)).trim()))
    }

    /// The device, after its page cache was dropped.
    fn fresh(&self) -> &Path {
        run(Command::new("blockdev").arg("--flushbufs").arg(&self.0));
        &self.0
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn a_device_that_cannot_be_read_to_its_end_makes_no_snapshot() {
    let bed = Bed::new();
    let device = Device::over(&bed.path("file"));
    let link = bed.link_to(device.fresh());
    for (case, at) in READS {
        bed.faulty.fail("file", At::Read(at), Errno::IO);
        for path in [&*device.0, &*link] {
            device.fresh();
            bed.cli_fails(case, path, bed.backup(&["--read-special"], path));
            device.fresh();
            bed.mover_fails(case, path);
        }
        bed.faulty.heal();
    }
    for path in [&*device.0, &*link] {
        device.fresh();
        bed.backup(&["--read-special"], path).ok();
        let dumped = bed.repo.run(Peer::Restic019, ["dump", "latest", path.to_str().expect("a path")]).ok();
        assert!(dumped.stdout() == Random(9).bytes(SIZE), "{} bytes", dumped.stdout().len());
    }
    assert_eq!(bed.mover(&link, 0)["outcome"]["saved"]["bytes"], SIZE);
}

#[test]
fn a_device_without_a_driver_or_backing_file_makes_no_snapshot() {
    let bed = Bed::new();
    // No driver has this number (Documentation/admin-guide/devices.txt keeps it for local use).
    let unknown = bed.repo.beside("device");
    run(Command::new("mknod").arg(&unknown).args(["b", "240", "7"]));
    let detached = LoopDevice::filled(4096, 1).path().to_owned();
    for (case, device) in [("no driver", unknown), ("detached", detached)] {
        let link = bed.link_to(&device);
        for path in [&device, &link] {
            bed.cli_fails(case, path, bed.backup(&["--read-special"], path));
            let report = bed.mover(path, 1);
            assert_eq!(report["outcome"]["failed"]["reason"], "VolumeUnreadable", "{case}: {report}");
            bed.has_no_snapshot(case);
        }
    }
}

#[test]
fn a_device_whose_backing_file_was_truncated_makes_no_snapshot() {
    let bed = Bed::new();
    let dir = scratch();
    let image = dir.path().join("image");
    for (case, left) in [("start", 0), ("middle", SIZE / 2), ("end", SIZE - 4096)] {
        fs::write(&image, Random(9).bytes(SIZE)).expect("an image");
        let device = Device::over(&image);
        File::options().write(true).open(&image).and_then(|file| file.set_len(left as u64)).expect("truncated");
        bed.cli_fails(case, device.fresh(), bed.backup(&["--read-special"], &device.0));
        bed.mover_fails(case, device.fresh());
    }
}

/// With `--read-special` the user wants content: a source without readable content is an error, and
/// a device whose content is not read is reported.
#[test]
fn read_special_reports_sources_that_it_does_not_read() {
    let bed = Bed::new();
    let fifo = bed.repo.beside("fifo");
    run(Command::new("mkfifo").arg(&fifo));
    let dangling = bed.repo.beside("dangling");
    symlink("nowhere", &dangling).expect("a symlink");
    for path in [fifo.as_path(), Path::new("/dev/null"), &dangling, &bed.link_to(&fifo)] {
        bed.cli_fails("not a block device", path, bed.backup(&["--read-special"], path));
    }
    // A device that is found in a directory is stored as a node even then.
    let device = LoopDevice::filled(4096, 1);
    let dir = bed.repo.beside("nodes");
    fs::create_dir(&dir).expect("a directory");
    Run::of(Command::new("cp").arg("-a").arg(device.path()).arg(dir.join("node"))).ok();
    let run = bed.backup(&["--read-special"], &dir).ok();
    assert!(run.errors().contains("nodes/node") && run.errors().contains("without its content"), "{run}");
    // Without the option a named device is stored as a node, which is reported.
    for path in [device.path(), &bed.link_to(device.path())] {
        let run = bed.backup(&[], path).ok();
        assert!(run.errors().contains("--read-special"), "{run}");
    }
}
