//! Tests repositories in object stores behind a slow link, where a process can end in the middle of
//! a request.

use crate::common::azurite::Azurite;
use crate::common::compare::{self, Options};
use crate::common::google::Google;
use crate::common::link::{Link, Profile};
use crate::common::peers::{Peer, Repo, Running};
use crate::common::s3::{BUCKET, S3};
use crate::common::{Random, files_below, scratch, wait_for};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use vsm::id::Id;

/// A pack takes 1 s on one of five connections of `SLOW`, and 4 s on one of `SLOWER`.
const SLOW: Profile = Profile { round_trip: Duration::from_millis(20), each: 16e6, shared: 80e6 };
const SLOWER: Profile = Profile { round_trip: Duration::from_millis(20), each: 4e6, shared: 20e6 };

/// A directory `data` with a file of `mib` MiB of random bytes, and small files beside it.
fn volume(mib: usize) -> TempDir {
    let source = scratch();
    let data = source.path().join("data");
    fs::create_dir_all(data.join("small")).expect("directories");
    fs::write(data.join("image"), Random(31).bytes(mib << 20)).expect("space");
    for number in 0..200 {
        fs::write(data.join(format!("small/file-{number}")), Random(number).bytes(3000)).expect("space");
    }
    source
}

/// Runs our commands, from `init` to `prune`, on a repository behind the link, and restic's check
/// without the link.
fn lives(behind: &Repo, direct: &Repo) {
    let source = volume(40);
    behind.init(Peer::Vsm, 2).ok();
    behind.backup(Peer::Vsm, source.path(), "data", &[]);
    direct.check(Peer::Restic019).ok();
    behind.check(Peer::Vsm).ok();
    // With a small memory budget, and with a larger one.
    for (round, memory) in ["64M", "96M"].into_iter().enumerate() {
        let target = scratch();
        behind.restore_with(Peer::Vsm, "latest", &target.path().join("out"), &["--memory", memory]).ok();
        compare::assert_same(&source.path().join("data"), &target.path().join("out/data"), Options::default());
        fs::write(source.path().join("data/image"), Random(round as u64).bytes(20 << 20)).expect("space");
        behind.backup(Peer::Vsm, source.path(), "data", &["--memory", memory]);
        behind.run(Peer::Vsm, ["check", "--read-data", "--memory", memory]).ok();
    }
    behind.run(Peer::Vsm, ["forget", "--keep-last", "1", "--prune"]).ok();
    direct.check(Peer::Restic019).ok();
    assert_eq!(direct.snapshots(Peer::Restic019).len(), 1);
}

#[test]
fn a_repository_in_s3_works_behind_a_slow_link() {
    let server = S3::new();
    let link = Link::to(server.port(), SLOW);
    lives(&server.repo_by(link.port(), "here"), &server.repo("here"));
}

#[test]
fn a_repository_in_azure_works_behind_a_slow_link() {
    let server = Azurite::with_tls();
    let link = Link::to(server.port, SLOW);
    lives(&server.repo_by(link.port(), "here"), &server.repo("here"));
}

#[test]
fn a_repository_in_google_works_behind_a_slow_link() {
    let server = Google::new();
    let link = Link::to(server.front.port, SLOW);
    lives(&server.repo_by(link.port(), "here"), &server.repo("here"));
}

/// A backup is killed in the middle of its uploads: the bucket holds only whole packs, and the next
/// backup completes the repository.
#[test]
fn a_backup_that_is_killed_during_uploads_leaves_no_partial_pack() {
    let server = S3::new();
    let link = Link::to(server.port(), SLOWER);
    let (behind, direct) = (server.repo_by(link.port(), "here"), server.repo("here"));
    direct.init(Peer::Vsm, 2).ok();
    let source = volume(160);
    let objects = server.root().join(BUCKET).join("here/data");
    let packs = || if objects.is_dir() { files_below(&objects) } else { Vec::new() };
    let mut command = behind.command(Peer::Vsm);
    command.current_dir(source.path()).args(["backup", "--host", "tests", "data"]);
    let running = Running::start(command);
    // When the first packs have arrived, the next ones are on their way for four seconds each.
    wait_for("a pack", || (!packs().is_empty()).then_some(()));
    running.signal(Signal::KILL);
    drop(running.finish());
    let arrived = packs();
    assert!(arrived.len() < 10, "all packs have arrived: no upload was interrupted");
    arrived.iter().for_each(|pack| demand_whole(pack));
    direct.run(Peer::Vsm, ["unlock", "--remove-all"]).ok();
    direct.backup(Peer::Vsm, source.path(), "data", &[]);
    packs().iter().for_each(|pack| demand_whole(pack));
    direct.check(Peer::Restic019).ok();
    direct.check(Peer::Vsm).ok();
}

/// A pack's name is the hash of its bytes.
fn demand_whole(pack: &Path) {
    let bytes = fs::read(pack).expect("an object");
    assert_eq!(pack.file_name().expect("a name").to_str(), Some(&*Id::of(&bytes).to_string()), "{pack:?}");
}
