use super::plan::{Options as How, decide};
use super::*;
use crate::format::BlobType;
use crate::maintain::testing::Fixture;
use crate::repo::{Lock, LockMode, LocksToRemove, unlock};
use std::time::Duration;

fn carry_out(fixture: &Fixture, options: &Options) -> Result<(Stats, Done)> {
    let (repo, progress) = (fixture.repo(), Progress::silent());
    let index = Index::load(&repo)?;
    let observer = Observer { progress: &progress, stage: &|_| {} };
    let prune = Prune::plan(&repo, &index, options, &[], &observer)?;
    let stats = *prune.stats();
    Ok((stats, prune.carry_out(&repo, &observer)?))
}

const ALL: Options =
    Options { max_unused: Limit::Bytes(0), max_repack: None, small: None, cacheable_only: false, uncompressed: false };

#[test]
fn needed_blobs_stay_and_all_others_are_removed() {
    let fixture = Fixture::new();
    let kept = fixture.file("kept", &["a", "b"]);
    fixture.file("lost", &["c"]);
    let root = fixture.tree(&[kept]);
    fixture.snapshot(root);
    let (stats, done) = carry_out(&fixture, &ALL).unwrap();
    assert_eq!((stats.blobs.used, stats.blobs.unused, stats.blobs.remaining, done.left_behind), (3, 1, 3, 0));
    let repo = fixture.repo();
    let index = Index::load(&repo).unwrap();
    assert_eq!(index.len(), 3);
    for (ty, id) in [(BlobType::Data, Id::of(b"a")), (BlobType::Data, Id::of(b"b")), (BlobType::Tree, root)] {
        repo.load_blob(&index, ty, id).unwrap();
    }
    assert_eq!(repo.store().list(FileType::Pack).unwrap().len(), 2, "one of data, one of trees");
    // A second prune has nothing to do.
    let (stats, _) = carry_out(&fixture, &ALL).unwrap();
    assert_eq!((stats.packfiles.keep, stats.packfiles.repack, stats.packfiles.remove_total), (2, 0, 0));
}

#[test]
fn nothing_is_removed_after_another_writer_added_a_snapshot() {
    let fixture = Fixture::new();
    let kept = fixture.file("kept", &["a"]);
    let lost = fixture.file("lost", &["c"]);
    fixture.snapshot(fixture.tree(&[kept]));
    let second = fixture.tree(&[lost]);
    let (repo, progress) = (fixture.repo(), Progress::silent());
    let index = Index::load(&repo).unwrap();
    let observer = Observer { progress: &progress, stage: &|_| {} };
    let prune = Prune::plan(&repo, &index, &ALL, &[], &observer).unwrap();
    // The other writer found blobs that nothing needed, and its snapshot needs them now.
    let uninvited = fixture.snapshot(second);
    let error = prune.carry_out(&repo, &observer).unwrap_err();
    let file = File::new(FileType::Snapshot, uninvited);
    assert!(matches!(error, Error::Uninvited { file: found } if found == file), "{error}");
    let index = Index::load(&repo).unwrap();
    repo.load_blob(&index, BlobType::Data, Id::of(b"c")).unwrap();
    repo.load_blob(&index, BlobType::Tree, second).unwrap();
    carry_out(&fixture, &ALL).unwrap();
}

