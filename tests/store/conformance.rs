//! The promises of every store, as one function that tests any of them.
//!
//! The store must be at a new location, and is left with files in it.

use super::bytes;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use vsm::aside::Aside;
use vsm::id::Id;
use vsm::store::{File, FileType, Store, StoreError};

const TYPES: [FileType; 5] = [FileType::Key, FileType::Lock, FileType::Snapshot, FileType::Index, FileType::Pack];

pub fn conforms(store: &dyn Store) {
    absence(store);
    store.prepare().expect("a prepared place");
    absence(store);
    store.prepare().expect("preparing twice");
    config(store);
    whole_files(store);
    ranges(store);
    uploads(store);
    creation(store);
    removal(store);
    many_at_once(store);
}

fn put(store: &dyn Store, ty: FileType, content: Vec<u8>) -> File {
    let file = File::new(ty, Id::of(&content));
    store.write(file, content.into()).expect("a written file");
    file
}

fn is_absent<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::NotFound { .. })), "{result:?}");
}

fn absence(store: &dyn Store) {
    for ty in TYPES {
        assert_eq!(store.list(ty).expect("an empty list"), [], "{ty}");
        let file = File::new(ty, Id::of(b"absent"));
        is_absent(store.read(file, 1000));
        is_absent(store.read_at(file, 3, 4));
    }
    is_absent(store.size(File::CONFIG));
    is_absent(store.read(File::CONFIG, 1000));
    store.remove(File::CONFIG).expect("removing nothing");
}

fn config(store: &dyn Store) {
    store.create(File::CONFIG, (&b"first"[..]).into()).expect("a created config");
    let again = store.create(File::CONFIG, (&b"second"[..]).into());
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
    assert_eq!(store.read(File::CONFIG, 100).expect("the config"), "first");
    store.write(File::CONFIG, (&b"replaced"[..]).into()).expect("a replaced config");
    assert_eq!(store.read(File::CONFIG, 100).expect("the config"), "replaced");
    assert_eq!(store.size(File::CONFIG).expect("its size"), 8);
    for ty in TYPES {
        assert_eq!(store.list(ty).expect("a list"), [], "the config is no {ty}");
    }
}

fn whole_files(store: &dyn Store) {
    for ty in TYPES {
        let mut expected = BTreeMap::new();
        for size in [0, 1, 4096, 300_001] {
            let content = bytes(size, size as u64 + 1);
            let file = put(store, ty, content.clone());
            expected.insert(file.id, size as u64);
            assert_eq!(store.size(file).expect("its size"), size as u64);
            assert_eq!(store.read(file, size as u64).expect("the file"), content);
            if size > 0 {
                let error = store.read(file, size as u64 - 1).expect_err("a file beyond the limit");
                let limits = matches!(error, StoreError::TooLarge { size: s, max, .. } if (s, max) == (size as u64, size as u64 - 1));
                assert!(limits, "{error:?}");
            }
        }
        let listed: BTreeMap<Id, u64> = store.list(ty).expect("a list").into_iter().collect();
        assert_eq!(listed, expected, "{ty}");
    }
}

fn ranges(store: &dyn Store) {
    let content = bytes(100_000, 9);
    let file = put(store, FileType::Pack, content.clone());
    for (offset, length) in [(0, 100_000), (0, 1), (99_999, 1), (50_000, 50_000), (12_345, 6_789), (7, 0)] {
        let got = store.read_at(file, offset as u64, length).expect("a range");
        assert_eq!(got, content[offset..offset + length], "{length} at {offset}");
    }
    for (offset, length, got) in
        [(99_999, 2, 1), (100_000, 1, 0), (200_000, 10, 0), (0, 100_001, 100_000), (u64::MAX, 1, 0)]
    {
        let error = store.read_at(file, offset, length).expect_err("a range past the end");
        let StoreError::Short { offset: o, wanted, got: g, .. } = error else { panic!("{error:?}") };
        assert_eq!((o, wanted, g), (offset, length as u64, got));
    }
    // A range is read from front to back, in portions, and ends where it should, although the file
    // has more.
    let mut download = store.download(file, 1000, 60_000).expect("a range");
    let mut read = Vec::new();
    for length in [1, 0, 9_999, 50_000] {
        let mut portion = vec![0; length];
        download.read(&mut portion).expect("a portion");
        read.extend(portion);
    }
    assert_eq!(read, content[1000..61_000]);
    let error = download.read(&mut [0]).expect_err("the end of the range");
    assert!(matches!(error, StoreError::Short { offset: 61_000, wanted: 1, got: 0, .. }), "{error:?}");
    let mut nothing = store.download(file, 100_000, 0).expect("an empty range");
    nothing.read(&mut []).expect("nothing");
    assert!(matches!(nothing.read(&mut [0]), Err(StoreError::Short { .. })));
    let empty = put(store, FileType::Pack, Vec::new());
    let error = store.read_at(empty, 0, 1).expect_err("a byte of nothing");
    assert!(matches!(error, StoreError::Short { got: 0, .. }), "{error:?}");
}

