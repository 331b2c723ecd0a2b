//! The API of VolumeSnapshotMover 1.2: its phases, batching, conditions, finalizer and labels.
//!
//! Its clients read the fields in an order. Velero's plugin waits until `phase` and
//! `batchingStatus` are both set, takes only `Completed` and `Failed` for ends, and expects at the
//! end of a backup five fields and a condition `Reconciled` that is `True`, written before
//! `Completed` or with it. Therefore the result of a mover is recorded with phase
//! `SnapshotBackupDone` and the condition, and `Completed` is the last write. For a restore it
//! takes the handle as soon as there are a phase and a handle, and deletes the content named beside
//! it: all three are one write, and the restore must not fail after it.

mod backup;
mod restore;
#[cfg(test)]
mod tests;

use super::conditions::{self, ConditionType, Conditions, Now};
use crate::api::{self, MoveStatus, SyncData};
use crate::controller::domain::direction::{Direction, Update, VELERO_FAILED, incomplete};
use crate::controller::domain::record::{self, End, MOVING, MoverProgress, Progress, Progressing, Record, Stage};
use crate::volume_mode::VolumeMode;
use crate::work::{Reason, ReasonName};
use kube::ResourceExt;

/// The finalizer of every object that is being reconciled.
pub const FINALIZER: &str = "oadp.openshift.io/oadp-datamover";
/// The Velero Backup that an object belongs to, or was restored from.
const BACKUP_LABEL: &str = "velero.io/backup-name";
/// The Velero Restore that a restore belongs to.
const RESTORE_LABEL: &str = "velero.io/restore-name";
/// The claim that a restore restores: with [`RESTORE_LABEL`] the plugin finds a restore by it.
const CLAIM_LABEL: &str = "velero.io/persistent-volume-claim-name";
/// The VolumeSnapshotBackup whose data a restore restores.
const MADE_BY_LABEL: &str = "velero.io/vsb-name";
/// Excludes an object from Velero's backups.
const EXCLUDE_LABEL: (&str, &str) = ("velero.io/exclude-from-backup", "true");
/// Annotation of a restore: if the repository provably does not exist, the volume was empty when it
/// was backed up. VolumeSnapshotMover wrote no repository then.
const ABSENT_ANNOTATION: &str = "datamover.oadp.openshift.io/absent-repository-is-empty-volume";

/// The values of `status.phase` that this controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    InProgress,
    SnapshotBackupDone,
    SnapshotRestoreDone,
    Cleanup,
    Completed,
    Failed,
    PartiallyFailed,
}

impl Phase {
    const ALL: [Phase; 7] = [
        Phase::InProgress,
        Phase::SnapshotBackupDone,
        Phase::SnapshotRestoreDone,
        Phase::Cleanup,
        Phase::Completed,
        Phase::Failed,
        Phase::PartiallyFailed,
    ];

    fn name(self) -> &'static str {
        match self {
            Phase::InProgress => "InProgress",
            Phase::SnapshotBackupDone => "SnapshotBackupDone",
            Phase::SnapshotRestoreDone => "SnapshotRestoreDone",
            Phase::Cleanup => "Cleanup",
            Phase::Completed => "Completed",
            Phase::Failed => "Failed",
            Phase::PartiallyFailed => "PartiallyFailed",
        }
    }

    fn parse(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// The values of `status.batchingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batching {
    Queued,
    Processing,
    Completed,
}

impl Batching {
    fn name(self) -> &'static str {
        match self {
            Batching::Queued => "Queued",
            Batching::Processing => "Processing",
            Batching::Completed => "Completed",
        }
    }

    fn is(self, status: &MoveStatus) -> bool {
        status.batching_status == self.name()
    }
}

/// The value of a label, unless it is empty.
fn label(object: &impl ResourceExt, key: &str) -> Option<String> {
    object.labels().get(key).filter(|value| !value.is_empty()).cloned()
}

