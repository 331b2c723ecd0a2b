//! Expired snapshots: those whose Velero backup was deleted. This module only compares listings
//! that the caller has read.
//!
//! Velero deletes a backup by removing its directory below `backups/` in the location, and leaves
//! the snapshots of a data mover to the mover. Only snapshots with our tags are considered. The
//! comparison fails closed: an empty listing, or that of another location, looks as if all backups
//! had expired, so a location that does not look complete is an error.

use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::id::Id;
use crate::provenance::{Tag, label_value};
use std::collections::BTreeSet;
use std::time::Duration;

/// The least age of a snapshot that has expired: Velero stores a backup only when it ends.
const LEAST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The Velero backups in a location, from a listing that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Backups {
    /// The names, as values of labels.
    names: BTreeSet<String>,
    complete: usize,
}

impl Backups {
    /// Adds the directory of a backup. It is `complete` if it has a `velero-backup.json`. A backup
    /// that is running, has failed or is being deleted may have none, but exists nevertheless.
    pub fn add(&mut self, name: &str, complete: bool) {
        self.names.insert(label_value(name));
        self.complete += usize::from(complete);
    }

    pub fn count(&self) -> usize {
        self.names.len()
    }

    fn has(&self, tag: &str) -> bool {
        // The tag is already the value of a label, unless it was written by hand.
        self.names.contains(&label_value(tag))
    }
}

/// A snapshot of ours that a Velero backup made.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The caller's name of the repository.
    pub repository: String,
    pub snapshot: Id,
    pub time: Time,
    /// The Velero backup's name in the snapshot's tag.
    pub backup: String,
    /// The size of the volume's data in bytes. Only a prune can determine the share of it that no
    /// other snapshot needs.
    pub bytes: u64,
}

impl Entry {
    /// `None` unless the snapshot has the tags of one VolumeSnapshotBackup and one Velero backup.
    pub fn of(repository: &str, id: Id, snapshot: &Snapshot) -> Option<Entry> {
        let tags = &snapshot.tags;
        Tag::Identity.value(tags)?;
        Some(Entry {
            repository: repository.to_owned(),
            snapshot: id,
            time: snapshot.time,
            backup: Tag::Velero.value(tags)?.to_owned(),
            bytes: snapshot.summary.as_ref().map_or(0, |summary| summary.total_bytes_processed),
        })
    }
}

/// The rules of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub now: Time,
    /// A younger snapshot has not expired; at least [`LEAST_AGE`].
    pub age: Duration,
    /// Whether the user allows all snapshots to have expired.
    pub may_be_all: bool,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report<'e> {
    /// Snapshots whose backup was deleted, in the order of the entries.
    pub expired: Vec<&'e Entry>,
    /// Snapshots whose backup is missing, but may still be running.
    pub young: usize,
    /// Snapshots whose backup exists.
    pub kept: usize,
}

/// Why no snapshot counts as expired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error(
        "no complete Velero backup is below backups/: this may not be Velero's location, or only a part of it; if no backup is left, pass --unsafe-allow-remove-all"
    )]
    NoBackup,
    #[error(
        "none of the Velero backups of these {snapshots} snapshots is below backups/, and {others} others are: this may be another location; if all of their backups were deleted, pass --unsafe-allow-remove-all"
    )]
    AllGone { snapshots: usize, others: usize },
    #[error("an age of {given:?} is less than {LEAST_AGE:?}, within which a Velero backup may still be running")]
    Age { given: Duration },
}

/// Compares snapshots with the existing backups.
pub fn compare<'e>(entries: &'e [Entry], backups: &Backups, rules: &Rules) -> Result<Report<'e>, Doubt> {
    if rules.age < LEAST_AGE {
        return Err(Doubt::Age { given: rules.age });
    }
    if backups.complete == 0 && !rules.may_be_all {
        return Err(Doubt::NoBackup);
    }
    let mut report = Report::default();
    for entry in entries {
        // A time in the future only proves that a clock is wrong: the snapshot counts as new.
        let age = u64::try_from(rules.now.seconds.saturating_sub(entry.time.seconds)).unwrap_or(0);
        match backups.has(&entry.backup) {
            true => report.kept += 1,
            false if age < rules.age.as_secs() => report.young += 1,
            false => report.expired.push(entry),
        }
    }
    if report.kept == 0 && !report.expired.is_empty() && !rules.may_be_all {
        return Err(Doubt::AllGone { snapshots: entries.len(), others: backups.count() });
    }
    Ok(report)
}

