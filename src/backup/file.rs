//! Opens the files to be read, and detects those that changed while they were read.

use super::assemble::Slot;
use super::reach::Place;
use super::run::Run;
use super::source::Standing;
use super::stat::{display, node_type, xattrs_of_file};
use crate::format::node::{Node, NodeType};
use crate::progress::Action;
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::path::PathBuf;

/// A file to be read.
pub struct FileWork {
    pub path: PathBuf,
    pub node: Node,
    pub slot: Slot,
    /// The action that is reported once the file is read.
    pub action: Action,
    pub standing: Standing,
    input: Input,
}

enum Input {
    /// A regular file, to be opened by its path.
    File,
    /// A block device, to be opened by its path or through a symlink.
    Device,
    /// A stream that is open already, such as standard input.
    Stream(OwnedFd),
}

impl FileWork {
    pub fn file(path: PathBuf, node: Node, slot: Slot, standing: Standing, action: Action) -> FileWork {
        FileWork { path, node, slot, action, standing, input: Input::File }
    }

    /// A block device that the user named.
    pub fn device(path: PathBuf, node: Node, slot: Slot, action: Action) -> FileWork {
        FileWork { path, node, slot, action, standing: Standing::Named, input: Input::Device }
    }

    /// A stream; `source` is its name in messages.
    pub fn stream(fd: OwnedFd, source: &str, node: Node, slot: Slot) -> FileWork {
        let (path, action, standing) = (PathBuf::from(source), Action::New, Standing::Named);
        FileWork { path, node, slot, action, standing, input: Input::Stream(fd) }
    }

    /// Opens a regular file, updates its metadata, and verifies that it is the file that was found
    /// in the directory.
    pub fn open(&mut self, run: &Run<'_>, place: &Place<'_>) -> std::result::Result<OpenFile, String> {
        let fd = open_as_it_is(place, OFlags::NOFOLLOW)?;
        let mut warnings = Vec::new();
        // Before `fstat`: in sysfs, the first list of attributes changes the times.
        let xattrs = xattrs_of_file(&fd, |why| warnings.push(why));
        let stat = look_at(&fd)?;
        if node_type(&stat) != NodeType::File || stat.st_ino != self.node.inode {
            return Err(self.replaced());
        }
        run.observer.refresh(&mut self.node, &stat);
        self.node.xattrs = xattrs;
        Ok(OpenFile { fd, stat, warnings })
    }

    /// Opens the input, of whichever kind it is.
    pub fn open_input(&mut self, run: &Run<'_>) -> std::result::Result<(OwnedFd, Opened), String> {
        match std::mem::replace(&mut self.input, Input::File) {
            Input::Stream(fd) => Ok((fd, Opened::Stream)),
            Input::File => {
                let path = self.path.clone();
                let place = Place::at(&path).map_err(|error| cannot("reached", error))?;
                let OpenFile { fd, stat, warnings } = self.open(run, &place)?;
                self.report(run, warnings);
                Ok((fd, Opened::Regular(stat)))
            }
            Input::Device => {
                let place = Place::at(&self.path).map_err(|error| cannot("reached", error))?;
                // The user named the device, so its name may be a symlink.
                let fd = open_as_it_is(&place, OFlags::empty())?;
                if node_type(&look_at(&fd)?) != NodeType::Dev {
                    return Err(self.replaced());
                }
                let size = rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|error| cannot("measured", error))?;
                rustix::fs::seek(&fd, SeekFrom::Start(0)).map_err(|error| cannot("read", error))?;
                if size == 0 {
                    return Err(
                        "it cannot be read: the device has a size of 0 bytes, as if nothing were attached to it".into(),
                    );
                }
                Ok((fd, Opened::Device(size)))
            }
        }
    }

    /// Reports the attributes that [`FileWork::open`] could not read. To be called when the file is
    /// not opened again.
    pub fn report(&self, run: &Run<'_>, warnings: Vec<String>) {
        for why in warnings {
            run.problem(&self.path, why);
        }
    }

    fn replaced(&self) -> String {
        format!("{} was replaced while it was backed up", display(&self.path))
    }

    /// Reports a file that changed between `before` and the end of reading `read` bytes of it.
    pub fn compare(&self, run: &Run<'_>, fd: &OwnedFd, before: &Stat, read: u64) {
        match rustix::fs::fstat(fd) {
            Ok(after) if !changed(before, &after, read, || is_generated(fd)) => {}
            Ok(_) => {
                run.problem(&self.path, "it changed while it was read, so the stored content may be inconsistent");
            }
            Err(errno) => {
                run.problem(&self.path, format!("cannot determine whether it changed while it was read: {errno}"));
            }
        }
    }

    /// Reports that the file cannot be read, and leaves it out.
    pub fn lose(&self, run: &Run<'_>, why: String) {
        run.lost(self.standing, &self.path, why);
        run.check(self.slot.fill(run, None));
    }
}

