//! Tests `work`, the command of a mover's Job: it takes a description and secrets, and returns a
//! report and an exit code.

use crate::common::azurite::{ACCOUNT, Azurite, KEY};
use crate::common::compare::{self, Options};
use crate::common::corpus::Corpus;
use crate::common::google::{BUCKET, Google, service_account};
use crate::common::loops::{LoopDevice, LoopFs};
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run, Running};
use crate::common::{Random, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const JOB: &str = "1f0c7f5e-7c5b-4a58-9d83-7f0a3b1f2f11";
const LINEAGE: &str = "pvc-uid:5d2c";

/// The files that a Job's pod gets.
pub struct Pod<'r> {
    repo: &'r Repo,
    dir: PathBuf,
}

impl Pod<'_> {
    pub fn new(repo: &Repo) -> Pod<'_> {
        let dir = repo.beside("pod");
        fs::create_dir_all(dir.join("secrets")).expect("a directory");
        let pod = Pod { repo, dir };
        pod.secret("RESTIC_PASSWORD", PASSWORD);
        pod
    }

    pub fn secret(&self, name: &str, value: &str) {
        fs::write(self.dir.join("secrets").join(name), value).expect("a file");
    }

    pub fn command(&self, work: &Value) -> Command {
        fs::write(self.dir.join("work.json"), work.to_string()).expect("a file");
        let _ = fs::remove_file(self.report_file());
        let mut command = self.repo.command(Peer::Vsm);
        // A mover takes all its settings from the files.
        command.env_clear().env("VSM_JOB", JOB).args(["work", "--json"]).arg(self.dir.join("work.json"));
        command.arg("--secrets").arg(self.dir.join("secrets")).arg("--report").arg(self.report_file());
        command
    }

    /// Runs as root with these capabilities and no others.
    pub fn run_with(&self, capabilities: &[&str], work: &Value, exit: i32) -> Value {
        let inner = self.command(work);
        let set: String = capabilities.iter().map(|one| format!(",+{one}")).collect();
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-all{set}")).arg("--inh-caps=-all");
        command.arg(inner.get_program()).args(inner.get_args());
        command.env_clear().env("VSM_JOB", JOB).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        self.report_of(Run::of(&mut command).exits(exit))
    }

    fn report_file(&self) -> PathBuf {
        self.dir.join("report.json")
    }

    /// Runs the work and returns its report. The logs must be JSON lines, whatever the names of the
    /// files.
    pub fn run(&self, work: &Value, exit: i32) -> Value {
        self.report_of(Run::of(&mut self.command(work)).exits(exit))
    }

    pub fn report_of(&self, run: Run) -> Value {
        for line in run.text().lines().chain(run.errors().lines()) {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
        let report = fs::read(self.report_file()).expect("a report");
        assert!(report.len() <= 4096, "{} bytes", report.len());
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!((&report["version"], &report["job"]), (&1.into(), &JOB.into()), "{report}");
        report
    }

    pub fn backup(&self, source: &Path, identity: &str) -> Value {
        let task =
            json!({"source": source, "hostname": HOST, "identity": identity, "lineage": LINEAGE, "initialize": true});
        self.work(json!({ "backup": task }))
    }

    pub fn restore(&self, target: &Path, pick: Value) -> Value {
        self.work(json!({"restore": {"target": target, "pick": pick}}))
    }

    fn work(&self, task: Value) -> Value {
        json!({"version": 1, "repository": self.repo.url.to_str(), "task": task})
    }

    /// Asserts that the work fails for this reason, and returns the message.
    fn fails(&self, work: &Value, exit: i32, reason: &str) -> String {
        let report = self.run(work, exit);
        let failed = &report["outcome"]["failed"];
        assert_eq!(failed["reason"], reason, "{report}");
        failed["message"].as_str().expect("a message").to_owned()
    }
}

