//! Tests a mover that runs as root with exactly the capabilities of its Job. Without one of them
//! the loss is counted and named, and nothing else is lost.

use super::work::{Pod, saved};
use crate::common::compare::{self, Options, What};
use crate::common::loops::{LoopFs, run};
use crate::common::peers::{Peer, Repo, Run};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The capabilities in `src/controller/mover_job/pod.rs`, as setpriv spells them.
const BACKUP: [&str; 1] = ["dac_read_search"];
const RESTORE: [&str; 6] = ["chown", "fowner", "dac_override", "fsetid", "setfcap", "mknod"];

fn shell(dir: &Path, script: &str) {
    run(Command::new("sh").args(["-euc", script]).current_dir(dir));
}

/// A volume with files of several owners, modes and capabilities.
fn volume() -> LoopFs {
    let fs = LoopFs::new(64 << 20);
    shell(
        fs.path(),
        "echo root > root
        echo theirs > theirs; chown 1000:1001 theirs; chmod 640 theirs
        mkdir closed; echo inner > closed/inner; chown 1000:1001 closed/inner closed; chmod 600 closed/inner; chmod 500 closed
        echo run > setuid; chown 1000:1001 setuid; chmod 6755 setuid
        echo cap > capable
        mknod null c 1 3",
    );
    xattr::set(fs.path().join("theirs"), "user.note", b"x").expect("an attribute");
    // Revision 2, effective, CAP_NET_BIND_SERVICE: linux/capability.h.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(fs.path().join("capable"), "security.capability", &capability).expect("an attribute");
    fs
}

#[test]
fn a_backup_reads_everything_with_one_capability() {
    let source = volume();
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let report = pod.run_with(&BACKUP, &pod.backup(source.path(), "vsb:1"), 0);
    assert_eq!((&saved(&report)["files"], &saved(&report)["problems"]), (&5.into(), &Value::Null), "{report}");
    let out = repo.beside("out");
    repo.restore(Peer::Restic019, "latest", &out).ok();
    compare::assert_same(source.path(), &out.join("data"), Options::default());
    // Without the capability, and without a parent snapshot that has their content, unreadable
    // entries are missing, and all others are stored.
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    let report = pod.run_with(&[], &pod.backup(source.path(), "vsb:2"), 3);
    assert_eq!(saved(&report)["problems"], 2, "a file and a directory: {report}");
    let problems = report["firstProblems"].as_array().expect("problems");
    let named = |path: &str| problems.iter().any(|problem| text(problem).contains(path));
    assert!(named("theirs") && named("closed"), "{report}");
    let out = repo.beside("out");
    repo.restore(Peer::Restic019, text(&saved(&report)["snapshot"]), &out).ok();
    let missing: Vec<_> =
        compare::trees(source.path(), &out.join("data"), Options::default()).into_iter().map(found).collect();
    assert_eq!(missing, ["closed", "closed/inner", "theirs"].map(|path| (path.to_owned(), What::Missing)));
}

