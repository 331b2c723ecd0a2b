//! Tests attackers that have the bucket but not the key, and the secrecy of credentials: the claims
//! of docs/reference/security.md that no other test shows.
//!
//! `damage` tests all kinds of damage; `bad_input` and `restore::tests::hostile` test forged
//! snapshots.

use super::work::Pod;
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run, Running};
use crate::common::s3::{ACCESS, S3, SECRET};
use crate::common::{Random, files_below, scratch, wait_for};
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A repository with a snapshot; all of them have the same password.
fn with_a_snapshot(seed: u64) -> Repo {
    let repo = Repo::made_by(Peer::Vsm, 2);
    let source = scratch();
    fs::create_dir(source.path().join("data")).expect("a directory");
    fs::write(source.path().join("data/the-name-of-a-file"), Random(seed).bytes(100_000)).expect("a file");
    repo.backup(Peer::Vsm, source.path(), "data", &[]);
    repo
}

fn put(file: &Path, from: &Repo, to: &Repo) {
    let place = to.path().join(file.strip_prefix(from.path()).expect("below"));
    fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
    let _ = fs::remove_file(&place);
    fs::copy(file, place).expect("a copy");
}

/// The files are whole and have the right names, but another master key encrypted them.
#[test]
fn files_of_another_repository_are_refused() {
    let (own, other) = (with_a_snapshot(1), with_a_snapshot(2));
    let id = own.snapshots(Peer::Restic019)[0]["id"].as_str().expect("an id").to_owned();
    for (kind, words) in [
        ("snapshots", &["does not authenticate"][..]),
        ("index", &["does not authenticate"]),
        ("config", &["config"]),
        ("data", &[]),
    ] {
        let copy = own.copy();
        let place = other.path().join(kind);
        let files = if place.is_dir() { files_below(&place) } else { vec![place] };
        files.iter().for_each(|file| put(file, &other, &copy));
        let check = copy.run(Peer::Vsm, ["check", "--read-data"]);
        // A pack that no index names is an orphan, which `check` does not read.
        assert_eq!(check.succeeded(), kind == "data", "{kind}: {check}");
        for word in words {
            assert!(check.errors().contains(word), "{kind}: {check}");
        }
        // Our own snapshot is restored whole, or not at all: a foreign index or config is an error.
        let target = scratch();
        let restore = copy.restore(Peer::Vsm, &id, &target.path().join("out"));
        if restore.succeeded() {
            let restored = target.path().join("out/data/the-name-of-a-file");
            assert_eq!(fs::read(restored).expect("a file"), Random(1).bytes(100_000), "{kind}");
        }
        assert_eq!(restore.succeeded(), matches!(kind, "snapshots" | "data"), "{kind}: {restore}");
    }
}

/// A key file without the right password does not open; this one has the right password, but does
/// not open the config of another repository.
#[test]
fn a_key_of_another_repository_opens_nothing() {
    let (own, other) = (with_a_snapshot(1), with_a_snapshot(2));
    files_below(&own.path().join("keys")).iter().for_each(|file| fs::remove_file(file).expect("a removal"));
    files_below(&other.path().join("keys")).iter().for_each(|file| put(file, &other, &own));
    let run = own.run(Peer::Vsm, ["snapshots"]);
    assert!(!run.succeeded() && run.errors().contains("config"), "{run}");
}

/// No file holds names, contents or hosts; only the sizes and the number of files are visible.
#[test]
fn nothing_of_a_backup_can_be_read_in_the_bucket() {
    let source = scratch();
    let content = "some text that is easy to find ".repeat(1000);
    fs::create_dir(source.path().join("data")).expect("a directory");
    fs::write(source.path().join("data/the-name-of-a-file"), &content).expect("a file");
    for compression in ["off", "auto"] {
        let repo = Repo::made_by(Peer::Vsm, 2);
        repo.backup(Peer::Vsm, source.path(), "data", &["--compression", compression, "--tag", "the-name-of-a-tag"]);
        for file in files_below(repo.path()) {
            let bytes = fs::read(&file).expect("a file");
            for word in ["easy to find", "the-name-of", "polynomial", HOST] {
                // The keys name the host that created them, as restic's do.
                let said = file.starts_with(repo.path().join("keys")) && word == HOST;
                let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!found || said, "{word:?} in {file:?}");
            }
        }
    }
}