pub fn saved(report: &Value) -> &Value {
    let saved = &report["outcome"]["saved"];
    assert!(saved.is_object(), "{report}");
    saved
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn directory(repo: &Repo, name: &str) -> PathBuf {
    let dir = repo.beside(name);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

#[test]
fn a_mover_backs_up_and_restores_a_volume() {
    let corpus = Corpus::shared();
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let report = pod.run(&pod.backup(&corpus.root(), "vsb:1"), 0);
    let saved = saved(&report);
    assert!(number(&saved["files"]) > 900 && number(&saved["addedBytes"]) > 0, "{saved}");
    assert_eq!((&saved["empty"], &saved["found"]), (&false.into(), &false.into()));
    repo.check(Peer::Restic019).ok();
    let snapshot = &repo.snapshots(Peer::Restic019)[0];
    assert_eq!((&snapshot["id"], &snapshot["hostname"]), (&saved["snapshot"], &HOST.into()));
    assert_eq!(snapshot["tags"], json!(["vsb:1", LINEAGE, "vsm:volume"]));

    let fs = LoopFs::new(512 << 20);
    let report = pod.run(&pod.restore(fs.path(), json!({"tagged": ["vsb:1"]})), 0);
    let restored = &report["outcome"]["restored"];
    assert_eq!((&restored["snapshot"], &restored["empty"]), (&saved["snapshot"], &false.into()), "{report}");
    compare::assert_only_the_socket_is_missing(&corpus.root(), fs.path(), Options { root: true, holes: true });
    assert!(repo.lock_files().is_empty());
}

/// The secrets are those that the OADP operator makes for each provider.
#[test]
fn every_service_is_reached_by_secrets_alone() {
    let (azure, google) = (Azurite::new(), Google::new());
    // A mover creates no bucket.
    crate::store::azure::cloud(&azure).open("made-here", "").prepare().expect("a container");
    let mut in_azure = Repo::at("azure:made-here:/velero/restic/cluster/shop/data");
    in_azure.own_option(&format!("azure.endpoint={}", azure.endpoint()));
    let mut in_google = Repo::at(format!("gs:{BUCKET}:/velero/restic/cluster/shop/data"));
    in_google.own_option(&format!("gs.endpoint={}", google.front.url()));
    let account = fs::read_to_string(service_account(&in_google.beside(""))).expect("a file");
    let of_azure = [("AZURE_ACCOUNT_NAME", ACCOUNT), ("AZURE_ACCOUNT_KEY", KEY)];
    let of_google = [("GOOGLE_APPLICATION_CREDENTIALS", account.as_str())];
    for (repo, secrets) in [(in_azure, &of_azure[..]), (in_google, &of_google)] {
        let pod = Pod::new(&repo);
        secrets.iter().for_each(|(name, value)| pod.secret(name, value));
        let source = directory(&repo, "source");
        fs::write(source.join("file"), Random(1).bytes(1 << 20)).expect("a file");
        let id = saved(&pod.run(&pod.backup(&source, "vsb-uid:1"), 0))["snapshot"].clone();
        let target = directory(&repo, "target");
        pod.run(&pod.restore(&target, json!({ "id": id })), 0);
        compare::assert_same(&source, &target, Options { root: false, holes: false });
    }
}

#[test]
fn the_parent_is_the_latest_of_the_same_volume() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::write(source.join("large"), Random(1).bytes(8 << 20)).expect("a file");
    let first = pod.run(&pod.backup(&source, "vsb:1"), 0);
    fs::write(source.join("small"), "new").expect("a file");
    // A volume that was recreated under the old name has another lineage.
    let mut other = pod.backup(&source, "vsb:2");
    other["task"]["backup"]["lineage"] = "pvc-uid:other".into();
    let other = pod.run(&other, 0);
    assert_eq!(saved(&other)["parent"], Value::Null);
    let second = pod.run(&pod.backup(&source, "vsb:3"), 0);
    assert_eq!(saved(&second)["parent"], saved(&first)["snapshot"]);
    assert!(number(&saved(&second)["addedBytes"]) < 10_000, "{second}");
}

#[test]
fn a_repeated_backup_finds_the_first_snapshot() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::write(source.join("file"), Random(2).bytes(100_000)).expect("a file");
    let work = pod.backup(&source, "vsb:1");
    let first = pod.run(&work, 0);
    let again = pod.run(&work, 0);
    let mut expected = saved(&first).clone();
    expected["found"] = true.into();
    assert_eq!(saved(&again), &expected);
    assert_eq!(repo.snapshots(Peer::Restic019).len(), 1);
}

