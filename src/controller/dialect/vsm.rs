//! The words of VolumeSnapshotMover 1.2: phases, batching, conditions, finalizer and labels, to and from our own. Nothing else knows them.
//!
//! Its clients read the fields in an order. Velero's plugin looks at nothing before `phase` and `batchingStatus` are both there, takes
//! `Completed` and `Failed` for the only ends, and at the end of a backup wants five fields and a condition `Reconciled` that is `True`,
//! written before `Completed` or with it. So what a mover brought is recorded with phase `SnapshotBackupDone`, condition and all, and
//! `Completed` is the last write. Of a restore it takes the handle as soon as there is a phase and a handle, and deletes the content that is named
//! beside it: all three are one write, and from then on the restore must not fail any more.

use crate::api::{
    BackupStatus, ClaimData, MoveStatus, Problems, Progress, RestoreStatus, SyncData, VolumeSnapshotBackup,
    VolumeSnapshotRestore,
};
use crate::controller::domain::advice::advised;
use crate::controller::domain::flow::{Moving, Stage, Update, VELERO_FAILED, incomplete};
use crate::controller::kinds::backup;
use crate::controller::kinds::restore;
use crate::controller::runtime::waiting::{MOVING, Said};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

/// On every object that is being worked on.
pub const FINALIZER: &str = "oadp.openshift.io/oadp-datamover";
/// The Velero Backup that an object is a part of, or was made from.
const BACKUP_LABEL: &str = "velero.io/backup-name";
/// The Velero Restore that a restore is a part of.
pub const RESTORE_LABEL: &str = "velero.io/restore-name";
/// The claim whose volume a restore brings: together with [`RESTORE_LABEL`] what the plugin finds a restore by.
pub const CLAIM_LABEL: &str = "velero.io/persistent-volume-claim-name";
/// The VolumeSnapshotBackup whose data a restore brings.
const MADE_BY_LABEL: &str = "velero.io/vsb-name";
/// Keeps an object out of Velero's backups.
pub const EXCLUDE_LABEL: (&str, &str) = ("velero.io/exclude-from-backup", "true");
/// On a restore: where there is provably no repository, the volume was empty when it was backed up. VolumeSnapshotMover wrote none then.
const ABSENT_ANNOTATION: &str = "datamover.oadp.openshift.io/absent-repository-is-empty-volume";

const IN_PROGRESS: &str = "InProgress";
const BACKUP_DONE: &str = "SnapshotBackupDone";
const RESTORE_DONE: &str = "SnapshotRestoreDone";
const CLEANUP: &str = "Cleanup";
const COMPLETED: &str = "Completed";
const FAILED: &str = "Failed";
const PARTIALLY_FAILED: &str = "PartiallyFailed";

const QUEUED: &str = "Queued";
const PROCESSING: &str = "Processing";

fn label(object: &impl ResourceExt, key: &str) -> Option<String> {
    object.labels().get(key).filter(|value| !value.is_empty()).cloned()
}

/// What a backup asks for.
pub fn backup_request(backup: &VolumeSnapshotBackup) -> backup::Request {
    let spec = &backup.spec;
    backup::Request {
        content: spec.volume_snapshot_content.as_ref().and_then(|content| content.name.clone()).unwrap_or_default(),
        protected_namespace: spec.protected_namespace.clone(),
        secret: spec.restic_secret_ref.as_ref().map(|secret| secret.name.clone()).unwrap_or_default(),
        backup: label(backup, BACKUP_LABEL),
    }
}

/// What a restore asks for.
pub fn restore_request(restore: &VolumeSnapshotRestore) -> restore::Request {
    let spec = &restore.spec;
    let from = spec.volume_snapshot_mover_backup_ref.clone().unwrap_or_default();
    let excluded = label(restore, EXCLUDE_LABEL.0).is_some();
    restore::Request {
        protected_namespace: spec.protected_namespace.clone(),
        secret: spec.restic_secret_ref.as_ref().map(|secret| secret.name.clone()).unwrap_or_default(),
        repository: from.resticrepository,
        claim: from.source_pvc_data.unwrap_or_default(),
        snapshot_class: Some(from.volume_snapshot_class_name).filter(|class| !class.is_empty()),
        snapshot: spec.snapshot_id.clone(),
        made_by: spec.volume_snapshot_backup_name.clone().or_else(|| label(restore, MADE_BY_LABEL)),
        backup: label(restore, BACKUP_LABEL),
        target: spec.target.as_ref().map(|target| restore::Target {
            name: target.name.clone(),
            storage_class: target.storage_class_name.clone(),
            size: target.size.clone(),
            access_modes: target.access_modes.clone(),
            mode: target.volume_mode.clone(),
        }),
        absent_is_empty: restore.annotations().get(ABSENT_ANNOTATION).is_some_and(|value| value == "true"),
        // We put the label on with the finalizer, and what has it is in no backup.
        copied: restore.finalizers().iter().any(|one| one == FINALIZER) && !excluded,
    }
}

