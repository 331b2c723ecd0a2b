//! Tests that `demo` uses its own repository, whatever the environment names.

use crate::common::peers::{HOST, Peer, Repo, Run, installed};
use crate::common::scratch;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

/// The environment names a repository and password of the user, a key, and another host.
#[test]
fn demo_ignores_the_users_repository_and_password() {
    let user = Repo::made_by(Peer::Vsm, 2);
    let dir = scratch();
    let (password, location) = (dir.path().join("password"), dir.path().join("location"));
    fs::write(&password, "the user's").expect("a file");
    fs::write(&location, user.url.as_encoded_bytes()).expect("a file");
    fs::create_dir(dir.path().join("source")).expect("a directory");
    fs::write(dir.path().join("source/file"), "x").expect("a file");
    let variables = [
        ("RESTIC_PASSWORD_FILE", password.to_str().expect("UTF-8")),
        ("RESTIC_REPOSITORY_FILE", location.to_str().expect("UTF-8")),
        ("RESTIC_KEY_HINT", "ffffffff"),
        ("RESTIC_HOST", HOST),
    ];
    let work = dir.path().join("work");
    let mut demo = user.command(Peer::Vsm);
    demo.args(["demo", "--work-dir"]).arg(&work).arg(dir.path().join("source")).envs(variables);
    let told = Run::of(&mut demo).ok().text();
    assert!(user.snapshots(Peer::Restic019).is_empty());

    // The commands that `demo` prints work in a shell with the same environment.
    symlink(installed("restic-0.19"), dir.path().join("restic")).expect("a link");
    let shown: Vec<&str> = told.lines().filter(|line| line.contains(" restic -r ")).collect();
    assert_eq!(shown.len(), 2, "{told}");
    let mut shell = Command::new("sh");
    shell.env("PATH", format!("{}:/usr/bin:/bin", dir.path().display())).envs(variables);
    shell.env_remove("RESTIC_HOST").args(["-c", shown[0]]);
    let listed = Run::of(&mut shell).ok().text();
    assert!(listed.contains("2 snapshots"), "{listed}");
}
