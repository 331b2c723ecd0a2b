//! Tests archives that `dump` writes with the programs that users have: GNU tar, bsdtar, unzip and
//! Python.

use super::readers::open;
use crate::common::compare::{self, Options, What, listed};
use crate::common::loops::LoopFs;
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use rustix::fs::{FileType, Mode, mknodat};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vsm::format::node::{Node, NodeType, Xattr};
use vsm::format::snapshot::Snapshot;
use vsm::format::tree::TreeWriter;
use vsm::repo::Index;
use vsm::repo::writer::{WriteMode, Writer};

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Run {
    Run::of(Command::new(program).args(arguments).current_dir(directory)).ok()
}

/// Dumps a directory of the latest snapshot into an archive file.
fn dump(repo: &Repo, format: &str, code: i32) -> (Run, PathBuf) {
    let file = repo.beside(&format!("archive.{format}"));
    let target = file.to_str().expect("UTF-8");
    let run = repo.run(Peer::Vsm, ["dump", "-a", format, "-t", target, "latest", "/data"]).exits(code);
    (run, file)
}

/// Creates access control lists of all kinds, attributes that are hard to escape, and all other
/// metadata that a tar archive holds.
fn attributes(fs: &LoopFs) -> PathBuf {
    let source = fs.path().join("data");
    fs::create_dir_all(source.join("dir/below")).expect("directories");
    for (name, mode) in [("rights", 0o640), ("dir/file", 0o600), ("names", 0o644), ("set", 0o4711), ("plain", 0o604)] {
        fs::write(source.join(name), name).expect("a file");
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    chown(source.join("rights"), Some(5), Some(3_000_000_000)).expect("an owner");
    symlink("x".repeat(150), source.join("link")).expect("a link");
    mknodat(rustix::fs::CWD, source.join("fifo"), FileType::Fifo, Mode::from(0o620), 0).expect("a FIFO");
    let device = rustix::fs::makedev(4000, 1_000_000);
    mknodat(rustix::fs::CWD, source.join("device"), FileType::CharacterDevice, Mode::from(0o620), device)
        .expect("a device");
    run(&source, "setfacl", &["-m", "u:1234:rw,u:9:-,g:77:r,g:0:x,m::rw", "rights"]);
    run(&source, "setfacl", &["-m", "u:1234:r", "set", "plain", "fifo"]);
    run(&source, "setfacl", &["-m", "u:5:rwx,g:6:rx", "-d", "-m", "u:1234:rwx,g:77:rx,m::rx,o::-", "dir"]);
    run(&source, "setfacl", &["-d", "-m", "u::rwx,g::-,o::-", "dir/below"]);
    for (file, name, value) in [
        ("plain", "user.null", &b"a\0b\nc=d\0"[..]),
        ("plain", "user.empty", b""),
        ("plain", "user.long", &[b'v'; 900]),
        ("dir", "trusted.of the administrator", b"\xff\xfe"),
        // cap_net_bind_service, as setcap writes it.
        ("set", "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("names", "user.a=b", b"of an equals sign"),
        ("names", "user.a%3Db", b"of a percent sign"),
        ("names", "user.=", b"="),
    ] {
        xattr::set(source.join(file), name, value).expect("an attribute");
    }
    source
}

/// The output of `getfacl` for everything below, with numeric users.
fn lists(root: &Path) -> String {
    run(root, "getfacl", &["-R", "-n", "-p", "."]).text()
}

#[test]
fn tar_programs_restore_access_control_lists_and_attributes() {
    let fs = LoopFs::new(64 << 20);
    let source = attributes(&fs);
    let repo = Repo::empty(2);
    repo.backup(Peer::Vsm, fs.path(), "data", &[]);
    let (_, archive) = dump(&repo, "tar", 0);
    let archive = archive.to_str().expect("UTF-8");
    let expected = lists(&source);
    assert!(expected.contains("default:user:1234:rwx") && expected.contains("user:1234:rw-"), "{expected}");
    for (number, arguments) in [
        &["tar", "--acls", "-xpf"][..],
        &["tar", "--acls", "--xattrs", "--xattrs-include=*", "-xpf"],
        &["tar", "--xattrs", "--xattrs-include=*", "--acls", "-xpf"],
        &["bsdtar", "--acls", "--xattrs", "-xpf"],
    ]
    .iter()
    .enumerate()
    {
        let target = fs.path().join(format!("out-{number}"));
        fs::create_dir(&target).expect("a directory");
        run(&target, arguments[0], &[&arguments[1..], &[archive]].concat());
        let restored = target.join("data");
        assert_eq!(lists(&restored), expected, "{arguments:?}");
        let mut found = compare::trees(&source, &restored, Options { root: false, ..Options::default() });
        if !arguments.contains(&"--xattrs-include=*") {
            // Without that option GNU tar restores no attributes. bsdtar takes GNU's escape of `=`
            // literally.
            let is_known = |path: &Path| arguments[0] == "tar" || path == Path::new("names");
            found.retain(|one| one.what != What::Attributes || !is_known(&one.path));
        }
        assert!(found.is_empty(), "{arguments:?}\n{}", listed(&found));
    }
}

/// Writes a snapshot of these nodes in `/data` and returns its id.
fn forge(repo: &Repo, nodes: &mut [Node]) -> String {
    let open = open(repo);
    let writer = Writer::new(open.clone(), Arc::new(Index::load(&open).expect("an index")), WriteMode::Upload)
        .expect("a writer");
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let store = |nodes: &[Node]| {
        let mut tree = TreeWriter::new();
        nodes.iter().for_each(|node| tree.add(node).expect("in order"));
        writer.store_tree(&tree.finish()).expect("a tree")
    };
    let data = Node { mode: (1 << 31) | 0o755, subtree: Some(store(nodes)), ..Node::new("data", NodeType::Dir) };
    let root = store(&[data]);
    writer.finish().expect("packs");
    let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{root}","paths":["/data"],"hostname":"forger"}}"#);
    let snapshot = Snapshot::decode(json.as_bytes()).expect("a snapshot");
    open.save_file(vsm::store::FileType::Snapshot, snapshot.encode()).expect("saved").to_string()
}

fn empty(name: &str) -> Node {
    Node { mode: 0o644, content: Some(vec![].into()), ..Node::new(name, NodeType::File) }
}

fn with(node: Node, name: &[u8], value: &[u8]) -> Node {
    Node { xattrs: vec![Xattr { name: name.to_vec(), value: value.to_vec() }], ..node }
}

#[test]
fn entries_that_an_archive_cannot_hold_are_reported_and_the_rest_is_written() {
    let repo = Repo::empty(2);
    let link = |name: &str, target: &[u8]| Node { link_target: target.to_vec(), ..Node::new(name, NodeType::Symlink) };
    let not_a_list = b"\x02\0\0\0\x01\0\x07\0";
    let snapshot = forge(
        &repo,
        &mut [
            empty("file"),
            Node::new("a-socket", NodeType::Socket),
            Node::new("irregular-one", NodeType::Irregular),
            Node { device: u64::MAX, ..Node::new("far-device", NodeType::Dev) },
            link("cut-link", b"here\0there"),
            link("link-to-nothing", b""),
            link("link", b"file"),
            with(empty("nameless-attribute"), b"", b"v"),
            with(empty("kept-list"), b"system.posix_acl_access", not_a_list),
            Node { user: "a\0b".into(), ..empty("odd-owner") },
            Node {
                device: rustix::fs::makedev(4095, 1_048_575),
                mode: 1 << 26,
                ..Node::new("near-device", NodeType::Dev)
            },
        ],
    );
    let reports = |run: &Run, names: &[&str]| {
        for name in names {
            let line = run.errors().lines().find(|line| line.contains(&format!("/data/{name}"))).map(str::to_owned);
            assert!(line.is_some_and(|line| line.contains(&snapshot)), "{name}\n{run}");
        }
    };
    let left_out = ["a-socket", "irregular-one", "cut-link", "link-to-nothing"];
    let (tar, archive) = dump(&repo, "tar", 3);
    reports(&tar, &left_out);
    reports(&tar, &["far-device", "nameless-attribute", "kept-list", "odd-owner"]);
    assert!(tar.errors().contains("7 parts are missing"), "{tar}");
    let listed = |program: &str, arguments: &[&str]| -> Vec<String> {
        run(repo.path(), program, arguments).text().lines().map(str::to_owned).collect()
    };
    let file = archive.to_str().expect("UTF-8");
    let expected = ["file", "kept-list", "link", "nameless-attribute", "near-device", "odd-owner"];
    let expected = expected.map(|name| format!("data/{name}"));
    for program in ["tar", "bsdtar"] {
        assert_eq!(listed(program, &["-tf", file]), expected, "{program}");
    }
    let shown = run(repo.path(), "tar", &["-tvf", file]).text();
    assert!(shown.contains("4095,1048575"), "{shown}");
    // The malformed list is stored unchanged.
    let mut reader = tar::Archive::new(fs::File::open(&archive).expect("the archive"));
    let mut kept = Vec::new();
    for entry in reader.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        for record in entry.pax_extensions().expect("records").into_iter().flatten().flatten() {
            if record.key() == Ok("SCHILY.xattr.system.posix_acl_access") {
                kept.push(record.value_bytes().to_vec());
            }
        }
    }
    assert_eq!(kept, [not_a_list.to_vec()]);

    let (zip, archive) = dump(&repo, "zip", 3);
    reports(&zip, &left_out);
    reports(&zip, &["far-device", "near-device"]);
    assert!(zip.errors().contains("6 parts are missing"), "{zip}");
    assert!(zip.errors().contains("those of 2 entries"), "attributes: {zip}");
    let expected = ["file", "kept-list", "link", "nameless-attribute", "odd-owner"].map(|name| format!("data/{name}"));
    assert_eq!(listed("unzip", &["-Z1", archive.to_str().expect("UTF-8")]), expected);
}

/// Name, checksum, size and mode of each entry, by Python.
fn zip_entries(archive: &Path) -> BTreeMap<String, Value> {
    let script = "import json, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                  print(json.dumps([[i.filename, i.CRC, i.file_size, i.external_attr >> 16] for i in z.infolist()]))";
    let run = Run::of(Command::new("python3").args(["-c", script]).arg(archive)).ok();
    let entries: Vec<Value> = serde_json::from_slice(run.stdout()).expect("a list");
    entries.into_iter().map(|entry| (entry[0].as_str().expect("a name").to_owned(), entry)).collect()
}

#[test]
fn a_zip_archive_has_the_entries_of_restics_and_owners_and_times() {
    let fs = LoopFs::new(64 << 20);
    let source = fs.path().join("data");
    fs::create_dir_all(source.join("dir/empty")).expect("directories");
    let contents = [
        ("empty", Vec::new()),
        ("one", b"1".to_vec()),
        ("random", Random(5).bytes(3 << 20)),
        ("zeros", vec![0; 9 << 20]),
        ("dir/text", b"a line\n".repeat(40_000)),
        ("dir/sch\u{f6}n", b"UTF-8".to_vec()),
    ];
    for (name, content) in &contents {
        fs::write(source.join(name), content).expect("a file");
    }
    symlink("dir/text", source.join("link")).expect("a link");
    fs::hard_link(source.join("one"), source.join("again")).expect("a second name");
    for (name, mode) in [("one", 0o4750), ("random", 0o600), ("dir", 0o1777)] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    chown(source.join("random"), Some(1234), Some(4_000_000_000)).expect("an owner");
    // Whole seconds, odd ones included, and one time before 1970, which zip cannot store.
    for (time, name) in [("1700000001", "one"), ("2000000000", "dir/text"), ("-5", "zeros"), ("1600000000", "empty")] {
        run(&source, "touch", &["-d", &format!("@{time}"), name]);
    }
    run(&source, "touch", &["-h", "-d", "@1500000001", "random", "link", "dir/sch\u{f6}n", "dir/empty", "dir", "."]);
    let repo = Repo::empty(2);
    repo.backup(Peer::Vsm, fs.path(), "data", &[]);
    let (ours, archive) = dump(&repo, "zip", 0);
    assert!(ours.errors().lines().count() == 1 && ours.errors().contains("1970 to 2038"), "{ours}");
    assert!(ours.errors().contains("in 1 entries"), "{ours}");
    let theirs = repo.beside("theirs.zip");
    let target = theirs.to_str().expect("UTF-8");
    repo.run(Peer::Restic019, ["dump", "-a", "zip", "-t", target, "latest", "/data"]).ok();
    let expected = zip_entries(&theirs);
    assert!(expected.len() > contents.len() + 3, "{expected:?}");
    assert_eq!(zip_entries(&archive), expected);
    // The archive is the same in a pipe, which cannot seek.
    let piped = repo.run(Peer::Vsm, ["dump", "-a", "zip", "latest", "/data"]).ok();
    assert!(piped.stdout() == fs::read(&archive).expect("the archive"), "the archive on standard output differs");
    for (program, arguments) in [("unzip", &["-q", "-X", "-K"][..]), ("bsdtar", &["-xpf"])] {
        let target = fs.path().join(program);
        fs::create_dir(&target).expect("a directory");
        run(&target, program, &[arguments, &[archive.to_str().expect("UTF-8")]].concat());
        let mut found = compare::trees(&source, &target.join("data"), Options::default());
        found.retain(|one| one.what != What::Links);
        // unzip does not set the times of links.
        let is_known = |path: &Path| path == Path::new("zeros") || (program == "unzip" && path == Path::new("link"));
        found.retain(|one| one.what != What::Mtime || !is_known(&one.path));
        assert!(found.is_empty(), "{program}\n{}", listed(&found));
    }
}

#[test]
fn names_that_are_not_utf8_and_many_entries_are_in_a_zip_archive() {
    let source = scratch();
    fs::create_dir(source.path().join("data")).expect("a directory");
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(source.path().join("data").join(name), "coffee").expect("a file");
    let repo = Repo::empty(2);
    repo.backup(Peer::Vsm, source.path(), "data", &[]);
    let (run_, archive) = dump(&repo, "zip", 0);
    assert!(run_.errors().contains("not UTF-8") && run_.errors().contains("1 entries"), "{run_}");
    // Python decodes the name as code page 437, as the format says; encoding reverses that.
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\n\
                  sys.stdout.buffer.write(z.infolist()[-1].filename.encode('cp437'))";
    let found = Run::of(Command::new("python3").args(["-c", script]).arg(&archive)).ok();
    assert_eq!(found.stdout(), b"data/caf\xe9");

    let mut many: Vec<Node> = (0..70_000).map(|number| empty(&format!("file-{number:05}"))).collect();
    let repo = Repo::empty(2);
    forge(&repo, &mut many);
    let (_, archive) = dump(&repo, "zip", 0);
    assert_eq!(zip_entries(&archive).len(), 70_000);
    let names = run(repo.path(), "unzip", &["-Z1", archive.to_str().expect("UTF-8")]).text();
    assert_eq!(names.lines().count(), 70_000);
}

#[test]
fn an_archive_with_a_damaged_file_is_never_a_success() {
    let source = scratch();
    fs::create_dir_all(source.path().join("data/a")).expect("directories");
    fs::write(source.path().join("data/a/first"), "first").expect("a file");
    fs::write(source.path().join("data/large"), Random(9).bytes(20 << 20)).expect("a file");
    fs::write(source.path().join("data/z"), "the last").expect("a file");
    let repo = Repo::empty(2);
    repo.backup(Peer::Vsm, source.path(), "data", &[]);
    let packs = files_below(&repo.path().join("data"));
    let largest = packs.iter().max_by_key(|pack| pack.metadata().expect("a pack").len()).expect("a pack");
    fs::set_permissions(largest, fs::Permissions::from_mode(0o600)).expect("rights");
    let pack = fs::OpenOptions::new().read(true).write(true).open(largest).expect("a pack");
    let middle = pack.metadata().expect("a pack").len() / 2;
    let mut byte = [0];
    pack.read_exact_at(&mut byte, middle).expect("a byte");
    pack.write_all_at(&[byte[0] ^ 1], middle).expect("another byte");
    for (format, program, arguments) in [("tar", "tar", &["-tf"][..]), ("zip", "unzip", &["-tq"])] {
        let (dumped, archive) = dump(&repo, format, 1);
        assert!(dumped.errors().contains("data blob"), "{dumped}");
        let read = Run::of(Command::new(program).args(arguments).arg(&archive));
        assert!(!read.succeeded(), "{program} accepts the archive\n{read}");
    }
}