/// The Velero Backup that a backup is a part of.
pub fn velero_backup(backup: &VolumeSnapshotBackup) -> Option<String> {
    label(backup, BACKUP_LABEL)
}

/// The Velero Restore that a restore is a part of.
pub fn velero_restore(restore: &VolumeSnapshotRestore) -> Option<String> {
    label(restore, RESTORE_LABEL)
}

/// How far something is by its status.
pub fn stage(status: &MoveStatus) -> Stage {
    match (status.phase.as_str(), status.batching_status.as_str()) {
        (COMPLETED, _) => Stage::Ended { completed: true },
        (FAILED | PARTIALLY_FAILED, _) => Stage::Ended { completed: false },
        (CLEANUP, _) => Stage::Cleaning,
        (BACKUP_DONE | RESTORE_DONE, _) => Stage::Moved,
        (_, PROCESSING) | (IN_PROGRESS, _) => Stage::Started,
        (_, QUEUED) => Stage::Queued,
        _ => Stage::New,
    }
}

/// What is recorded of a mover.
pub fn recorded(status: &MoveStatus) -> Option<Moving> {
    let pod = status.mover_pod.clone()?;
    let progress = status.progress.clone().unwrap_or_default();
    Some(Moving { pod, progress })
}

/// Whether an object holds a place among those that are worked on.
pub fn has_turn(status: &MoveStatus) -> bool {
    status.batching_status == PROCESSING && !matches!(stage(status), Stage::Ended { .. })
}

/// Whether a backup is at work and may not have its repository yet: a mover counts files only when it has opened that.
pub fn may_make_repository(backup: &VolumeSnapshotBackup) -> bool {
    backup.status.as_ref().is_some_and(|BackupStatus { moved, .. }| {
        let counted = moved.progress.as_ref().is_some_and(|it| it.total_files > 0 || it.total_bytes > 0);
        has_turn(moved) && stage(moved) == Stage::Started && !counted
    })
}

/// What is recorded of how something gets on. The word of its end is none, although a failure may have the same reason as a wait.
pub fn said(status: &MoveStatus) -> Said<'_> {
    let said = |kind| condition(status, kind).map(|condition| (&*condition.reason, &*condition.message));
    said("Progressing").filter(|progressing| said("Complete") != Some(*progressing))
}

/// Whether it failed, or is not whole.
pub fn is_degraded(status: &MoveStatus) -> bool {
    condition(status, "Degraded").is_some_and(|condition| condition.status == "True")
}

/// The phase, for people and figures: what has none yet is new, or waits for its turn.
pub fn phase(status: &MoveStatus) -> &str {
    match (status.phase.as_str(), status.batching_status.as_str()) {
        ("", QUEUED) => QUEUED,
        ("", _) => "New",
        (phase, _) => phase,
    }
}

fn condition<'s>(status: &'s MoveStatus, kind: &str) -> Option<&'s Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// When and at which generation a status is written.
pub struct Now {
    pub time: Time,
    pub generation: Option<i64>,
}