/// No output holds a secret, even at the highest verbosity, and in success and failure.
#[test]
fn no_output_holds_a_secret() {
    let s3 = S3::new();
    let source = scratch();
    fs::write(source.path().join("file"), "x").expect("a file");
    let source = source.path().to_str().expect("UTF-8");
    let there = s3.repo("there");
    there.init(Peer::Vsm, 2).ok();
    let mut wrong_key = s3.repo("there");
    wrong_key.set("AWS_SECRET_ACCESS_KEY", "another-secret-key").set("AWS_SESSION_TOKEN", "a-session-token");
    let mut down = Repo::at("s3:http://127.0.0.1:9/bucket/x");
    down.set("AWS_ACCESS_KEY_ID", ACCESS).set("AWS_SECRET_ACCESS_KEY", SECRET);
    let mut wrong_password = s3.repo("there");
    wrong_password.set("RESTIC_PASSWORD", "another-password");
    let mut azure = Repo::at("azure:container:/x");
    azure.set("AZURE_ACCOUNT_NAME", "nobody").set("AZURE_ACCOUNT_SAS", "sv=1&sig=a-signature");
    azure.own_option("azure.endpoint=http://127.0.0.1:9/nobody");
    let mut google = Repo::at("gs:bucket:/x");
    google.set("GOOGLE_ACCESS_TOKEN", "an-access-token").own_option("gs.endpoint=http://127.0.0.1:9");
    let secrets = [
        PASSWORD,
        SECRET,
        "another-secret-key",
        "a-session-token",
        "another-password",
        "a-signature",
        "an-access-token",
    ];
    let all = [&["backup", source][..], &["snapshots"], &["check"], &["init"], &["key", "list"]];
    let demand = |repo: &Repo, commands: &[&[&str]]| {
        for words in commands {
            for output in ["-vv", "--json"] {
                let run = repo.run(Peer::Vsm, words.iter().chain([&output]));
                let said = run.text() + &run.errors();
                for secret in secrets {
                    assert!(!said.contains(secret), "{secret:?}: {run}");
                }
            }
        }
    };
    // The program retries for a while if no server answers.
    std::thread::scope(|scope| {
        for repo in [down, azure, google] {
            scope.spawn(move || demand(&repo, &[&["snapshots"]]));
        }
        for repo in [there, wrong_key, wrong_password, s3.repo("nothing-there")] {
            demand(&repo, &all);
        }
    });
}

/// Neither the arguments nor the environment of a mover's process hold a secret, because every user
/// of its node may read them.
#[test]
fn a_movers_process_shows_no_secret() {
    let s3 = S3::new();
    let repo = s3.repo("shown");
    let pod = Pod::new(&repo);
    pod.secret("AWS_ACCESS_KEY_ID", ACCESS);
    pod.secret("AWS_SECRET_ACCESS_KEY", SECRET);
    let source = scratch();
    fs::write(source.path().join("file"), Random(1).bytes(8 << 20)).expect("a file");
    let mut command = pod.command(&pod.backup(source.path(), "vsb-uid:1"));
    // At 16 KiB/s the mover runs until the limit is removed.
    let limits = scratch();
    fs::write(limits.path().join("upload"), "16").expect("a file");
    command.env("VSM_LIMITS", limits.path());
    let mut running = Running::start(command);
    wait_for("the mover's lock", || {
        running.must_run();
        files_below(&s3.root()).iter().any(|file| file.to_string_lossy().contains("/locks/")).then_some(())
    });
    let of_process = Path::new("/proc").join(running.id().as_raw_nonzero().to_string());
    for file in ["cmdline", "environ"] {
        let shown = String::from_utf8_lossy(&fs::read(of_process.join(file)).expect("it runs")).into_owned();
        assert!(file != "cmdline" || shown.contains("--secrets"), "{shown}");
        for secret in [PASSWORD, SECRET, ACCESS] {
            assert!(!shown.contains(secret), "{file}: {shown}");
        }
    }
    fs::write(limits.path().join("upload"), "0").expect("a file");
    running.finish().ok();
}

/// A process that crashes leaves no core dump, where other programs leave one.
#[test]
fn a_crash_leaves_no_core() {
    let dir = scratch();
    let crash = |program: &Path, arguments: &[&str], environment: &[(&str, &str)], is_at_work: &dyn Fn(u32) -> bool| {
        let mut command = Command::new("prlimit");
        command.arg("--core=unlimited").arg(program).args(arguments).envs(environment.iter().copied());
        command.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        wait_for("the program", || is_at_work(child.id()).then_some(()));
        let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
        rustix::process::kill_process(pid, Signal::ABORT).expect("it runs");
        child.wait().expect("it ends")
    };
    let sleeps = |pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.ends_with("sleep"));
    let ended = crash(Path::new("sleep"), &["60"], &[], &sleeps);
    assert!(ended.core_dumped(), "this machine writes no core dumps at all");
    let repo = Repo::made_by(Peer::Vsm, 2);
    let url = repo.url.to_str().expect("UTF-8");
    let environment = [("RESTIC_PASSWORD", PASSWORD), ("RESTIC_REPOSITORY", url)];
    let has_a_lock = |_| !repo.lock_files().is_empty();
    let ended = crash(Peer::Vsm.program().as_ref(), &["backup", "--stdin"], &environment, &has_a_lock);
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
}

/// Only the owner has access to the files of a repository in a folder.
#[test]
fn only_the_owner_has_access_to_a_folder() {
    use std::os::unix::fs::PermissionsExt;
    let repo = with_a_snapshot(1);
    for file in files_below(repo.path()) {
        let mode = fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{file:?} {mode:o}");
    }
    let _ = Run::of(repo.command(Peer::Restic019).args(["check"])).ok();
}
