//! [`Folder`]: a repository in a directory of a file system.
//!
//! A file is written under a temporary name, given its mode, synced and renamed, and its directory
//! is synced: a file under its final name is complete and durable. Files are read-only and private
//! (0400, directories 0700); if the existing config is group-readable, the group gets access too.
//! Every listing skips temporary names (`*-tmp-*`). A temporary file that a crash leaves behind
//! stays: it is never read, and its removal would race with a process that may still write it.

use super::directory::Directory;
use super::error::{Result, StoreError};
use super::file::{File, FileType};
use super::interface::{Download, Store, Upload};
use super::layout;
use crate::clock;
use crate::id::Id;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A disk gains little from more calls at once, and a network file system's clients queue them
/// anyway.
pub(super) const CONNECTIONS: usize = 4;

/// How a write treats an existing file of the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Replace,
    /// The write fails.
    Keep,
}

/// A repository in a folder. Cheap to clone.
#[derive(Clone)]
pub struct Folder {
    root: Arc<Path>,
    location: Arc<str>,
    connections: usize,
    /// Whether files and directories are synced to disk.
    durable: bool,
    /// The mode of a file once it is written, and that of new directories (before the umask).
    file_mode: u32,
    directory_mode: u32,
}

impl Folder {
    /// The folder need not exist: then it has no files, and [`Store::prepare`] creates it.
    pub fn new(root: impl Into<PathBuf>, connections: usize) -> Folder {
        let root = root.into();
        let group = fs::metadata(root.join("config")).is_ok_and(|config| config.mode() & 0o040 != 0);
        let (file_mode, directory_mode) = if group { (0o440, 0o770) } else { (0o400, 0o700) };
        let location = root.display().to_string().into();
        Folder { root: root.into(), location, connections, durable: true, file_mode, directory_mode }
    }

    /// A folder of cached copies, which may be lost when the machine crashes.
    pub(super) fn of_copies(root: impl Into<PathBuf>) -> Folder {
        Folder { durable: false, ..Folder::new(root, CONNECTIONS) }
    }

    fn failed(&self, action: &str, path: &str, source: impl Into<io::Error>) -> StoreError {
        StoreError::Failed {
            action: format!("{action} {path}"),
            location: self.location.to_string(),
            source: source.into().into(),
        }
    }

    /// The error of a call that needs the file to exist.
    fn lacking(&self, action: &str, file: File, source: io::Error) -> StoreError {
        match source.kind() {
            ErrorKind::NotFound => StoreError::NotFound { file, location: self.location.to_string() },
            _ => self.failed(action, &layout::path(file), source),
        }
    }

    fn open(&self, file: File) -> Result<(fs::File, u64)> {
        let open = || {
            let opened = fs::File::open(self.root.join(layout::path(file)))?;
            let metadata = opened.metadata()?;
            if !metadata.is_file() {
                return Err(irregular());
            }
            Ok((opened, metadata.len()))
        };
        open().map_err(|source| self.lacking("read", file, source))
    }

