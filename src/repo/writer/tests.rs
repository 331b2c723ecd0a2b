//! Tests of the writer: what it leaves after a failure, and its number of concurrent uploads.

use super::{WriteMode, Writer};
use crate::clock::testing::FakeClock;
use crate::format::compression::Compression;
use crate::format::{BlobType, Version};
use crate::id::Id;
use crate::limits;
use crate::repo::testing::{Call, Fate, Scripted};
use crate::repo::{Error, Index, InitOptions, Password, Repository, Settings, init, tests::new_repository};
use crate::store::folder::Folder;
use crate::store::{self, Download, File, FileType, Store, StoreError, Upload};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A folder in which one upload fails in the middle of a part after `tear` is set.
struct Torn {
    folder: Folder,
    tear: Arc<AtomicBool>,
}

struct TornUpload {
    upload: Box<dyn Upload>,
    tear: Arc<AtomicBool>,
}

impl Upload for TornUpload {
    fn write(&mut self, part: &[u8]) -> store::Result<()> {
        if !self.tear.swap(false, Ordering::Relaxed) {
            return self.upload.write(part);
        }
        self.upload.write(&part[..part.len() / 2])?;
        let source = "no space left".into();
        Err(StoreError::Failed { action: "write".into(), location: "here".into(), source })
    }

    fn commit(self: Box<Self>, id: Id) -> store::Result<()> {
        self.upload.commit(id)
    }
}

impl Store for Torn {
    fn upload(&self, ty: FileType) -> store::Result<Box<dyn Upload>> {
        Ok(Box::new(TornUpload { upload: self.folder.upload(ty)?, tear: self.tear.clone() }))
    }

    fn location(&self) -> &str {
        self.folder.location()
    }
    fn connections(&self) -> usize {
        self.folder.connections()
    }
    fn keeps_uploads(&self) -> bool {
        self.folder.keeps_uploads()
    }
    fn settles_after(&self) -> Duration {
        self.folder.settles_after()
    }
    fn list(&self, ty: FileType) -> store::Result<Vec<(Id, u64)>> {
        self.folder.list(ty)
    }
    fn size(&self, file: File) -> store::Result<u64> {
        self.folder.size(file)
    }
    fn read(&self, file: File, max: u64) -> store::Result<Bytes> {
        self.folder.read(file, max)
    }
    fn download(&self, file: File, offset: u64, length: u64) -> store::Result<Box<dyn Download + '_>> {
        self.folder.download(file, offset, length)
    }
    fn write(&self, file: File, bytes: Bytes) -> store::Result<()> {
        self.folder.write(file, bytes)
    }
    fn create(&self, file: File, bytes: Bytes) -> store::Result<()> {
        self.folder.create(file, bytes)
    }
    fn remove(&self, file: File) -> store::Result<()> {
        self.folder.remove(file)
    }
    fn prepare(&self) -> store::Result<()> {
        self.folder.prepare()
    }
}

/// A disk that was full for a moment must not leave a pack whose content does not match its name.
#[test]
fn a_pack_whose_write_failed_is_never_stored() {
    let dir = tempfile::tempdir().unwrap();
    let tear = Arc::new(AtomicBool::new(false));
    let store = Arc::new(Torn { folder: Folder::new(dir.path().join("repo"), 1), tear: tear.clone() });
    let options = InitOptions { version: Version::V2, polynomial: None, owner: Default::default() };
    let repo = Arc::new(init(store.clone(), &Password::new("x"), options, Settings::default()).unwrap());
    let noise = || crate::clock::random_bytes::<5000>();

    let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
    writer.store_chunks(&[&noise()]).unwrap();
    tear.store(true, Ordering::Relaxed);
    assert!(matches!(writer.store_chunks(&[&noise()]), Err(Error::Store(_))));
    // The next write succeeds, in a new pack.
    let [kept] = writer.store_chunks(&[&noise()]).unwrap()[..] else { panic!("one id for one chunk") };
    writer.finish().unwrap();

    let packs = store.list(FileType::Pack).unwrap();
    assert_eq!(packs.len(), 1);
    let bytes = store.read(File::new(FileType::Pack, packs[0].0), 1 << 20).unwrap();
    assert_eq!(Id::of(&bytes), packs[0].0);
    let index = Index::load(&repo).unwrap();
    assert_eq!(repo.load_blob(&index, BlobType::Data, kept).unwrap().len(), 5000);
}