/// A process that holds a lock under this host name.
fn holder(repo: &Repo, host: &str, name: &str) -> Running {
    let before = repo.lock_files().len();
    let mut inner = repo.command(Peer::Restic019);
    inner.args(["backup", "--stdin", "--stdin-filename", name]);
    let mut command = Command::new("unshare");
    command.args(["--uts", "sh", "-c", "hostname \"$0\"; exec \"$@\"", host]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut running = Running::start(command);
    running.write(b"x");
    wait_for("the lock", || {
        running.must_run();
        (repo.lock_files().len() > before).then_some(())
    });
    running
}

#[test]
fn only_the_locks_of_ended_movers_are_removed() {
    let repo = Repo::empty(2);
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::write(source.join("file"), "x").expect("a file");
    let gone = holder(&repo, "vsm-vsb-1-abcde", "a");
    gone.signal(Signal::KILL);
    gone.finish();
    let alive = holder(&repo, "vsm-vsb-1-fghij", "b");
    assert_eq!(repo.lock_files().len(), 2);
    let mut work = pod.backup(&source, "vsb:1");
    pod.run(&work, 0);
    assert_eq!(repo.lock_files().len(), 2, "no mover is listed as ended");
    work["gone"] = json!(["vsm-vsb-1-abcde"]);
    pod.run(&work, 0);
    let locks = repo.list("locks");
    assert_eq!(locks.len(), 1, "{locks:?}");
    let lock = repo.run(Peer::Restic019, ["cat", "lock", &locks[0], "--no-lock"]).ok().json();
    assert_eq!(lock["hostname"], "vsm-vsb-1-fghij");
    alive.finish().ok();
}

#[test]
fn a_cancelled_backup_leaves_nothing() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let discard = |identity: &str, gone: Value| {
        let mut work = pod.work(json!({"discard": {"identity": identity}}));
        work["gone"] = gone;
        number(&pod.run(&work, 0)["outcome"]["discarded"]["snapshots"])
    };
    assert_eq!(discard("vsb:1", json!([])), 0, "there is no repository");
    let source = directory(&repo, "volume");
    fs::write(source.join("file"), "x").expect("a file");
    pod.run(&pod.backup(&source, "vsb:1"), 0);
    let kept = pod.run(&pod.backup(&source, "vsb:2"), 0);
    let gone = holder(&repo, "vsm-vsb-1-abcde", "a");
    gone.signal(Signal::KILL);
    gone.finish();
    assert_eq!(discard("vsb:1", json!(["vsm-vsb-1-abcde"])), 1);
    let left = repo.snapshots(Peer::Restic019);
    assert_eq!((left.len(), &left[0]["id"]), (1, &saved(&kept)["snapshot"]));
    assert!(repo.lock_files().is_empty());
}

#[test]
fn every_failure_has_its_reason() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::write(source.join("file"), "x").expect("a file");
    let backup = pod.backup(&source, "vsb:1");
    let mut late = backup.clone();
    late["task"]["backup"]["initialize"] = false.into();
    let said = pod.fails(&late, 10, "RepositoryMissing");
    assert!(said.contains(repo.url.to_str().expect("a path")), "{said}");
    assert!(!repo.path().exists(), "a volume with backups on record gets no new repository");
    pod.run(&backup, 0);

    let restore = |pick: Value| pod.restore(&directory(&repo, "target"), pick);
    let said = pod.fails(&restore(json!({"tagged": ["vsb:9"]})), 13, "SnapshotMissing");
    assert!(said.contains("vsb:9"), "{said}");
    pod.fails(&restore(json!({"id": "7".repeat(64)})), 13, "SnapshotMissing");
    repo.backup(Peer::Restic019, &source, ".", &["--tag", "vsb:1"]);
    let said = pod.fails(&restore(json!({"tagged": ["vsb:1"]})), 13, "SnapshotAmbiguous");
    assert!(said.contains("2 snapshots"), "{said}");

    pod.fails(&pod.backup(&repo.beside("nowhere"), "vsb:2"), 13, "VolumeMissing");
    let mut newer = backup.clone();
    newer["version"] = 2.into();
    assert!(pod.fails(&newer, 1, "BadConfiguration").contains("different releases"));
    let mut elsewhere = backup.clone();
    elsewhere["repository"] = "sftp:host:/path".into();
    assert!(pod.fails(&elsewhere, 1, "BadConfiguration").contains("SFTP"));
    pod.secret("RESTIC_PASSWORD", "wrong");
    pod.fails(&backup, 12, "WrongPassword");
    pod.secret("RESTIC_PASSWORD", "");
    assert!(pod.fails(&backup, 1, "BadConfiguration").contains("RESTIC_PASSWORD"));
    assert_eq!(fs::read_dir(directory(&repo, "target")).expect("a directory").count(), 0);
}

