//! Tests of lookups, loading, spilling and groups of the merged index.

use super::building::Building;
use super::sorted::Runs;
use super::*;
use crate::format::BlobType;
use crate::format::index_file::{self, IndexedPack};
use crate::format::pack::PackedBlob;
use crate::format::snapshot::Snapshot;
use crate::id::Id;
use crate::repo::{Settings, StoredSnapshot, tests::new_repository};
use crate::store::FileType;

fn named(ty: BlobType, text: &str, offset: u32) -> PackedBlob {
    PackedBlob { ty, id: Id::of(text.as_bytes()), offset, length: 40, uncompressed: 0 }
}

#[test]
fn finds_every_copy_and_keeps_types_apart() {
    let pack = |name: &str, blobs| IndexedPack { id: Id::of(name.as_bytes()), blobs };
    let a = pack("p", vec![named(BlobType::Data, "x", 0), named(BlobType::Data, "y", 40)]);
    let b = pack("q", vec![named(BlobType::Data, "x", 0)]);
    let index = Index::from_packs(vec![a.clone(), b.clone(), a.clone()]);
    let found = index.find(BlobType::Data, Id::of(b"x"));
    assert_eq!(found.len(), 2);
    assert_eq!(index.find(BlobType::Data, Id::of(b"y")).len(), 1, "the same copy listed twice is one");
    assert_eq!(index.first(BlobType::Tree, Id::of(b"x")), None);
    assert_eq!((index.len(), index.packs().len()), (3, 2));
    let read_otherwise = Index::from_packs(vec![b, a]).find(BlobType::Data, Id::of(b"x"));
    assert_eq!(read_otherwise, found, "the order of the packs does not matter");
}

#[test]
fn an_index_that_lacks_the_root_of_a_new_snapshot_is_reloaded() {
    let (_dir, repo) = new_repository(Settings::default());
    let root = |name: &str| {
        let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{}","paths":[]}}"#, Id::of(name.as_bytes()));
        [StoredSnapshot { id: Id::of(b"s"), snapshot: Snapshot::decode(json.as_bytes()).unwrap() }]
    };
    let save = |name: &str| {
        let packs = [IndexedPack { id: Id::of(name.as_bytes()), blobs: vec![named(BlobType::Tree, name, 0)] }];
        repo.save_written(FileType::Index, |out| index_file::encode(&packs, out)).unwrap()
    };
    let list = || repo.store().list(FileType::Index).unwrap();
    let first = save("first");
    let listed = list();
    let second = save("second");
    let load = || Index::load_listed(&repo, listed.clone()).unwrap();
    assert_eq!(load().with_roots_of(&repo, &root("first")).unwrap().files(), [first]);
    let mut newer = load().with_roots_of(&repo, &root("second")).unwrap().files().to_vec();
    newer.sort();
    let mut both = vec![first, second];
    both.sort();
    assert_eq!(newer, both);
    // A root that no index file has is lost, and does not cause endless reloads.
    let lost = Index::load(&repo).unwrap().with_roots_of(&repo, &root("lost")).unwrap();
    assert_eq!(lost.files().len(), 2);
}

#[test]
fn every_id_is_found_and_no_other() {
    let ids: Vec<Id> = (0..3000u32).map(|n| Id::of(&n.to_le_bytes())).chain([Id([0; 32]), Id([255; 32])]).collect();
    let blobs = ids.iter().map(|&id| PackedBlob { id, ..named(BlobType::Tree, "", 0) }).collect();
    let index = Index::from_packs(vec![IndexedPack { id: Id::of(b"p"), blobs }]);
    assert!(ids.iter().all(|&id| index.first(BlobType::Tree, id).is_some_and(|found| found.blob.id == id)));
    let near = ids.iter().flat_map(|id| [0, 31].map(|at| Id(std::array::from_fn(|n| id.0[n] ^ u8::from(n == at)))));
    assert!(near.into_iter().all(|other| !index.contains(BlobType::Tree, other)));
}

#[test]
fn a_spilled_index_finds_the_same_as_one_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    // Ids that are hashes, ids that an attacker chose to share their first bits, and copies of
    // both.
    let hashes = (0..20_000u32).map(|n| Id::of(&n.to_le_bytes()));
    let chosen = (0..2_000u32)
        .map(|n| Id(std::array::from_fn(|at| if at < 4 { n.to_be_bytes()[at] * u8::from(at > 1) } else { at as u8 })));
    let ids: Vec<Id> = hashes.chain(chosen).collect();
    let blobs = |pack: u32| {
        let mine =
            ids.iter().enumerate().filter(move |(at, _)| *at as u32 % 7 == pack % 7 || *at as u32 % 11 == pack % 11);
        mine.map(move |(at, &id)| {
            let ty = if at % 3 == 0 { BlobType::Tree } else { BlobType::Data };
            PackedBlob { ty, id, offset: at as u32, length: pack + 40, uncompressed: at as u32 / 2 }
        })
    };
    let packs: Vec<IndexedPack> = (0..40)
        .map(|n: u32| IndexedPack { id: Id::of(&(n % 37).to_be_bytes()), blobs: blobs(n % 37).collect() })
        .collect();
    let mut building = Building::default();
    let mut runs = [Runs::new(directory.path()).unwrap(), Runs::new(directory.path()).unwrap()];
    for (at, pack) in packs.iter().enumerate() {
        building.add(pack.clone());
        if at % 6 == 5 {
            let both = runs.iter_mut().zip(&mut building.entries);
            both.for_each(|(runs, entries)| runs.add(entries, &building.packs).unwrap());
        }
    }
    let aside = building.finish_spilled(runs, directory.path()).unwrap();
    let index = Index::from_packs(packs);
    assert!(aside.memory() * 10 < index.memory());
    assert!(aside.iter().eq(index.iter()) && aside.len() == index.len() && index.len() > ids.len());
    for id in ids.iter().flat_map(|&id| [id, Id(std::array::from_fn(|n| id.0[n] ^ u8::from(n == 31)))]) {
        for ty in [BlobType::Data, BlobType::Tree] {
            assert_eq!(aside.find(ty, id), index.find(ty, id));
            assert_eq!((aside.position(ty, id), aside.copies(ty, id)), (index.position(ty, id), index.copies(ty, id)));
        }
    }
    let groups: [Vec<_>; 2] = [&aside, &index].map(|index| {
        let groups = index.groups(index.packs());
        groups
            .flat_map(|group| group.packs().iter().map(|&pack| (pack, group.blobs(pack))).collect::<Vec<_>>())
            .collect()
    });
    assert_eq!(groups[0], groups[1]);
    assert!(groups[0].iter().all(|(_, blobs)| !blobs.is_empty() && blobs.is_sorted_by_key(|blob| blob.offset)));
    assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "the spill files are unlinked");
}

#[test]
fn a_blob_is_claimed_once() {
    let index = Index::from_packs(vec![]);
    let id = Id::of(b"new");
    assert!(index.claim(BlobType::Data, id));
    assert!(!index.claim(BlobType::Data, id));
    assert!(index.contains(BlobType::Data, id) && index.first(BlobType::Data, id).is_none());
    assert!(index.claim(BlobType::Tree, id));
}
