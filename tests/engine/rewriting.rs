//! Tests that `copy`, `rewrite` and `migrate` make the same trees and snapshots as restic's, and
//! leave no fault.

use crate::common::compare::{self, Options};
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

fn write(dir: &tempfile::TempDir, name: &str, content: &[u8]) {
    let path = dir.path().join("data").join(name);
    fs::create_dir_all(path.parent().expect("above")).expect("directories");
    fs::write(path, content).expect("a file");
}

/// Two snapshots, the first without tags.
fn repository(writer: Peer, format: u32) -> (Repo, tempfile::TempDir) {
    let repo = Repo::empty(format);
    let source = scratch();
    write(&source, "large", &Random(1).bytes(6 << 20));
    write(&source, "logs/a.log", &Random(2).bytes(5000));
    write(&source, "logs/deep/b.LOG", &Random(3).bytes(5000));
    write(&source, "same/copy.log", &Random(2).bytes(5000));
    write(&source, "text", "line\n".repeat(20_000).as_bytes());
    repo.backup(writer, source.path(), "data", &[]);
    write(&source, "new", &Random(4).bytes(100_000));
    repo.backup(writer, source.path(), "data", &["--tag", "second"]);
    (repo, source)
}

/// The given fields of all snapshots.
fn said(repo: &Repo, fields: &[&str]) -> BTreeSet<String> {
    let text = |snapshot: &Value| fields.iter().map(|field| format!("{} ", snapshot[field])).collect();
    repo.snapshots(Peer::Restic019).iter().map(text).collect()
}

const WHOLE: [&str; 10] =
    ["time", "tree", "paths", "hostname", "username", "tags", "original", "excludes", "uid", "program_version"];

fn run_from(peer: Peer, from: &Repo, to: &Repo, words: &[&str]) -> Run {
    let mut command = to.command(peer);
    command.env("RESTIC_FROM_REPOSITORY", &from.url).env("RESTIC_FROM_PASSWORD", PASSWORD).args(words);
    Run::of(&mut command)
}

#[test]
fn init_copies_the_chunker_parameters_of_its_source() {
    let polynomial =
        |repo: &Repo| repo.run(Peer::Restic019, ["cat", "config"]).ok().json()["chunker_polynomial"].clone();
    let from = Repo::made_by(Peer::Restic019, 2);
    for peer in [Peer::Restic019, Peer::Vsm] {
        let to = Repo::new();
        run_from(peer, &from, &to, &["init", "--copy-chunker-params", "--repository-version", "2"]).ok();
        assert_eq!(polynomial(&to), polynomial(&from), "{peer:?}");
    }
}

#[test]
fn copy_makes_the_same_snapshots_as_restics() {
    for (writer, format) in [(Peer::Restic019, 2), (Peer::Vsm, 2), (Peer::Restic014, 1)] {
        let (from, source) = repository(writer, format);
        let (theirs, ours) = (Repo::empty(2), Repo::empty(2));
        run_from(Peer::Restic019, &from, &theirs, &["copy"]).ok();
        run_from(Peer::Vsm, &from, &ours, &["copy"]).ok();
        assert_eq!(said(&ours, &WHOLE), said(&theirs, &WHOLE));
        for peer in [Peer::Restic019, Peer::Vsm] {
            ours.check(peer).ok();
        }
        let target = scratch();
        ours.restore(Peer::Restic019, "latest", &target.path().join("out")).ok();
        compare::assert_same(&source.path().join("data"), &target.path().join("out/data"), Options::default());
        // Each program recognizes the copies of the other, and copies nothing twice.
        let before = files_below(ours.path()).len();
        for peer in [Peer::Vsm, Peer::Restic019] {
            run_from(peer, &from, &ours, &["copy"]).ok();
            assert_eq!(said(&ours, &WHOLE), said(&theirs, &WHOLE), "{peer:?}");
        }
        assert_eq!(files_below(ours.path()).len(), before);
        // The chunk boundaries are the same: a backup of the same files adds no data.
        let summary = ours.backup(Peer::Vsm, source.path(), "data", &[]);
        assert_eq!(summary["data_blobs"], 0, "{summary}");
    }
}

