//! Tests block devices: a backup stores one as a regular file, and a restore writes a file onto a
//! device.

use crate::common::Random;
use crate::common::loops::LoopDevice;
use crate::common::peers::{Peer, Repo, Run};
use std::io::Write;
use std::path::Path;

const MIB: usize = 1 << 20;

/// 24 MiB: random data, long runs of zeros with odd edges, a zero tail.
fn image() -> Vec<u8> {
    let mut image = Random(77).bytes(24 * MIB);
    image[3 * MIB + 5..9 * MIB - 7].fill(0);
    image[12 * MIB..12 * MIB + 4096].fill(0);
    image[20 * MIB + 1..].fill(0);
    image
}

fn device_holding(content: &[u8]) -> LoopDevice {
    LoopDevice::with_content(&mut |file| file.write_all(content))
}

/// Backs up a device by its own path and returns the file's path in the snapshot.
fn back_up(repo: &Repo, device: &LoopDevice) -> String {
    repo.backup(Peer::Vsm, Path::new("/"), device.path().to_str().expect("a path"), &["--read-special"]);
    device.path().to_str().expect("a path").to_owned()
}

fn restore_onto(repo: &Repo, peer: Peer, snapshot: &str, device: &LoopDevice) -> Run {
    repo.run(peer, ["restore", snapshot, "--target", device.path().to_str().expect("a path")])
}

#[test]
fn restic_dumps_a_device_as_one_file() {
    let image = image();
    let device = device_holding(&image);
    let repo = Repo::empty(2);
    let path = back_up(&repo, &device);
    repo.check(Peer::Restic019).ok();
    let nodes = repo.ls(Peer::Restic019, "latest");
    let files: Vec<_> = nodes.iter().filter(|node| node["type"] != "dir").collect();
    assert_eq!(files.len(), 1, "{nodes:?}");
    assert_eq!(
        (&files[0]["type"], &files[0]["path"], &files[0]["size"]),
        (&"file".into(), &path.as_str().into(), &image.len().into())
    );
    for peer in [Peer::Restic014, Peer::Restic019, Peer::Vsm] {
        let dumped = repo.run(peer, ["dump", "latest", &path]).ok();
        assert!(dumped.stdout() == image, "{peer:?} dumps {} bytes", dumped.stdout().len());
    }
}

/// A device has the chunk boundaries of a file with the same bytes: both share every blob.
#[test]
fn a_device_shares_its_blobs_with_a_file() {
    let image = image();
    let device = device_holding(&image);
    let repo = Repo::empty(2);
    let dir = repo.beside("file");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("image"), &image).expect("a file");
    repo.backup(Peer::Restic019, &dir, "image", &[]);
    let added = repo.backup(Peer::Vsm, Path::new("/"), device.path().to_str().expect("a path"), &["--read-special"]);
    assert_eq!(added["data_blobs"], 0, "{added}");
    assert_eq!(added["total_bytes_processed"], image.len(), "{added}");
}

/// A device that was not zeroed has the bytes of the image after a restore, also where the image is
/// zero.
#[test]
fn a_restore_leaves_nothing_of_the_old_content() {
    let image = image();
    let repo = Repo::empty(2);
    let path = back_up(&repo, &device_holding(&image));
    for size in [image.len(), image.len() + 3 * MIB] {
        let target = LoopDevice::filled(size as u64, 0xFF);
        restore_onto(&repo, Peer::Vsm, &format!("latest:{path}"), &target).ok();
        let content = target.content();
        assert!(content[..image.len()] == image, "{}", first_difference(&content, &image));
        assert!(content[image.len()..].iter().all(|byte| *byte == 0xFF), "written past the image's end");
    }
}

/// A file that restic stored can be restored onto a device: the volume's mode or its tool has
/// changed.
#[test]
fn a_file_that_restic_stored_is_restored_onto_a_device() {
    let image = image();
    let repo = Repo::empty(2);
    let dir = repo.beside("file");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("image"), &image).expect("a file");
    repo.backup(Peer::Restic019, &dir, "image", &[]);
    let target = LoopDevice::filled(image.len() as u64, 0xFF);
    restore_onto(&repo, Peer::Vsm, "latest:/image", &target).ok();
    let content = target.content();
    assert!(content == image, "{}", first_difference(&content, &image));
}

#[test]
fn a_device_that_is_too_small_is_refused_and_not_written() {
    let image = image();
    let repo = Repo::empty(2);
    let path = back_up(&repo, &device_holding(&image));
    let target = LoopDevice::filled((image.len() - 4096) as u64, 0xFF);
    let refused = restore_onto(&repo, Peer::Vsm, &format!("latest:{path}"), &target).exits(1);
    assert!(refused.errors().contains(target.path().to_str().expect("a path")), "the device is not named\n{refused}");
    assert!(target.content().iter().all(|byte| *byte == 0xFF), "something was written");
}

/// The packs that hold data, each of more than 512 KiB.
fn data_packs(repo: &Repo) -> Vec<std::path::PathBuf> {
    let mut packs = crate::common::files_below(&repo.path().join("data"));
    packs.retain(|path| path.metadata().expect("a pack").len() > 512 << 10);
    packs
}

