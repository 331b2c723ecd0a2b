//! The behaviour that all services share, on a bucket in memory: names, listings, ranges and
//! errors.

use super::ObjectStore;
use super::failure::{Failure, Kind};
use super::remote::{Connections, Remote};
use super::runtime::Runtimes;
use crate::id::Id;
use crate::store::location::{Bucket, Service};
use crate::store::{Directory, File, FileType, Options, Result, Store, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attributes, ObjectStoreExt, PutPayload};
use std::sync::Arc;

/// Lists a bucket in memory as a single page.
struct OnePage(Arc<InMemory>);

#[async_trait]
impl PaginatedListStore for OnePage {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        if options.delimiter.is_some() {
            return Err(object_store::Error::NotFound { path: String::new(), source: "no directories".into() });
        }
        let all = object_store::ObjectStore::list(&*self.0, None);
        let mut objects: Vec<object_store::ObjectMeta> = all.map(|object| object.unwrap()).collect().await;
        objects.retain(|object| object.location.as_ref().starts_with(prefix.unwrap_or_default()));
        let result = object_store::ListResult { common_prefixes: vec![], objects, extensions: Default::default() };
        Ok(PaginatedListResult { result, page_token: None })
    }
}

/// A repository at a prefix of a bucket, and the bucket.
fn at(prefix: &str) -> (ObjectStore, Arc<InMemory>) {
    let bucket = Arc::new(InMemory::new());
    let place = Bucket { service: Service::Google, name: "bucket".to_owned(), prefix: prefix.to_owned() };
    let remote = Remote {
        store: bucket.clone(),
        pages: Arc::new(OnePage(bucket.clone())),
        location: place.to_string(),
        place,
        connections: Connections::new(Some(2)),
        packs: Attributes::new(),
        make: None,
    };
    (ObjectStore::new(remote, Runtimes::default(), &Options::default()), bucket)
}

/// The keys in a bucket, sorted.
fn keys(store: &ObjectStore, bucket: &InMemory) -> Vec<String> {
    let listed = store.0.runtimes.block_on(async {
        object_store::ObjectStore::list(bucket, None).map(|object| object.unwrap().location.to_string()).collect().await
    });
    let mut keys: Vec<String> = listed.unwrap();
    keys.sort();
    keys
}

fn put(store: &ObjectStore, bucket: &InMemory, key: &str, bytes: &'static [u8]) {
    store.0.runtimes.block_on(bucket.put(&Path::from(key), bytes.into())).unwrap().unwrap();
}

/// An id that begins with this byte.
fn id(first: u8) -> Id {
    Id(std::array::from_fn(|at| if at == 0 { first } else { 0x11 }))
}

#[test]
fn objects_have_the_names_of_restics_files() {
    for (prefix, above) in [("", ""), ("a", "a/"), ("a/b c", "a/b c/")] {
        let (store, bucket) = at(prefix);
        store.write(File::CONFIG, Bytes::from_static(b"c")).unwrap();
        for ty in [FileType::Key, FileType::Lock, FileType::Snapshot, FileType::Index, FileType::Pack] {
            store.write(File::new(ty, id(0xab)), Bytes::from_static(b"f")).unwrap();
        }
        let name = format!("ab{}", "11".repeat(31));
        let expected = ["config", &format!("data/ab/{name}"), &format!("index/{name}"), &format!("keys/{name}")];
        let mut expected: Vec<String> = expected.iter().map(|key| format!("{above}{key}")).collect();
        expected.extend(["locks", "snapshots"].map(|folder| format!("{above}{folder}/{name}")));
        assert_eq!(keys(&store, &bucket), expected);
    }
}

#[test]
fn a_listing_has_the_files_of_its_type_and_place_and_no_others() {
    let (store, bucket) = at("here");
    for first in [3, 1, 2] {
        store.write(File::new(FileType::Pack, id(first)), Bytes::from(vec![0; first.into()])).unwrap();
    }
    store.write(File::new(FileType::Index, id(9)), Bytes::from_static(b"index")).unwrap();
    let name = id(4).to_string();
    for foreign in [
        "here/data/tmp".to_owned(),
        format!("here/data/{name}"),
        format!("here/data/05/{name}"),
        format!("here/data/04/{name}.tmp"),
        format!("elsewhere/data/04/{name}"),
        format!("data/04/{name}"),
    ] {
        put(&store, &bucket, &foreign, b"x");
    }
    assert_eq!(store.list(FileType::Pack).unwrap(), [(id(1), 1), (id(2), 2), (id(3), 3)]);
    assert_eq!(store.list(FileType::Index).unwrap(), [(id(9), 5)]);
    assert_eq!(store.list(FileType::Lock).unwrap(), []);
}

