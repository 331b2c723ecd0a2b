//! Crash tests: a process that ends at any of its store operations loses no snapshot.
//!
//! Each command runs on a small, complete repository whose store fails at the first, the second, …
//! operation: before it, in the middle of it, after it, or at that operation only. Afterwards
//! restic's check passes and every complete snapshot still exists: restic's `check --read-data`
//! hashes all data of the snapshots, and a snapshot's name is the hash of its content. The same
//! command then runs again and completes, and restic's check passes then, too.

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

/// A repository with two snapshots, and the source of a third.
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

/// A command on a store, from opening the repository to releasing its lock.
type Act<'a> = dyn Fn(Arc<Stopping>) -> repo::Result<()> + 'a;

/// The requirements on a state of the repository.
struct Demand<'d> {
    /// Snapshots that must exist.
    complete: &'d [String],
    /// The minimum number of snapshots.
    count: usize,
    /// Passwords, one of which must open the repository.
    passwords: &'d [&'d str],
}

/// Asserts with restic that a state is sound.
fn demand_sound(repo: &Repo, demand: &Demand<'_>, case: &str) {
    let opens = demand.passwords.iter().any(|password| {
        let mut repo = repo.command(Peer::Restic019);
        let check = repo.env("RESTIC_PASSWORD", password).args(["check", "--read-data", "--no-lock"]);
        crate::common::peers::Run::of(check).succeeded()
    });
    assert!(opens, "{case}: {}", repo.run(Peer::Restic019, ["check", "--read-data", "--no-lock"]));
    let there: BTreeSet<String> = names(repo, "snapshots");
    for id in demand.complete {
        assert!(there.contains(id), "{case}: snapshot {id} is missing");
    }
    assert!(there.len() >= demand.count, "{case}: a snapshot is missing and was not replaced");
}

/// The names of the files of a kind whose content has its hash.
fn names(repo: &Repo, kind: &str) -> BTreeSet<String> {
    let path = |file: &PathBuf| file.file_name().expect("a name").to_string_lossy().into_owned();
    let is_whole = |file: &PathBuf| Id::of(&fs::read(file).expect("a file")).to_string() == path(file);
    files_below(&repo.path().join(kind)).iter().filter(|file| is_whole(file)).map(path).collect()
}

/// Does what an administrator does after a store without atomic writes failed: removes torn files,
/// to which nothing refers, and restores the config.
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

/// Runs a command with every fault at every operation. `complete` returns the snapshots that must
/// remain, given all of them, oldest first; `replaced` is the number of others that must have a
/// replacement.
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
            // Only a write can be torn, and a read leaves the same state with and without its
            // reply.
            let differs = match fault {
                Fault::Tear => *kind == Kind::Write,
                Fault::LoseReply => *kind != Kind::Read,
                Fault::Stop | Fault::Fail => true,
            };
            if !differs {
                continue;
            }
            tried += 1;
            let case = format!("{what}, operation {number} ({kind:?}) of {}, {fault:?}", operations.len());
            let repo = bed.repo.copy();
            let outcome = act(Arc::new(Stopping::at(repo.path(), Some((number, fault)))));
            if fault != Fault::Fail {
                assert!(outcome.is_err(), "{case}: reported as a success");
            }
            if fault == Fault::Tear {
                mend_torn(&repo, &bed.repo);
            }
            // A failed read leaves the state after the last write.
            if *kind != Kind::Read || fault == Fault::Fail {
                verdicts += 1;
                demand_sound(&repo, &demand, &case);
            }
            again(&repo, act, &demand, &case, *kind != Kind::Read);
        }
    }
    println!("{what}: {} operations, {tried} faults, {verdicts} states judged by restic", operations.len());
}