fn stage(status: &MoveStatus) -> Stage {
    match Phase::parse(&status.phase) {
        Some(Phase::Completed) => Stage::Ended(End::Completed),
        Some(Phase::Failed | Phase::PartiallyFailed) => Stage::Ended(End::Failed),
        Some(Phase::Cleanup) => Stage::Cleaning,
        Some(Phase::SnapshotBackupDone | Phase::SnapshotRestoreDone) => Stage::Moved,
        Some(Phase::InProgress) => Stage::Started,
        None if Batching::Processing.is(status) => Stage::Started,
        None if Batching::Queued.is(status) => Stage::Queued,
        None => Stage::New,
    }
}

/// The phase for metrics: an object without a phase is new or queued.
fn phase(status: &MoveStatus) -> &str {
    match &*status.phase {
        "" if Batching::Queued.is(status) => Batching::Queued.name(),
        "" => "New",
        phase => phase,
    }
}

/// The condition `Progressing`, unless it repeats the end: a failure may have the same reason as a
/// wait.
fn progressing(status: &MoveStatus) -> Option<Progressing> {
    let find = |kind| conditions::find(&status.conditions, kind).map(|it| (&*it.reason, &*it.message));
    let (reason, message) = find(ConditionType::Progressing).filter(|it| find(ConditionType::Complete) != Some(*it))?;
    Some(Progressing { reason: reason.to_owned(), message: message.to_owned() })
}

fn record(status: &MoveStatus) -> Record {
    let stage = stage(status);
    let progress = status.progress.clone().unwrap_or_default();
    let is_degraded = conditions::find(&status.conditions, ConditionType::Degraded);
    Record {
        stage,
        phase: phase(status).to_owned(),
        mover: status.mover_pod.clone().map(|pod| MoverProgress {
            pod,
            progress: Progress {
                total_bytes: progress.total_bytes,
                bytes_done: progress.bytes_done,
                total_files: progress.total_files,
                files_done: progress.files_done,
                added_bytes: progress.added_bytes,
            },
        }),
        progressed: progress.updated,
        progressing: progressing(status),
        is_admitted: Batching::Processing.is(status) && !matches!(stage, Stage::Ended(_)),
        is_degraded: is_degraded.is_some_and(|condition| condition.status == "True"),
        started: status.start_timestamp.clone(),
        finished: status.completion_timestamp.clone(),
        volume_mode: status.volume_mode.as_deref().and_then(VolumeMode::parse),
        snapshot: status.snapshot_id.clone(),
        is_empty_volume: status.empty_volume == Some(true),
        problems: status.problems.as_ref().map(|problems| record::Problems {
            count: u64::try_from(problems.count).unwrap_or(0),
            first: problems.first.clone(),
        }),
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn progress_of(progress: &Progress, now: &Now) -> api::Progress {
    api::Progress {
        total_bytes: progress.total_bytes,
        bytes_done: progress.bytes_done,
        total_files: progress.total_files,
        files_done: progress.files_done,
        added_bytes: progress.added_bytes,
        updated: Some(now.time.clone()),
    }
}

fn sync_started(sync: &mut Option<SyncData>, pod: &str, now: &Now) {
    let sync = sync.get_or_insert_default();
    sync.start_timestamp.get_or_insert_with(|| now.time.clone());
    pod.clone_into(&mut sync.name);
}

fn sync_ended(sync: &mut Option<SyncData>, pod: &str, now: &Now) {
    let sync = sync.get_or_insert_default();
    pod.clone_into(&mut sync.name);
    sync.completion_timestamp = Some(now.time.clone());
}

/// The result of a mover, in either direction.
struct Moved<'m> {
    phase: Phase,
    bytes: u64,
    files: u64,
    added_bytes: Option<u64>,
    problems: u64,
    first_problems: &'m [String],
    pod: &'m str,
}

impl Moved<'_> {
    fn write(&self, status: &mut MoveStatus, now: &Now) {
        let mut conditions = Conditions { all: &mut status.conditions, now };
        conditions.set_true(ConditionType::Reconciled, "Complete", "Reconcile complete");
        conditions.set_false(ConditionType::Progressing, "Moved", "the data has been moved");
        if self.problems > 0 {
            let message = incomplete(self.problems, self.first_problems);
            conditions.set_true(ConditionType::Degraded, Reason::Incomplete.name(), &message);
        } else {
            conditions.set_false(ConditionType::Degraded, "Whole", "everything was moved");
        }
        let (bytes, files) = (number(self.bytes), number(self.files));
        let progress = Progress {
            total_bytes: bytes,
            bytes_done: bytes,
            total_files: files,
            files_done: files,
            added_bytes: self.added_bytes.map(number),
        };
        status.phase = self.phase.name().into();
        status.batching_status = Batching::Completed.name().into();
        status.completion_timestamp = Some(now.time.clone());
        status.progress = Some(progress_of(&progress, now));
        status.problems = (self.problems > 0)
            .then(|| api::Problems { count: number(self.problems), first: self.first_problems.to_vec() });
        status.mover_pod = Some(self.pod.to_owned());
    }
}

