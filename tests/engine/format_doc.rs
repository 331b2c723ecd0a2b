//! Runs the commands of `docs/reference/format.md` literally, with stock restic.

use crate::common::compare;
use crate::common::loops::LoopDevice;
use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, scratch};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The root of a volume is compared, too.
const WITH_ROOT: compare::Options = compare::Options { root: true, holes: false };

/// The blocks of the document that are marked as tested here, in order.
fn blocks() -> Vec<String> {
    let text = include_str!("../../docs/reference/format.md");
    let blocks = text.split("```sh by=format_doc::").skip(1);
    let code = |block: &str| Some(block.split("```").next()?.split_once('\n')?.1.trim().to_owned());
    blocks.filter_map(code).collect()
}

/// The one block that has all of these words.
fn block(words: &[&str]) -> String {
    let matching: Vec<String> =
        blocks().into_iter().filter(|block| words.iter().all(|word| block.contains(word))).collect();
    assert_eq!(matching.len(), 1, "one block with {words:?} in {matching:?}");
    matching.into_iter().next().expect("counted")
}

/// Runs a script with `restic` on its path and the repository in its environment.
fn shell(repo: &Repo, script: &str, variables: &[(&str, &Path)]) -> Run {
    let bin = repo.beside("bin");
    std::fs::create_dir_all(&bin).expect("a directory");
    let link = bin.join("restic");
    if !link.exists() {
        std::os::unix::fs::symlink(Peer::Restic019.program(), link).expect("a link");
    }
    let mut command = repo.command(Peer::Restic019);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    let mut shell = Command::new("bash");
    shell.env_clear().args(["-euc", script]);
    shell.envs(environment.into_iter().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
    shell.envs(variables.iter().copied());
    command.arg("unused");
    Run::of(&mut shell)
}

/// A root with a mode, an owner and an attribute of its own, and a few entries.
fn make_volume(root: &Path) {
    std::fs::create_dir(root.join("dir")).expect("a directory");
    std::fs::write(root.join("dir/file"), Random(5).bytes(2 << 20)).expect("a file");
    std::os::unix::fs::symlink("dir/file", root.join("link")).expect("a link");
    rustix::fs::setxattr(root, "user.volume", b"claim", rustix::fs::XattrFlags::empty()).expect("an attribute");
    std::os::unix::fs::chown(root, Some(1001), Some(2002)).expect("an owner");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o3770);
    std::fs::set_permissions(root, mode).expect("a mode");
}

#[test]
fn the_documented_commands_restore_a_volume() {
    let volume = scratch();
    let root = volume.path().to_owned();
    make_volume(&root);
    let repo = Repo::empty(2);
    repo.run(Peer::Vsm, ["backup", "--volume", root.to_str().expect("UTF-8"), "--host", "claim"]).ok();

    shell(&repo, &block(&["check"]), &[]).ok();

    let target = scratch();
    shell(&repo, &block(&["restore", "$TARGET"]), &[("TARGET", target.path())]).ok();
    compare::assert_same(&root, &target.path().join("data"), WITH_ROOT);

    // The block for a volume at /data runs in its own mount namespace, and a copy is taken out for
    // the comparison.
    let out = scratch();
    let script = format!(
        "made=; [ -d /data ] || {{ mkdir /data; made=1; }}\n\
         unshare --mount bash -euc 'mount -t tmpfs tmpfs /data; {}; cp -a --sparse=always /data \"$OUT\"/'\n\
         [ -z \"$made\" ] || rmdir /data",
        block(&["restore", "--target /"])
    );
    shell(&repo, &script, &[("OUT", out.path())]).ok();
    compare::assert_same(&root, &out.path().join("data"), WITH_ROOT);
}

#[test]
fn the_documented_command_restores_a_block_device() {
    let content = Random(11).bytes(3 << 20);
    let device = LoopDevice::with_content(&mut |file| file.write_all(&content));
    let repo = Repo::empty(2);
    repo.run(Peer::Vsm, ["backup", "--read-special", device.path().to_str().expect("UTF-8")]).ok();
    let target = scratch();
    shell(&repo, &block(&["dump"]), &[("DEVICE", device.path()), ("TARGET", target.path())]).ok();
    assert!(std::fs::read(target.path().join("disk.img")).expect("the image") == content, "the image differs");
}