/// A regular file that has been opened.
pub struct OpenFile {
    pub fd: OwnedFd,
    pub stat: Stat,
    /// Extended attributes that cannot be read.
    pub warnings: Vec<String>,
}

/// An open input, with the facts that are known before it is read.
pub enum Opened {
    Regular(Stat),
    /// A block device of this size in bytes.
    Device(u64),
    Stream,
}

/// Opens an entry without changing it.
fn open_as_it_is(place: &Place<'_>, follow: OFlags) -> std::result::Result<OwnedFd, String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | follow;
    // Only a file's owner and root may open it without changing its access time.
    let fd = match place.open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => place.open(flags),
        outcome => outcome,
    };
    fd.map_err(|error| cannot("opened", error))
}

fn look_at(fd: &OwnedFd) -> std::result::Result<Stat, String> {
    rustix::fs::fstat(fd).map_err(|error| cannot("examined", error))
}

fn cannot(action: &str, error: Errno) -> String {
    format!("it cannot be {action}: {error}")
}

/// Whether a file has changed since it was opened, or its size differs from the number of bytes
/// read. `is_generated` returns whether the kernel generates the content when it is read, so that
/// the size means nothing.
fn changed(before: &Stat, after: &Stat, read: u64, is_generated: impl FnOnce() -> bool) -> bool {
    let key = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    if key(before) != key(after) {
        return true;
    }
    // A size of 0 means nothing, either: network file systems and FUSE servers also have such files
    // with generated content.
    after.st_size != 0 && u64::try_from(after.st_size) != Ok(read) && !is_generated()
}

/// `f_type` of file systems whose files are generated (`linux/magic.h`). Some of them report a size
/// that means nothing: sysfs a page for each file.
const GENERATED: [u32; 9] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x6265_6570, // configfs
    0x7363_6673, // securityfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xde5e_81e4, // efivarfs
];

fn is_generated(fd: &OwnedFd) -> bool {
    // Magic numbers have 32 bits; the field is signed, and wider on some architectures.
    rustix::fs::fstatfs(fd).is_ok_and(|found| GENERATED.contains(&(found.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_detected_by_size_time_and_bytes_read() {
        let temp = tempfile::tempdir().unwrap();
        let stat_of = |bytes: &[u8]| {
            std::fs::write(temp.path().join("f"), bytes).unwrap();
            rustix::fs::stat(temp.path().join("f")).unwrap()
        };
        let (empty, full) = (stat_of(b""), stat_of(b"12345"));
        let stored = || false;
        assert!(!changed(&full, &full, 5, stored));
        assert!(changed(&full, &full, 4, stored), "it ended early");
        assert!(!changed(&full, &full, 4, || true), "its size means nothing");
        assert!(changed(&empty, &full, 5, stored), "it grew");
        assert!(changed(&full, &empty, 5, || true), "it shrank");
        assert!(!changed(&empty, &empty, 0, stored));
        assert!(!changed(&empty, &empty, 17, stored), "it has content without a size");
        let mut later = full;
        later.st_mtime += 1;
        assert!(changed(&full, &later, 5, stored));
    }
}
