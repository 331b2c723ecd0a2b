//! Tests that a backup stores every source on its command line, whatever lies between it and the
//! others: mount points with `-x`, exclude rules, symlinks. GNU find's `-xdev` defines the files of
//! a source on its own file system.
//!
//! Standard input and the output of commands are sources, too.

use crate::common::loops::{LoopFs, run};
use crate::common::peers::{HOST, PASSWORD, Peer, Repo, Run, Running};
use crate::common::{scratch, wait_for};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory `top` with file systems mounted in it; unmounted on drop.
struct Mounts {
    repo: Repo,
    /// In the order in which they were mounted.
    mounted: Vec<PathBuf>,
    /// The file system that is mounted at `disk`.
    other: Option<LoopFs>,
}

impl Mounts {
    /// `top` has a tmpfs at `mnt/vol`, another one in that at `inner`, an ext4 at `disk`, and its
    /// own directory `dir` at `bound`.
    fn new() -> Mounts {
        let other = LoopFs::new(16 << 20);
        let mut mounts = Mounts { repo: Repo::empty(2), mounted: Vec::new(), other: None };
        let top = mounts.top();
        let write = |path: &str| {
            let path = top.join(path);
            fs::create_dir_all(path.parent().expect("above")).expect("directories");
            fs::write(&path, path.to_str().expect("a path")).expect("a file");
        };
        for path in ["here", "dir/below", "mnt/beside"] {
            write(path);
        }
        for path in ["mnt/vol", "disk", "bound"] {
            fs::create_dir_all(mounts.top().join(path)).expect("a mount point");
        }
        mounts.mount("mnt/vol", &["-t", "tmpfs", "none"]);
        for path in ["mnt/vol/there", "mnt/vol/sub/deeper", "mnt/vol/sub/x.tmp"] {
            write(path);
        }
        fs::create_dir(mounts.top().join("mnt/vol/inner")).expect("a mount point");
        mounts.mount("mnt/vol/inner", &["-t", "tmpfs", "none"]);
        write("mnt/vol/inner/most");
        fs::write(other.path().join("on-ext4"), "ext4").expect("a file");
        mounts.mount("disk", &["--bind", other.path().to_str().expect("a path")]);
        mounts.other = Some(other);
        let dir = mounts.top().join("dir");
        mounts.mount("bound", &["--bind", dir.to_str().expect("a path")]);
        mounts
    }

    fn top(&self) -> PathBuf {
        self.repo.beside("top")
    }

    fn mount(&mut self, at: &str, arguments: &[&str]) {
        let at = self.top().join(at);
        run(Command::new("mount").args(arguments).arg(&at));
        self.mounted.push(at);
    }

    /// The files of each source on its own file system.
    fn expected(&self, sources: &[&str]) -> BTreeSet<String> {
        let mut command = Command::new("find");
        command.args(sources.iter().map(|source| self.top().join(source)));
        run(command.args(["-xdev", "-type", "f"])).lines().map(|path| path.replace("/./", "/")).collect()
    }

    /// The files of the newest snapshot, as restic sees them.
    fn stored(&self) -> BTreeSet<String> {
        let nodes = self.repo.ls(Peer::Restic019, "latest");
        let files = nodes.iter().filter(|node| node["type"] == "file");
        files.map(|node| node["path"].as_str().expect("a path").to_owned()).collect()
    }

    /// Backs up sources below `top` by our program; relative paths start in `from`.
    fn backup(&self, from: &Path, options: &[&str], sources: &[&str]) {
        let mut command = self.repo.command(Peer::Vsm);
        command.current_dir(from).args(["backup", "--host", HOST, "--force"]).args(options).args(sources);
        Run::of(&mut command).ok();
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in self.mounted.iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(at).status();
        }
    }
}

const SOURCES: [&[&str]; 12] = [
    &["."],
    &[".", "mnt/vol"],
    &["mnt/vol", "."],
    &[".", "mnt/vol/there"],
    &[".", "mnt/vol/sub"],
    &["mnt/vol/inner", ".", "mnt/vol/sub/deeper"],
    &["mnt", "mnt/vol/inner"],
    &["mnt/vol", "mnt/vol/inner"],
    &["disk", ".", "bound"],
    &["bound/below", "disk/on-ext4", "."],
    &["dir", "dir", "dir/below"],
    &["mnt/vol/inner/most", "mnt/vol", "mnt", "here"],
];

