//! The words of VolumeSnapshotMover 1.2: phases, batching, conditions, finalizer and labels, to and from our own. Nothing else knows them.
//!
//! Its clients read the fields in an order. Velero's plugin looks at nothing before `phase` and `batchingStatus` are both there, takes
//! `Completed` and `Failed` for the only ends, and at the end wants five fields and a condition `Reconciled` that is `True`, written before
//! `Completed` or with it. So what a mover brought is recorded with phase `SnapshotBackupDone`, condition and all, and `Completed` is the last write.

use crate::api::{BackupStatus, ClaimData, Problems, Progress, SyncData, VolumeSnapshotBackup};
use crate::controller::backup::{Moving, Request, Stage, Update, incomplete};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// On every object that is being worked on.
pub const FINALIZER: &str = "oadp.openshift.io/oadp-datamover";
/// The Velero backup that an object is a part of.
pub const BACKUP_LABEL: &str = "velero.io/backup-name";

const IN_PROGRESS: &str = "InProgress";
const BACKUP_DONE: &str = "SnapshotBackupDone";
const CLEANUP: &str = "Cleanup";
const COMPLETED: &str = "Completed";
const FAILED: &str = "Failed";
const PARTIALLY_FAILED: &str = "PartiallyFailed";

const QUEUED: &str = "Queued";
const PROCESSING: &str = "Processing";

/// What a backup asks for.
pub fn request(backup: &VolumeSnapshotBackup) -> Request {
    let spec = &backup.spec;
    let labels = backup.metadata.labels.as_ref();
    Request {
        content: spec.volume_snapshot_content.as_ref().and_then(|content| content.name.clone()).unwrap_or_default(),
        protected_namespace: spec.protected_namespace.clone(),
        secret: spec.restic_secret_ref.as_ref().map(|secret| secret.name.clone()).unwrap_or_default(),
        backup: labels.and_then(|labels| labels.get(BACKUP_LABEL)).filter(|name| !name.is_empty()).cloned(),
    }
}

/// How far a backup is by its status.
pub fn stage(status: &BackupStatus) -> Stage {
    match (status.moved.phase.as_str(), status.moved.batching_status.as_str()) {
        (COMPLETED, _) => Stage::Ended { completed: true },
        (FAILED | PARTIALLY_FAILED, _) => Stage::Ended { completed: false },
        (CLEANUP, _) => Stage::Cleaning,
        (BACKUP_DONE, _) => Stage::Moved,
        (_, PROCESSING) | (IN_PROGRESS, _) => Stage::Started,
        (_, QUEUED) => Stage::Queued,
        _ => Stage::New,
    }
}

/// What is recorded of its mover.
pub fn recorded(status: &BackupStatus) -> Option<Moving> {
    let pod = status.moved.mover_pod.clone()?;
    let progress = status.moved.progress.clone().unwrap_or_default();
    Some(Moving { pod, progress })
}

/// Whether an object holds a place among those that are worked on.
pub fn has_turn(status: &BackupStatus) -> bool {
    status.moved.batching_status == PROCESSING && !matches!(stage(status), Stage::Ended { .. })
}

/// The status after an update.
pub fn apply(before: &BackupStatus, update: &Update, generation: Option<i64>, now: &Time) -> BackupStatus {
    let mut status = before.clone();
    status.moved.observed_generation = generation;
    let mut set = |kind: &str, value: bool, reason: &str, message: &str| {
        set_condition(&mut status.moved.conditions, kind, value, reason, message, generation, now);
    };
    match update {
        Update::Queued => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Progressing", false, "Queued", "waiting for its turn");
            status.moved.batching_status = QUEUED.into();
        }
        Update::Started => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Progressing", true, "Preparing", "the snapshot is being made readable");
            status.moved.batching_status = PROCESSING.into();
            status.moved.phase = IN_PROGRESS.into();
            status.moved.start_timestamp = Some(now.clone());
        }
        Update::Moving(Moving { pod, progress }) => {
            set("Progressing", true, "Moving", &format!("the mover {pod} runs"));
            status.moved.phase = IN_PROGRESS.into();
            status.moved.mover_pod = Some(pod.clone());
            status.moved.progress = Some(Progress { updated: Some(now.clone()), ..progress.clone() });
            let sync = status.replication_source_data.get_or_insert_with(SyncData::default);
            sync.start_timestamp.get_or_insert_with(|| now.clone());
            sync.name.clone_from(pod);
        }
        Update::Moved { volume, saved, first_problems, pod } => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Progressing", false, "Moved", "the data is in the repository");
            if saved.problems > 0 {
                set("Degraded", true, "Incomplete", &incomplete(saved.problems, first_problems));
            } else {
                set("Degraded", false, "Whole", "everything was read");
            }
            let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            status.moved.phase = BACKUP_DONE.into();
            status.moved.batching_status = COMPLETED.into();
            status.moved.completion_timestamp = Some(now.clone());
            status.source_pvc_data = Some(ClaimData {
                name: volume.claim.clone(),
                size: volume.size.clone(),
                storage_class_name: volume.storage_class.clone(),
            });
            status.volume_snapshot_class_name.clone_from(&volume.snapshot_class);
            status.resticrepository.clone_from(&volume.repository);
            status.moved.volume_mode = Some(volume.mode.clone());
            status.moved.snapshot_id = Some(saved.snapshot.to_string());
            status.moved.empty_volume = saved.empty.then_some(true);
            status.restore_command =
                Some(format!("restic -r {} restore {} --target DIRECTORY", volume.repository, saved.snapshot));
            status.moved.progress = Some(Progress {
                total_bytes: number(saved.bytes),
                bytes_done: number(saved.bytes),
                total_files: number(saved.files),
                files_done: number(saved.files),
                added_bytes: Some(number(saved.added_bytes)),
                updated: Some(now.clone()),
            });
            status.moved.problems =
                (saved.problems > 0).then(|| Problems { count: number(saved.problems), first: first_problems.clone() });
            status.moved.mover_pod = Some(pod.clone());
            let sync = status.replication_source_data.get_or_insert_with(SyncData::default);
            sync.name.clone_from(pod);
            sync.completion_timestamp = Some(now.clone());
        }
        Update::Cleaning => status.moved.phase = CLEANUP.into(),
        Update::Completed => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Complete", true, "Completed", "the data is in the repository, and nothing is left to be done");
            status.moved.phase = COMPLETED.into();
            status.moved.batching_status = COMPLETED.into();
        }
        Update::Failed { reason, message } => {
            set("Reconciled", false, "Error", message);
            set("Progressing", false, reason, message);
            set("Complete", false, reason, message);
            set("Degraded", true, reason, message);
            status.moved.phase = FAILED.into();
            status.moved.batching_status = COMPLETED.into();
            status.moved.completion_timestamp = Some(now.clone());
        }
        Update::PartiallyFailed => {
            let message = "the Velero backup that this is a part of has failed";
            set("Progressing", false, "BackupFailed", message);
            set("Complete", false, "BackupFailed", message);
            status.moved.phase = PARTIALLY_FAILED.into();
            status.moved.batching_status = COMPLETED.into();
            status.moved.completion_timestamp = Some(now.clone());
        }
    }
    status
}

/// Sets a condition; its time stays unless its status changes.
fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    value: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) {
    let status = if value { "True" } else { "False" };
    let before = conditions.iter().find(|condition| condition.type_ == kind);
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    let condition = Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or_else(|| now.clone()),
        observed_generation: generation,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}