/// Runs the command again, which must complete.
fn again(repo: &Repo, act: &Act<'_>, demand: &Demand<'_>, case: &str, judge: bool) {
    let whole = |password: &str| {
        let store = Arc::new(Stopping::at(repo.path(), None));
        Repository::open(store, &Password::new(password), None, Settings::default()).ok()
    };
    let opened = demand.passwords.iter().find_map(|password| whole(password)).expect("one of the passwords fits");
    // The process has ended, so an administrator may remove its lock.
    unlock(&opened, LocksToRemove::All).expect("unlock");
    act(Arc::new(Stopping::at(repo.path(), None))).unwrap_or_else(|error| panic!("{case}, then again: {error}"));
    assert!(repo.lock_files().is_empty(), "{case}: a lock is left");
    if judge {
        demand_sound(repo, demand, &format!("{case}, then again"));
    }
}

#[test]
fn backup_loses_no_snapshot() {
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

/// The clock makes an index file due after each pack. If one write fails and the next ones succeed,
/// all uploaded packs are in an index.
#[test]
fn a_backup_indexes_packs_uploaded_before_a_failed_write() {
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
fn forget_loses_no_other_snapshot() {
    let bed = Bed::new();
    at_every_operation(&bed, "forget", &|store| forget(store), &[PASSWORD], |all| all[1..].to_vec(), 0);
}

#[test]
fn prune_loses_no_snapshot() {
    let bed = Bed::new();
    let oldest = bed.repo.snapshots(Peer::Restic019)[0]["id"].as_str().expect("an id").to_owned();
    bed.repo.run(Peer::Restic019, ["forget", &oldest]).ok();
    // Adds a pack that no index names.
    let bytes = b"nobody's";
    let name = Id::of(bytes).to_string();
    fs::write(bed.repo.path().join("data").join(&name[..2]).join(&name), bytes).expect("a file");
    at_every_operation(&bed, "prune", &|store| prune(store), &[PASSWORD], <[String]>::to_vec, 0);
}

/// The index has lost a file, and undamaged packs are rewritten.
#[test]
fn interrupted_repairs_of_index_and_packs_are_resumed() {
    let bed = Bed::new();
    let packs: Vec<Id> = names(&bed.repo, "data").iter().map(|name| name.parse().expect("an id")).collect();
    let salvage = |store: Arc<Stopping>| {
        locked(store, LockMode::Exclusive, |repo| {
            // The packs that still exist; the others have been rewritten.
            let listed = repo.store().list(vsm::store::FileType::Pack)?;
            let there: Vec<Id> = packs.iter().copied().filter(|pack| listed.iter().any(|(id, _)| id == pack)).collect();
            let outcome = repair::packs::repair(repo, &there, &Progress::silent())?;
            if outcome.lost + outcome.left_behind == 0 { Ok(()) } else { Err(repo::Error::Stopped) }
        })
    };
    at_every_operation(&bed, "repair packs", &salvage, &[PASSWORD], <[String]>::to_vec, 0);
    let index = files_below(&bed.repo.path().join("index"));
    assert!(index.len() > 1);
    fs::remove_file(&index[0]).expect("a removal");
    let reindex = |store: Arc<Stopping>| {
        locked(store, LockMode::Exclusive, |repo| {
            let repaired = repair::index::repair(repo, PacksToRead::Doubtful, &Progress::silent())?;
            if repaired.silent == 0 { Ok(()) } else { Err(repo::Error::Stopped) }
        })
    };
    // A snapshot whose index is lost is not complete until the repair has ended.
    at_every_repair(&bed, "repair index", &reindex);
}

/// A data pack is lost and with it a part of both snapshots, which the repair replaces.
#[test]
fn an_interrupted_repair_of_snapshots_is_resumed() {
    let bed = Bed::new();
    let holds_data = |pack: &PathBuf| pack.metadata().expect("a pack").len() > 30_000;
    let lost = files_below(&bed.repo.path().join("data")).into_iter().find(holds_data).expect("a pack of data");
    fs::remove_file(lost).expect("a removal");
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

/// Like [`at_every_operation`] for a damaged repository: restic judges only the repaired state.
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
            let case = format!("{what}, operation {number} ({kind:?}) of {}, {fault:?}", operations.len());
            let repo = bed.repo.copy();
            let outcome = act(Arc::new(Stopping::at(repo.path(), Some((number, fault)))));
            assert!(fault == Fault::Fail || outcome.is_err(), "{case}: reported as a success");
            assert!(names(&repo, "snapshots").len() >= whole, "{case}: a snapshot is missing");
            again(&repo, act, &demand, &case, true);
            assert_eq!(names(&repo, "snapshots").len(), whole, "{case}");
        }
    }
    println!("{what}: {} operations", operations.len());
}