/// The status of a backup after an update.
pub fn apply_to_backup(status: &mut BackupStatus, update: &backup::Update, now: &Now) {
    apply(&mut status.moved, update, now);
    match update {
        Update::Started(volume) => {
            status.source_pvc_data = Some(ClaimData {
                name: volume.claim.clone(),
                size: volume.size.clone(),
                storage_class_name: volume.storage_class.clone(),
            });
            status.volume_snapshot_class_name.clone_from(&volume.snapshot_class);
            status.resticrepository.clone_from(&volume.repository);
            status.moved.volume_mode = Some(volume.mode.clone());
        }
        Update::Moving(Moving { pod, .. }) => sync_started(&mut status.replication_source_data, pod, now),
        Update::Moved(backup::Brought { saved, first_problems, pod }) => {
            let [bytes, files, added] = [saved.bytes, saved.files, saved.added_bytes].map(number);
            let progress = Progress {
                total_bytes: bytes,
                bytes_done: bytes,
                total_files: files,
                files_done: files,
                added_bytes: Some(added),
                updated: Some(now.time.clone()),
            };
            brought(&mut status.moved, BACKUP_DONE, progress, (saved.problems, first_problems), pod, now);
            status.moved.snapshot_id = Some(saved.snapshot.to_string());
            status.moved.empty_volume = (saved.empty && saved.problems == 0).then_some(true);
            let repository = &status.resticrepository;
            status.restore_command =
                Some(format!("restic -r {repository} restore {} --target DIRECTORY", saved.snapshot));
            sync_ended(&mut status.replication_source_data, pod, now);
        }
        _ => {}
    }
}

/// The status of a restore after an update.
pub fn apply_to_restore(status: &mut RestoreStatus, update: &restore::Update, now: &Now) {
    apply(&mut status.moved, update, now);
    match update {
        Update::Started(known) => status.moved.volume_mode = Some(known.mode.clone()),
        Update::Moving(Moving { pod, .. }) => sync_started(&mut status.replication_destination_data, pod, now),
        Update::Moved(restore::Brought { restored, first_problems, pod, snapshot }) => {
            let [bytes, files] = [restored.bytes, restored.files].map(number);
            let progress = Progress {
                total_bytes: bytes,
                bytes_done: bytes,
                total_files: files,
                files_done: files,
                added_bytes: None,
                updated: Some(now.time.clone()),
            };
            brought(&mut status.moved, RESTORE_DONE, progress, (restored.problems, first_problems), pod, now);
            status.moved.snapshot_id = restored.snapshot.map(|id| id.to_string());
            status.moved.empty_volume = (restored.empty && restored.problems == 0).then_some(true);
            if let Some((handle, content)) = snapshot {
                status.snapshot_handle.clone_from(handle);
                status.volume_snapshot_content_name.clone_from(content);
            }
            sync_ended(&mut status.replication_destination_data, pod, now);
        }
        _ => {}
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

/// What both directions record when the data has moved.
fn brought(
    status: &mut MoveStatus,
    phase: &str,
    progress: Progress,
    (problems, first): (u64, &[String]),
    pod: &str,
    now: &Now,
) {
    set_condition(status, "Reconciled", true, "Complete", "Reconcile complete", now);
    set_condition(status, "Progressing", false, "Moved", "the data is where it should be", now);
    if problems > 0 {
        set_condition(status, "Degraded", true, "Incomplete", &incomplete(problems, first), now);
    } else {
        set_condition(status, "Degraded", false, "Whole", "everything was moved", now);
    }
    phase.clone_into(&mut status.phase);
    COMPLETED.clone_into(&mut status.batching_status);
    status.completion_timestamp = Some(now.time.clone());
    status.progress = Some(progress);
    status.problems = (problems > 0).then(|| Problems { count: number(problems), first: first.to_vec() });
    status.mover_pod = Some(pod.to_owned());
}

/// What all updates mean for what backups and restores have in common.
fn apply<S, D>(status: &mut MoveStatus, update: &Update<S, D>, now: &Now) {
    status.observed_generation = now.generation;
    let mut set = |kind: &str, value: bool, reason: &str, message: &str| {
        set_condition(status, kind, value, reason, message, now);
    };
    match update {
        Update::Queued => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Progressing", false, "Queued", "waiting for its turn");
            status.batching_status = QUEUED.into();
        }
        Update::Started(_) => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Progressing", true, "Preparing", "the volume is being prepared");
            status.batching_status = PROCESSING.into();
            status.phase = IN_PROGRESS.into();
            status.start_timestamp.get_or_insert_with(|| now.time.clone());
        }
        Update::Moving(Moving { pod, progress }) => {
            set("Progressing", true, MOVING, &format!("the mover {pod} runs"));
            status.phase = IN_PROGRESS.into();
            status.mover_pod = Some(pod.clone());
            status.progress = Some(Progress { updated: Some(now.time.clone()), ..progress.clone() });
        }
        Update::Moved(_) => {}
        Update::Cleaning => status.phase = CLEANUP.into(),
        Update::Completed => {
            set("Reconciled", true, "Complete", "Reconcile complete");
            set("Progressing", false, "Moved", "the data is where it should be");
            set("Complete", true, "Completed", "the data is where it should be, and nothing is left to be done");
            status.phase = COMPLETED.into();
            status.batching_status = COMPLETED.into();
        }
        Update::Failed { reason, message } => {
            let message = &advised(reason, message);
            set("Reconciled", false, "Error", message);
            set("Progressing", false, reason, message);
            set("Complete", false, reason, message);
            set("Degraded", true, reason, message);
            status.phase = FAILED.into();
            status.batching_status = COMPLETED.into();
            status.completion_timestamp = Some(now.time.clone());
        }
        Update::PartiallyFailed => {
            let message = &advised("VeleroFailed", VELERO_FAILED);
            set("Progressing", false, "VeleroFailed", message);
            set("Complete", false, "VeleroFailed", message);
            status.phase = PARTIALLY_FAILED.into();
            status.batching_status = COMPLETED.into();
            status.completion_timestamp = Some(now.time.clone());
        }
        Update::Waiting { reason, why } => set("Progressing", false, reason, why),
        Update::Settled => {
            let end = condition(status, "Complete").map(|end| (end.reason.clone(), end.message.clone()));
            let (reason, message) = end.unwrap_or_default();
            set_condition(status, "Progressing", false, &reason, &message, now);
        }
    }
}

