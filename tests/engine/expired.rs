//! Tests `expired`: which snapshots it removes, and each guard, with a location that would lose
//! data without it. restic lists the remaining snapshots.

use crate::common::peers::{PASSWORD, Peer, Repo, Run, Running};
use crate::common::s3::{BUCKET, S3};
use crate::common::{scratch, wait_for};
use crate::store::proxy::{Fault, Proxy};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A backup location: Velero has the backup `kept`, and has deleted `gone` and `gone-too`.
struct Location {
    /// `None` if another object owns the directory.
    _dir: Option<tempfile::TempDir>,
    root: PathBuf,
    data: Repo,
    other: Repo,
}

/// The expired snapshots, by their host name, which is also the content of their file.
const EXPIRED: [&str; 3] = ["old, gone", "old, gone as well", "old, gone, elsewhere"];

impl Location {
    fn new() -> Location {
        let dir = scratch();
        let root = dir.path().to_owned();
        Location::at(Some(dir), root)
    }

    fn at(dir: Option<tempfile::TempDir>, root: PathBuf) -> Location {
        let [data, other] = ["restic/c-1/shop/data", "restic/c-2/bank/other"].map(|path| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            Repo::at(path).made_empty(2)
        });
        let location = Location { _dir: dir, root, data, other };
        location.velero("kept", "velero-backup.json");
        let Location { data, other, .. } = &location;
        let old = ["--time", "2024-02-29 12:00:00"];
        let snapshot = |repo: &Repo, what: &str, tags: &str, time: &[&str]| {
            let from = repo.beside("source");
            fs::create_dir_all(&from).expect("a directory");
            fs::write(from.join("file"), what).expect("a file");
            repo.backup(Peer::Restic019, &from, "file", &[&["--tag", tags, "--host", what], time].concat());
        };
        snapshot(data, "old, kept", "vsb-uid:1,vsb:v,backup:kept", &old);
        snapshot(data, "old, gone", "vsb-uid:2,vsb:v,backup:gone", &old);
        snapshot(data, "young, gone", "vsb-uid:3,vsb:v,backup:gone", &[]);
        snapshot(data, "no tags", "", &old);
        snapshot(data, "not ours", "backup:gone", &old);
        snapshot(data, "of no Velero backup", "vsb-uid:4,vsb:v", &old);
        snapshot(data, "old, gone as well", "vsb-uid:5,vsb:v,backup:gone-too", &old);
        snapshot(other, "old, gone, elsewhere", "vsb-uid:6,vsb:v,backup:gone", &old);
        location
    }

    /// Puts a file into the directory of a Velero backup.
    fn velero(&self, backup: &str, file: &str) {
        let directory = self.root.join("backups").join(backup);
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(file), "{}").expect("a file");
    }

    fn forget_velero(&self) {
        fs::remove_dir_all(self.root.join("backups")).expect("removed");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let base = self.root.to_str().expect("UTF-8");
        Repo::at(base).run(Peer::Vsm, [&["expired", base, "--json"], arguments].concat())
    }

    /// The host names of the snapshots in both repositories, according to restic.
    fn left(&self) -> BTreeSet<String> {
        let all = [&self.data, &self.other].map(|repo| repo.snapshots(Peer::Restic019)).concat();
        all.iter().map(|one| one["hostname"].as_str().expect("a name").to_owned()).collect()
    }

    fn expect_untouched(&self, why: &str) {
        assert_eq!(self.left().len(), 8, "{why}");
    }
}

/// The reported ids, and the summary.
fn told(run: &Run) -> (BTreeSet<String>, Value) {
    let mut lines = run.json_lines();
    let summary = lines.pop().expect("a summary");
    assert_eq!(summary["message_type"], "summary", "{run}");
    let id = |line: Value| {
        assert_eq!(line["message_type"], "expired", "{line}");
        line["snapshot"].as_str().expect("an id").to_owned()
    };
    (lines.into_iter().map(id).collect(), summary)
}

#[test]
fn exactly_the_snapshots_of_deleted_backups_expire() {
    let location = Location::new();
    let expected: BTreeSet<String> = [&location.data, &location.other]
        .map(|repo| repo.snapshots(Peer::Restic019))
        .concat()
        .iter()
        .filter(|one| EXPIRED.contains(&one["hostname"].as_str().expect("a name")))
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect();
    let run = location.run(&[]).ok();
    let (ids, summary) = told(&run);
    assert_eq!(ids, expected, "{run}");
    for (name, count) in
        [("repositories", 2), ("backups", 1), ("expired", 3), ("young", 1), ("kept", 1), ("removed", 0)]
    {
        assert_eq!(summary[name], count, "{name}: {summary}");
    }
    assert_eq!(summary["expired_bytes"], EXPIRED.iter().map(|text| text.len()).sum::<usize>());
    location.expect_untouched("only a report was requested");

    let (ids, summary) = told(&location.run(&["--remove"]).ok());
    assert_eq!((&ids, &summary["removed"]), (&expected, &3.into()));
    let left: BTreeSet<String> =
        ["old, kept", "young, gone", "no tags", "not ours", "of no Velero backup"].map(Into::into).into();
    assert_eq!(location.left(), left);
    location.data.check(Peer::Restic019).ok();
    assert!(location.data.lock_files().is_empty() && location.other.lock_files().is_empty());
    assert_eq!(told(&location.run(&["--remove"]).ok()).1["expired"], 0);
}

