//! Tests repositories in Azure and in Google's storage that restic and vsm share: each reads the
//! snapshots of the other.

use crate::common::azurite::Azurite;
use crate::common::compare::{self, Options};
use crate::common::google::Google;
use crate::common::peers::{Peer, Repo};
use crate::common::{Random, scratch};
use std::fs;

#[test]
fn restic_and_ours_share_a_container_of_azure() {
    let server = Azurite::with_tls();
    share(|prefix| server.repo(prefix));
}

#[test]
fn restic_and_ours_share_a_bucket_of_google() {
    let server = Google::new();
    share(|prefix| server.repo(prefix));
}

fn share(at: impl Fn(&str) -> Repo) {
    let source = scratch();
    let write = |name: &str, seed: u64| {
        fs::write(source.path().join("data").join(name), Random(seed).bytes(3 << 20)).expect("a file")
    };
    fs::create_dir(source.path().join("data")).expect("a directory");
    for (maker, other, prefix) in [(Peer::Restic019, Peer::Vsm, "theirs"), (Peer::Vsm, Peer::Restic019, "ours/deep er")]
    {
        let repo = at(prefix);
        repo.init(maker, 2).ok();
        write("first", 1);
        repo.backup(maker, source.path(), "data", &[]);
        write("second", 2);
        let summary = repo.backup(other, source.path(), "data", &[]);
        assert_eq!(summary["files_new"], 1, "the other's snapshot is a parent: {summary}");
        for peer in [maker, other] {
            repo.check(peer).ok();
            let target = scratch();
            repo.restore(peer, "latest", &target.path().join("out")).ok();
            compare::assert_same(&source.path().join("data"), &target.path().join("out/data"), Options::default());
        }
        let first = repo.snapshots(Peer::Restic019)[0]["id"].as_str().expect("an id").to_owned();
        repo.run(Peer::Vsm, ["forget", &first, "--prune"]).ok();
        repo.check(Peer::Restic019).ok();
        fs::remove_file(source.path().join("data/second")).expect("a removal");
    }
    let nowhere = at("nothing-here");
    let run = nowhere.run(Peer::Vsm, ["snapshots"]).exits(10);
    assert!(run.errors().contains(nowhere.url.to_str().expect("UTF-8")), "{run}");
}