#[test]
fn one_file_system_applies_to_each_source() {
    let mounts = Mounts::new();
    for sources in SOURCES {
        let expected = mounts.expected(sources);
        let absolute: Vec<String> = sources
            .iter()
            .map(|source| mounts.top().join(source).to_str().expect("a path").trim_end_matches("/.").to_owned())
            .collect();
        mounts.backup(Path::new("/"), &["-x"], &absolute.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(mounts.stored(), expected, "{sources:?}");
        // The same sources by relative paths, from two directories. `.` has no name, so its entries
        // are stored in its place.
        mounts.backup(&mounts.top(), &["-x"], sources);
        let top = mounts.top();
        let below = |path: &String| path.strip_prefix(top.to_str().expect("a path")).expect("below top").to_owned();
        assert_eq!(mounts.stored(), expected.iter().map(below).collect(), "{sources:?}");
        let from_above: Vec<String> = sources.iter().map(|source| format!("top/{source}")).collect();
        mounts.backup(&mounts.repo.beside(""), &["-x"], &from_above.iter().map(String::as_str).collect::<Vec<_>>());
        let with_top = expected.iter().map(|path| format!("/top{}", below(path))).collect();
        assert_eq!(mounts.stored(), with_top, "{sources:?}");
    }
}

/// A mover stores the file systems that are mounted in a volume, because it does not use `-x`. A
/// pod mounts none there.
#[test]
fn a_mover_stores_the_file_systems_in_a_volume() {
    let mounts = Mounts::new();
    let pod = super::work::Pod::new(&mounts.repo);
    pod.run(&pod.backup(&mounts.top(), "vsb:1"), 0);
    let found = run(Command::new("find").arg(mounts.top()).args(["-type", "f", "-printf", "/data/%P\\n"]));
    assert_eq!(mounts.stored(), found.lines().map(str::to_owned).collect());
}

/// A subvolume has a device number of its own without being mounted anywhere.
#[test]
fn a_named_subvolume_is_stored() {
    let dir = scratch();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
    fs::File::create(&image).and_then(|file| file.set_len(128 << 20)).expect("an image");
    fs::create_dir(&mount).expect("a mount point");
    run(Command::new("mkfs.btrfs").arg("-q").arg(&image));
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
    let mounts = Mounts { repo: Repo::empty(2), mounted: vec![mount.clone()], other: None };
    run(Command::new("btrfs").args(["subvolume", "create"]).arg(mount.join("sub")));
    run(Command::new("btrfs").args(["subvolume", "create"]).arg(mount.join("sub/inner")));
    for file in ["top", "sub/middle", "sub/inner/most"] {
        fs::write(mount.join(file), file).expect("a file");
    }
    let path = |name: &str| mount.join(name).to_str().expect("a path").to_owned();
    for (sources, files) in [
        (&["top", "sub"][..], &["top", "sub/middle"][..]),
        (&["", "sub"], &["top", "sub/middle"]),
        (&["sub/inner", ""], &["top", "sub/inner/most"]),
    ] {
        let sources: Vec<String> = sources.iter().map(|source| path(source)).collect();
        mounts.backup(Path::new("/"), &["-x"], &sources.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(mounts.stored(), files.iter().map(|file| path(file)).collect(), "{sources:?}");
    }
    drop(mounts);
}

/// Exclude rules apply to entries that the walk finds. A named source is stored, even if a rule
/// excludes all that surrounds it.
#[test]
fn a_named_source_is_stored_despite_exclude_rules() {
    let mounts = Mounts::new();
    let top = mounts.top();
    let path = |name: &str| top.join(name).to_str().expect("a path").to_owned();
    fs::write(top.join("mnt/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").expect("a file");
    let cases: [(&[&str], &[&str], &[&str]); 5] = [
        (&["--exclude", "mnt"], &["", "mnt/vol/sub/deeper"], &["mnt/vol/sub/deeper"]),
        (&["--exclude", "*.tmp"], &["mnt/vol/sub/x.tmp", "mnt/vol/sub"], &["mnt/vol/sub/x.tmp", "mnt/vol/sub/deeper"]),
        (&["--exclude-caches"], &["mnt", "mnt/vol/there"], &["mnt/CACHEDIR.TAG", "mnt/vol/there"]),
        (&["--exclude-larger-than", "1"], &["here", "mnt"], &["here"]),
        (
            &["-x", "--exclude", "vol"],
            &["mnt", "mnt/vol/inner/most"],
            &["mnt/beside", "mnt/CACHEDIR.TAG", "mnt/vol/inner/most"],
        ),
    ];
    for (options, sources, expected) in cases {
        let sources: Vec<String> = sources.iter().map(|source| path(source)).collect();
        mounts.backup(Path::new("/"), options, &sources.iter().map(String::as_str).collect::<Vec<_>>());
        let mut stored = mounts.stored();
        if sources[0] == path("") {
            stored.retain(|file| file.contains("/mnt/"));
        }
        assert_eq!(stored, expected.iter().map(|file| path(file)).collect(), "{options:?} {sources:?}");
    }
}

/// A source behind a symlink of another source: both have the same name, so the snapshot has a
/// directory with the named source, and the symlink is reported.
#[test]
fn a_source_behind_a_symlink_of_another_is_stored() {
    let mounts = Mounts::new();
    let path = |name: &str| mounts.top().join(name).to_str().expect("a path").to_owned();
    for (target, below) in [("../disk", "on-ext4"), ("../mnt", "beside")] {
        let _ = fs::remove_file(path("dir/link"));
        std::os::unix::fs::symlink(target, path("dir/link")).expect("a symlink");
        let source = path(&format!("dir/link/{below}"));
        for options in [&["-x"][..], &[]] {
            for sources in [[path("dir"), source.clone()], [path("dir/link"), source.clone()]] {
                let mut command = mounts.repo.command(Peer::Vsm);
                command.args(["backup", "--force"]).args(options).args(&sources);
                let run = Run::of(&mut command).ok();
                assert!(run.errors().contains("dir/link"), "the lost symlink is not reported\n{run}");
                let mut expected = BTreeSet::from([source.clone()]);
                expected.extend((sources[0] == path("dir")).then(|| path("dir/below")));
                assert_eq!(mounts.stored(), expected, "{options:?} {sources:?}");
            }
        }
    }
}

/// As in restic, only the names of a path count for its place in the snapshot. A path that leads to
/// another entry through a symlink is refused.
#[test]
fn a_path_that_leads_through_a_symlink_to_something_else_is_refused() {
    let repo = Repo::empty(2);
    let dir = repo.beside("d");
    fs::create_dir_all(dir.join("real/below")).expect("directories");
    fs::create_dir(dir.join("shared")).expect("a directory");
    fs::create_dir(dir.join("real/shared")).expect("a directory");
    std::os::unix::fs::symlink("real/below", dir.join("link")).expect("a symlink");
    let backup = |path: &str| {
        let mut command = repo.command(Peer::Vsm);
        command.current_dir(&dir).args(["backup", "--host", HOST, path]);
        Run::of(&mut command)
    };
    for path in ["link/", "link/../shared", "link/."] {
        makes_no_snapshot(&repo, backup(path), &[path, "symlink"]);
    }
    let run = backup("link").ok();
    assert!(run.errors().contains("link: a symlink"), "{run}");
    backup("real/../shared").ok();
}

fn stream(repo: &Repo, arguments: &[&str]) -> Command {
    let mut command = repo.command(Peer::Vsm);
    command.args(["backup", "--host", HOST, "--stdin-filename", "dump.sql"]).args(arguments);
    command
}

fn makes_no_snapshot(repo: &Repo, run: Run, words: &[&str]) {
    let run = run.exits(1);
    for word in words {
        assert!(run.errors().contains(word), "{word}\n{run}");
    }
    assert!(repo.list("snapshots").is_empty(), "{run}");
}

#[test]
fn standard_input_without_data_makes_no_snapshot() {
    let repo = Repo::empty(2);
    let mut empty = stream(&repo, &["--stdin"]);
    empty.stdin(Stdio::null());
    makes_no_snapshot(&repo, Run::of(&mut empty), &["standard input", "no data"]);
    // Input that a shell has closed with `<&-`, input of a producer that fails, and empty input.
    for script in ["exec \"$@\" <&-", "false | \"$@\"", "exec \"$@\" < /dev/null"] {
        let inner = stream(&repo, &["--stdin"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        makes_no_snapshot(&repo, Run::of(&mut shell), &["standard input", "no data"]);
    }
    let running = Running::start(stream(&repo, &["--stdin"]));
    makes_no_snapshot(&repo, running.finish(), &["no data"]);
    let mut one_byte = Running::start(stream(&repo, &["--stdin"]));
    one_byte.write(b"x");
    one_byte.finish().ok();
    assert_eq!(repo.run(Peer::Restic019, ["dump", "latest", "/dump.sql"]).ok().stdout(), b"x");
}

/// Reading the password would read ahead, and lose the data after it.
#[test]
fn password_and_data_are_not_both_read_from_standard_input() {
    let repo = Repo::empty(2);
    let mut command = stream(&repo, &["--stdin"]);
    command.env_remove("RESTIC_PASSWORD");
    let mut running = Running::start(command);
    running.write(format!("{PASSWORD}\ndata\n").as_bytes());
    makes_no_snapshot(&repo, running.finish(), &["password", "standard input"]);
}

#[test]
fn a_command_that_fails_makes_no_snapshot() {
    let repo = Repo::empty(2);
    let cases: [(&[&str], &[&str]); 6] = [
        (&["sh", "-c", "echo data; exit 3"], &["\"sh\"", "exit code 3"]),
        (&["sh", "-c", "exit 1"], &["\"sh\"", "exit code 1"]),
        (&["sh", "-c", "echo data; kill -9 $$"], &["\"sh\"", "signal 9"]),
        // This command closes its output long before it fails.
        (&["sh", "-c", "echo data; exec >&-; sleep 0.2; exit 7"], &["exit code 7"]),
        (&["true"], &["\"true\"", "no data"]),
        (&["/nowhere/pg_dump", "--all"], &["/nowhere/pg_dump", "cannot be started"]),
    ];
    for (command, words) in cases {
        let arguments = [&["--stdin-from-command", "--"], command].concat();
        makes_no_snapshot(&repo, Run::of(&mut stream(&repo, &arguments)), words);
    }
    for wrong in [&["--stdin-from-command"][..], &["--stdin-from-command", "--stdin", "true"]] {
        makes_no_snapshot(&repo, Run::of(&mut stream(&repo, wrong)), &["--stdin-from-command"]);
    }
}

/// The same command through restic leaves the same file.
#[test]
fn a_command_that_succeeds_is_stored_as_restic_stores_it() {
    let repo = Repo::empty(2);
    let script = "echo to-stderr >&2; head -c 3000000 /dev/zero; cat; echo end";
    let arguments = ["--stdin-from-command", "--", "sh", "-c", script];
    let run = Run::of(&mut stream(&repo, &arguments)).ok();
    assert!(run.errors().contains("to-stderr"), "the standard error of the command is lost\n{run}");
    let ours = repo.newest_tree();
    let mut theirs = repo.command(Peer::Restic019);
    theirs.args(["backup", "--host", HOST, "--stdin-filename", "dump.sql"]).args(arguments);
    Run::of(&mut theirs).ok();
    let content = |tree: &str| repo.tree(tree)[0]["content"].clone();
    assert_eq!(content(&ours), content(&repo.newest_tree()));
}

/// An interrupted backup ends its command, even if that would run for ever.
#[test]
fn an_interrupted_backup_ends_its_command() {
    let repo = Repo::empty(2);
    let pid_file = repo.beside("pid");
    let script = format!("echo $$ > {}; echo data; exec sleep 1000", pid_file.display());
    let mut running = Running::start(stream(&repo, &["--stdin-from-command", "--", "sh", "-c", &script]));
    let pid = wait_for("the command to start", || {
        fs::read_to_string(&pid_file).ok()?.trim().parse::<i32>().ok().and_then(rustix::process::Pid::from_raw)
    });
    running.must_run();
    running.signal(Signal::TERM);
    running.finish().exits(130);
    wait_for("the command to end", || rustix::process::test_kill_process(pid).is_err().then_some(()));
    assert!(repo.list("snapshots").is_empty());
}

/// Files that the kernel generates have the size 0, or that of a page, and yet have content.
#[test]
fn generated_files_are_stored_without_a_false_change() {
    let repo = Repo::empty(2);
    for file in ["/proc/cmdline", "/proc/version", "/proc/filesystems", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        let mut command = repo.command(Peer::Vsm);
        command.args(["backup", "--host", HOST, file]);
        let run = Run::of(&mut command).ok();
        assert!(!run.errors().contains("changed"), "{run}");
        let dumped = repo.run(Peer::Restic019, ["dump", "latest", file]).ok();
        assert_eq!(dumped.stdout(), fs::read(file).expect("it can be read"), "{file}");
        assert!(!dumped.stdout().is_empty(), "{file}");
    }
}

/// The tree is deeper than the longest path that a system call accepts.
#[test]
fn a_tree_deeper_than_a_path_is_stored() {
    let repo = Repo::empty(2);
    let name = "d".repeat(200);
    let dir = repo.beside("deep");
    fs::create_dir(&dir).expect("a directory");
    let script = format!(
        "cd {} && for i in $(seq 60); do mkdir {name} && cd -P {name} || exit 1; done; echo {PASSWORD} > bottom; ln -s bottom link",
        dir.display()
    );
    run(Command::new("sh").args(["-c", &script]));
    repo.backup(Peer::Vsm, dir.parent().expect("above"), "deep", &[]);
    let nodes = repo.ls(Peer::Restic019, "latest");
    let bottom = nodes.iter().find(|node| node["name"] == "bottom").expect("the file at the bottom");
    assert!(bottom["path"].as_str().expect("a path").len() > 12_000);
    assert_eq!(bottom["size"], PASSWORD.len() + 1);
    // Unchanged, it is found in the parent.
    let again = repo.backup(Peer::Vsm, dir.parent().expect("above"), "deep", &[]);
    assert_eq!(again["files_unmodified"], 1, "{again}");
    run(Command::new("rm").arg("-rf").arg(&dir));
}