#[test]
fn copy_takes_the_selected_snapshots_and_reports_errors() {
    let (from, _source) = repository(Peer::Vsm, 2);
    let to = Repo::empty(2);
    run_from(Peer::Vsm, &from, &to, &["copy", "--tag", "second"]).ok();
    assert_eq!(to.snapshots(Peer::Restic019).len(), 1);
    let refused = to.run(Peer::Vsm, ["copy"]).exits(1);
    assert!(refused.errors().contains("--from-repo"), "{refused}");
    let mut wrong = to.command(Peer::Vsm);
    let wrong =
        Run::of(wrong.env("RESTIC_FROM_REPOSITORY", &from.url).env("RESTIC_FROM_PASSWORD", "wrong").arg("copy"));
    assert!(wrong.exits(12).errors().contains("wrong password"));
    // A snapshot that needs a missing pack is not copied, and that is reported.
    let pack =
        files_below(&from.path().join("data")).into_iter().max_by_key(|pack| pack.metadata().expect("a pack").len());
    fs::remove_file(pack.expect("a pack")).expect("a removal");
    let all = Repo::empty(2);
    let run = run_from(Peer::Vsm, &from, &all, &["copy"]).exits(3);
    assert!(run.errors().contains("pack"), "{run}");
    assert!(all.snapshots(Peer::Restic019).is_empty());
    all.check(Peer::Restic019).ok();
    assert!(from.lock_files().is_empty() && all.lock_files().is_empty());
}

#[test]
fn rewritten_snapshots_have_restics_trees() {
    for writer in [Peer::Restic019, Peer::Vsm] {
        let (repo, _source) = repository(writer, 2);
        for words in [
            &["rewrite", "--exclude", "*.log"][..],
            &["rewrite", "--iexclude", "*.log", "--forget"],
            &["rewrite", "--exclude", "/data/logs/deep", "--tag", "second"],
            &["rewrite", "--exclude", "nothing-like-it"],
            &["rewrite", "--exclude", "logs", "--exclude", "!logs"],
            &["rewrite", "--new-host", "elsewhere"],
            &["rewrite", "--new-time", "2020-02-02 02:02:02", "--forget"],
            &["rewrite", "--exclude", "*", "--forget"],
        ] {
            let (theirs, ours) = (repo.copy(), repo.copy());
            let expected = theirs.run(Peer::Restic019, words);
            let dry = ours.run(Peer::Vsm, [words, &["--dry-run"]].concat());
            assert_eq!(said(&ours, &WHOLE), said(&repo, &WHOLE), "{dry}");
            let found = ours.run(Peer::Vsm, words);
            let told = format!("{words:?}\n{expected}\n{found}");
            assert_eq!(found.code(), expected.code(), "{told}");
            assert_eq!(said(&ours, &WHOLE), said(&theirs, &WHOLE), "{told}");
            let counted = |repo: &Repo| -> BTreeSet<String> {
                let counts = |snapshot: &Value| {
                    format!(
                        "{} {}",
                        snapshot["summary"]["total_files_processed"], snapshot["summary"]["total_bytes_processed"]
                    )
                };
                repo.snapshots(Peer::Restic019).iter().map(counts).collect()
            };
            assert_eq!(counted(&ours), counted(&theirs), "{told}");
            for peer in [Peer::Restic019, Peer::Vsm] {
                ours.check(peer).ok();
            }
        }
        let nothing = repo.run(Peer::Vsm, ["rewrite"]).exits(1);
        assert!(nothing.errors().contains("nothing to do"), "{nothing}");
    }
}

#[test]
fn migrate_upgrades_a_repository_of_version_1() {
    let (repo, source) = repository(Peer::Restic014, 1);
    let listed = repo.run(Peer::Vsm, ["migrate"]).ok();
    assert!(listed.text().contains("upgrade_repo_v2"), "{listed}");
    // A damaged repository is not upgraded.
    let broken = repo.copy();
    fs::remove_file(&files_below(&broken.path().join("data"))[0]).expect("a removal");
    let before = fs::read(broken.path().join("config")).expect("a config");
    broken.run(Peer::Vsm, ["migrate", "upgrade_repo_v2"]).exits(1);
    assert_eq!(fs::read(broken.path().join("config")).expect("a config"), before);

    repo.run(Peer::Vsm, ["migrate", "upgrade_repo_v2"]).ok();
    let config: Value = repo.run(Peer::Restic019, ["cat", "config"]).ok().json();
    assert_eq!(config["version"], 2);
    for peer in [Peer::Restic019, Peer::Vsm] {
        repo.check(peer).ok();
    }
    repo.run(Peer::Vsm, ["migrate", "upgrade_repo_v2"]).exits(1);
    repo.run(Peer::Vsm, ["migrate", "upgrade_repo_v3"]).exits(1);
    // A prune compresses the old data.
    let size = |repo: &Repo| -> u64 {
        files_below(&repo.path().join("data")).iter().map(|file| file.metadata().expect("a file").len()).sum()
    };
    let old = size(&repo);
    repo.run(Peer::Vsm, ["prune", "--repack-uncompressed"]).ok();
    assert!(size(&repo) + 90_000 < old, "{} of {old}", size(&repo));
    let target = scratch();
    repo.restore(Peer::Restic019, "latest", &target.path().join("out")).ok();
    compare::assert_same(&source.path().join("data"), &target.path().join("out/data"), Options::default());
    assert_eq!(HOST, repo.snapshots(Peer::Restic019)[0]["hostname"]);
}
