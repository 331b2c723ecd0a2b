//! Real file systems and block devices for tests: ext4 on a loop device, and bare loop devices.
//!
//! All names contain the process ID, so that parallel runs do not collide. Everything is released
//! on drop, also in a panic. The next run's `scratch` removes the remains of a killed run.

use super::scratch;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A new ext4 file system, mounted at `path()`.
pub struct LoopFs {
    mount: PathBuf,
    /// Holds the image; removed after the file system has been unmounted.
    dir: TempDir,
}

impl LoopFs {
    /// Formats and mounts a sparse image of `bytes`, which takes disk space for written data only.
    pub fn new(bytes: u64) -> LoopFs {
        LoopFs::with_options(bytes, &[])
    }

    pub fn with_options(bytes: u64, mkfs: &[&str]) -> LoopFs {
        let dir = scratch();
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image file");
        // 256-byte inodes hold nanoseconds and years up to 2446. No lazy initialisation in the
        // background of the tests.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-I", "256", "-m", "0", "-E", "lazy_itable_init=0,nodiscard"])
            .args(mkfs)
            .arg(&image));
        let fs = LoopFs::mounted(dir);
        std::fs::remove_dir(fs.mount.join("lost+found")).expect("an empty lost+found");
        fs
    }

    /// A copy of this file system, like the clone of a snapshot: the same inodes and times, with
    /// another device number.
    pub fn duplicate(&self) -> LoopFs {
        let dir = scratch();
        run(Command::new("fsfreeze").arg("-f").arg(&self.mount));
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(self.dir.path().join("image"))
            .arg(dir.path().join("image"))
            .status();
        run(Command::new("fsfreeze").arg("-u").arg(&self.mount));
        assert!(copied.is_ok_and(|status| status.success()), "the image could not be copied");
        LoopFs::mounted(dir)
    }

    /// The file system as after a power loss at this moment: the data sent to the disk, without the
    /// dirty pages in memory.
    pub fn after_power_loss(&self) -> LoopFs {
        let dir = scratch();
        let (from, to) = (self.dir.path().join("image"), dir.path().join("image"));
        run(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
        LoopFs::mounted(dir)
    }

    fn mounted(dir: TempDir) -> LoopFs {
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).expect("a mount point");
        run(Command::new("mount")
            .args(["-o", "loop,noatime,user_xattr,acl"])
            .arg(dir.path().join("image"))
            .arg(&mount));
        LoopFs { mount, dir }
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

/// A bare loop device over its own file.
pub struct LoopDevice {
    device: PathBuf,
    dir: TempDir,
}

impl LoopDevice {
    /// A device of `bytes` bytes, each of them `fill`.
    pub fn filled(bytes: u64, fill: u8) -> LoopDevice {
        LoopDevice::with_content(&mut |file| {
            let block = vec![fill; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                let piece = left.min(1 << 20) as usize;
                file.write_all(&block[..piece])?;
                left -= piece as u64;
            }
            Ok(())
        })
    }

    /// A device whose content `write` produces.
    pub fn with_content(write: &mut dyn FnMut(&mut File) -> std::io::Result<()>) -> LoopDevice {
        let dir = scratch();
        let image = dir.path().join("image");
        let mut file = File::create(&image).expect("an image file");
        write(&mut file).expect("the image is written");
        file.sync_all().expect("the image is on disk");
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        LoopDevice { device: PathBuf::from(device.trim()), dir }
    }

    pub fn path(&self) -> &Path {
        &self.device
    }

    /// The current content of the device, read past the page cache of the device node.
    pub fn content(&self) -> Vec<u8> {
        run(Command::new("blockdev").arg("--flushbufs").arg(&self.device));
        std::fs::read(self.dir.path().join("image")).expect("the image is readable")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// Unmounts and detaches everything below `dir`, whose process has ended.
pub fn release_below(dir: &Path) {
    unmount(&dir.join("mount"));
    if let Ok(listed) = Command::new("losetup")
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(dir.join("image"))
        .output()
    {
        for device in String::from_utf8_lossy(&listed.stdout).lines() {
            let _ = Command::new("losetup").arg("-d").arg(device.trim()).status();
        }
    }
}

/// Unmounts a file system; lazily if it is still in use (a panic in another thread, a running
/// peer).
fn unmount(mount: &Path) {
    let plain = Command::new("umount").arg(mount).output();
    if !plain.is_ok_and(|done| done.status.success()) {
        let _ = Command::new("umount").arg("--lazy").arg(mount).output();
    }
}

/// Runs a system program, which must succeed, and returns its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} could not be started: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
