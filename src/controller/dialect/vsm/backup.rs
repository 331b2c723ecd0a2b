//! `VolumeSnapshotBackup`.

use super::{BACKUP_LABEL, FINALIZER, Moved, Phase, label};
use crate::api::{BackupStatus, ClaimData, VolumeSnapshotBackup};
use crate::controller::dialect::{Dialect, Now};
use crate::controller::domain::backup::{Backup, Request, Saved, Update};
use crate::controller::domain::direction;
use crate::controller::domain::names::Kind;
use crate::controller::domain::record::{MoverProgress, Record, Stage};

impl Dialect for VolumeSnapshotBackup {
    type Direction = Backup;
    type Status = BackupStatus;

    const KIND: Kind = Kind::Backup;
    const FINALIZER: &'static str = FINALIZER;
    // Velero must have it in its backup: it records the repository and the snapshot.
    const LABELS: &'static [(&'static str, &'static str)] = &[];

    fn request(&self) -> Request {
        let spec = &self.spec;
        Request {
            content: spec.volume_snapshot_content.as_ref().and_then(|content| content.name.clone()).unwrap_or_default(),
            protected_namespace: spec.protected_namespace.clone(),
            secret: spec.restic_secret_ref.as_ref().map(|secret| secret.name.clone()).unwrap_or_default(),
            velero_backup: label(self, BACKUP_LABEL),
        }
    }

    fn record(&self) -> Record {
        super::record(&self.status().moved)
    }

    fn status(&self) -> BackupStatus {
        self.status.clone().unwrap_or_default()
    }

    fn status_after(&self, update: &Update, now: &Now) -> BackupStatus {
        let mut status = self.status();
        write(&mut status, update, now);
        status
    }

    /// A mover counts files only after it has opened the repository.
    fn may_create_repository(&self) -> bool {
        let (record, progress) = (self.record(), self.status().moved.progress.unwrap_or_default());
        let has_counted = progress.total_files > 0 || progress.total_bytes > 0;
        record.is_admitted && record.stage == Stage::Started && !has_counted
    }
}

pub fn write(status: &mut BackupStatus, update: &Update, now: &Now) {
    super::write(&mut status.moved, update, now);
    match update {
        direction::Update::Started(volume) => {
            status.source_pvc_data = Some(ClaimData {
                name: volume.claim.clone(),
                size: volume.size.clone(),
                storage_class_name: volume.storage_class.clone(),
            });
            status.volume_snapshot_class_name.clone_from(&volume.snapshot_class);
            status.resticrepository.clone_from(&volume.repository);
            status.moved.volume_mode = Some(volume.mode.name().to_owned());
        }
        direction::Update::Moving(MoverProgress { pod, .. }) => {
            super::sync_started(&mut status.replication_source_data, pod, now);
        }
        direction::Update::Moved(Saved { saved, first_problems, pod }) => {
            let moved = Moved {
                phase: Phase::SnapshotBackupDone,
                bytes: saved.bytes,
                files: saved.files,
                added_bytes: Some(saved.added_bytes),
                problems: saved.problems,
                first_problems,
                pod,
            };
            moved.write(&mut status.moved, now);
            status.moved.snapshot_id = Some(saved.snapshot.to_string());
            status.moved.empty_volume = (saved.empty && saved.problems == 0).then_some(true);
            let repository = &status.resticrepository;
            status.restore_command =
                Some(format!("restic -r {repository} restore {} --target DIRECTORY", saved.snapshot));
            super::sync_ended(&mut status.replication_source_data, pod, now);
        }
        _ => {}
    }
}