/// A repository that refuses its first index file, and a flag that is set when it has refused it.
fn refuses_an_index_file(settings: Settings) -> (tempfile::TempDir, Arc<Repository>, Arc<AtomicBool>) {
    let (dir, repo) = new_repository(settings);
    let mut scripted = None;
    let repo = Arc::new(repo.through(|store| scripted.insert(Scripted::new(store)).clone()));
    let refused = Arc::new(AtomicBool::new(false));
    let once = refused.clone();
    scripted.unwrap().play(move |call, file| {
        let fails = call == Call::Write && file.ty == FileType::Index && !once.swap(true, Ordering::SeqCst);
        if fails { Fate::Refused } else { Fate::Done }
    });
    (dir, repo, refused)
}

/// The index file that is due by its age fails; the one at the end does not.
#[test]
fn packs_whose_index_file_could_not_be_saved_are_in_the_next_index_file() {
    let fake = FakeClock::new();
    let settings = Settings { clock: fake.clock(), pack_size: 1, ..Settings::default() };
    let (_dir, repo, refused) = refuses_an_index_file(settings);
    let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
    fake.advance(Duration::from_secs(limits::INDEX_AGE_SECONDS));
    let id = writer.store_tree(b"a tree").unwrap();
    while !refused.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    assert!(matches!(writer.finish(), Err(Error::Store(_))));
    assert_eq!(repo.store().list(FileType::Pack).unwrap().len(), 1);
    let index = Index::load(&repo).unwrap();
    assert_eq!(*repo.load_blob(&index, BlobType::Tree, id).unwrap(), *b"a tree");
}

/// No process may find the root of a snapshot in an index that lacks the blobs below it.
#[test]
fn packs_that_are_unsaved_at_the_end_are_in_one_index_file() {
    let fake = FakeClock::new();
    let (_dir, repo) = new_repository(Settings { clock: fake.clock(), ..Settings::default() });
    let repo = Arc::new(repo);
    let writer = Writer::new(repo.clone(), Arc::new(Index::default()), WriteMode::Upload).unwrap();
    writer.store_chunks(&[b"a blob".as_slice()]).unwrap();
    writer.store_tree(b"a tree").unwrap();
    fake.advance(Duration::from_secs(limits::INDEX_AGE_SECONDS));
    writer.finish().unwrap();
    assert_eq!(repo.store().list(FileType::Pack).unwrap().len(), 2);
    assert_eq!(repo.store().list(FileType::Index).unwrap().len(), 1);
}

/// Stores four packs for each connection from `threads` threads. Returns the maximum number of
/// concurrent uploads. A `slow` store completes no upload until each connection has one.
fn uploads_at_a_time(connections: usize, threads: usize, slow: bool) -> usize {
    let budget = crate::memory::Budget { memory: None, threads };
    let settings = Settings { budget, pack_size: 4 << 20, compression: Compression::Off, ..Settings::default() };
    let (_dir, repo) = new_repository(settings);
    let mut scripted = None;
    let repo = repo.through(|store| scripted.insert(Scripted::bucket(store, connections)).clone());
    let counts = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let shared = counts.clone();
    scripted.unwrap().play(move |call, _| {
        if call == Call::Upload {
            let (counts, changed) = &*shared;
            let mut counts = counts.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
            changed.notify_all();
            let deadline = Duration::from_secs(60);
            let too_few = |counts: &mut (usize, usize)| slow && counts.1 < connections;
            counts = changed.wait_timeout_while(counts, deadline, too_few).unwrap().0;
            counts.0 -= 1;
        }
        Fate::Done
    });
    let writer = Writer::new(Arc::new(repo), Arc::new(Index::default()), WriteMode::Upload).unwrap();
    let next = AtomicU64::new(0);
    let store_all = || {
        let mut chunk = vec![0; 4 << 20];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= 4 * connections as u64 {
                return;
            }
            chunk[..8].copy_from_slice(&number.to_le_bytes());
            writer.store_chunks(&[&chunk]).unwrap();
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(store_all))));
    assert_eq!(writer.finish().unwrap().data_blobs.into_inner(), 4 * connections as u64);
    let (now, most) = *counts.0.lock().unwrap();
    assert_eq!(now, 0);
    most
}

#[test]
fn a_slow_store_gets_an_upload_for_each_connection() {
    for connections in [1, 5, 16] {
        for threads in [2, 16] {
            assert_eq!(uploads_at_a_time(connections, threads, true), connections, "{threads} threads");
        }
    }
}

#[test]
fn a_fast_store_gets_no_more_uploads_than_connections() {
    for threads in [2, 16] {
        assert!((1..=5).contains(&uploads_at_a_time(5, threads, false)), "{threads} threads");
    }
}