#[test]
fn an_incomplete_location_loses_nothing() {
    let location = Location::new();
    let refused = |why: &str, arguments: &[&str]| {
        let run = location.run(&[&["--remove"], arguments].concat()).exits(1);
        assert!(run.errors().contains(why), "{why}: {run}");
        location.expect_untouched(why);
    };
    refused("less than", &["--age", "23h"]);
    refused("--no-lock", &["--no-lock"]);
    location.forget_velero();
    refused("backups", &[]);
    fs::create_dir(location.root.join("backups")).expect("a directory");
    refused("no complete Velero backup", &[]);
    location.velero("kept", "kept-logs.gz");
    refused("no complete Velero backup", &[]);
    location.forget_velero();
    location.velero("of-another", "velero-backup.json");
    refused("this may be another location", &[]);
    // `--unsafe-allow-remove-all` overrides this refusal, and then all snapshots of Velero's
    // backups are removed except the young one.
    told(&location.run(&["--remove", "--unsafe-allow-remove-all"]).ok());
    let left: BTreeSet<String> = ["young, gone", "no tags", "not ours", "of no Velero backup"].map(Into::into).into();
    assert_eq!(location.left(), left);
}

/// A backup that is being made or deleted has a directory without its `velero-backup.json`.
#[test]
fn an_incomplete_backup_keeps_its_snapshots() {
    let location = Location::new();
    location.velero("gone", "gone-logs.gz");
    let (ids, _) = told(&location.run(&["--remove"]).ok());
    assert_eq!(ids.len(), 1);
    assert_eq!(location.left().len(), 7);
    assert!(!location.left().contains("old, gone as well"));
}

/// The password command runs between the two listings of the location, and creates the backup
/// `gone` again.
#[test]
fn a_backup_that_the_second_listing_finds_keeps_its_snapshots() {
    let location = Location::new();
    let back = location.root.join("backups/gone");
    let script = location.root.join("password");
    let text = format!("mkdir -p {0} && touch {0}/velero-backup.json && printf %s '{PASSWORD}'", back.display());
    fs::write(&script, text).expect("a script");
    let command = format!("sh {}", script.display());
    let run = location.run(&["--remove", "--password-command", &command]).exits(3);
    assert!(run.errors().contains("2 snapshots are kept"), "{run}");
    assert_eq!(told(&run).1["removed"], 1);
    assert_eq!(location.left().len(), 7);
    assert!(!location.left().contains("old, gone as well"));

    // If the second listing finds no location, nothing is removed.
    let location = Location::new();
    let text = format!("rm -r {} && printf %s '{PASSWORD}'", location.root.join("backups").display());
    fs::write(&script, text).expect("a script");
    location.run(&["--remove", "--password-command", &command]).exits(1);
    location.expect_untouched("the location was deleted");
}

#[test]
fn a_locked_or_unreadable_repository_does_not_protect_the_others() {
    let location = Location::new();
    let mut command = location.data.command(Peer::Restic019);
    command.args(["backup", "--stdin"]);
    let mut running = Running::start(command);
    running.write(b"more to come");
    wait_for("restic's lock", || {
        running.must_run();
        (!location.data.lock_files().is_empty()).then_some(())
    });
    let run = location.run(&["--remove"]).exits(3);
    assert!(run.errors().contains("locked") && run.errors().contains("2 expired snapshots were not removed"), "{run}");
    assert_eq!(told(&run).1["removed"], 1);
    assert_eq!(location.data.lock_files().len(), 1, "restic's own lock stays");
    running.finish().ok();
    assert!(!location.left().contains(EXPIRED[2]) && location.left().contains(EXPIRED[0]));

    fs::write(location.other.path().join("config"), "no config").expect("a file");
    let run = location.run(&["--remove"]).exits(3);
    assert_eq!((&told(&run).1["removed"], &told(&run).1["unread"]), (&2.into(), &1.into()), "{run}");
}

/// An incomplete listing is an error.
#[test]
fn a_bucket_that_refuses_a_listing_loses_nothing() {
    let s3 = S3::new();
    let location = Location::at(None, s3.root().join(BUCKET).join("velero"));
    let proxy = Proxy::to(&format!("127.0.0.1:{}", s3.port()));
    let base = format!("s3:{}/{BUCKET}/velero", proxy.url());
    let run = |arguments: &[&str]| s3.repo("").run(Peer::Vsm, [&["expired", &base, "--json"], arguments].concat());
    let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for what in ["prefix=velero%2Fbackups%2F ", "prefix=velero%2Fbackups%2Fkept%2F "] {
        proxy.inject(what, [Fault::Answer(refused)]);
        let failed = run(&["--remove"]).exits(1);
        assert!(failed.errors().contains("not allowed"), "{failed}");
        assert_eq!(proxy.left(), 0, "{what} was asked for");
        location.expect_untouched(what);
    }
    assert_eq!(told(&run(&["--remove"]).ok()).1["removed"], 3);
    assert_eq!(location.left().len(), 5);
}

/// The report contains paths below the location, so that a user can continue with restic.
#[test]
fn the_text_report_names_repositories_and_snapshots() {
    let location = Location::new();
    let base = location.root.to_str().expect("UTF-8");
    let run = Repo::at(base).run(Peer::Vsm, ["expired", base]).ok();
    let gone = location.other.snapshots(Peer::Restic019)[0]["short_id"].as_str().expect("an id").to_owned();
    for word in [location.other.path().to_str().expect("UTF-8"), &gone, "3 snapshots", "--remove removes them"] {
        assert!(run.text().contains(word), "{word}\n{run}");
    }
    let nowhere = Path::new(base).join("nowhere");
    Repo::at(base).run(Peer::Vsm, ["expired", nowhere.to_str().expect("UTF-8")]).exits(1);
}