#[test]
fn ranges_are_read_to_the_byte_or_are_too_short() {
    let (store, _bucket) = at("");
    let file = File::new(FileType::Pack, id(1));
    let bytes: Vec<u8> = (0..=255).collect();
    store.write(file, Bytes::from(bytes.clone())).unwrap();
    for (offset, length) in [(0, 256), (0, 1), (255, 1), (10, 100), (0, 0), (256, 0), (99, 0)] {
        let read = store.read_at(file, offset as u64, length).unwrap();
        assert_eq!(read, bytes[offset..offset + length], "{length} from {offset}");
    }
    for (offset, length) in [(0, 257), (255, 2), (200, 1000), (1, u64::MAX)] {
        let short = store.download(file, offset, length).err().expect("too short");
        assert!(matches!(short, StoreError::Short { offset: at, .. } if at == offset), "{short}");
    }
    // A download is read piece by piece, and not beyond its range.
    let mut download = store.download(file, 5, 10).unwrap();
    let mut piece = [0; 6];
    download.read(&mut piece).unwrap();
    assert_eq!(piece, [5, 6, 7, 8, 9, 10]);
    assert!(matches!(download.read(&mut piece), Err(StoreError::Short { offset: 11, wanted: 6, got: 4, .. })));
}

#[test]
fn absent_existing_and_too_large_files_have_their_own_errors() {
    let (store, _bucket) = at("p");
    for file in [File::CONFIG, File::new(FileType::Snapshot, id(1))] {
        let is_absent = |error: StoreError| matches!(error, StoreError::NotFound { file: of, .. } if of == file);
        assert!(store.read(file, 100).is_err_and(is_absent));
        assert!(store.size(file).is_err_and(is_absent));
        assert!(store.download(file, 0, 1).err().is_some_and(is_absent));
        store.remove(file).unwrap();
        store.create(file, Bytes::from_static(b"first")).unwrap();
        let again = store.create(file, Bytes::from_static(b"second"));
        assert!(matches!(again, Err(StoreError::AlreadyExists { file: of, .. }) if of == file));
        assert_eq!(store.read(file, 5).unwrap(), "first");
        assert!(matches!(store.read(file, 4), Err(StoreError::TooLarge { size: 5, max: 4, .. })));
        assert_eq!(store.size(file).unwrap(), 5);
        store.write(file, Bytes::from_static(b"third")).unwrap();
        assert_eq!(store.read(file, 5).unwrap(), "third");
    }
    // The payload repeats one piece, so that it takes little memory.
    let piece = Bytes::from(vec![0; 1 << 20]);
    let payload: PutPayload = std::iter::repeat_n(piece, (5 << 10) + 1).collect();
    let refused = store.0.replace(File::new(FileType::Pack, id(2)), &payload);
    let (size, max) = ((5 << 30) + (1 << 20), 5 << 30);
    assert!(matches!(refused, Err(StoreError::TooLarge { size: of, max: most, .. }) if of == size && most == max));
}

#[test]
fn every_kind_of_failure_has_its_error() {
    let (store, _bucket) = at("p");
    let file = File::new(FileType::Pack, id(0xcd));
    let error = |kind| store.0.error("read", file, Failure::new(kind, "what the server said"));
    assert!(matches!(error(Kind::Missing { bucket: true }), StoreError::NoBucket { bucket, .. } if bucket == "bucket"));
    assert!(matches!(error(Kind::Missing { bucket: false }), StoreError::NotFound { file: of, .. } if of == file));
    assert!(matches!(error(Kind::Exists), StoreError::AlreadyExists { file: of, .. } if of == file));
    let short = error(Kind::Short { offset: 1, wanted: 2, got: 3 });
    assert!(matches!(short, StoreError::Short { offset: 1, wanted: 2, got: 3, .. }));
    assert!(matches!(error(Kind::TooLarge { size: 2, max: 1 }), StoreError::TooLarge { size: 2, max: 1, .. }));
    let denied = error(Kind::Denied);
    assert!(matches!(denied, StoreError::Denied { .. }) && denied.to_string().contains("what the server said"));
    // These failures differ in whether they are retried; the error has the path of the object.
    for (kind, is_given_up) in [
        (Kind::Link, true),
        (Kind::Trouble, true),
        (Kind::Throttled, true),
        (Kind::Range, false),
        (Kind::Unsupported, false),
        (Kind::Final, false),
    ] {
        let failed = error(kind);
        assert!(matches!(failed, StoreError::Failed { .. }), "{kind:?}: {failed}");
        assert!(failed.to_string().contains(&format!("read data/cd/{}", file.id)), "{failed}");
        assert_eq!(failed.is_given_up(), is_given_up, "{kind:?}");
    }
    let listing = |kind| store.0.general("list keys", Failure::new(kind, "x"));
    for bucket in [true, false] {
        assert!(matches!(listing(Kind::Missing { bucket }), StoreError::NoBucket { .. }), "a prefix is never missing");
    }
    let directory: Result<Directory> = store.directory(&["config"]);
    assert!(matches!(directory, Err(StoreError::NoBucket { .. })));
}