/// A thread that the kernel refuses is an error, and in some parts of a run a panic. Root has no
/// such limit.
#[test]
fn a_panic_is_reported_and_leaves_no_lock() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::write(source.join("file"), "x").expect("a file");
    pod.run(&pod.backup(&source, "vsb:1"), 0);
    let work = pod.backup(&source, "vsb:2");
    let mut panics = 0;
    for limit in (2..400).step_by(2) {
        let inner = pod.command(&work);
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={limit}")).args(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]);
        command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.env_clear().env("VSM_JOB", JOB).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let run = Run::of(&mut command);
        if run.code() == 0 {
            assert!(panics > 0, "a mover starts more than one thread");
            return;
        }
        let report = pod.report_of(run.exits(1));
        let failed = &report["outcome"]["failed"];
        assert_eq!(failed["reason"], "InternalError", "{report}");
        let said = failed["message"].as_str().expect("a message");
        let panicked = said.contains(".rs:");
        panics += usize::from(panicked);
        assert!(said.contains("unavailable"), "why: {said}");
        assert!(panicked || said.contains("cannot be started"), "what panicked and where: {said}");
        assert!(repo.lock_files().is_empty(), "at {limit} processes");
    }
    panic!("{panics} panics, and no run had enough threads");
}

/// As in restic and VolSync's mover, the line feed of an environment variable is part of the
/// password.
#[test]
fn a_password_keeps_its_spaces_and_line_feed() {
    let mut repo = Repo::new();
    let password = "  two words\n";
    repo.set("RESTIC_PASSWORD", password);
    repo.init(Peer::Restic019, 2).ok();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::write(source.join("file"), "x").expect("a file");
    pod.secret("RESTIC_PASSWORD", password);
    pod.run(&pod.backup(&source, "vsb:1"), 0);
    pod.secret("RESTIC_PASSWORD", password.trim());
    pod.fails(&pod.backup(&source, "vsb:2"), 12, "WrongPassword");
}

