//! [`Cached`]: a store with a local cache: copies of index files, snapshots and packs of trees in a
//! folder of this machine.
//!
//! The next run reads these files again. A copy has the name of its file in the repository, which
//! is the hash of its bytes, and is compared with it before it is used: a corrupt copy is fetched
//! again. A file that others remove from the repository is in no listing and in no index any more,
//! so that its copy is not read; copies older than 30 days are evicted. If copies cannot be
//! written, the store works without them, and warns once.

mod eviction;

use super::error::{Result, StoreError};
use super::file::{File, FileType};
use super::folder::Folder;
use super::interface::{Download, Store, Upload};
use super::layout;
use crate::aside::Aside;
use crate::clock;
use crate::hash::Sha256;
use crate::id::Id;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Bytes of a pack that are copied or hashed at a time.
const PIECE: u64 = 1 << 20;

/// How long the copies of a cache are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLifetime {
    /// For later runs, too.
    Lasting,
    /// For this run alone, which trusts no copy of an earlier run.
    ThisRun,
}

/// A store, and copies of some of its files.
pub struct Cached {
    store: Arc<dyn Store>,
    copies: Arc<Copies>,
}

/// Called with the reason when the cache stops making copies.
type Warn = Box<dyn Fn(StoreError) + Send + Sync>;

struct Copies {
    folder: Folder,
    root: PathBuf,
    lifetime: CacheLifetime,
    /// Packs that may have a copy, and whether the copy is good, once it was verified.
    packs: Mutex<HashMap<Id, Arc<OnceLock<bool>>>>,
    warn: Warn,
    given_up: AtomicBool,
}

impl Cached {
    /// Keeps copies in a folder below `parent`, which is created if it is missing. The folder is
    /// the repository's, or one of this run.
    pub fn open(
        store: Arc<dyn Store>,
        parent: &Path,
        repository: &str,
        lifetime: CacheLifetime,
        warn: impl Fn(StoreError) + Send + Sync + 'static,
    ) -> io::Result<Cached> {
        let root = parent.join(match lifetime {
            CacheLifetime::Lasting => repository.to_owned(),
            CacheLifetime::ThisRun => format!("run-{:016x}", u64::from_le_bytes(clock::random_bytes())),
        });
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&root)?;
        eviction::mark(parent, &root)?;
        eviction::evict(parent)?;
        for directory in layout::directories() {
            eviction::evict(&root.join(directory))?;
        }
        let folder = Folder::of_copies(&root);
        let listed = folder.list(FileType::Pack).map_err(io::Error::other)?;
        let packs = Mutex::new(listed.into_iter().map(|(id, _)| (id, Arc::default())).collect());
        let (warn, given_up) = (Box::new(warn), AtomicBool::new(false));
        Ok(Cached { store, copies: Arc::new(Copies { folder, root, lifetime, packs, warn, given_up }) })
    }
}

impl Copies {
    /// Runs an operation on the copies. The first failure is reported as a warning and ends all
    /// later attempts.
    fn attempt<T>(&self, attempt: impl FnOnce(&Folder) -> Result<T>) -> Option<T> {
        if self.given_up.load(Ordering::Relaxed) {
            return None;
        }
        let give_up = |error| {
            if !self.given_up.swap(true, Ordering::Relaxed) {
                (self.warn)(error);
            }
        };
        attempt(&self.folder).map_err(give_up).ok()
    }

    fn read(&self, file: File, max: u64) -> Option<Bytes> {
        let bytes = self.folder.read(file, max).ok()?;
        (Id::of(&bytes) == file.id).then_some(bytes)
    }

    fn write(&self, file: File, bytes: &Bytes) {
        self.attempt(|folder| folder.write(file, bytes.clone()));
    }

    /// Whether a pack has a good copy. The copy is read once to verify it.
    fn has(&self, file: File) -> bool {
        let known = self.packs.lock().expect("no holder of this lock panics").get(&file.id).cloned();
        known.is_some_and(|known| *known.get_or_init(|| self.is_good(file)))
    }

    fn is_good(&self, file: File) -> bool {
        let size = self.folder.size(file);
        let copy = size.and_then(|size| Ok((self.folder.download(file, 0, size)?, size)));
        copy.and_then(|(mut copy, size)| pass(&mut *copy, size, |_| Some(()))).is_ok_and(|id| id == Some(file.id))
    }

