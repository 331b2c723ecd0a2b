//! Tests repositories in an S3 bucket, with both tools alone and together.

use super::interop::demand_restored;
use super::same_bytes::exact;
use crate::common::corpus::{self, Corpus};
use crate::common::peers::{Peer, Running};
use crate::common::s3::S3;
use crate::common::{Random, files_below, scratch, wait_for};
use std::fs;

#[test]
fn both_tools_read_a_bucket_of_either_and_share_one() {
    in_buckets_of(&S3::new());
}

#[test]
#[ignore = "the full tier: tests/full runs it"]
fn both_tools_read_a_bucket_of_either_and_share_one_on_minio() {
    in_buckets_of(&S3::minio());
}

fn in_buckets_of(s3: &S3) {
    restic_reads_our_bucket(s3);
    we_read_restics_bucket(s3);
    both_tools_share_a_bucket(s3);
}

fn restic_reads_our_bucket(s3: &S3) {
    let corpus = Corpus::shared();
    let repo = s3.repo("deep/er/ours");
    repo.init(Peer::Vsm, 2).ok();
    repo.backup(Peer::Vsm, corpus.parent(), corpus::NAME, &[]);
    repo.check(Peer::Restic019).ok();
    demand_restored(&repo, Peer::Vsm, Peer::Restic019, &corpus);
}

fn we_read_restics_bucket(s3: &S3) {
    let corpus = Corpus::shared();
    let repo = s3.repo("theirs");
    repo.init(Peer::Restic019, 2).ok();
    repo.backup(Peer::Restic019, corpus.parent(), corpus::NAME, &[]);
    repo.check(Peer::Vsm).ok();
    demand_restored(&repo, Peer::Restic019, Peer::Vsm, &corpus);
}

/// Both tools back up by turns into one repository at the root of a bucket; neither adds data that
/// the other has stored.
fn both_tools_share_a_bucket(s3: &S3) {
    let corpus = Corpus::shared();
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

/// A limit changes while a backup runs, like a ConfigMap in a pod, and the summary reports the cost
/// of the backup.
#[test]
fn a_backup_obeys_changed_limits_and_reports_its_cost() {
    let (s3, source, limits) = (S3::new(), scratch(), scratch());
    let repo = s3.repo("limited");
    repo.init(Peer::Vsm, 2).ok();
    fs::write(source.path().join("file"), Random(1).bytes(12 << 20)).expect("a file");
    let limit = limits.path().join("upload");
    fs::write(&limit, "64\n").expect("a file");
    let mut command = repo.command(Peer::Vsm);
    command.args(["backup", "--json", "--limits"]).arg(limits.path()).arg(source.path());
    let mut running = Running::start(command);
    wait_for("the lock", || {
        running.must_run();
        files_below(&s3.root()).iter().any(|file| file.to_string_lossy().contains("/limited/locks/")).then_some(())
    });
    fs::write(&limit, "a lot").expect("a file");
    running.wait_for_error("upload is not changed");
    // At this rate the backup takes three minutes.
    running.must_run();
    fs::write(&limit, "0").expect("a file");
    let run = running.finish().ok();
    assert!(!run.errors().contains("upload is not changed"), "once is enough: {run}");
    let summary = run.summary();
    let cost = |what: &str| summary["store"][what].as_u64().expect("a number");
    // The puts are lock, packs, index and snapshot; the sent bytes are the packs, and little else.
    assert!((5..12).contains(&cost("puts")) && cost("lists") > 0, "{summary}");
    let packed = summary["data_added_packed"].as_u64().expect("a number");
    assert!((packed..packed + (64 << 10)).contains(&cost("bytes_sent")), "{summary}");
    let text = repo.run(Peer::Vsm, ["check"]).ok().text();
    assert!(text.lines().any(|line| line.starts_with("requests: ") && line.contains(" gets, ")), "{text}");
    repo.check(Peer::Restic019).ok();
}

/// A missing repository and wrong credentials fail as in restic.
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

/// Later runs take indexes, snapshots and trees from the cache; a check does not trust it.
#[test]
fn a_cache_saves_requests_and_hides_no_damage() {
    let (dir, corpus) = (scratch(), Corpus::shared());
    let log = dir.path().join("access");
    std::fs::write(&log, "").expect("a log");
    let s3 = S3::with(&["--access-log", log.to_str().expect("UTF-8")]);
    let repo = s3.repo("cached");
    let gets = |directory: &str| {
        let log = std::fs::read_to_string(&log).expect("the log");
        let asked = format!("/cached/{directory}/");
        log.lines().filter(|line| line.contains("GetObject") && line.contains(&asked)).count()
    };
    let all = || ["index", "snapshots", "data"].map(gets);
    repo.init(Peer::Vsm, 2).ok();
    for (turn, peer) in [Peer::Vsm, Peer::Vsm, Peer::Restic019, Peer::Vsm, Peer::Vsm].into_iter().enumerate() {
        let before = all();
        repo.backup(peer, corpus.parent(), corpus::NAME, exact(peer));
        // Only our requests are compared; in turn 3 restic's snapshot is new to us.
        if peer != Peer::Vsm {
            continue;
        }
        assert_eq!(all(), if turn == 3 { [before[0], before[1] + 1, before[2]] } else { before }, "turn {turn}");
    }
    demand_restored(&repo, Peer::Vsm, Peer::Vsm, &corpus);
    let before = all();
    repo.run(Peer::Vsm, ["ls", "latest", "--no-cache"]).ok();
    assert!(all().into_iter().zip(before).all(|(after, before)| after > before), "without a cache all is requested");

    // The packs in the cache are those of trees.
    let cache = repo.beside("home-Vsm/cache/vsm-mover");
    let copies = files_below(&cache);
    let pack = copies.iter().find(|copy| copy.to_str().is_some_and(|copy| copy.contains("/data/"))).expect("a copy");
    let name = pack.file_name().expect("a name");
    let bucket = files_below(&s3.root());
    let original = bucket.iter().find(|file| file.file_name() == Some(name)).expect("an original");
    assert_eq!(std::fs::read(original).expect("a pack"), std::fs::read(pack).expect("a pack"));
    let mut damaged = std::fs::read(original).expect("a pack");
    damaged[100] ^= 1;
    std::fs::write(original, damaged).expect("a damaged pack");
    for arguments in [&["check"][..], &["check", "--read-data"], &["check", "--no-cache"]] {
        repo.run(Peer::Vsm, arguments).exits(1);
    }
    repo.run(Peer::Vsm, ["check", "--with-cache"]).ok();
    assert_eq!(files_below(&cache), copies, "a check leaves nothing behind");
}

#[test]
fn an_unusable_cache_is_reported_and_harms_nothing() {
    let (s3, dir) = (S3::new(), scratch());
    let repo = s3.repo("uncached");
    repo.init(Peer::Vsm, 2).ok();
    let file = dir.path().join("file");
    std::fs::write(&file, "no directory").expect("a file");
    let run = repo.run(Peer::Vsm, ["snapshots", "--cache-dir", file.to_str().expect("UTF-8")]).ok();
    let told = format!("{run}");
    assert!(told.contains("continuing without a cache: cannot use ") && told.contains("Not a directory"), "{told}");
}