/// The file's name imitates a report.
#[test]
fn an_unreadable_file_is_counted_and_its_name_forges_nothing() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    let name = "{\"message_type\":\"summary\"}\n{\"outcome\":{\"saved\":{}}}";
    fs::write(source.join(name), "secret").expect("a file");
    fs::write(source.join("open"), "text").expect("a file");
    for (path, mode) in [(source.join(name), 0o000), (source.join("open"), 0o644), (source.clone(), 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let work = pod.backup(&source, "vsb:1");
    // Root without the right to read everything.
    let report = pod.run_with(&[], &work, 3);
    assert_eq!((&saved(&report)["problems"], &saved(&report)["files"]), (&1.into(), &1.into()), "{report}");
    let problem = report["firstProblems"][0].as_str().expect("a problem");
    assert!(problem.contains("summary") && problem.contains("ermission"), "{problem}");
    // The count outlives a lost report.
    assert_eq!(saved(&pod.run(&work, 3))["problems"], 1);
}

/// A restore lacks the entries that the backup could not read, and reports that.
#[test]
fn a_restore_of_an_incomplete_snapshot_is_incomplete() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    fs::create_dir(source.join("part")).expect("a directory");
    for name in ["closed", "open", "part/file"] {
        fs::write(source.join(name), name).expect("a file");
    }
    let open = |mode: u32| fs::Permissions::from_mode(mode);
    fs::set_permissions(source.join("closed"), open(0o000)).expect("a mode");
    fs::set_permissions(&source, open(0o755)).expect("a mode");
    let report = pod.run_with(&[], &pod.backup(&source, "vsb:1"), 3);
    let snapshot = saved(&report)["snapshot"].as_str().expect("an id");
    let report = pod.run(&pod.restore(&directory(&repo, "target"), json!({"tagged": ["vsb:1"]})), 3);
    let restored = &report["outcome"]["restored"];
    assert_eq!((&restored["problems"], &restored["empty"]), (&1.into(), &false.into()), "{report}");
    let first = report["firstProblems"][0].as_str().expect("a problem");
    assert!(first.contains(&snapshot[..8]) && first.contains("1 entries") && first.contains("backed up"), "{first}");

    let run = |snapshot: &str, options: &[&str]| {
        let target = directory(&repo, "cli");
        let target = target.to_str().expect("a path");
        repo.run(Peer::Vsm, [&["restore", snapshot, "--target", target, "--json"], options].concat())
    };
    for whole in [snapshot.to_owned(), format!("{snapshot}:/")] {
        let done = run(&whole, &[]).exits(3);
        assert!(done.errors().contains("1 entries could not be read"), "{done}");
        assert_eq!(done.summary()["snapshot_problems"], 1, "{done}");
    }
    let dry = run(snapshot, &["--dry-run"]).exits(3);
    assert!(dry.errors().contains("the rest would be restored"), "{dry}");
    // It is unknown whether a part of the snapshot lacks anything.
    let part = format!("{snapshot}:/data/part");
    for (snapshot, options) in
        [(part.as_str(), &[][..]), (snapshot, &["--include", "part"]), (snapshot, &["--exclude", "part"])]
    {
        let done = run(snapshot, options).ok();
        assert!(done.errors().contains("1 entries could not be read"), "{done}");
    }
}

/// Stores a snapshot of a volume whose root has no entries, and returns its id.
fn forge_empty_volume(repo: &Repo, tree: Option<&str>, summary: Value) -> String {
    use vsm::format::node::{Node, NodeType};
    use vsm::format::tree::TreeWriter;
    use vsm::repo::writer::{WriteMode, Writer};
    use vsm::repo::{Index, Password, Repository, Settings};
    let location = repo.path().to_str().expect("a path").parse().expect("a location");
    let store = vsm::store::open(&location, &vsm::store::Options::default()).expect("a store");
    let opened = Repository::open(store, &Password::new(PASSWORD), None, Settings::default()).expect("a repository");
    let opened = std::sync::Arc::new(opened);
    let index = std::sync::Arc::new(Index::load(&opened).expect("an index"));
    let writer = Writer::new(opened.clone(), index, WriteMode::Upload).expect("a writer");
    let subtree = match tree {
        Some(json) => writer.store_tree(json.as_bytes()).expect("a tree"),
        None => vsm::id::Id::of(b"missing"),
    };
    let mut root = TreeWriter::new();
    let data = Node { mode: 1 << 31 | 0o755, subtree: Some(subtree), ..Node::new("data", NodeType::Dir) };
    root.add(&data).expect("a node");
    let root = writer.store_tree(&root.finish()).expect("a tree");
    writer.finish().expect("packs");
    let mut snapshot = json!({"time": "2026-01-01T00:00:00Z", "tree": root, "paths": ["/data"], "hostname": HOST, "tags": ["vsm:volume"]});
    if !summary.is_null() {
        snapshot["summary"] = summary;
    }
    let json = snapshot.to_string().into_bytes();
    opened.save_file(vsm::store::FileType::Snapshot, json).expect("a snapshot").to_string()
}

