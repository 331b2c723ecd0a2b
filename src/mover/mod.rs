//! Runs the task of a mover's work description on one repository, and returns the outcome.
//!
//! A task opens the repository, removes the locks of mover pods that have ended, and takes a lock.
//! A backup then looks for the snapshot of an earlier run, which would be its result. Otherwise the
//! flow of [`crate::backup`] or [`crate::restore`] runs. A task may be killed at any point and run
//! again.

mod error;

pub use error::{Error, Result, of_repository, of_store};

use crate::backup::{self, DeviceIds, Exclude, ParentChoice, Source};
use crate::clock;
use crate::format::Version;
use crate::format::snapshot::DEVICE_TAG;
use crate::format::time::Time;
use crate::parallel::both;
use crate::progress::{Phase, Progress};
use crate::repo::{
    self, Index, InitOptions, Lock, LockMode, Password, Repository, Settings, SnapshotFilter, StoredSnapshot,
};
use crate::restore;
use crate::store::{File, FileType, Store, StoreError};
use crate::volume_mode::VolumeMode;
use crate::work::{Backup, Discard, Outcome, Pick, Restore, Restored, Saved, Task, Work};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a conflicting lock: 30 min, the duration of a slow `prune` of a volume's
/// repository.
const LOCK_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Large files that are read concurrently; restic's default.
const READ_CONCURRENCY: usize = 2;

/// The access to a repository, and the receivers of its progress and its lock.
pub struct Mover<'m> {
    pub store: Arc<dyn Store>,
    pub password: &'m Password,
    pub settings: Settings,
    pub progress: &'m Progress,
    /// Takes ownership of the lock until the end of the run.
    pub keep: &'m dyn Fn(Lock),
}

/// The mode of the volume at a path, from its file type and not from the work description, which
/// may be wrong. `unreachable` makes the error for a volume that exists but cannot be examined.
fn mode_of(path: &Path, unreachable: impl FnOnce(std::io::Error) -> Error) -> Result<VolumeMode> {
    let missing = || Error::NoVolume { path: path.display().to_string() };
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => missing(),
        _ => unreachable(error),
    })?;
    match found.file_type() {
        ty if ty.is_dir() => Ok(VolumeMode::Filesystem),
        ty if ty.is_block_device() => Ok(VolumeMode::Block),
        _ => Err(missing()),
    }
}

