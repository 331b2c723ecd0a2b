//! Repositories in an S3 bucket: both tools, alone and together.

use super::interop::demand_restored;
use super::same_bytes::exact;
use crate::common::corpus::{self, Corpus};
use crate::common::peers::Peer;
use crate::common::s3::S3;

#[test]
fn restic_reads_our_bucket() {
    let (s3, corpus) = (S3::new(), Corpus::shared());
    let repo = s3.repo("deep/er/ours");
    repo.init(Peer::Vsm, 2).ok();
    repo.backup(Peer::Vsm, corpus.parent(), corpus::NAME, &[]);
    repo.check(Peer::Restic019).ok();
    demand_restored(&repo, Peer::Vsm, Peer::Restic019, &corpus);
}

#[test]
fn we_read_restics_bucket() {
    let (s3, corpus) = (S3::new(), Corpus::shared());
    let repo = s3.repo("theirs");
    repo.init(Peer::Restic019, 2).ok();
    repo.backup(Peer::Restic019, corpus.parent(), corpus::NAME, &[]);
    repo.check(Peer::Vsm).ok();
    demand_restored(&repo, Peer::Restic019, Peer::Vsm, &corpus);
}

/// Both tools take turns in one repository at the root of a bucket; neither adds what the other has stored.
#[test]
fn both_tools_share_a_bucket() {
    let (s3, corpus) = (S3::new(), Corpus::shared());
    let repo = s3.repo("");
    repo.init(Peer::Vsm, 2).ok();
    for (turn, peer) in [Peer::Vsm, Peer::Restic019, Peer::Vsm, Peer::Restic019].into_iter().enumerate() {
        let added = repo.backup(peer, corpus.parent(), corpus::NAME, exact(peer));
        assert_eq!(added["data_blobs"] == 0 && added["tree_blobs"] == 0, turn > 0, "turn {turn}, {peer:?}: {added}");
    }
    for peer in [Peer::Restic019, Peer::Vsm] {
        repo.check(peer).ok();
        assert_eq!(repo.snapshots(peer).len(), 4);
    }
    let oldest = repo.snapshots(Peer::Restic019)[0]["id"].as_str().expect("an id").to_owned();
    repo.run(Peer::Vsm, ["forget", &oldest]).ok();
    assert_eq!(repo.snapshots(Peer::Restic019).len(), 3);
    assert!(repo.list("locks").is_empty(), "locks were left");
}

/// A bucket that is not there, and credentials that are wrong, fail as they do in restic.
#[test]
fn a_refusing_store_fails_as_in_restic() {
    let s3 = S3::new();
    let repo = s3.repo("none");
    for peer in [Peer::Restic019, Peer::Vsm] {
        let code = repo.run(peer, ["snapshots"]).code();
        assert_eq!(code, 10, "{peer:?}: no repository at an empty prefix");
    }
    let mut refused = s3.repo("none");
    refused.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let expected = refused.run(Peer::Restic019, ["snapshots", "--retry-lock", "0s"]);
    let found = refused.run(Peer::Vsm, ["snapshots"]);
    assert!(!expected.succeeded());
    assert_eq!(found.code(), expected.code(), "restic says:\n{expected}\nwe say:\n{found}");
}
