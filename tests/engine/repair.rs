//! Tests that `repair index`, `repair packs` and `repair snapshots` do what restic's do: on copies
//! of one damaged repository both make the same snapshots, down to the ids of their trees, and
//! restic finds no fault afterwards.

use crate::common::peers::{Peer, Repo, Run};
use crate::common::{Random, files_below, scratch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The name of a kind of damage, and a function that does it to a repository.
type Damage<'d> = (&'d str, &'d dyn Fn(&Repo));

/// A repository of two snapshots.
fn repository(writer: Peer) -> (Repo, tempfile::TempDir) {
    let repo = Repo::empty(2);
    let source = scratch();
    let write = |name: &str, seed: u64, size: usize| {
        let path = source.path().join("data").join(name);
        fs::create_dir_all(path.parent().expect("above")).expect("directories");
        fs::write(path, Random(seed).bytes(size)).expect("a file");
    };
    write("large", 1, 6 << 20);
    for number in 0..40 {
        write(&format!("dir-{}/file-{number}", number % 4), number + 10, 3000);
    }
    repo.backup(writer, source.path(), "data", &[]);
    write("large-too", 2, 5 << 20);
    write("dir-1/new", 3, 100_000);
    repo.backup(writer, source.path(), "data", &[]);
    (repo, source)
}

fn packs(repo: &Repo) -> Vec<PathBuf> {
    files_below(&repo.path().join("data"))
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// All packs that the index names, according to restic.
fn indexed(repo: &Repo) -> BTreeSet<String> {
    let indexes = repo.list("index");
    let cat = |id: &String| -> Value { repo.run(Peer::Restic019, ["cat", "index", id]).ok().json() };
    let packs = |index: Value| index["packs"].as_array().cloned().unwrap_or_default();
    let id = |pack: Value| pack["id"].as_str().expect("an id").to_owned();
    indexes.iter().map(cat).flat_map(packs).map(id).collect()
}

/// The fields of each snapshot, without its id.
fn snapshots(repo: &Repo) -> BTreeSet<String> {
    let seen = |snapshot: &Value| {
        format!("{} {} {} {}", snapshot["time"], snapshot["tree"], snapshot["tags"], snapshot["original"])
    };
    repo.snapshots(Peer::Restic019).iter().map(seen).collect()
}

/// Damages two copies, and repairs one with each program.
fn both(repo: &Repo, damage: impl Fn(&Repo), words: &[&str]) -> (Repo, Repo) {
    let run = |peer| {
        let repo = repo.copy();
        damage(&repo);
        let dir = scratch();
        let run = Run::of(repo.command(peer).current_dir(dir.path()).args(words));
        println!("{run}");
        repo
    };
    (run(Peer::Restic019), run(Peer::Vsm))
}

#[test]
fn repair_index_indexes_the_same_packs_as_restics() {
    for writer in [Peer::Restic019, Peer::Vsm] {
        let (repo, _source) = repository(writer);
        let first = |repo: &Repo| files_below(&repo.path().join("index"))[0].clone();
        let damages: [Damage<'_>; 6] = [
            ("nothing", &|_| {}),
            ("a missing index", &|repo| fs::remove_file(first(repo)).expect("a removal")),
            ("no index at all", &|repo| {
                files_below(&repo.path().join("index"))
                    .iter()
                    .for_each(|file| fs::remove_file(file).expect("a removal"));
            }),
            ("an index cut short", &|repo| {
                let bytes = fs::read(first(repo)).expect("an index");
                fs::write(first(repo), &bytes[..bytes.len() / 2]).expect("half of it");
            }),
            ("a missing pack", &|repo| fs::remove_file(&packs(repo)[0]).expect("a removal")),
            ("an invalid pack", &|repo| {
                let id = vsm::id::Id::of(b"no pack").to_string();
                fs::write(repo.path().join("data").join(&id[..2]).join(&id), b"no pack").expect("a file");
            }),
        ];
        for (what, damage) in damages {
            for words in [&["repair", "index"][..], &["repair", "index", "--read-all-packs"]] {
                let (theirs, ours) = both(&repo, damage, words);
                assert_eq!(indexed(&ours), indexed(&theirs), "{what} {words:?}");
                let (expected, found) = (theirs.check(Peer::Restic019), ours.check(Peer::Restic019));
                assert_eq!(found.code(), expected.code(), "{what} {words:?}\n{expected}\n{found}");
                assert_eq!(ours.check(Peer::Vsm).succeeded(), found.succeeded(), "{what} {words:?}");
            }
        }
    }
}

/// A pack has a damaged header, but the index is right: its blobs stay where the index finds them.
#[test]
fn a_pack_with_a_damaged_header_keeps_its_place() {
    let (repo, _source) = repository(Peer::Vsm);
    let pack = packs(&repo)[0].clone();
    let mut bytes = fs::read(&pack).expect("a pack");
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&pack, bytes).expect("damage");
    let run = repo.run(Peer::Vsm, ["repair", "index", "--read-all-packs"]).exits(3);
    assert!(run.errors().contains(&name(&pack)), "{run}");
    repo.run(Peer::Restic019, ["check"]).ok();
    let target = scratch();
    repo.restore(Peer::Restic019, "latest", &target.path().join("out")).ok();
}

/// Whichever pack is damaged, and at whatever place: the repair saves the same blobs as restic's,
/// and removes the others from the snapshots.
#[test]
fn repair_packs_saves_the_same_blobs_as_restics() {
    for writer in [Peer::Restic019, Peer::Vsm] {
        let (repo, _source) = repository(writer);
        let all = packs(&repo);
        let mut lost = 0;
        for (number, pack) in all.iter().enumerate() {
            let id = name(pack);
            let size = pack.metadata().expect("a pack").len() as usize;
            let place = |repo: &Repo| repo.path().join("data").join(&id[..2]).join(&id);
            let flip = |repo: &Repo| {
                let mut bytes = fs::read(place(repo)).expect("a pack");
                bytes[(size / 3) * (number % 3) + 100] ^= 1;
                fs::write(place(repo), bytes).expect("damage");
            };
            let cut = |repo: &Repo| {
                let bytes = fs::read(place(repo)).expect("a pack");
                fs::write(place(repo), &bytes[..size / 2]).expect("damage");
            };
            let gone = |repo: &Repo| fs::remove_file(place(repo)).expect("a removal");
            let damages: [Damage<'_>; 3] = [("a bit", &flip), ("cut", &cut), ("gone", &gone)];
            for (what, damage) in damages {
                let told = format!("{writer:?} {what} {id}");
                let (theirs, ours) = both(&repo, damage, &["repair", "packs", &id]);
                if what == "gone" {
                    // restic salvages nothing from a missing pack, so its index is repaired without
                    // it.
                    theirs.run(Peer::Restic019, ["repair", "index"]).ok();
                }
                for (repo, peer) in [(&theirs, Peer::Restic019), (&ours, Peer::Vsm)] {
                    repo.run(peer, ["repair", "snapshots", "--forget"]).ok();
                }
                assert!(!place(&ours).exists(), "{told}");
                assert_eq!(snapshots(&ours), snapshots(&theirs), "{told}");
                lost += usize::from(snapshots(&ours) != snapshots(&repo));
                for peer in [Peer::Restic019, Peer::Vsm] {
                    ours.check(peer).ok();
                }
            }
        }
        assert!(lost >= all.len(), "nothing was lost: {lost}");
    }
}

#[test]
fn repair_snapshots_keeps_the_originals_without_forget() {
    let (repo, _source) = repository(Peer::Restic019);
    let before = repo.snapshots(Peer::Restic019).len();
    let largest = packs(&repo).into_iter().max_by_key(|pack| pack.metadata().expect("a pack").len()).expect("a pack");
    fs::remove_file(largest).expect("a removal");
    repo.run(Peer::Vsm, ["repair", "index"]).ok();
    let dry = repo.run(Peer::Vsm, ["repair", "snapshots", "--dry-run"]).ok();
    assert!(dry.text().contains("lost parts of its content"), "{dry}");
    assert_eq!(repo.snapshots(Peer::Restic019).len(), before);
    let theirs = repo.copy();
    repo.run(Peer::Vsm, ["repair", "snapshots"]).ok();
    theirs.run(Peer::Restic019, ["repair", "snapshots"]).ok();
    assert_eq!(snapshots(&repo), snapshots(&theirs));
    assert!(repo.snapshots(Peer::Restic019).len() > before);
    let again = repo.run(Peer::Vsm, ["repair", "snapshots", "--tag", "repaired"]).ok();
    assert!(again.text().contains("0 snapshots changed"), "{again}");
}

/// `repair packs` keeps copies of the packs in its working directory: it uses a copy again, never
/// overwrites one, and the next run is not blocked by one.
#[test]
fn packs_are_repaired_again_in_the_same_directory() {
    let (repo, _source) = repository(Peer::Vsm);
    let pack = packs(&repo).into_iter().max_by_key(|pack| pack.metadata().expect("a pack").len()).expect("a pack");
    let (id, whole) = (name(&pack), fs::read(&pack).expect("a pack"));
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    fs::remove_file(&pack).and_then(|()| fs::write(&pack, &damaged)).expect("a damaged pack");
    let run = |repo: &Repo, directory: &Path, code: i32| {
        Run::of(repo.command(Peer::Vsm).current_dir(directory).args(["repair", "packs", &id])).exits(code)
    };
    let copy = format!("pack-{id}");
    let files = |directory: &Path| -> Vec<(String, Vec<u8>)> {
        files_below(directory).iter().map(|file| (name(file), fs::read(file).expect("a file"))).collect()
    };
    let second = (format!("{copy}-2"), damaged.clone());
    let other = (copy.clone(), damaged[..5000].to_vec());
    for (case, before, after) in [
        ("nothing", vec![], vec![(copy.clone(), damaged.clone())]),
        ("a copy", vec![(copy.clone(), damaged.clone())], vec![(copy.clone(), damaged.clone())]),
        ("the pack before the damage", vec![(copy.clone(), whole.clone())], vec![(copy.clone(), whole.clone())]),
        ("half a copy", vec![other.clone()], vec![other.clone(), second.clone()]),
        ("half a copy and a whole one", vec![other.clone(), second.clone()], vec![other.clone(), second]),
        (
            "an empty file",
            vec![(copy.clone(), vec![])],
            vec![(copy.clone(), vec![]), (format!("{copy}-2"), damaged.clone())],
        ),
    ] {
        let (repo, directory) = (repo.copy(), scratch());
        for (name, content) in before {
            fs::write(directory.path().join(name), content).expect("a file");
        }
        // The first run ends after the copies, because it cannot read an index file.
        let index = &files_below(&repo.path().join("index"))[0];
        let sound = fs::read(index).expect("an index file");
        fs::remove_file(index).and_then(|()| fs::write(index, b"damaged")).expect("a damaged index file");
        run(&repo, directory.path(), 1);
        assert_eq!(files(directory.path()), after, "{case}");
        fs::write(index, sound).expect("the index file");
        // One blob is lost, so the exit code is 3. The pack is removed then, so the third run has
        // nothing to copy.
        run(&repo, directory.path(), 3);
        assert_eq!(files(directory.path()), after, "{case}");
        run(&repo, directory.path(), 0);
        assert_eq!(files(directory.path()), after, "{case}");
    }
    // A directory with the name of the copy does not block the repair either.
    let (repo, directory) = (repo.copy(), scratch());
    fs::create_dir(directory.path().join(&copy)).expect("a directory");
    run(&repo, directory.path(), 3);
    assert_eq!(files(directory.path()), [(format!("{copy}-2"), damaged)]);
}
