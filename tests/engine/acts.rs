//! What processes do with a repository, from opening it to releasing their lock, on whatever store they are given.

use crate::common::peers::PASSWORD;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vsm::backup::{self, DeviceIds, Exclude, ParentChoice, Source};
use vsm::clock;
use vsm::format::time::Time;
use vsm::id::Id;
use vsm::maintain::prune::{self, Limit, Prune};
use vsm::maintain::tag;
use vsm::memory::Budget;
use vsm::progress::Progress;
use vsm::repo::{self, Index, Lock, LockMode, Password, Repository, Settings, SnapshotFilter};
use vsm::store::Store;

fn settings() -> Settings {
    Settings { budget: Budget { memory: None, threads: 1 }, ..Settings::default() }
}

/// One core is enough here, and makes the order of operations the same again.
pub fn open(store: Arc<dyn Store>) -> repo::Result<Arc<Repository>> {
    Repository::open(store, &Password::new(PASSWORD), None, settings()).map(Arc::new)
}

/// Holds a lock meanwhile.
pub fn locked<T>(
    store: Arc<dyn Store>,
    mode: LockMode,
    act: impl FnOnce(&Arc<Repository>) -> repo::Result<T>,
) -> repo::Result<T> {
    let repo = open(store)?;
    let lock = Lock::acquire(repo.clone(), mode, Duration::ZERO, &Progress::silent())?;
    let done = act(&repo);
    let released = lock.release();
    done.and_then(|done| released.map(|()| done))
}

/// A snapshot of a directory; its id.
pub fn back_up(store: Arc<dyn Store>, source: &Path) -> repo::Result<Id> {
    locked(store, LockMode::Shared, |repo| {
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
        let report = backup::run(repo, Arc::new(Index::load(repo)?), &options, &Progress::silent())?;
        assert_eq!(report.problems, 0);
        Ok(report.snapshot.expect("a snapshot"))
    })
}

/// Removes all that no snapshot needs.
pub fn prune(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| {
        let (progress, options) =
            (Progress::silent(), prune::Options { max_unused: Limit::Bytes(0), ..Default::default() });
        let index = Index::load(repo)?;
        let plan = Prune::plan(repo, &index, &options, &[], &progress, &|_| {})?;
        let done = plan.carry_out(repo, &progress, &|_| {})?;
        match done.left_behind {
            0 => Ok(()),
            _ => Err(repo::Error::Stopped),
        }
    })
}

/// Removes the oldest snapshot, unless only one is left.
pub fn forget(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| {
        let (snapshots, errors) = repo.snapshots()?;
        if let Some(error) = errors.into_iter().next() {
            // The oldest may be the one that cannot be read.
            return Err(error);
        }
        match &snapshots[..] {
            [oldest, _, ..] => repo.remove_snapshot(oldest.id),
            _ => Ok(()),
        }
    })
}

/// Gives the latest snapshot a tag, and with it another name.
pub fn retag(store: Arc<dyn Store>) -> repo::Result<()> {
    locked(store, LockMode::Exclusive, |repo| {
        let stored = repo.find_snapshot("latest", &SnapshotFilter::default())?;
        tag::change(repo, &stored, &tag::Change::Set(vec!["kept".into()])).map(|_| ())
    })
}
