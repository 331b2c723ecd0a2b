//! Tests with a store that fails requests for data.

use super::*;
use crate::repo;
use crate::store::{self, Download, File, FileType, Store, StoreError, Upload};
use bytes::Bytes;
use std::time::Duration;

/// Wraps `store`, and answers requests for the content of these packs with an error.
struct Outage {
    store: Folder,
    packs: Vec<Id>,
    error: fn() -> StoreError,
}

impl Store for Outage {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn connections(&self) -> usize {
        self.store.connections()
    }

    fn settles_after(&self) -> Duration {
        self.store.settles_after()
    }

    fn list(&self, ty: FileType) -> store::Result<Vec<(Id, u64)>> {
        self.store.list(ty)
    }

    fn size(&self, file: File) -> store::Result<u64> {
        self.store.size(file)
    }

    fn read(&self, file: File, max: u64) -> store::Result<Bytes> {
        self.store.read(file, max)
    }

    fn download(&self, file: File, offset: u64, length: u64) -> store::Result<Box<dyn Download + '_>> {
        let is_out = self.packs.iter().any(|pack| file == File::new(FileType::Pack, *pack));
        if is_out { Err((self.error)()) } else { self.store.download(file, offset, length) }
    }

    fn write(&self, file: File, bytes: Bytes) -> store::Result<()> {
        self.store.write(file, bytes)
    }

    fn create(&self, file: File, bytes: Bytes) -> store::Result<()> {
        self.store.create(file, bytes)
    }

    fn keeps_uploads(&self) -> bool {
        self.store.keeps_uploads()
    }

    fn upload(&self, ty: FileType) -> store::Result<Box<dyn Upload>> {
        self.store.upload(ty)
    }

    fn remove(&self, file: File) -> store::Result<()> {
        self.store.remove(file)
    }

    fn prepare(&self) -> store::Result<()> {
        self.store.prepare()
    }
}

/// Opens the repository again, with a store that fails requests for the packs of these data blobs.
fn with_outage(bed: &mut Bed, blobs: &[&[u8]], error: fn() -> StoreError) {
    let index = Index::load(&bed.repo).unwrap();
    let packs = blobs.iter().map(|blob| index.first(BlobType::Data, Id::of(blob)).unwrap().pack).collect();
    let store = Arc::new(Outage { store: Folder::new(bed.temp.path().join("repo"), 2), packs, error });
    bed.repo = Arc::new(Repository::open(store, &Password::new("x"), None, Settings::default()).unwrap());
}

/// Three files, each in a pack of its own.
fn three(bed: &Bed) -> Id {
    let files = [("a", b"first"), ("b", b"other"), ("c", b"third")];
    let files = files.map(|(name, content)| bed.store(|blobs| blobs.file(name, &[content])));
    bed.store(|blobs| blobs.tree(files.to_vec()))
}

fn failed() -> StoreError {
    StoreError::Failed { action: "read".into(), location: "here".into(), source: "a gateway timed out".into() }
}

#[test]
fn refused_credentials_and_a_missing_bucket_end_the_restore() {
    let denied: fn() -> StoreError =
        || StoreError::Denied { action: "read".into(), location: "here".into(), reason: "expired".into() };
    let no_bucket: fn() -> StoreError = || StoreError::NoBucket { bucket: "b".into(), location: "here".into() };
    for error in [denied, no_bucket] {
        let mut bed = Bed::new();
        let root = three(&bed);
        with_outage(&mut bed, &[b"other"], error);
        let told = bed.restore(root, |_| {});
        let ended = told.outcome.unwrap_err();
        assert!(
            matches!(&ended, Error::Repo(repo::Error::Store(found)) if found.to_string() == error().to_string()),
            "{ended}"
        );
        assert!(told.problems.is_empty(), "no file is reported as damaged: {:?}", told.problems);
    }
}

#[test]
fn a_failed_request_affects_one_file_and_the_restore_fails() {
    let mut bed = Bed::new();
    let root = three(&bed);
    with_outage(&mut bed, &[b"other"], failed);
    let told = bed.restore(root, |_| {});
    assert_eq!(told.problems.len(), 1, "{:?}", told.problems);
    let error = told.outcome.unwrap_err();
    assert!(matches!(&error, Error::Unreached { why } if why.contains("cannot read in here")), "{error}");
    for (name, content) in [("a", b"first"), ("c", b"third")] {
        assert_eq!(fs::read(bed.at(name)).unwrap(), content);
        assert_eq!(mtime(&bed.at(name)), STAMP);
    }
}

#[test]
fn requests_that_fail_in_a_row_end_the_restore() {
    let mut bed = Bed::new();
    let root = three(&bed);
    with_outage(&mut bed, &[b"first", b"other", b"third"], failed);
    let error = bed.restore(root, |_| {}).outcome.unwrap_err();
    assert!(matches!(&error, Error::Repo(repo::Error::Store(StoreError::Failed { .. }))), "{error}");
}