/// Sets a condition; its time stays unless its status changes.
fn set_condition(status: &mut MoveStatus, kind: &str, value: bool, reason: &str, message: &str, now: &Now) {
    let truth = if value { "True" } else { "False" };
    let before = status.conditions.iter().find(|condition| condition.type_ == kind);
    let since = before.filter(|before| before.status == truth).map(|before| before.last_transition_time.clone());
    let condition = Condition {
        type_: kind.into(),
        status: truth.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or_else(|| now.time.clone()),
        observed_generation: now.generation,
    };
    match status.conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(place) => *place = condition,
        None => status.conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::now;
    use crate::id::Id;
    use crate::work::{Restored, Saved};

    fn restored(problems: u64, empty: bool, first: &[&str]) -> MoveStatus {
        let restored = Restored { snapshot: Some(Id::of(b"s")), files: 0, bytes: 0, problems, empty };
        let first_problems = first.iter().map(|one| (*one).to_owned()).collect();
        let brought = restore::Brought { restored, first_problems, pod: "p".into(), snapshot: None };
        let mut status = RestoreStatus::default();
        apply_to_restore(&mut status, &Update::Moved(brought), &now());
        apply_to_restore(&mut status, &Update::Completed, &now());
        status.moved
    }

    fn saved(problems: u64, empty: bool) -> MoveStatus {
        let saved = Saved {
            snapshot: Id::of(b"s"),
            parent: None,
            files: 0,
            bytes: 0,
            added_bytes: 0,
            problems,
            empty,
            found: false,
        };
        let brought = backup::Brought { saved, first_problems: vec![], pod: "p".into() };
        let mut status = BackupStatus::default();
        apply_to_backup(&mut status, &Update::Moved(brought), &now());
        status.moved
    }

    /// The mover counts the entries that a snapshot lacks as problems of its restore.
    #[test]
    fn a_restore_of_an_incomplete_snapshot_is_degraded_and_says_how_much_is_missing() {
        let status = restored(40, false, &["snapshot ab12: 40 entries could not be read by its backup"]);
        let degraded = condition(&status, "Degraded").expect("a condition");
        assert_eq!((&*degraded.status, &*degraded.reason), ("True", "Incomplete"));
        assert!(degraded.message.contains("40 entries") && degraded.message.contains("ab12"), "{}", degraded.message);
        assert!(is_degraded(&status) && status.phase == "Completed");
        assert_eq!(status.problems.map(|problems| problems.count), Some(40));
        assert!(!is_degraded(&restored(0, false, &[])));
    }

    #[test]
    fn a_volume_is_recorded_as_empty_only_if_nothing_is_missing() {
        for (problems, empty, expected) in [(0, true, Some(true)), (1, true, None), (0, false, None), (1, false, None)]
        {
            assert_eq!(restored(problems, empty, &[]).empty_volume, expected, "{problems} {empty}");
            assert_eq!(saved(problems, empty).empty_volume, expected, "{problems} {empty}");
        }
    }
}