fn uploads(store: &dyn Store) {
    // Sizes around those at which parts are gathered or kept, and many small ones.
    for sizes in [vec![], vec![10], vec![1 << 20, 3, 1 << 16, 16_383, 16_384, 5], vec![700; 5000]] {
        let content = bytes(sizes.iter().sum(), sizes.len() as u64);
        let file = File::new(FileType::Pack, Id::of(&content));
        let mut upload = store.upload(FileType::Pack).expect("an upload");
        let mut rest = &content[..];
        for size in sizes {
            let (part, after) = rest.split_at(size);
            upload.write(part).expect("a part");
            rest = after;
        }
        upload.commit(file.id).expect("a committed upload");
        assert_eq!(store.read(file, 10 << 20).expect("the file"), content);
    }
    put_aside(store);
    let before = store.list(FileType::Pack).expect("a list").len();
    let mut upload = store.upload(FileType::Pack).expect("an upload");
    upload.write(&[1; 200_000]).expect("a part");
    drop(upload);
    assert_eq!(store.list(FileType::Pack).expect("a list").len(), before, "an upload without a commit");
}

/// Uploads with a part that is in a spill file, or still in memory.
fn put_aside(store: &dyn Store) {
    let temp = tempfile::tempdir().expect("a directory");
    for length in [0, 100_000, 5 << 20] {
        let (first, large, last) = (bytes(700, 1), bytes(length, 2), bytes(1 << 20, 3));
        let content = [&first[..], &large, &last].concat();
        let file = File::new(FileType::Pack, Id::of(&content));
        let mut aside = Aside::new(Some(temp.path()));
        aside.write_all(&large).expect("space");
        let mut upload = store.upload(FileType::Pack).expect("an upload");
        upload.write(&first).expect("a part");
        upload.write_aside(&Arc::new(aside)).expect("a spilled part");
        upload.write(&last).expect("a part");
        upload.commit(file.id).expect("a committed upload");
        assert!(store.read(file, 10 << 20).expect("the file") == content, "{length}");
    }
}

fn creation(store: &dyn Store) {
    let content = bytes(500, 77);
    let file = File::new(FileType::Lock, Id::of(&content));
    store.create(file, content.clone().into()).expect("a created lock");
    let again = store.create(file, content.into());
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
}

fn removal(store: &dyn Store) {
    for ty in TYPES {
        let file = put(store, ty, bytes(64, 5));
        store.remove(file).expect("a removed file");
        is_absent(store.read(file, 1000));
        assert!(store.list(ty).expect("a list").iter().all(|(id, _)| *id != file.id));
        store.remove(file).expect("removing it again");
    }
}

/// Many plain threads call the store at the same time; each gets its own answer.
fn many_at_once(store: &dyn Store) {
    std::thread::scope(|scope| {
        for thread in 0..12u64 {
            scope.spawn(move || {
                for turn in 0..8 {
                    let content = bytes(20_000 + turn * 1000, thread * 100 + turn as u64 + 1000);
                    let file = put(store, FileType::Pack, content.clone());
                    assert_eq!(store.read_at(file, 500, 1500).expect("a range"), content[500..2000]);
                    assert_eq!(store.read(file, 1 << 20).expect("the file"), content);
                    store.remove(file).expect("a removed file");
                }
            });
        }
    });
}
