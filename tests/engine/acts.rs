//! Actions on a repository (backup, prune, copy and others) that tests run on any store, from
//! opening it to releasing the lock.

use crate::common::peers::PASSWORD;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vsm::backup::{self, DeviceIds, Exclude, ParentChoice, Source};
use vsm::clock::{self, Clock};
use vsm::format::Version;
use vsm::format::time::Time;
use vsm::id::Id;
use vsm::maintain::prune::{self, Limit, Observer, Prune};
use vsm::maintain::rewrite::Replace;
use vsm::maintain::{copy, exclude, tag};
use vsm::memory::Budget;
use vsm::pattern::{Case, Patterns};
use vsm::progress::Progress;
use vsm::repo::{self, Index, Lock, LockMode, Password, Repository, Settings, SnapshotFilter, StoredSnapshot};
use vsm::store::Store;

/// One thread is enough here, and makes the order of operations reproducible.
pub fn open(store: Arc<dyn Store>) -> repo::Result<Arc<Repository>> {
    open_by(store, Clock::default())
}

fn open_by(store: Arc<dyn Store>, clock: Clock) -> repo::Result<Arc<Repository>> {
    let settings = Settings { budget: Budget { memory: None, threads: 1 }, clock, ..Settings::default() };
    Repository::open(store, &Password::new(PASSWORD), None, settings).map(Arc::new)
}

/// Runs `act` with a lock.
pub fn locked<T>(
    store: Arc<dyn Store>,
    mode: LockMode,
    act: impl FnOnce(&Arc<Repository>) -> repo::Result<T>,
) -> repo::Result<T> {
    with_lock(&open(store)?, mode, act)
}

fn with_lock<T>(
    repo: &Arc<Repository>,
    mode: LockMode,
    act: impl FnOnce(&Arc<Repository>) -> repo::Result<T>,
) -> repo::Result<T> {
    let lock = Lock::acquire(repo.clone(), mode, Duration::ZERO, &Progress::silent())?;
    let done = act(repo);
    let released = lock.release();
    done.and_then(|done| released.map(|()| done))
}

/// Backs up a directory and returns the snapshot's id.
pub fn back_up(store: Arc<dyn Store>, source: &Path) -> repo::Result<Id> {
    back_up_by(store, source, Clock::default())
}

/// Like [`back_up`], with a clock of the test.
pub fn back_up_by(store: Arc<dyn Store>, source: &Path, clock: Clock) -> repo::Result<Id> {
    with_lock(&open_by(store, clock)?, LockMode::Shared, |repo| {
        let (seconds, nanos) = clock::now();
        let options = backup::Options {
            source: Source::Paths(vec![source.to_owned()]),
            hostname: "host".into(),
            tags: vec![],
            time: Time::utc(seconds, nanos),
            parent: ParentChoice::Group { host: true, paths: true, tags: false },
            exclude: Exclude::default(),
            one_file_system: false,
            ignore_ctime: false,
            ignore_inode: false,
            with_atime: false,
            device_ids: DeviceIds::All,
            local_time: false,
            read_special: false,
            skip_if_unchanged: false,
            dry_run: false,
            read_concurrency: 1,
            scan: false,
        };
        let report = backup::run(repo, || Index::load(repo), &options, &Progress::silent())?;
        assert_eq!(report.problems, 0);
        Ok(report.snapshot.expect("a snapshot"))
    })
}

/// Removes all data that no snapshot refers to.
pub fn prune(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| {
        let (progress, options) =
            (Progress::silent(), prune::Options { max_unused: Limit::Bytes(0), ..Default::default() });
        let index = Index::load(repo)?;
        let observer = Observer { progress: &progress, stage: &|_| {} };
        let plan = Prune::plan(repo, &index, &options, &[], &observer)?;
        let done = plan.carry_out(repo, &observer)?;
        match done.left_behind {
            0 => Ok(()),
            _ => Err(repo::Error::Stopped),
        }
    })
}

/// Removes the oldest snapshot, unless only one is left.
pub fn forget(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| match &all_snapshots(repo)?[..] {
        [oldest, _, ..] => repo.remove_snapshot(oldest.id),
        _ => Ok(()),
    })
}

/// Gives the latest snapshot a tag, and with it another name.
pub fn retag(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| {
        let stored = repo.find_snapshot("latest", &SnapshotFilter::default())?;
        tag::change(repo, &stored, &tag::Change::Set(vec!["kept".into()])).map(|_| ())
    })
}

/// Copies all snapshots of one repository into another.
pub fn copy(from: Arc<dyn Store>, to: Arc<dyn Store>) -> repo::Result<()> {
    locked(from, LockMode::Shared, |from| {
        locked(to, LockMode::Shared, |to| {
            let snapshots = all_snapshots(from)?;
            let (expected, mut copied) = (snapshots.len(), 0);
            copy::copy(from, to, snapshots, &Progress::silent(), &mut |_, _| copied += 1)?;
            assert_eq!(copied, expected, "a snapshot that was not copied is an error");
            Ok(())
        })
    })
}

/// Excludes a file from all snapshots.
pub fn rewrite(store: Arc<dyn Store>, forget: bool) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| {
        let mut patterns = Patterns::default();
        patterns.push("other", Case::Sensitive).expect("a pattern");
        let options = exclude::Options {
            exclude: patterns,
            replace: Replace { forget, dry_run: false },
            ..exclude::Options::default()
        };
        exclude::rewrite(repo, &all_snapshots(repo)?, &options, &Progress::silent(), &mut |_, _| {})
    })
}

/// Upgrades a repository of version 1 to version 2.
pub fn upgrade(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| match repo.config().version {
        Version::V1 => repo.upgrade(),
        Version::V2 => Ok(()),
    })
}

/// Returns all snapshots, or an error if one cannot be read.
fn all_snapshots(repo: &Repository) -> repo::Result<Vec<StoredSnapshot>> {
    let (snapshots, errors) = repo.snapshots()?;
    errors.into_iter().next().map_or(Ok(snapshots), Err)
}