    /// Creates a directory below the root and its parents, but never the root: if the root is
    /// missing, the file system may be unmounted.
    fn make_directory(&self, directory: &str) -> io::Result<()> {
        let mut path = self.root.to_path_buf();
        for part in directory.split('/').filter(|part| !part.is_empty()) {
            let above = path.clone();
            path.push(part);
            match fs::DirBuilder::new().mode(self.directory_mode).create(&path) {
                Ok(()) => self.sync_directory(&above)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens a new temporary file in a directory below the root, and creates the directory if it is
    /// missing.
    fn temporary(&self, directory: &str, stem: &str) -> Result<Temporary> {
        let suffix = u64::from_le_bytes(clock::random_bytes());
        let name = format!("{stem}-tmp-{suffix:016x}");
        let path = self.root.join(directory).join(&name);
        let open = || fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let opened = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => self.make_directory(directory).and_then(|()| open()),
            other => other,
        };
        let file = opened.map_err(|source| self.failed("create", &format!("{directory}/{name}"), source))?;
        Ok(Temporary { path, file, moved: false })
    }

    /// Gives a complete temporary file its name, durably.
    fn publish(&self, mut temporary: Temporary, file: File, existing: Existing) -> Result<()> {
        let directory = layout::parent(file);
        let target = self.root.join(layout::path(file));
        let publish = || {
            set_mode(&temporary.file, self.file_mode)?;
            if self.durable {
                temporary.file.sync_all()?;
            }
            let rename = || match existing {
                Existing::Replace => fs::rename(&temporary.path, &target),
                Existing::Keep => rename_new(&temporary.path, &target),
            };
            match rename() {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.make_directory(&directory)?;
                    rename()?;
                }
                other => other?,
            }
            self.sync_directory(&self.root.join(&directory))
        };
        match publish() {
            Ok(()) => {
                temporary.moved = true;
                Ok(())
            }
            Err(error) if existing == Existing::Keep && error.kind() == ErrorKind::AlreadyExists => {
                Err(StoreError::AlreadyExists { file, location: self.location.to_string() })
            }
            Err(error) => Err(self.failed("write", &layout::path(file), error)),
        }
    }

    /// Makes the names in a directory durable, where the file system can.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        match fs::File::open(path)?.sync_all() {
            Err(error) if Errno::from_io_error(&error).is_some_and(unsupported) => Ok(()),
            other => other,
        }
    }

    fn put(&self, file: File, bytes: &[u8], existing: Existing) -> Result<()> {
        let stem = if file.ty == FileType::Config { "config".to_owned() } else { file.id.to_string() };
        let mut temporary = self.temporary(&layout::parent(file), &stem)?;
        temporary.file.write_all(bytes).map_err(|source| self.failed("write", &layout::path(file), source))?;
        self.publish(temporary, file, existing)
    }

    /// Adds the files of one type that lie in one directory.
    fn list_directory(&self, directory: &str, found: &mut Vec<(Id, u64)>) -> io::Result<()> {
        for entry in entries(&self.root.join(directory))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(file) = name.to_str().and_then(|name| layout::parse(&format!("{directory}/{name}"))) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => found.push((file.id, metadata.len())),
                Ok(_) => {}
                // Removed since the directory was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Store for Folder {
    fn location(&self) -> &str {
        &self.location
    }

    fn connections(&self) -> usize {
        self.connections
    }

    /// The kernel lists a renamed file at once. On a network file system, another machine's cache
    /// may miss it, but only a wait of a minute or more would rule that out.
    fn settles_after(&self) -> Duration {
        Duration::ZERO
    }

    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>> {
        let top = layout::directory(ty);
        let mut found = Vec::new();
        let list = |found: &mut Vec<(Id, u64)>| {
            match ty {
                FileType::Config => {}
                FileType::Pack => {
                    for entry in entries(&self.root.join(top))? {
                        let name = entry?.file_name();
                        if let Some(name) = name.to_str().filter(|name| name.len() == 2) {
                            self.list_directory(&format!("{top}/{name}"), found)?;
                        }
                    }
                }
                _ => self.list_directory(top, found)?,
            }
            Ok(())
        };
        list(&mut found).map_err(|source: io::Error| self.failed("list", top, source))?;
        Ok(found)
    }

    fn size(&self, file: File) -> Result<u64> {
        let path = layout::path(file);
        let metadata = fs::metadata(self.root.join(&path)).map_err(|source| self.lacking("look up", file, source))?;
        if !metadata.is_file() {
            return Err(self.failed("look up", &path, irregular()));
        }
        Ok(metadata.len())
    }

    fn read(&self, file: File, max: u64) -> Result<Bytes> {
        let (mut opened, size) = self.open(file)?;
        if size > max {
            return Err(StoreError::TooLarge { file, size, max });
        }
        let read = || {
            let capacity = usize::try_from(size).map_err(io::Error::other)?;
            let mut bytes = Vec::with_capacity(capacity.saturating_add(1));
            (&mut opened).take(max.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = { read }().map_err(|source: io::Error| self.failed("read", &layout::path(file), source))?;
        match bytes.len() as u64 {
            size if size > max => Err(StoreError::TooLarge { file, size, max }),
            _ => Ok(bytes.into()),
        }
    }

    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>> {
        let (opened, size) = self.open(file)?;
        let there = size.saturating_sub(offset);
        if there < length {
            return Err(StoreError::Short { file, offset, wanted: length, got: there });
        }
        Ok(Box::new(FolderDownload { folder: self, file, opened, at: offset, end: offset + length }))
    }

    fn write(&self, file: File, bytes: Bytes) -> Result<()> {
        self.put(file, &bytes, Existing::Replace)
    }

    fn create(&self, file: File, bytes: Bytes) -> Result<()> {
        self.put(file, &bytes, Existing::Keep)
    }

    fn keeps_uploads(&self) -> bool {
        false
    }

    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        // The temporary file of a pack is above the subdirectories: the id, which is not known yet,
        // determines the subdirectory.
        let temporary = self.temporary(layout::directory(ty), "upload")?;
        let writer = BufWriter::with_capacity(64 << 10, temporary);
        Ok(Box::new(FolderUpload { folder: self.clone(), ty, writer }))
    }

    fn remove(&self, file: File) -> Result<()> {
        let remove = || match fs::remove_file(self.root.join(layout::path(file))) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            // An index file that names a pack is removed before the pack, and must not reappear
            // after a crash. A pack or lock may.
            Ok(()) if matches!(file.ty, FileType::Pack | FileType::Lock) => Ok(()),
            Ok(()) => self.sync_directory(&self.root.join(layout::parent(file))),
        };
        remove().map_err(|source| self.failed("remove", &layout::path(file), source))
    }

    fn prepare(&self) -> Result<()> {
        fs::DirBuilder::new()
            .mode(self.directory_mode)
            .recursive(true)
            .create(&self.root)
            .map_err(|source| self.failed("create the folder", ".", source))?;
        for directory in layout::directories() {
            self.make_directory(&directory).map_err(|source| self.failed("create", &directory, source))?;
        }
        Ok(())
    }
}