/// Another process removed the lock as stale, and a backup may have begun that needs the data.
#[test]
fn nothing_is_removed_after_the_lock_is_lost() {
    let fixture = Fixture::new();
    let kept = fixture.file("kept", &["a"]);
    fixture.file("lost", &["c"]);
    fixture.snapshot(fixture.tree(&[kept]));
    let (repo, progress) = (fixture.repo(), Progress::silent());
    let lock = Lock::acquire(repo.clone(), LockMode::Exclusive, Duration::ZERO, &progress).unwrap();
    let index = Index::load(&repo).unwrap();
    let observer = Observer { progress: &progress, stage: &|_| {} };
    let prune = Prune::plan(&repo, &index, &ALL, &[], &observer).unwrap();
    let files = |ty| list(&repo, ty).unwrap();
    let before = (files(FileType::Pack), files(FileType::Index));
    assert_eq!(unlock(&fixture.repo(), LocksToRemove::All).unwrap(), 1);
    let error = prune.carry_out(&repo, &observer).unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }), "{error}");
    // New packs with repacked blobs may exist, too.
    assert!(before.0.is_subset(&files(FileType::Pack)) && before.1.is_subset(&files(FileType::Index)));
    assert!(matches!(lock.release(), Err(Error::LockLost { .. })));
    let _again = Lock::acquire(repo, LockMode::Exclusive, Duration::ZERO, &progress).unwrap();
    carry_out(&fixture, &ALL).unwrap();
}

#[test]
fn nothing_is_removed_if_a_snapshot_or_its_trees_cannot_be_read() {
    for damage in 0..4 {
        let fixture = Fixture::new();
        let file = fixture.file("kept", &["a"]);
        let waste = fixture.file("waste", &["w"]);
        drop(waste);
        let mut nodes = vec![file];
        match damage {
            0 => nodes.push(crate::format::node::Node {
                content: Some(vec![Id::of(b"nowhere")].into()),
                ..crate::format::node::Node::new("lacks", crate::format::node::NodeType::File)
            }),
            1 => nodes.push(crate::format::node::Node {
                subtree: Some(Id::of(b"nowhere")),
                ..crate::format::node::Node::new("lacks", crate::format::node::NodeType::Dir)
            }),
            2 => {
                let tree = fixture.blob(BlobType::Tree, b"{\"nodes\":[{\"name\":17}]}");
                nodes.push(crate::format::node::Node {
                    subtree: Some(tree),
                    ..crate::format::node::Node::new("wrong", crate::format::node::NodeType::Dir)
                });
            }
            _ => {}
        }
        let snapshot = fixture.snapshot(fixture.tree(&nodes));
        let repo = fixture.repo();
        if damage == 3 {
            let file = fixture.path().join("snapshots").join(snapshot.to_string());
            // The file is read-only, which stops everybody but root.
            std::fs::remove_file(&file).unwrap();
            std::fs::write(file, "not a snapshot").unwrap();
        }
        let before = repo.store().list(FileType::Pack).unwrap().len();
        let error = carry_out(&fixture, &ALL).unwrap_err();
        assert!(matches!(error, Error::Unreachable { problems: 1 }), "{damage}: {error}");
        assert_eq!(repo.store().list(FileType::Pack).unwrap().len(), before);
    }
}

/// Packs of data with these numbers of bytes used and unused, all of which exist.
fn packs(amounts: &[(u64, u64)]) -> Vec<Pack> {
    let amount = |bytes: u64| Amount { blobs: u64::from(bytes > 0), bytes };
    let pack = |(number, &(used, unused)): (usize, &(u64, u64))| Pack {
        id: Id::of(&number.to_le_bytes()),
        listed: Some(used + unused + 36),
        used: amount(used),
        unused: amount(unused),
        header: 36,
        data: true,
        trees: false,
        uncompressed: false,
    };
    amounts.iter().enumerate().map(pack).collect()
}

fn fates(packs: &[Pack], options: &How) -> Vec<Fate> {
    decide(packs, Amount::default(), &[], options, Version::V2).unwrap().fates
}

const MIB: u64 = 1 << 20;