#[test]
fn a_restore_needs_each_of_its_capabilities() {
    let source = volume();
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    pod.run(&pod.backup(source.path(), "vsb:1"), 0);
    let restore = |without: &str, exit: i32| {
        let left: Vec<&str> = RESTORE.into_iter().filter(|one| *one != without).collect();
        let target = LoopFs::new(64 << 20);
        let report = pod.run_with(&left, &pod.restore(target.path(), json!({"tagged": ["vsb:1"]})), exit);
        let differences = compare::trees(source.path(), target.path(), Options { root: true, holes: false });
        let mut lost: Vec<(String, What)> = differences.into_iter().map(found).collect();
        lost.sort();
        let problems = report["firstProblems"].as_array().cloned().unwrap_or_default();
        let told = problems.iter().map(|problem| text(problem).to_owned()).collect::<Vec<_>>();
        assert_eq!(report["outcome"]["restored"]["problems"].as_u64().unwrap_or(0), told.len() as u64, "{report}");
        (lost, told)
    };
    assert_eq!(restore("", 0), (vec![], vec![]));
    // The missing capability, the reported problems, and the differences of the restored tree.
    type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, What)]);
    let cases: [Case; 6] = [
        (
            "chown",
            &["owner not applied to 4 entries"],
            // A setuid file must not get its mode if it did not get its owner.
            &[
                ("closed", What::Owner),
                ("closed/inner", What::Owner),
                ("setuid", What::Mode),
                ("setuid", What::Owner),
                ("theirs", What::Owner),
            ],
        ),
        (
            "fowner",
            &["mode not applied to 3 entries", "times not applied to 4 entries"],
            &[
                ("closed", What::Mode),
                ("closed", What::Mtime),
                ("closed/inner", What::Mtime),
                ("setuid", What::Mode),
                ("setuid", What::Mtime),
                ("theirs", What::Mode),
                ("theirs", What::Mtime),
            ],
        ),
        ("dac_override", &["xattr user.* not applied to 1 entry"], &[("theirs", What::Attributes)]),
        ("fsetid", &["mode not applied to 1 entry"], &[("setuid", What::Mode)]),
        ("setfcap", &["xattr security.capability not applied to 1 entry"], &[("capable", What::Attributes)]),
        ("mknod", &["/null: cannot create it"], &[("null", What::Missing)]),
    ];
    for (without, problems, expected) in cases {
        let (lost, told) = restore(without, 3);
        assert_eq!(told.len(), problems.len(), "without {without}: {told:?}");
        for problem in problems {
            assert!(told.iter().any(|told| told.contains(problem)), "without {without}: {told:?}");
        }
        let expected: Vec<_> = expected.iter().map(|(path, what)| ((*path).to_owned(), *what)).collect();
        assert_eq!(lost, expected, "without {without}");
    }
}

/// Runs a program as another user with no capability but `dac_override`.
fn as_another_user(inner: &Command) -> Run {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Run::of(&mut command)
}

#[test]
fn without_root_refused_metadata_is_a_problem_of_a_mover_and_a_warning_in_the_cli() {
    let source = volume();
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    pod.run(&pod.backup(source.path(), "vsb:1"), 0);
    let target = LoopFs::new(64 << 20);
    let restored = as_another_user(&pod.command(&pod.restore(target.path(), json!({"tagged": ["vsb:1"]})))).exits(3);
    let errors = restored.errors();
    for problem in ["owner not applied", r#""item":"/null""#] {
        assert!(errors.contains(problem), "{restored}");
    }
    let cli = |name: &str, options: &[&str]| {
        let mut command = repo.command(Peer::Vsm);
        command.args(["restore", "latest", "--target"]).arg(target.path().join(name)).args(options);
        as_another_user(&command)
    };
    // A missing file always fails the command.
    let missing = cli("all", &[]).exits(1);
    assert!(missing.errors().contains("null: cannot create it"), "{missing}");
    let excused = cli("without", &["--exclude", "null"]).ok();
    assert!(excused.errors().contains("owner not applied"), "{excused}");
}

/// Some drivers give a volume to another user.
#[test]
fn a_restore_into_another_users_directory_needs_dac_override() {
    let source = volume();
    let repo = Repo::new();
    let pod = Pod::new(&repo);
    pod.run(&pod.backup(source.path(), "vsb:1"), 0);
    let target = LoopFs::new(64 << 20);
    shell(target.path(), "chown 1000:1000 .; chmod 700 .");
    let restore = pod.restore(target.path(), json!({"tagged": ["vsb:1"]}));
    let left: Vec<&str> = RESTORE.into_iter().filter(|one| *one != "dac_override").collect();
    let failed = pod.run_with(&left, &restore, 1)["outcome"]["failed"].clone();
    assert!(text(&failed["message"]).contains("ermission denied"), "{failed}");
    pod.run_with(&RESTORE, &restore, 0);
    compare::assert_same(source.path(), target.path(), Options { root: true, holes: false });
}

fn found(difference: compare::Difference) -> (String, What) {
    (difference.path.to_string_lossy().into_owned(), difference.what)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