/// The entries of a directory, for [`Place::directory`](super::Place::directory).
pub(super) fn directory(path: &Path, wanted: &[&str]) -> Result<Directory> {
    let list = || {
        let mut found = Directory::default();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let (name, ty) = (entry.file_name(), entry.file_type()?);
            match name.to_str() {
                Some(name) if ty.is_dir() => found.directories.push(name.to_owned()),
                Some(name) if ty.is_file() => found.files.extend(wanted.contains(&name).then(|| name.to_owned())),
                _ if ty.is_dir() || ty.is_symlink() => found.passed_over.push(name.to_string_lossy().into_owned()),
                _ => {}
            }
        }
        Ok(found)
    };
    list().map_err(|source: io::Error| StoreError::Failed {
        action: "list the entries".to_owned(),
        location: path.display().to_string(),
        source: source.into(),
    })
}

/// A file under a temporary name. Unless it was renamed, dropping this value removes it.
struct Temporary {
    path: PathBuf,
    file: fs::File,
    moved: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.moved {
            // The error cannot be reported; a leftover file is harmless.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct FolderDownload<'f> {
    folder: &'f Folder,
    file: File,
    opened: fs::File,
    at: u64,
    end: u64,
}

impl Download for FolderDownload<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        let FolderDownload { folder, file, opened, at, end } = self;
        let wanted = out.len() as u64;
        let short = |got| StoreError::Short { file: *file, offset: *at, wanted, got };
        if *end - *at < wanted {
            return Err(short(*end - *at));
        }
        opened.read_exact_at(out, *at).map_err(|source| match source.kind() {
            // The file was truncated after it was opened.
            ErrorKind::UnexpectedEof => short(opened.metadata().map_or(0, |now| now.len().saturating_sub(*at))),
            _ => folder.failed("read", &layout::path(*file), source),
        })?;
        *at += wanted;
        Ok(())
    }
}

struct FolderUpload {
    folder: Folder,
    ty: FileType,
    writer: BufWriter<Temporary>,
}

impl Upload for FolderUpload {
    fn write(&mut self, part: &[u8]) -> Result<()> {
        self.writer.write_all(part).map_err(|source| self.folder.failed("write a new", &self.ty.to_string(), source))
    }

    fn commit(self: Box<Self>, id: Id) -> Result<()> {
        let file = File::new(self.ty, id);
        let FolderUpload { folder, writer, .. } = *self;
        let temporary =
            writer.into_inner().map_err(|error| folder.failed("write", &layout::path(file), error.into_error()))?;
        folder.publish(temporary, file, Existing::Replace)
    }
}

fn irregular() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// The entries of a directory; one that is missing, or is none, has no entries.
fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None.into_iter().flatten())
        }
        Err(error) => Err(error),
    }
}

/// Renames to a name that must not exist, by the best means that the file system has: a rename that
/// does not replace, or a hard link. Without either, the name is looked up before the rename.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(error) if unsupported(error) => {}
        other => return other.map_err(io::Error::from),
    }
    match fs::hard_link(from, to) {
        Ok(()) => return fs::remove_file(from),
        Err(error) if Errno::from_io_error(&error).is_some_and(|error| unsupported(error) || error == Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

fn unsupported(error: Errno) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTTY].contains(&error)
}

/// Sets a mode where the file system has modes.
fn set_mode(file: &fs::File, mode: u32) -> io::Result<()> {
    match file.set_permissions(fs::Permissions::from_mode(mode)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) if Errno::from_io_error(&error).is_some_and(unsupported) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