/// A snapshot of random bytes in several packs, one of which is removed; with `reindexed`, the
/// index lacks its blobs, too.
fn image_without_a_pack(reindexed: bool) -> (Repo, Vec<u8>, String) {
    let image = Random(78).bytes(40 * MIB);
    let repo = Repo::empty(2);
    let device = device_holding(&image);
    let arguments = ["--read-special", "--pack-size", "4"];
    repo.backup(Peer::Vsm, Path::new("/"), device.path().to_str().expect("a path"), &arguments);
    let packs = data_packs(&repo);
    assert!(packs.len() > 4, "{packs:?}");
    std::fs::remove_file(&packs[packs.len() / 2]).expect("a pack");
    if reindexed {
        repo.run(Peer::Restic019, ["repair", "index"]).ok();
    }
    let path = device.path().to_str().expect("a path").to_owned();
    (repo, image, path)
}

/// The restore writes the data that it can read, and then fails, because it has nothing else to
/// restore.
#[test]
fn restore_of_an_incomplete_image_writes_the_readable_data_and_fails() {
    for reindexed in [false, true] {
        let (repo, image, path) = image_without_a_pack(reindexed);
        let target = LoopDevice::filled(image.len() as u64, 0xFF);
        let run = restore_onto(&repo, Peer::Vsm, &format!("latest:{path}"), &target).exits(1);
        let said = run.errors();
        let fatal = said.lines().find(|line| line.starts_with("Fatal: ")).unwrap_or_else(|| panic!("{run}"));
        for word in [target.path().to_str().expect("a path"), "bytes are missing", "restore another snapshot"] {
            assert!(fatal.contains(word), "no {word:?} in\n{run}");
        }
        let content = target.content();
        let same = content.iter().zip(&image).filter(|(one, other)| one == other).count();
        assert!(same > image.len() / 8 && same < image.len(), "{same} bytes are right");
        if !reindexed {
            // All but one pack of about a tenth.
            assert!(same > image.len() / 2, "{same} bytes are right");
        }
        let (onto, from) = (target.path().to_str().expect("a path"), format!("latest:{path}"));
        let dry = repo.run(Peer::Vsm, ["restore", &from, "--target", onto, "--dry-run"]);
        assert_eq!(dry.code(), i32::from(reindexed), "without reading, only the index shows the loss\n{dry}");
        assert_eq!(dry.errors().contains("Nothing was written"), reindexed, "{dry}");
        assert!(!dry.errors().contains("The readable data was written"), "{dry}");
        let both = restore_onto(&repo, Peer::Vsm, &format!("latest:{path}"), &target);
        assert!(!both.text().contains("Summary"), "{both}");
    }
}

#[test]
fn tree_options_are_refused_for_a_device_and_nothing_is_written() {
    let image = image();
    let repo = Repo::empty(2);
    let path = back_up(&repo, &device_holding(&image));
    let target = LoopDevice::filled(image.len() as u64, 0xFF);
    let patterns = repo.beside("patterns");
    std::fs::write(&patterns, "x\n").expect("a file");
    let patterns = patterns.to_str().expect("a path");
    let refused: [(&[&str], &str); 13] = [
        (&["--include", "x"], "--include"),
        (&["--iinclude", "x"], "--include"),
        (&["--include-file", patterns], "--include"),
        (&["--iinclude-file", patterns], "--include"),
        (&["--exclude", "x"], "--exclude"),
        (&["--iexclude", "x"], "--exclude"),
        (&["--exclude-file", patterns], "--exclude"),
        (&["--iexclude-file", patterns], "--exclude"),
        (&["--delete"], "--delete"),
        (&["--volume"], "--volume"),
        (&["--overwrite", "never"], "--overwrite"),
        (&["--overwrite", "if-newer"], "--overwrite"),
        (&["--overwrite", "if-changed"], "--overwrite"),
    ];
    for (options, named) in refused {
        let snapshot = format!("latest:{path}");
        let device = target.path().to_str().expect("a path");
        let arguments = [&["restore", &snapshot, "--target", device], options].concat();
        let run = repo.run(Peer::Vsm, arguments).exits(1);
        assert!(run.errors().contains(named) && run.errors().contains(device), "{options:?}\n{run}");
    }
    assert!(target.content().iter().all(|byte| *byte == 0xFF), "something was written");
}

/// Without `--read-special` a backup stores the numbers of a device and not its content, as restic
/// does.
#[test]
fn only_the_numbers_of_a_device_are_stored_by_default() {
    let device = device_holding(&image());
    let repo = Repo::empty(2);
    let made = repo.backup(Peer::Vsm, Path::new("/"), device.path().to_str().expect("a path"), &[]);
    assert_eq!(made["data_blobs"], 0, "{made}");
    let kinds: Vec<_> = repo.ls(Peer::Restic019, "latest").into_iter().map(|node| node["type"].clone()).collect();
    assert_eq!(kinds, ["dir", "dev"]);
}

fn first_difference(found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).position(|(one, other)| one != other);
    format!("{} bytes against {}, first difference at {at:?}", found.len(), expected.len())
}
