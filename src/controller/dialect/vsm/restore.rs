//! `VolumeSnapshotRestore`.

use super::{
    ABSENT_ANNOTATION, BACKUP_LABEL, CLAIM_LABEL, EXCLUDE_LABEL, FINALIZER, MADE_BY_LABEL, Moved, Phase, RESTORE_LABEL,
    label,
};
use crate::api::{RestoreStatus, VolumeSnapshotRestore};
use crate::controller::dialect::{Dialect, Now};
use crate::controller::domain::direction;
use crate::controller::domain::names::Kind;
use crate::controller::domain::record::{MoverProgress, Record};
use crate::controller::domain::restore::{Request, Restore, Restored, SourceClaim, Target, Update};
use crate::volume_mode::VolumeMode;
use kube::ResourceExt;

impl Dialect for VolumeSnapshotRestore {
    type Direction = Restore;
    type Status = RestoreStatus;

    const KIND: Kind = Kind::Restore;
    const FINALIZER: &'static str = FINALIZER;
    // Restored with its namespace it would be carried out again.
    const LABELS: &'static [(&'static str, &'static str)] = &[EXCLUDE_LABEL];

    fn request(&self) -> Request {
        let spec = &self.spec;
        let from = spec.volume_snapshot_mover_backup_ref.clone().unwrap_or_default();
        let claim = from.source_pvc_data.unwrap_or_default();
        let is_excluded = label(self, EXCLUDE_LABEL.0).is_some();
        Request {
            protected_namespace: spec.protected_namespace.clone(),
            secret: spec.restic_secret_ref.as_ref().map(|secret| secret.name.clone()).unwrap_or_default(),
            repository: from.resticrepository,
            claim: SourceClaim { name: claim.name, size: claim.size, storage_class: claim.storage_class_name },
            snapshot_class: Some(from.volume_snapshot_class_name).filter(|class| !class.is_empty()),
            snapshot: spec.snapshot_id.clone(),
            made_by: spec.volume_snapshot_backup_name.clone().or_else(|| label(self, MADE_BY_LABEL)),
            velero_backup: label(self, BACKUP_LABEL),
            velero_restore: label(self, RESTORE_LABEL),
            target: spec.target.as_ref().map(|target| Target {
                name: target.name.clone(),
                storage_class: target.storage_class_name.clone(),
                size: target.size.clone(),
                access_modes: target.access_modes.clone(),
                // The schema admits no other value.
                mode: target.volume_mode.as_deref().and_then(VolumeMode::parse),
            }),
            absent_is_empty: self.annotations().get(ABSENT_ANNOTATION).is_some_and(|value| value == "true"),
            // The label is set together with the finalizer, and excludes the object from backups.
            is_copied: self.finalizers().iter().any(|one| one == FINALIZER) && !is_excluded,
        }
    }

    fn record(&self) -> Record {
        super::record(&self.status().moved)
    }

    fn status(&self) -> RestoreStatus {
        self.status.clone().unwrap_or_default()
    }

    fn status_after(&self, update: &Update, now: &Now) -> RestoreStatus {
        let mut status = self.status();
        write(&mut status, update, now);
        status
    }

    /// The plugin finds a restore by the names of Velero's Restore and of the claim.
    fn rivals(&self) -> Option<String> {
        let (restore, claim) = (label(self, RESTORE_LABEL)?, label(self, CLAIM_LABEL)?);
        self.spec.target.is_none().then(|| format!("{RESTORE_LABEL}={restore},{CLAIM_LABEL}={claim}"))
    }
}

pub fn write(status: &mut RestoreStatus, update: &Update, now: &Now) {
    super::write(&mut status.moved, update, now);
    match update {
        direction::Update::Started(started) => status.moved.volume_mode = Some(started.mode.name().to_owned()),
        direction::Update::Moving(MoverProgress { pod, .. }) => {
            super::sync_started(&mut status.replication_destination_data, pod, now);
        }
        direction::Update::Moved(Restored { restored, first_problems, pod, snapshot }) => {
            let moved = Moved {
                phase: Phase::SnapshotRestoreDone,
                bytes: restored.bytes,
                files: restored.files,
                added_bytes: None,
                problems: restored.problems,
                first_problems,
                pod,
            };
            moved.write(&mut status.moved, now);
            status.moved.snapshot_id = restored.snapshot.map(|id| id.to_string());
            status.moved.empty_volume = (restored.empty && restored.problems == 0).then_some(true);
            if let Some(snapshot) = snapshot {
                status.snapshot_handle.clone_from(&snapshot.handle);
                status.volume_snapshot_content_name.clone_from(&snapshot.content);
            }
            super::sync_ended(&mut status.replication_destination_data, pod, now);
        }
        _ => {}
    }
}