/// Writes the part of an update that is the same for both directions.
fn write<D: Direction>(status: &mut MoveStatus, update: &Update<D>, now: &Now) {
    status.observed_generation = now.generation;
    let mut conditions = Conditions { all: &mut status.conditions, now };
    match update {
        Update::Queued => {
            conditions.set_true(ConditionType::Reconciled, "Complete", "Reconcile complete");
            conditions.set_false(ConditionType::Progressing, "Queued", "queued: other requests fill the limit");
            status.batching_status = Batching::Queued.name().into();
        }
        Update::Started(_) => {
            conditions.set_true(ConditionType::Reconciled, "Complete", "Reconcile complete");
            conditions.set_true(ConditionType::Progressing, "Preparing", "the volume is being prepared");
            status.batching_status = Batching::Processing.name().into();
            status.phase = Phase::InProgress.name().into();
            status.start_timestamp.get_or_insert_with(|| now.time.clone());
        }
        Update::Moving(MoverProgress { pod, progress }) => {
            conditions.set_true(ConditionType::Progressing, MOVING, &format!("the mover {pod} runs"));
            status.phase = Phase::InProgress.name().into();
            status.mover_pod = Some(pod.clone());
            status.progress = Some(progress_of(progress, now));
        }
        Update::Moved(_) => {}
        Update::Cleaning => status.phase = Phase::Cleanup.name().into(),
        Update::Completed => {
            let message = "the data has been moved";
            conditions.set_true(ConditionType::Reconciled, "Complete", "Reconcile complete");
            conditions.set_false(ConditionType::Progressing, "Moved", message);
            let message = "the data has been moved, and nothing is left to be done";
            conditions.set_true(ConditionType::Complete, "Completed", message);
            status.phase = Phase::Completed.name().into();
            status.batching_status = Batching::Completed.name().into();
        }
        Update::Failed { reason, message } => {
            let message = &reason.advised(message);
            conditions.set_false(ConditionType::Reconciled, "Error", message);
            write_end(&mut conditions, reason.as_str(), message);
            conditions.set_true(ConditionType::Degraded, reason.as_str(), message);
            end(status, Phase::Failed, now);
        }
        Update::PartiallyFailed => {
            let reason = ReasonName::from(Reason::VeleroFailed);
            write_end(&mut conditions, reason.as_str(), &reason.advised(VELERO_FAILED));
            end(status, Phase::PartiallyFailed, now);
        }
        Update::Waiting { reason, message } => {
            conditions.set_false(ConditionType::Progressing, reason.name(), message);
        }
        Update::Settled => {
            let end = conditions::find(conditions.all, ConditionType::Complete);
            let (reason, message) = end.map(|end| (end.reason.clone(), end.message.clone())).unwrap_or_default();
            conditions.set_false(ConditionType::Progressing, &reason, &message);
        }
    }
}

fn write_end(conditions: &mut Conditions<'_>, reason: &str, message: &str) {
    conditions.set_false(ConditionType::Progressing, reason, message);
    conditions.set_false(ConditionType::Complete, reason, message);
}

fn end(status: &mut MoveStatus, phase: Phase, now: &Now) {
    status.phase = phase.name().into();
    status.batching_status = Batching::Completed.name().into();
    status.completion_timestamp = Some(now.time.clone());
}
