use super::*;
use crate::api::{BackupStatus, RestoreStatus, VolumeSnapshotBackup, VolumeSnapshotRestore};
use crate::controller::dialect::Dialect;
use crate::controller::domain::{backup, restore};
use crate::controller::testing::now;
use crate::id::Id;
use crate::work::{Restored, Saved};

fn restored(problems: u64, empty: bool, first: &[&str]) -> VolumeSnapshotRestore {
    let restored = Restored { snapshot: Some(Id::of(b"s")), files: 0, bytes: 0, problems, empty };
    let first_problems = first.iter().map(|one| (*one).to_owned()).collect();
    let moved = restore::Restored { restored, first_problems, pod: "p".into(), snapshot: None };
    let mut object = VolumeSnapshotRestore { status: Some(RestoreStatus::default()), ..Default::default() };
    for update in [Update::Moved(moved), Update::Completed] {
        object.status = Some(object.status_after(&update, &now()));
    }
    object
}

fn saved(problems: u64, empty: bool) -> BackupStatus {
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
    let moved = backup::Saved { saved, first_problems: vec![], pod: "p".into() };
    VolumeSnapshotBackup::default().status_after(&Update::Moved(moved), &now())
}

/// The mover counts the entries that a snapshot lacks as problems of its restore.
#[test]
fn a_restore_of_an_incomplete_snapshot_is_degraded_with_the_number_of_missing_entries() {
    let object = restored(40, false, &["snapshot ab12: 40 entries could not be read by its backup"]);
    let status = object.status().moved;
    let degraded = conditions::find(&status.conditions, ConditionType::Degraded).expect("a condition");
    assert_eq!((&*degraded.status, &*degraded.reason), ("True", "Incomplete"));
    assert!(degraded.message.contains("40 entries") && degraded.message.contains("ab12"), "{}", degraded.message);
    let record = object.record();
    assert!(record.is_degraded && record.phase == "Completed");
    assert_eq!(record.problems.map(|problems| problems.count), Some(40));
    assert!(!restored(0, false, &[]).record().is_degraded);
}

#[test]
fn a_volume_is_recorded_as_empty_only_if_nothing_is_missing() {
    for (problems, empty, expected) in [(0, true, Some(true)), (1, true, None), (0, false, None), (1, false, None)] {
        let restored = restored(problems, empty, &[]).status().moved;
        assert_eq!(restored.empty_volume, expected, "{problems} {empty}");
        assert_eq!(saved(problems, empty).moved.empty_volume, expected, "{problems} {empty}");
    }
}

#[test]
fn every_phase_is_parsed_from_its_name() {
    for phase in Phase::ALL {
        assert_eq!(Phase::parse(phase.name()), Some(phase));
    }
    assert_eq!(Phase::parse("SnapMoverBackupPhaseUnknown"), None);
}

/// Objects of VolumeSnapshotMover may have a phase that this controller does not write.
#[test]
fn the_batching_status_decides_without_a_known_phase() {
    let stage = |phase: &str, batching: &str| {
        stage(&MoveStatus { phase: phase.into(), batching_status: batching.into(), ..MoveStatus::default() })
    };
    assert_eq!(stage("", ""), Stage::New);
    assert_eq!(stage("", "Queued"), Stage::Queued);
    assert_eq!(stage("", "Processing"), Stage::Started);
    assert_eq!(stage("Other", "Processing"), Stage::Started);
    assert_eq!(stage("Other", "Completed"), Stage::New);
    assert_eq!(stage("Failed", "Completed"), Stage::Ended(End::Failed));
}