    /// Copies a pack into the cache, unless it has a good copy. Concurrent calls wait for the same
    /// copy.
    fn fetch(&self, file: File, size: u64, store: &dyn Store) {
        let known = self.packs.lock().expect("no holder of this lock panics").entry(file.id).or_default().clone();
        known.get_or_init(|| {
            self.is_good(file)
                || store.download(file, 0, size).is_ok_and(|mut original| {
                    let Some(mut copy) = self.attempt(|folder| folder.upload(file.ty)) else { return false };
                    let id = pass(&mut *original, size, |piece| self.attempt(|_| copy.write(piece)));
                    id.is_ok_and(|id| id == Some(file.id)) && self.attempt(|_| copy.commit(file.id)).is_some()
                })
        });
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if self.lifetime == CacheLifetime::ThisRun {
            // Later runs evict whatever this leaves behind.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Passes `size` bytes on in pieces and returns their hash, or `None` if `take` refused a piece.
fn pass(from: &mut dyn Download, size: u64, mut take: impl FnMut(&[u8]) -> Option<()>) -> Result<Option<Id>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE as usize];
    let mut left = size;
    while left > 0 {
        let piece = &mut buffer[..left.min(PIECE) as usize];
        from.read(piece)?;
        if take(piece).is_none() {
            return Ok(None);
        }
        hash.update(piece);
        left -= piece.len() as u64;
    }
    Ok(Some(Id(hash.finish())))
}

/// Whether every file of this type is cached when it is read or written.
fn is_kept(ty: FileType) -> bool {
    matches!(ty, FileType::Index | FileType::Snapshot)
}

impl Store for Cached {
    fn read(&self, file: File, max: u64) -> Result<Bytes> {
        if !is_kept(file.ty) {
            return self.store.read(file, max);
        }
        if let Some(copy) = self.copies.read(file, max) {
            return Ok(copy);
        }
        let bytes = self.store.read(file, max)?;
        if Id::of(&bytes) == file.id {
            self.copies.write(file, &bytes);
        }
        Ok(bytes)
    }

    fn download(&self, file: File, offset: u64, length: u64) -> Result<Box<dyn Download + '_>> {
        if file.ty == FileType::Pack
            && self.copies.has(file)
            && let Ok(copy) = self.copies.folder.download(file, offset, length)
        {
            return Ok(copy);
        }
        self.store.download(file, offset, length)
    }

    fn write(&self, file: File, bytes: Bytes) -> Result<()> {
        self.store.write(file, bytes.clone())?;
        if is_kept(file.ty) {
            self.copies.write(file, &bytes);
        }
        Ok(())
    }

    fn upload_kept(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        let original = self.store.upload(ty)?;
        let copy = self.copies.attempt(|folder| folder.upload(ty));
        Ok(Box::new(Both { original, copy, copies: self.copies.clone() }))
    }

    fn keep(&self, file: File, size: u64) {
        self.copies.fetch(file, size, &*self.store);
    }

    fn location(&self) -> &str {
        self.store.location()
    }

    fn connections(&self) -> usize {
        self.store.connections()
    }

    fn downloads(&self) -> usize {
        self.store.downloads()
    }

    fn settles_after(&self) -> Duration {
        self.store.settles_after()
    }

    fn list(&self, ty: FileType) -> Result<Vec<(Id, u64)>> {
        self.store.list(ty)
    }

    fn size(&self, file: File) -> Result<u64> {
        self.store.size(file)
    }

    fn create(&self, file: File, bytes: Bytes) -> Result<()> {
        self.store.create(file, bytes)
    }

    fn keeps_uploads(&self) -> bool {
        self.store.keeps_uploads()
    }

    fn upload(&self, ty: FileType) -> Result<Box<dyn Upload>> {
        self.store.upload(ty)
    }

    fn remove(&self, file: File) -> Result<()> {
        // A copy that cannot be removed is harmless: its file is not requested any more.
        let _ = self.copies.folder.remove(file);
        self.store.remove(file)
    }

    fn prepare(&self) -> Result<()> {
        self.store.prepare()
    }
}

/// An upload to the store, and to the cache as long as that can be written.
struct Both {
    original: Box<dyn Upload>,
    copy: Option<Box<dyn Upload>>,
    copies: Arc<Copies>,
}