/// The snapshots that have expired by two comparisons: a single listing may have missed a backup.
pub fn in_both<'e>(first: &Report<'e>, second: &Report<'_>) -> Vec<&'e Entry> {
    let again: BTreeSet<(&str, Id)> = second.expired.iter().map(|entry| (&*entry.repository, entry.snapshot)).collect();
    first.expired.iter().copied().filter(|entry| again.contains(&(&*entry.repository, entry.snapshot))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;
    const NOW: i64 = 1_700_000_000;

    fn entry(backup: &str, days: i64) -> Entry {
        Entry {
            repository: "r".into(),
            snapshot: Id::of(format!("{backup} {days}").as_bytes()),
            time: Time::utc(NOW - days * DAY, 0),
            backup: backup.into(),
            bytes: 1,
        }
    }

    fn there(names: &[&str]) -> Backups {
        let mut backups = Backups::default();
        names.iter().for_each(|name| backups.add(name, true));
        backups
    }

    const RULES: Rules =
        Rules { now: Time { seconds: NOW, nanos: 0, offset: 0 }, age: LEAST_AGE.saturating_mul(3), may_be_all: false };

    #[test]
    fn an_old_snapshot_without_its_backup_has_expired_if_other_backups_exist() {
        let all = [entry("kept", 9), entry("gone", 9), entry("gone", 2), entry("gone", -9), entry("other", 4)];
        let report = compare(&all, &there(&["kept", "unrelated"]), &RULES).unwrap();
        assert_eq!(report, Report { expired: vec![&all[1], &all[4]], young: 2, kept: 1 });
        let exactly = [entry("kept", 3), entry("gone", 3)];
        assert_eq!(compare(&exactly, &there(&["kept"]), &RULES).unwrap().expired, [&exactly[1]]);
    }

    #[test]
    fn a_location_that_does_not_look_complete_is_an_error_unless_allowed() {
        let all = [entry("a", 9), entry("b", 9), entry("c", 1)];
        let sure = Rules { may_be_all: true, ..RULES };
        let mut unfinished = Backups::default();
        unfinished.add("a", false);
        for (backups, doubt) in [
            (there(&[]), Doubt::NoBackup),
            // A directory `a` without a completed backup may be of any kind.
            (unfinished.clone(), Doubt::NoBackup),
            (there(&["x", "y"]), Doubt::AllGone { snapshots: 3, others: 2 }),
        ] {
            assert_eq!(compare(&all, &backups, &RULES), Err(doubt));
            assert!(compare(&all, &backups, &sure).is_ok(), "the user allows it");
        }
        assert_eq!(compare(&all, &unfinished, &sure).unwrap().expired, [&all[1]], "a snapshot with its backup stays");
        assert_eq!(compare(&[], &there(&[]), &RULES), Err(Doubt::NoBackup));
        assert_eq!(compare(&[], &there(&["x"]), &RULES), Ok(Report::default()));
        // The only snapshot is too young to expire.
        assert_eq!(compare(&all[2..], &there(&["x"]), &RULES), Ok(Report { young: 1, ..Report::default() }));
        for may_be_all in [false, true] {
            let hasty = Rules { age: LEAST_AGE - Duration::from_secs(1), may_be_all, ..RULES };
            assert_eq!(compare(&all, &there(&["a"]), &hasty), Err(Doubt::Age { given: hasty.age }));
        }
    }

    /// The label is the result of Velero's `GetValidName`, computed with `sha256sum`.
    #[test]
    fn a_long_name_is_compared_as_the_value_of_a_label() {
        let name = format!("{}-{}", "a".repeat(40), "b".repeat(40));
        let label = format!("{}-{}f5e420", "a".repeat(40), "b".repeat(16));
        let all = [entry(&label, 9), entry(&name, 9), entry(&name[..63], 9)];
        let report = compare(&all, &there(&[&name]), &RULES).unwrap();
        assert_eq!((report.kept, report.expired), (2, vec![&all[2]]));
    }

    #[test]
    fn a_snapshot_expires_only_if_both_listings_lack_its_backup() {
        let all = [entry("a", 9), entry("b", 9), entry("c", 9)];
        let first = compare(&all, &there(&["c"]), &RULES).unwrap();
        let second = compare(&all, &there(&["b"]), &RULES).unwrap();
        assert_eq!(in_both(&first, &second), [&all[0]]);
    }

    #[test]
    fn only_snapshots_with_our_tags_are_considered() {
        let snapshot = |tags: &[&str]| {
            let text = serde_json::json!({"time": "2024-01-01T00:00:00Z", "tree": null, "paths": [], "tags": tags,
                "summary": {"total_bytes_processed": 7}});
            Snapshot::decode(text.to_string().as_bytes()).unwrap()
        };
        let of = |tags: &[&str]| Entry::of("r", Id::NULL, &snapshot(tags)).map(|entry| (entry.backup, entry.bytes));
        assert_eq!(of(&["vsb-uid:u", "vsb:v", "backup:b", "more"]), Some(("b".into(), 7)));
        for foreign in [
            &[][..],
            &["backup:b"],
            &["vsb:v", "backup:b"],
            &["vsb-uid:u", "vsb:v"],
            &["vsb-uid:u", "backup:"],
            &["vsb-uid:", "backup:b"],
            &["vsb-uid:u", "backup:a", "backup:b"],
            &["vsb-uid:u", "backupb"],
        ] {
            assert_eq!(of(foreign), None, "{foreign:?}");
        }
    }
}