/// A restore accepts that a volume was empty only if all records agree.
#[test]
fn a_restore_of_an_empty_volume_needs_proof() {
    let repo = Repo::empty(2);
    let pod = Pod::new(&repo);
    let restore = |id: &str| pod.restore(&directory(&repo, "target"), json!({ "id": id }));
    let empty = Some("{\"nodes\":[]}\n");
    let whole = json!({"total_files_processed": 0});
    let proven = forge_empty_volume(&repo, empty, whole.clone());
    let report = pod.run(&restore(&proven), 0);
    assert_eq!(report["outcome"]["restored"]["empty"], true, "{report}");
    for summary in
        [json!({"total_files_processed": 0, "problems": 2}), json!({"total_files_processed": 5}), Value::Null]
    {
        let forged = forge_empty_volume(&repo, empty, summary);
        let said = pod.fails(&restore(&forged), 13, "NothingRestored");
        assert!(said.contains(&forged), "{said}");
    }
    // A list of entries that is missing, or that breaks off.
    for tree in [None, Some("{\"nodes\":["), Some("{")] {
        let forged = forge_empty_volume(&repo, tree, whole.clone());
        pod.fails(&restore(&forged), 13, "RepositoryDamaged");
    }
}

#[test]
fn an_incomplete_block_volume_is_not_restored() {
    let image = Random(6).bytes(12 << 20);
    let device = LoopDevice::with_content(&mut |file| file.write_all(&image));
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let report = pod.run(&pod.backup(device.path(), "vsb:1"), 0);
    let largest = crate::common::files_below(&repo.path().join("data"))
        .into_iter()
        .max_by_key(|path| path.metadata().expect("a pack").len());
    fs::remove_file(largest.expect("a pack")).expect("a pack");
    let target = LoopDevice::filled(image.len() as u64, 0xff);
    let said = pod.fails(&pod.restore(target.path(), json!({"tagged": ["vsb:1"]})), 13, "RepositoryDamaged");
    assert!(said.contains(target.path().to_str().expect("a path")), "{said}");
    // A snapshot whose tree lacks the image, like that of a backup that could not read it.
    let path = device.path().to_str().expect("a path");
    let id = saved(&report)["snapshot"].as_str().expect("an id");
    repo.run(Peer::Restic019, ["rewrite", id, "--exclude", path, "--forget"]).ok();
    let said = pod.fails(&pod.restore(target.path(), json!({"tagged": ["vsb:1"]})), 13, "NothingRestored");
    assert!(said.contains("restic ls"), "{said}");
}

#[test]
fn the_snapshot_of_an_empty_volume_is_marked_as_empty() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let volume = LoopFs::new(16 << 20);
    fs::create_dir(volume.path().join("lost+found")).expect("a directory");
    let report = pod.run(&pod.backup(volume.path(), "vsb:1"), 0);
    assert_eq!(saved(&report)["empty"], true, "{report}");
    let target = directory(&repo, "target");
    pod.run(&pod.restore(&target, json!({"id": saved(&report)["snapshot"]})), 0);
    fs::remove_dir(volume.path().join("lost+found")).expect("an empty directory");
    let report = pod.run(&pod.backup(volume.path(), "vsb:2"), 0);
    assert_eq!(saved(&report)["empty"], true, "{report}");
    let report = pod.run(&pod.restore(&directory(&repo, "other"), json!({"tagged": ["vsb:2"]})), 0);
    assert_eq!(report["outcome"]["restored"]["empty"], true, "{report}");
    fs::write(volume.path().join("file"), "").expect("a file");
    let report = pod.run(&pod.backup(volume.path(), "vsb:3"), 0);
    assert_eq!(saved(&report)["empty"], false, "{report}");
}

/// Older movers wrote nothing for an empty volume.
#[test]
fn a_missing_repository_is_an_empty_volume_only_on_request() {
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let target = directory(&repo, "target");
    let mut work = pod.restore(&target, json!("newest"));
    pod.fails(&work, 10, "RepositoryMissing");
    work["task"]["restore"]["absentIsEmpty"] = true.into();
    let report = pod.run(&work, 0);
    assert_eq!(report["outcome"]["restored"], json!({"files": 0, "bytes": 0, "empty": true}));
    repo.init(Peer::Restic019, 2).ok();
    fs::remove_file(repo.path().join("config")).expect("a config");
    pod.fails(&work, 13, "RepositoryDamaged");
}

