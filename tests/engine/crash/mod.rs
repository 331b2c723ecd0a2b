//! A process that ends at any of its operations loses nothing. Each command runs on a small, complete repository whose store stops at the
//! first, the second, … at every operation: before it, in the middle of it, after it, or only there. Afterwards restic's check passes and
//! every snapshot that was complete is still there; restic's `check --read-data` hashes all that they need, and a snapshot's name is the
//! hash of what it holds. The same command once more completes, and restic finds nothing wrong then either.

mod hurried;
mod store;

use super::acts::{back_up, back_up_by, copy, forget, locked, prune, retag, rewrite, upgrade};
use crate::common::peers::{PASSWORD, Peer, Repo};
use crate::common::{Random, files_below, scratch};
use hurried::Hurried;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::{Fault, Kind, Stopping};
use vsm::format::Version;
use vsm::id::Id;
use vsm::maintain::repair::{self, index::PacksToRead};
use vsm::maintain::rewrite::Replace;
use vsm::progress::Progress;
use vsm::repo::{
    self, InitOptions, Lock, LockMode, LocksToRemove, Password, Repository, Settings, init, key_owner, unlock,
};

/// A repository of two snapshots and what a third needs, and its source.
struct Bed {
    repo: Repo,
    source: PathBuf,
}

impl Bed {
    fn new() -> Bed {
        Bed::of_version(2)
    }

    fn of_version(version: u32) -> Bed {
        let repo = Repo::empty(version);
        let bed = Bed { source: repo.beside("source"), repo };
        for round in 0..3 {
            bed.write(round);
            if round < 2 {
                bed.repo.backup(Peer::Restic019, bed.source.parent().expect("above"), "source", &[]);
            }
        }
        bed
    }

    fn write(&self, round: u64) {
        fs::create_dir_all(self.source.join("dir/below")).expect("directories");
        fs::write(self.source.join("same"), Random(1).bytes(40_000)).expect("a file");
        fs::write(self.source.join("dir/other"), Random(10 + round).bytes(50_000)).expect("a file");
        fs::write(self.source.join("dir/below/text"), format!("round {round}\n").repeat(300)).expect("a file");
    }
}

/// What a command does with a store, from opening the repository to releasing its lock.
type Act<'a> = dyn Fn(Arc<Stopping>) -> repo::Result<()> + 'a;

/// What a state of the repository must be like.
struct Demand<'d> {
    /// Snapshots that must be there.
    complete: &'d [String],
    /// How many there must be at least.
    count: usize,
    /// Passwords of which one must open it.
    passwords: &'d [&'d str],
}

/// restic's verdict on a state.
fn demand_sound(repo: &Repo, demand: &Demand<'_>, told: &str) {
    let opens = demand.passwords.iter().any(|password| {
        let mut repo = repo.command(Peer::Restic019);
        let check = repo.env("RESTIC_PASSWORD", password).args(["check", "--read-data", "--no-lock"]);
        crate::common::peers::Run::of(check).succeeded()
    });
    assert!(opens, "{told}: {}", repo.run(Peer::Restic019, ["check", "--read-data", "--no-lock"]));
    let there: BTreeSet<String> = names(repo, "snapshots");
    for id in demand.complete {
        assert!(there.contains(id), "{told}: snapshot {id} is gone");
    }
    assert!(there.len() >= demand.count, "{told}: a snapshot is gone, and none in its place");
}

/// Names of files that are whole, of a kind.
fn names(repo: &Repo, kind: &str) -> BTreeSet<String> {
    let path = |file: &PathBuf| file.file_name().expect("a name").to_string_lossy().into_owned();
    let is_whole = |file: &PathBuf| Id::of(&fs::read(file).expect("a file")).to_string() == path(file);
    files_below(&repo.path().join(kind)).iter().filter(|file| is_whole(file)).map(path).collect()
}