impl Mover<'_> {
    /// Runs the task. Problems with single files are in `progress`; an error means that the task
    /// failed.
    pub fn run(&self, work: &Work) -> Result<Outcome> {
        match &work.task {
            Task::Backup(backup) => self.back_up(backup, &work.gone).map(Outcome::Saved),
            Task::Restore(restore) => self.restore(restore, &work.gone).map(Outcome::Restored),
            Task::Discard(discard) => {
                self.discard(discard, &work.gone).map(|snapshots| Outcome::Discarded { snapshots })
            }
        }
    }

    fn back_up(&self, backup: &Backup, gone: &[String]) -> Result<Saved> {
        let mode = mode_of(&backup.source, |error| repo::Error::Source(error).into())?;
        let repo = match self.open(gone) {
            Err(repo::Error::NoRepository { .. }) if backup.initialize => self.init()?,
            opened => opened?,
        };
        self.lock(&repo)?;
        let (index, snapshots) = both(|| Index::load(&repo), || self.snapshots(&repo));
        let snapshots = snapshots?;
        let tagged = |tag: &String| snapshots.iter().rfind(|stored| stored.snapshot.tags.contains(tag));
        let empty = mode == VolumeMode::Filesystem && is_empty(&backup.source)?;
        if let Some(earlier) = tagged(&backup.identity) {
            let empty = empty && earlier.snapshot.is_empty_volume();
            return Ok(Saved { found: true, empty, ..described(earlier) });
        }
        let (seconds, nanos) = clock::now();
        let mut tags = vec![backup.identity.clone(), backup.lineage.clone()];
        tags.extend(backup.tags.iter().cloned());
        if mode == VolumeMode::Block {
            tags.push(DEVICE_TAG.to_owned());
        }
        let options = backup::Options {
            source: match mode {
                VolumeMode::Filesystem => Source::Volume(backup.source.clone()),
                VolumeMode::Block => Source::Paths(vec![backup.source.clone()]),
            },
            hostname: backup.hostname.clone(),
            tags,
            time: Time::utc(seconds, nanos),
            parent: match tagged(&backup.lineage) {
                Some(latest) => ParentChoice::Known(Box::new(latest.clone())),
                None => ParentChoice::Force,
            },
            exclude: Exclude::default(),
            // A volume may contain several file systems, as btrfs subvolumes or nested exports. The
            // pod mounts nothing else below the volume.
            one_file_system: false,
            ignore_ctime: false,
            ignore_inode: false,
            with_atime: false,
            device_ids: DeviceIds::Foreign,
            local_time: false,
            read_special: mode == VolumeMode::Block,
            skip_if_unchanged: false,
            dry_run: false,
            read_concurrency: READ_CONCURRENCY,
            scan: true,
        };
        let report = backup::run(&repo, || index, &options, self.progress)?;
        Ok(Saved {
            snapshot: report.snapshot.expect("neither a dry run nor one that skips"),
            parent: report.parent,
            files: report.summary.total_files_processed,
            bytes: report.summary.total_bytes_processed,
            added_bytes: report.summary.data_added_packed,
            // A damaged parent means that an earlier backup has lost data, so it must be reported.
            problems: report.problems + report.damage,
            empty: empty && report.problems == 0 && report.summary.total_files_processed == 0,
            found: false,
        })
    }

    fn restore(&self, restore: &Restore, gone: &[String]) -> Result<Restored> {
        let mode = mode_of(&restore.target, |source| {
            let path = restore.target.display().to_string();
            restore::Error::Target { action: "look at", path, source }.into()
        })?;
        let repo = match self.open(gone) {
            Err(repo::Error::NoRepository { .. }) if restore.absent_is_empty => {
                self.prove_absence()?;
                return Ok(Restored { snapshot: None, files: 0, bytes: 0, problems: 0, empty: true });
            }
            opened => opened?,
        };
        self.lock(&repo)?;
        let (index, stored) = both(|| Index::load(&repo), || pick(&repo, &restore.pick));
        let stored = stored?;
        let snapshot = stored.id.to_string();
        let has = stored.snapshot.volume_mode();
        if has != mode {
            return Err(Error::OtherMode { snapshot, has, wants: mode });
        }
        let image = match mode {
            VolumeMode::Filesystem => "",
            VolumeMode::Block => stored.snapshot.paths.first().map_or("", String::as_str),
        };
        let lacking = stored.snapshot.problems();
        if lacking > 0 {
            let why = format!("{lacking} entries could not be read when it was backed up, and are missing or doubtful");
            self.progress.problem(Phase::Restore, format!("snapshot {}", stored.id.short()), why);
        }
        let options = restore::Options {
            volume: mode == VolumeMode::Filesystem,
            unprivileged: restore::Unprivileged::Counted,
            ..restore::Options::new(restore.target.clone())
        };
        let index = index?.with_roots_of(&repo, std::slice::from_ref(&stored))?;
        let restoring = restore::Restoring { repo: &repo, index: &index, options: &options, progress: self.progress };
        let report = match restore::run(&restoring, &stored, image.as_bytes()) {
            // The requested path is the image, which the backup did not store in the snapshot.
            Err(restore::Error::Repo(repo::Error::NoSuchPath { .. })) => {
                return Err(Error::NothingRestored { snapshot });
            }
            done => done?,
        };
        let problems = report.problems_by_entry() + lacking;
        // A restore fails if it cannot read all entries of the root, so 0 files means no files.
        let empty = report.total_files == 0 && problems == 0 && stored.snapshot.is_empty_volume();
        if report.total_files == 0 && !empty {
            return Err(Error::NothingRestored { snapshot });
        }
        Ok(Restored {
            snapshot: Some(stored.id),
            files: report.files_done(),
            bytes: report.bytes_done(),
            problems,
            empty,
        })
    }

    fn discard(&self, discard: &Discard, gone: &[String]) -> Result<u64> {
        let repo = match self.open(gone) {
            // The backup was cancelled before it wrote anything.
            Err(repo::Error::NoRepository { .. } | repo::Error::Store(StoreError::NoBucket { .. })) => return Ok(0),
            opened => opened?,
        };
        let Some(identity) = &discard.identity else { return Ok(0) };
        // A shared lock is enough: nothing else refers to this snapshot, and its data stays until
        // `prune`.
        self.lock(&repo)?;
        let mut removed = 0;
        for stored in self.snapshots(&repo)?.iter().filter(|stored| stored.snapshot.tags.contains(identity)) {
            repo.remove_snapshot(stored.id)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Opens the repository, and removes the locks of the mover pods in `gone`, which have ended.
    fn open(&self, gone: &[String]) -> repo::Result<Arc<Repository>> {
        let repo = Repository::open_to_lock(self.store.clone(), self.password, None, self.settings.clone())?;
        if !gone.is_empty() {
            repo::remove_locks_of(&repo, gone)?;
        }
        Ok(Arc::new(repo))
    }

    fn init(&self) -> repo::Result<Arc<Repository>> {
        let options = InitOptions { version: Version::V2, polynomial: None, owner: repo::key_owner(None, None) };
        repo::init(self.store.clone(), self.password, options, self.settings.clone()).map(Arc::new)
    }

    fn lock(&self, repo: &Arc<Repository>) -> repo::Result<()> {
        (self.keep)(Lock::acquire(repo.clone(), LockMode::Shared, LOCK_PATIENCE, self.progress)?);
        Ok(())
    }

    /// All snapshots that can be read, oldest first.
    fn snapshots(&self, repo: &Repository) -> repo::Result<Vec<StoredSnapshot>> {
        let (snapshots, errors) = repo.snapshots()?;
        for error in errors {
            // The unreadable snapshot may be the requested one. A damaged file stays damaged, but a
            // retry may succeed after any other error.
            if !error.is_damage() {
                return Err(error);
            }
            self.progress.warning(&format!("a damaged snapshot is ignored: {error}"));
        }
        Ok(snapshots)
    }

    /// Fails unless listings prove that no file of a repository exists. A missing bucket proves
    /// nothing.
    fn prove_absence(&self) -> Result<()> {
        match self.store.size(File::CONFIG) {
            Err(StoreError::NotFound { .. }) => {}
            Ok(_) => return Err(Error::NotAbsent { repository: self.store.location().to_owned() }),
            Err(error) => return Err(repo::Error::from(error).into()),
        }
        for ty in [FileType::Key, FileType::Lock, FileType::Snapshot, FileType::Index, FileType::Pack] {
            if !self.store.list(ty).map_err(repo::Error::from)?.is_empty() {
                return Err(Error::NotAbsent { repository: self.store.location().to_owned() });
            }
        }
        Ok(())
    }
}

/// Finds the requested snapshot.
fn pick(repo: &Repository, pick: &Pick) -> Result<StoredSnapshot> {
    let tags = match pick {
        Pick::Id(id) => return Ok(repo.find_snapshot(&id.to_string(), &SnapshotFilter::default())?),
        Pick::Newest => return Ok(repo.find_snapshot("latest", &SnapshotFilter::default())?),
        Pick::Tagged(tags) => tags,
    };
    let (mut snapshots, errors) = repo.snapshots()?;
    snapshots.retain(|stored| stored.snapshot.has_tags(tags));
    if snapshots.len() == 1 {
        return Ok(snapshots.remove(0));
    }
    let (repository, tags) = (repo.store().location().to_owned(), tags.join(","));
    if snapshots.is_empty() {
        // The requested snapshot may be one of those that cannot be read.
        return Err(errors.into_iter().next().map_or(Error::NoSuchBackup { repository, tags }, Error::from));
    }
    let ids: Vec<String> = snapshots.iter().map(|stored| stored.id.short().to_string()).collect();
    Err(Error::SeveralBackups { repository, tags, count: ids.len(), ids: ids.join(", ") })
}

/// The result of the backup that made a snapshot, from the summary of the snapshot.
fn described(stored: &StoredSnapshot) -> Saved {
    let summary = stored.snapshot.summary.clone().unwrap_or_default();
    Saved {
        snapshot: stored.id,
        parent: stored.snapshot.parent,
        files: summary.total_files_processed,
        bytes: summary.total_bytes_processed,
        added_bytes: summary.data_added_packed,
        problems: summary.problems,
        empty: false,
        found: true,
    }
}

/// Whether a volume is empty, ignoring an empty `lost+found` of the file system.
fn is_empty(volume: &Path) -> Result<bool> {
    let list = |path: &Path| std::fs::read_dir(path).map_err(repo::Error::Source);
    for entry in list(volume)? {
        let entry = entry.map_err(repo::Error::Source)?;
        let is_own = entry.file_name() == "lost+found";
        // A `lost+found` that cannot be listed may have entries.
        let is_own = is_own && list(&entry.path()).is_ok_and(|mut below| below.next().is_none());
        if !is_own {
            return Ok(false);
        }
    }
    Ok(true)
}