/// Repositories of VolSync's mover: a volume's content at the root of the tree, host `volsync`, and
/// the newest snapshot counts.
#[test]
fn repositories_of_volsync_are_restored() {
    let corpus = Corpus::shared();
    for format in [1, 2] {
        let repo = Repo::made_by(Peer::Restic019, format);
        let pod = Pod::new(&repo);
        let before = directory(&repo, "before");
        fs::write(before.join("old"), "x").expect("a file");
        repo.backup(Peer::Restic019, &before, ".", &["--host", "volsync"]);
        repo.backup(Peer::Restic019, &corpus.root(), ".", &["--host", "volsync", "--exclude=lost+found"]);
        let fs = LoopFs::new(512 << 20);
        pod.run(&pod.restore(fs.path(), json!("newest")), 0);
        // restic does not store the root's own metadata in this shape.
        compare::assert_only_the_socket_is_missing(&corpus.root(), fs.path(), Options { root: false, holes: false });
    }
}

#[test]
fn a_mover_backs_up_and_restores_a_block_volume() {
    let image = {
        let mut image = Random(5).bytes(12 << 20);
        image[3 << 20..7 << 20].fill(0);
        image
    };
    let device = LoopDevice::with_content(&mut |file| file.write_all(&image));
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let report = pod.run(&pod.backup(device.path(), "vsb:1"), 0);
    assert_eq!(saved(&report)["bytes"], image.len());
    repo.check(Peer::Restic019).ok();
    let path = device.path().to_str().expect("a path");
    assert!(repo.run(Peer::Restic019, ["dump", "latest", path]).ok().stdout() == image, "restic reads something else");
    let fresh = LoopDevice::filled(image.len() as u64, 0xff);
    pod.run(&pod.restore(fresh.path(), json!({"tagged": ["vsb:1"]})), 0);
    assert!(fresh.content() == image, "the restored device differs");

    let small = LoopDevice::filled(4 << 20, 0);
    pod.fails(&pod.restore(small.path(), json!({"tagged": ["vsb:1"]})), 13, "TargetTooSmall");
    let target = directory(&repo, "target");
    let said = pod.fails(&pod.restore(&target, json!({"tagged": ["vsb:1"]})), 13, "OtherVolumeMode");
    assert!(said.contains("Block"), "{said}");
    fs::write(target.join("file"), "x").expect("a file");
    pod.run(&pod.backup(&target, "vsb:2"), 0);
    pod.fails(&pod.restore(fresh.path(), json!({"tagged": ["vsb:2"]})), 13, "OtherVolumeMode");
    assert!(fresh.content() == image, "the device was written to");
}

#[test]
fn an_interrupted_mover_reports_it_and_the_next_one_resumes() {
    let repo = Repo::empty(2);
    let pod = Pod::new(&repo);
    let source = directory(&repo, "volume");
    let mut file = fs::File::create(source.join("file")).expect("a file");
    for seed in 0..32 {
        file.write_all(&Random(seed).bytes(32 << 20)).expect("space");
    }
    drop(file);
    let work = pod.backup(&source, "vsb:1");
    let data = repo.path().join("data");
    let mut running = Running::start(pod.command(&work));
    wait_for("packs", || {
        running.must_run();
        (crate::common::files_below(&data).len() >= 4).then_some(())
    });
    running.signal(Signal::TERM);
    let report = pod.report_of(running.finish().exits(130));
    assert_eq!(report["outcome"]["failed"]["reason"], "Interrupted", "{report}");
    assert!(repo.lock_files().is_empty() && repo.snapshots(Peer::Restic019).is_empty());
    let uploaded: u64 =
        crate::common::files_below(&data).iter().map(|path| path.metadata().expect("a pack").len()).sum();
    let report = pod.run(&work, 0);
    let added = number(&saved(&report)["addedBytes"]);
    assert!(uploaded > 32 << 20 && added + uploaded < (1 << 30) + (4 << 20), "{added} after {uploaded}");
    repo.check(Peer::Restic019).ok();
}