/// What a store that is not whole or not at all leaves, a person removes, because nothing refers to it; and puts the config back.
fn mend_torn(repo: &Repo, before: &Repo) {
    let config = |repo: &Repo| fs::read(repo.path().join("config")).expect("a config");
    if config(repo).len() < config(before).len() {
        fs::write(repo.path().join("config"), config(before)).expect("the old config");
    }
    remove_torn(repo);
}

fn remove_torn(repo: &Repo) {
    for kind in ["index", "snapshots", "locks", "keys"] {
        for file in files_below(&repo.path().join(kind)) {
            if Id::of(&fs::read(&file).expect("a file")).to_string()
                != file.file_name().expect("a name").to_string_lossy()
            {
                fs::remove_file(file).expect("a removal");
            }
        }
    }
}

/// Runs a command against every stop of every kind. Of the snapshots, oldest first, `complete` says which stay, and `replaced` how many others
/// have one in their place.
fn at_every_operation(
    bed: &Bed,
    what: &str,
    act: &Act<'_>,
    passwords: &[&str],
    complete: impl Fn(&[String]) -> Vec<String>,
    replaced: usize,
) {
    let before: Vec<String> = names(&bed.repo, "snapshots").into_iter().collect();
    let oldest_first = |repo: &Repo| -> Vec<String> {
        let id = |snapshot: &serde_json::Value| snapshot["id"].as_str().expect("an id").to_owned();
        repo.snapshots(Peer::Restic019).iter().map(id).collect()
    };
    let kept = complete(&oldest_first(&bed.repo));
    assert!(kept.iter().all(|id| before.contains(id)));
    let demand = Demand { complete: &kept, count: kept.len() + replaced, passwords };
    let repo = bed.repo.copy();
    let recorded = Stopping::at(repo.path(), None);
    act(Arc::new(recorded.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
    let operations = recorded.operations();
    let (mut tried, mut verdicts) = (0, 0);
    for (number, kind) in operations.iter().enumerate() {
        for fault in [Fault::Stop, Fault::Tear, Fault::LoseReply, Fault::Fail] {
            // A read that is done or torn leaves what it leaves when it is not done.
            let differs = match fault {
                Fault::Tear => *kind == Kind::Write,
                Fault::LoseReply => *kind != Kind::Read,
                Fault::Stop | Fault::Fail => true,
            };
            if !differs {
                continue;
            }
            tried += 1;
            let told = format!("{what}, operation {number} ({kind:?}) of {}, {fault:?}", operations.len());
            let repo = bed.repo.copy();
            let outcome = act(Arc::new(Stopping::at(repo.path(), Some((number, fault)))));
            if fault != Fault::Fail {
                assert!(outcome.is_err(), "{told}: reported as a success");
            }
            if fault == Fault::Tear {
                mend_torn(&repo, &bed.repo);
            }
            // A stop at a read leaves what the write before it left.
            if *kind != Kind::Read || fault == Fault::Fail {
                verdicts += 1;
                demand_sound(&repo, &demand, &told);
            }
            again(&repo, act, &demand, &told, *kind != Kind::Read);
        }
    }
    println!("{what}: {} operations, {tried} faults, {verdicts} states judged by restic", operations.len());
}

/// The command once more: it completes.
fn again(repo: &Repo, act: &Act<'_>, demand: &Demand<'_>, told: &str, judge: bool) {
    let whole = |password: &str| {
        let store = Arc::new(Stopping::at(repo.path(), None));
        Repository::open(store, &Password::new(password), None, Settings::default()).ok()
    };
    let opened = demand.passwords.iter().find_map(|password| whole(password)).expect("one of the passwords fits");
    // The process is gone, and its lock is somebody's to remove.
    unlock(&opened, LocksToRemove::All).expect("locks go");
    act(Arc::new(Stopping::at(repo.path(), None))).unwrap_or_else(|error| panic!("{told}, then once more: {error}"));
    assert!(repo.lock_files().is_empty(), "{told}: a lock is left");
    if judge {
        demand_sound(repo, demand, &format!("{told}, then once more"));
    }
}

#[test]
fn a_backup() {
    let bed = Bed::new();
    let source = bed.source.clone();
    at_every_operation(
        &bed,
        "backup",
        &|store| back_up(store, &source).map(|_| ()),
        &[PASSWORD],
        <[String]>::to_vec,
        0,
    );
}

/// By a clock by which an index file is due after each pack. When one write fails and the next ones
/// do not, all packs that were uploaded are in an index.
#[test]
fn a_backup_indexes_what_was_uploaded_before_a_write_failed() {
    let bed = Bed::new();
    let act = |store: &Stopping| back_up_by(Arc::new(store.clone()), &bed.source, Hurried::clock());
    let whole = bed.repo.copy();
    let recorded = Stopping::at(whole.path(), None);
    act(&recorded).expect("a backup");
    let operations = recorded.operations();
    let writes = operations.iter().enumerate().filter(|(_, kind)| **kind == Kind::Write);
    for (number, _) in writes {
        let repo = bed.repo.copy();
        act(&Stopping::at(repo.path(), Some((number, Fault::Fail)))).expect_err("a failure");
        let indexed: BTreeSet<String> = repo.list("index").iter().flat_map(|index| packs_of(&repo, index)).collect();
        let uploaded = names(&repo, "data");
        assert!(uploaded.is_subset(&indexed), "operation {number} of {}: {uploaded:?}, {indexed:?}", operations.len());
    }
}

/// The packs that an index file names, as restic reads it.
fn packs_of(repo: &Repo, index: &str) -> Vec<String> {
    let index = repo.run(Peer::Restic019, ["cat", "index", index, "--no-lock"]).ok().json();
    let packs = index["packs"].as_array().expect("packs").iter();
    packs.map(|pack| pack["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_forget() {
    let bed = Bed::new();
    at_every_operation(&bed, "forget", &|store| forget(store), &[PASSWORD], |all| all[1..].to_vec(), 0);
}

#[test]
fn a_prune() {
    let bed = Bed::new();
    let oldest = bed.repo.snapshots(Peer::Restic019)[0]["id"].as_str().expect("an id").to_owned();
    bed.repo.run(Peer::Restic019, ["forget", &oldest]).ok();
    // And a pack that no index names.
    let bytes = b"nobody's";
    let name = Id::of(bytes).to_string();
    fs::write(bed.repo.path().join("data").join(&name[..2]).join(&name), bytes).expect("a file");
    at_every_operation(&bed, "prune", &|store| prune(store), &[PASSWORD], <[String]>::to_vec, 0);
}

/// An index of which a file is lost, and packs that are moved elsewhere though nothing is wrong with them.
#[test]
fn repairs_of_index_and_packs() {
    let bed = Bed::new();
    let packs: Vec<Id> = names(&bed.repo, "data").iter().map(|name| name.parse().expect("an id")).collect();
    let salvage = |store: Arc<Stopping>| {
        locked(store, LockMode::Exclusive, |repo| {
            // Those of them that are still there: the others have been moved.
            let listed = repo.store().list(vsm::store::FileType::Pack)?;
            let there: Vec<Id> = packs.iter().copied().filter(|pack| listed.iter().any(|(id, _)| id == pack)).collect();
            let outcome = repair::packs::repair(repo, &there, &Progress::silent())?;
            if outcome.lost + outcome.left_behind == 0 { Ok(()) } else { Err(repo::Error::Stopped) }
        })
    };
    at_every_operation(&bed, "repair packs", &salvage, &[PASSWORD], <[String]>::to_vec, 0);
    let index = files_below(&bed.repo.path().join("index"));
    assert!(index.len() > 1);
    fs::remove_file(&index[0]).expect("an index less");
    let reindex = |store: Arc<Stopping>| {
        locked(store, LockMode::Exclusive, |repo| {
            let repaired = repair::index::repair(repo, PacksToRead::Doubtful, &Progress::silent())?;
            if repaired.silent == 0 { Ok(()) } else { Err(repo::Error::Stopped) }
        })
    };
    // A snapshot whose index is lost is not complete until the repair has ended.
    at_every_repair(&bed, "repair index", &reindex);
}

/// A file is lost, and with it a part of both snapshots, which are made anew.
#[test]
fn a_repair_of_snapshots() {
    let bed = Bed::new();
    let holds_data = |pack: &PathBuf| pack.metadata().expect("a pack").len() > 30_000;
    let lost = files_below(&bed.repo.path().join("data")).into_iter().find(holds_data).expect("a pack of data");
    fs::remove_file(lost).expect("a pack less");
    bed.repo.run(Peer::Vsm, ["repair", "index"]).ok();
    let act = |store: Arc<Stopping>| {
        locked(store, LockMode::Exclusive, |repo| {
            let (snapshots, _) = repo.snapshots()?;
            let replace = Replace { forget: true, dry_run: false };
            repair::snapshots::repair(repo, &snapshots, replace, &Progress::silent(), &mut |_, _, _| {})
        })
    };
    at_every_repair(&bed, "repair snapshots", &act);
}

/// As [`at_every_operation`] for what is damaged before: restic is asked when it has been repaired at last.
fn at_every_repair(bed: &Bed, what: &str, act: &Act<'_>) {
    let repo = bed.repo.copy();
    let recorded = Stopping::at(repo.path(), None);
    act(Arc::new(recorded.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
    let whole = names(&repo, "snapshots").len();
    let demand = Demand { complete: &[], count: whole, passwords: &[PASSWORD] };
    let operations = recorded.operations();
    for (number, kind) in operations.iter().enumerate() {
        for fault in [Fault::Stop, Fault::LoseReply, Fault::Fail]
            .into_iter()
            .filter(|fault| *kind != Kind::Read || *fault != Fault::LoseReply)
        {
            let told = format!("{what}, operation {number} ({kind:?}) of {}, {fault:?}", operations.len());
            let repo = bed.repo.copy();
            let outcome = act(Arc::new(Stopping::at(repo.path(), Some((number, fault)))));
            assert!(fault == Fault::Fail || outcome.is_err(), "{told}: reported as a success");
            assert!(names(&repo, "snapshots").len() >= whole, "{told}: a snapshot is gone");
            again(&repo, act, &demand, &told, true);
            assert_eq!(names(&repo, "snapshots").len(), whole, "{told}");
        }
    }
    println!("{what}: {} operations", operations.len());
}

#[test]
fn a_tag() {
    let bed = Bed::new();
    // The latest snapshot gets another name.
    at_every_operation(&bed, "tag", &|store| retag(store), &[PASSWORD], |all| all[..1].to_vec(), 1);
}

#[test]
fn keys_added_changed_and_removed() {
    let bed = Bed::new();
    let owner = || key_owner(None, None);
    let add = |store: Arc<Stopping>| {
        locked(store, LockMode::Shared, |repo| repo.add_key(&Password::new("second"), owner()).map(|_| ()))
    };
    at_every_operation(&bed, "key add", &add, &[PASSWORD], <[String]>::to_vec, 0);
    let change = |store: Arc<Stopping>| {
        // Whichever of the two fits: it may have been changed before.
        let opened = [PASSWORD, "second"].into_iter().find_map(|password| {
            let opened = Repository::open(store.clone(), &Password::new(password), None, Settings::default());
            opened.ok()
        });
        let repo = Arc::new(opened.ok_or(repo::Error::Stopped)?);
        let lock = Lock::acquire(repo.clone(), LockMode::Exclusive, Duration::ZERO, &Progress::silent())?;
        repo.change_password(&Password::new("second"), owner()).and(lock.release())
    };
    at_every_operation(&bed, "key passwd", &change, &[PASSWORD, "second"], <[String]>::to_vec, 0);
}

/// Snapshots of another repository come here; either of the two stores may stop.
#[test]
fn a_copy() {
    let (from, to) = (Bed::new(), Bed::new());
    let whole = |repo: &Repo| Arc::new(Stopping::at(repo.path(), None));
    let source = whole(&from.repo);
    at_every_operation(&to, "copy", &|store| copy(source.clone(), store), &[PASSWORD], <[String]>::to_vec, 0);

    let recorded = whole(&from.repo);
    copy(recorded.clone(), whole(&to.repo.copy())).expect("a copy");
    let operations = recorded.operations();
    let kept: Vec<String> = names(&to.repo, "snapshots").into_iter().collect();
    let demand = |count| Demand { complete: &kept, count, passwords: &[PASSWORD] };
    for (number, kind) in operations.iter().enumerate() {
        for fault in [Fault::Stop, Fault::Fail] {
            let told = format!("copy, operation {number} ({kind:?}) of {} on the source, {fault:?}", operations.len());
            let (source, target) = (from.repo.copy(), to.repo.copy());
            let outcome = copy(Arc::new(Stopping::at(source.path(), Some((number, fault)))), whole(&target));
            assert!(fault == Fault::Fail || outcome.is_err(), "{told}: reported as a success");
            demand_sound(&target, &demand(2), &told);
            again(&source, &|store| copy(store, whole(&target)), &Demand { complete: &[], ..demand(2) }, &told, false);
            demand_sound(&target, &demand(4), &format!("{told}, then once more"));
        }
    }
    println!("copy: {} operations on the source", operations.len());
}

#[test]
fn a_rewrite() {
    let bed = Bed::new();
    at_every_operation(&bed, "rewrite", &|store| rewrite(store, false), &[PASSWORD], <[String]>::to_vec, 0);
    at_every_operation(&bed, "rewrite --forget", &|store| rewrite(store, true), &[PASSWORD], |_| vec![], 2);
}

#[test]
fn a_migration() {
    let bed = Bed::of_version(1);
    at_every_operation(&bed, "migrate", &|store| upgrade(store), &[PASSWORD], <[String]>::to_vec, 0);
}

/// Whatever an init leaves, a next one makes a repository of, or finds one.
#[test]
fn an_init() {
    let make = |store: Arc<Stopping>| {
        let options = InitOptions { version: Version::V2, polynomial: None, owner: key_owner(None, None) };
        init(store, &Password::new(PASSWORD), options, Settings::default()).map(|_| ())
    };
    let dir = scratch();
    let recorded = Stopping::at(&dir.path().join("whole"), None);
    make(Arc::new(recorded.clone())).expect("a repository");
    let operations = recorded.operations();
    for (number, kind) in operations.iter().enumerate() {
        for fault in [Fault::Stop, Fault::Tear, Fault::LoseReply, Fault::Fail] {
            let told = format!("init, operation {number} ({kind:?}) of {}, {fault:?}", operations.len());
            let repo = Repo::new();
            let first = make(Arc::new(Stopping::at(repo.path(), Some((number, fault)))));
            if fault == Fault::Tear && repo.path().join("config").exists() && first.is_err() && *kind == Kind::Write {
                // Half a config is told as what it is, and nothing is made over it.
                let refused = make(Arc::new(Stopping::at(repo.path(), None))).expect_err("refused");
                assert!(refused.to_string().contains("config"), "{told}: {refused}");
                continue;
            }
            if repo.path().is_dir() {
                remove_torn(&repo);
            }
            match make(Arc::new(Stopping::at(repo.path(), None))) {
                Ok(()) => {}
                Err(error) => assert!(error.to_string().contains("already"), "{told}: {error}"),
            }
            repo.run(Peer::Restic019, ["check"]).ok();
            assert_eq!(names(&repo, "keys").len(), 1, "{told}");
        }
    }
    println!("init: {} operations", operations.len());
}