impl Upload for Both {
    fn write_aside(&mut self, part: &Arc<Aside>) -> Result<()> {
        self.original.write_aside(part)?;
        if let Some(copy) = &mut self.copy
            && self.copies.attempt(|_| copy.write_aside(part)).is_none()
        {
            self.copy = None;
        }
        Ok(())
    }

    fn write(&mut self, part: &[u8]) -> Result<()> {
        self.original.write(part)?;
        if let Some(copy) = &mut self.copy
            && self.copies.attempt(|_| copy.write(part)).is_none()
        {
            self.copy = None;
        }
        Ok(())
    }

    fn commit(self: Box<Self>, id: Id) -> Result<()> {
        self.original.commit(id)?;
        if let Some(copy) = self.copy {
            self.copies.attempt(|_| copy.commit(id));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::eviction::{OLD, TAG};
    use super::*;
    use std::fs::FileTimes;
    use std::time::SystemTime;
    use tempfile::TempDir;

    /// A repository in a folder, and the directory of its caches.
    struct Bed {
        dir: TempDir,
        original: Folder,
        warnings: Arc<Mutex<Vec<String>>>,
    }

    impl Bed {
        fn new() -> Bed {
            let dir = tempfile::tempdir().unwrap();
            let original = Folder::new(dir.path().join("repo"), 1);
            original.prepare().unwrap();
            Bed { dir, original, warnings: Arc::default() }
        }

        fn parent(&self) -> PathBuf {
            self.dir.path().join("home/.cache/mover")
        }

        fn open(&self, lifetime: CacheLifetime) -> Cached {
            let warnings = self.warnings.clone();
            let warn = move |error: StoreError| warnings.lock().unwrap().push(error.to_string());
            Cached::open(Arc::new(self.original.clone()), &self.parent(), "id", lifetime, warn).unwrap()
        }

        fn put(&self, ty: FileType, content: &[u8]) -> File {
            let file = File::new(ty, Id::of(content));
            self.original.write(file, content.to_vec().into()).unwrap();
            file
        }

        fn copy(&self, file: File) -> PathBuf {
            self.parent().join("id").join(layout::path(file))
        }
    }

    /// Longer than a piece.
    fn trees() -> Vec<u8> {
        (0..3 << 20).map(|at: u32| (at ^ at >> 9) as u8).collect()
    }

    fn part(store: &dyn Store, file: File) -> Result<Bytes> {
        store.read_at(file, PIECE - 2, 4)
    }

    #[test]
    fn files_that_were_read_or_kept_are_read_from_the_cache() {
        let bed = Bed::new();
        let files = [FileType::Index, FileType::Snapshot, FileType::Lock, FileType::Key].map(|ty| bed.put(ty, b"json"));
        let pack = bed.put(FileType::Pack, &trees());
        let data = bed.put(FileType::Pack, b"not asked to be kept, and as long as all that");
        let cached = bed.open(CacheLifetime::Lasting);
        files.iter().for_each(|&file| assert_eq!(cached.read(file, 100).unwrap(), "json"));
        cached.keep(pack, trees().len() as u64);
        cached.read_at(data, 1, 2).unwrap();

        for file in files.into_iter().chain([pack, data]) {
            bed.original.remove(file).unwrap();
        }
        for cached in [cached, bed.open(CacheLifetime::Lasting)] {
            for file in files {
                let kept = matches!(file.ty, FileType::Index | FileType::Snapshot);
                assert_eq!(cached.read(file, 100).is_ok(), kept, "{file}");
            }
            assert_eq!(part(&cached, pack).unwrap(), trees()[PIECE as usize - 2..][..4]);
            assert!(cached.read_at(data, 1, 2).is_err());
        }
        assert_eq!(fs::read_to_string(bed.parent().join(TAG.0)).unwrap(), TAG.1);
    }

    #[test]
    fn written_files_are_cached() {
        let bed = Bed::new();
        let cached = bed.open(CacheLifetime::Lasting);
        let index = File::new(FileType::Index, Id::of(b"json"));
        cached.write(index, Bytes::from_static(b"json")).unwrap();
        let mut upload = cached.upload_kept(FileType::Pack).unwrap();
        trees().chunks(PIECE as usize / 3).for_each(|part| upload.write(part).unwrap());
        let pack = File::new(FileType::Pack, Id::of(&trees()));
        upload.commit(pack.id).unwrap();
        for file in [index, pack] {
            assert_eq!(fs::read(bed.copy(file)).unwrap(), bed.original.read(file, 4 << 20).unwrap());
        }
        cached.remove(index).unwrap();
        assert!(cached.read(index, 100).is_err());
    }

    #[test]
    fn a_corrupt_copy_is_fetched_again() {
        let bed = Bed::new();
        let index = bed.put(FileType::Index, b"json");
        let pack = bed.put(FileType::Pack, &trees());
        let cached = bed.open(CacheLifetime::Lasting);
        cached.read(index, 100).unwrap();
        cached.keep(pack, trees().len() as u64);
        for damage in [&b"JSON"[..], b"", b"j"] {
            for file in [index, pack] {
                fs::remove_file(bed.copy(file)).unwrap();
                fs::write(bed.copy(file), damage).unwrap();
            }
            let cached = bed.open(CacheLifetime::Lasting);
            assert_eq!(cached.read(index, 100).unwrap(), "json");
            assert_eq!(part(&cached, pack).unwrap(), trees()[PIECE as usize - 2..][..4]);
            let cached = bed.open(CacheLifetime::Lasting);
            cached.keep(pack, trees().len() as u64);
            for file in [index, pack] {
                assert_eq!(fs::read(bed.copy(file)).unwrap(), bed.original.read(file, 4 << 20).unwrap());
            }
        }
    }

    /// A corrupt file is always read from the repository, so that the damage is noticed.
    #[test]
    fn a_corrupt_original_is_not_cached() {
        let bed = Bed::new();
        let files = [FileType::Index, FileType::Pack].map(|ty| File::new(ty, Id::of(b"what it was")));
        files.iter().for_each(|&file| bed.original.write(file, Bytes::from_static(b"what it is!")).unwrap());
        let cached = bed.open(CacheLifetime::Lasting);
        cached.keep(files[1], 11);
        assert_eq!(cached.read(files[0], 100).unwrap(), "what it is!");
        assert_eq!(cached.read_at(files[1], 0, 11).unwrap(), "what it is!");
        cached.keep(File::new(FileType::Pack, Id::NULL), 11);
        assert!(!files.iter().any(|&file| bed.copy(file).exists()));
        assert_eq!(*bed.warnings.lock().unwrap(), [""; 0]);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_reported_once_and_bypassed() {
        let bed = Bed::new();
        let index = bed.put(FileType::Index, b"json");
        let pack = bed.put(FileType::Pack, &trees());
        let cached = bed.open(CacheLifetime::Lasting);
        fs::remove_dir_all(bed.parent()).unwrap();
        assert_eq!(cached.read(index, 100).unwrap(), "json");
        cached.keep(pack, trees().len() as u64);
        part(&cached, pack).unwrap();
        let mut upload = cached.upload_kept(FileType::Pack).unwrap();
        upload.write(b"more").unwrap();
        upload.commit(Id::of(b"more")).unwrap();
        let warnings = bed.warnings.lock().unwrap();
        assert!(matches!(&warnings[..], [only] if only.starts_with("cannot create index/")), "{warnings:?}");
    }

    #[test]
    fn old_copies_are_evicted_and_the_cache_of_one_run_is_removed_with_it() {
        let bed = Bed::new();
        let [old, new] = [&b"old"[..], b"new"].map(|content| bed.put(FileType::Index, content));
        let cached = bed.open(CacheLifetime::Lasting);
        [old, new].iter().for_each(|&file| drop(cached.read(file, 100).unwrap()));
        let other = bed.parent().join("of another repository");
        fs::create_dir(&other).unwrap();
        let month = Duration::from_secs(OLD as u64 + 60);
        let times = FileTimes::new().set_modified(SystemTime::now() - month);
        for path in [&bed.copy(old), &other, &bed.parent().join(TAG.0)] {
            fs::File::open(path).unwrap().set_times(times).unwrap();
        }
        let of_this_run = bed.open(CacheLifetime::ThisRun);
        assert!(!other.exists());
        assert!(bed.copy(old).exists(), "copies are evicted when their own cache is opened");
        assert_eq!(fs::read_dir(bed.parent()).unwrap().count(), 3);
        of_this_run.read(new, 100).unwrap();
        drop(of_this_run);
        drop(bed.open(CacheLifetime::Lasting));
        assert_eq!(fs::read_dir(bed.parent()).unwrap().count(), 2);
        assert!(!bed.copy(old).exists() && bed.copy(new).exists());
    }
}