#[test]
fn tag_loses_no_snapshot() {
    let bed = Bed::new();
    // The latest snapshot gets another name.
    at_every_operation(&bed, "tag", &|store| retag(store), &[PASSWORD], |all| all[..1].to_vec(), 1);
}

#[test]
fn key_changes_leave_a_password_that_opens_the_repository() {
    let bed = Bed::new();
    let owner = || key_owner(None, None);
    let add = |store: Arc<Stopping>| {
        locked(store, LockMode::Shared, |repo| repo.add_key(&Password::new("second"), owner()).map(|_| ()))
    };
    at_every_operation(&bed, "key add", &add, &[PASSWORD], <[String]>::to_vec, 0);
    let change = |store: Arc<Stopping>| {
        // Either of the two may fit: an earlier run may have changed the password.
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

/// Copies snapshots from another repository; either of the two stores may fail.
#[test]
fn copy_loses_no_snapshot() {
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
            let case = format!("copy, operation {number} ({kind:?}) of {} on the source, {fault:?}", operations.len());
            let (source, target) = (from.repo.copy(), to.repo.copy());
            let outcome = copy(Arc::new(Stopping::at(source.path(), Some((number, fault)))), whole(&target));
            assert!(fault == Fault::Fail || outcome.is_err(), "{case}: reported as a success");
            demand_sound(&target, &demand(2), &case);
            again(&source, &|store| copy(store, whole(&target)), &Demand { complete: &[], ..demand(2) }, &case, false);
            demand_sound(&target, &demand(4), &format!("{case}, then again"));
        }
    }
    println!("copy: {} operations on the source", operations.len());
}

#[test]
fn rewrite_loses_no_snapshot() {
    let bed = Bed::new();
    at_every_operation(&bed, "rewrite", &|store| rewrite(store, false), &[PASSWORD], <[String]>::to_vec, 0);
    at_every_operation(&bed, "rewrite --forget", &|store| rewrite(store, true), &[PASSWORD], |_| vec![], 2);
}

#[test]
fn migrate_loses_no_snapshot() {
    let bed = Bed::of_version(1);
    at_every_operation(&bed, "migrate", &|store| upgrade(store), &[PASSWORD], <[String]>::to_vec, 0);
}

/// After an `init` that failed at any operation, another one creates the repository or finds it.
#[test]
fn an_interrupted_init_can_be_repeated() {
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
            let case = format!("init, operation {number} ({kind:?}) of {}, {fault:?}", operations.len());
            let repo = Repo::new();
            let first = make(Arc::new(Stopping::at(repo.path(), Some((number, fault)))));
            if fault == Fault::Tear && repo.path().join("config").exists() && first.is_err() && *kind == Kind::Write {
                // A torn config is reported and not overwritten.
                let refused = make(Arc::new(Stopping::at(repo.path(), None))).expect_err("refused");
                assert!(refused.to_string().contains("config"), "{case}: {refused}");
                continue;
            }
            if repo.path().is_dir() {
                remove_torn(&repo);
            }
            match make(Arc::new(Stopping::at(repo.path(), None))) {
                Ok(()) => {}
                Err(error) => assert!(error.to_string().contains("already"), "{case}: {error}"),
            }
            repo.run(Peer::Restic019, ["check"]).ok();
            assert_eq!(names(&repo, "keys").len(), 1, "{case}");
        }
    }
    println!("init: {} operations", operations.len());
}