#[test]
fn the_most_wasteful_packs_are_repacked_first() {
    use Fate::{Keep, Remove, Repack};
    let packs = packs(&[(9 * MIB, MIB), (5 * MIB, 5 * MIB), (0, 10 * MIB), (10 * MIB, 0), (MIB, 9 * MIB)]);
    let unused = |bytes| How { max_unused: Limit::Bytes(bytes), ..ALL };
    assert_eq!(fates(&packs, &unused(0)), [Repack, Repack, Remove, Keep, Repack]);
    assert_eq!(fates(&packs, &unused(2 * MIB)), [Keep, Repack, Remove, Keep, Repack]);
    assert_eq!(fates(&packs, &unused(7 * MIB)), [Keep, Keep, Remove, Keep, Repack]);
    assert_eq!(fates(&packs, &unused(16 * MIB)), [Keep, Keep, Remove, Keep, Keep]);
    assert_eq!(fates(&packs, &How { max_unused: Limit::Unlimited, ..ALL }), [Keep, Keep, Remove, Keep, Keep]);
    assert_eq!(fates(&packs, &How { max_repack: Some(11 * MIB), ..unused(0) }), [Keep, Keep, Remove, Keep, Repack]);
    assert_eq!(fates(&packs, &How { max_repack: Some(0), ..unused(0) }), [Keep, Keep, Remove, Keep, Keep]);
    assert_eq!(fates(&packs, &How { cacheable_only: true, ..unused(0) }), [Keep, Keep, Remove, Keep, Keep]);
    // 5 % of the data that stays: 25 MiB are used, so 1.3 MiB may be unused.
    assert_eq!(fates(&packs, &How { max_unused: Limit::Percent(5.0), ..ALL }), [Keep, Repack, Remove, Keep, Repack]);
}

#[test]
fn small_packs_are_repacked_if_there_are_many() {
    let few = packs(&[(MIB, 0); 9]);
    assert!(fates(&few, &ALL).iter().all(|fate| *fate == Fate::Keep));
    let many = packs(&[(MIB, 0); 10]);
    assert!(fates(&many, &ALL).iter().all(|fate| *fate == Fate::Repack));
    assert!(fates(&many, &How { small: Some(MIB), ..ALL }).iter().all(|fate| *fate == Fate::Keep));
}

#[test]
fn wasteful_mixed_or_uncompressed_tree_packs_are_always_repacked() {
    let mut packs = packs(&[(10 * MIB, MIB), (10 * MIB, 0), (10 * MIB, 0), (10 * MIB, 0)]);
    let tolerant = How { max_unused: Limit::Unlimited, ..ALL };
    assert!(fates(&packs, &tolerant).iter().all(|fate| *fate == Fate::Keep));
    (packs[0].data, packs[0].trees) = (false, true);
    packs[1].trees = true;
    (packs[2].data, packs[2].trees, packs[2].uncompressed) = (false, true, true);
    packs[3].uncompressed = true;
    assert_eq!(fates(&packs, &tolerant), [Fate::Repack, Fate::Repack, Fate::Repack, Fate::Keep]);
    assert_eq!(fates(&packs, &How { uncompressed: true, ..tolerant }), [Fate::Repack; 4]);
    let without = decide(&packs, Amount::default(), &[], &tolerant, Version::V1).unwrap().fates;
    assert_eq!(without, [Fate::Repack, Fate::Repack, Fate::Keep, Fate::Keep], "of version 1");
}

#[test]
fn a_missing_or_truncated_pack_is_a_fault_only_if_it_is_needed() {
    let mut packs = packs(&[(0, MIB), (MIB, 0)]);
    packs[0].listed = None;
    assert_eq!(fates(&packs, &ALL), [Fate::Forget, Fate::Keep]);
    packs[0].listed = Some(7);
    assert_eq!(fates(&packs, &ALL), [Fate::Remove, Fate::Keep]);
    packs[1].listed = Some(7);
    let faults = decide(&packs, Amount::default(), &[], &ALL, Version::V2).unwrap_err();
    assert_eq!(faults, [Fault::Size { pack: packs[1].id, size: 7, expected: MIB + 36 }]);
    packs[1].listed = None;
    assert_eq!(decide(&packs, Amount::default(), &[], &ALL, Version::V2).unwrap_err(), [Fault::Missing(packs[1].id)]);
}
