//! Which snapshots are of Velero backups that are gone. It only compares: what there is, others
//! have looked up.
//!
//! Velero deletes a backup by removing its directory below `backups/` in the location; what a data
//! mover stored for it is the mover's own business. Of that, only what carries our tags is looked
//! at here, and a location that does not look whole is believed in nothing: an empty listing and
//! one of another place look like a location in which everything has expired.

use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::id::Id;
use crate::provenance::{Tag, label_value};
use std::collections::BTreeSet;
use std::time::Duration;

/// How old a snapshot is at least before its backup counts as gone: while a backup runs, Velero has
/// not stored it yet.
const LEAST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The Velero backups that are in a location, by a listing that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Backups {
    /// As values of labels.
    names: BTreeSet<String>,
    complete: usize,
}

impl Backups {
    /// There is a directory of this name. A backup that is `complete` has its `velero-backup.json`
    /// in it; others are being made or deleted, or have failed, and are there all the same.
    pub fn add(&mut self, name: &str, complete: bool) {
        self.names.insert(label_value(name));
        self.complete += usize::from(complete);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    fn has(&self, tag: &str) -> bool {
        // Both are values of labels but for a tag that somebody made by hand.
        self.names.contains(&label_value(tag))
    }
}

/// A snapshot of ours that a Velero backup made.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The repository, in whatever way the caller names it.
    pub repository: String,
    pub snapshot: Id,
    pub time: Time,
    /// The Velero backup's name, as its tag has it.
    pub backup: String,
    /// What the volume had, in bytes. How much of it only this snapshot holds, nobody knows before
    /// a prune.
    pub bytes: u64,
}

impl Entry {
    /// `None`: it is not ours, or no Velero backup's. Ours has the tag of one VolumeSnapshotBackup
    /// and that of one Velero backup.
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

/// By what is compared.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub now: Time,
    /// What is younger has not expired; at least [`LEAST_AGE`].
    pub age: Duration,
    /// Somebody said that it may well be that no backup is left at all.
    pub may_be_all: bool,
}

/// What has become of the backups of some snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report<'e> {
    /// Their backups are gone; in the order they came.
    pub expired: Vec<&'e Entry>,
    /// Their backups are not there, but perhaps not yet.
    pub young: usize,
    /// Their backups are there.
    pub kept: usize,
}

/// Why nothing is taken for expired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error(
        "no complete Velero backup is below backups/: this may not be Velero's location, or only a part of it; if no backup is left, --unsafe-allow-remove-all says so"
    )]
    NoBackup,
    #[error(
        "none of the Velero backups of these {snapshots} snapshots is below backups/, and {others} others are: this may be another location; if all of theirs are gone, --unsafe-allow-remove-all says so"
    )]
    AllGone { snapshots: usize, others: usize },
    #[error("an age of {given:?} is less than {LEAST_AGE:?}, within which Velero may still be making the backup")]
    Age { given: Duration },
}

/// Compares snapshots with the backups that are there.
pub fn compare<'e>(entries: &'e [Entry], backups: &Backups, rules: &Rules) -> Result<Report<'e>, Doubt> {
    if rules.age < LEAST_AGE {
        return Err(Doubt::Age { given: rules.age });
    }
    if backups.complete == 0 && !rules.may_be_all {
        return Err(Doubt::NoBackup);
    }
    let mut report = Report::default();
    for entry in entries {
        // Of a time in the future nothing is known but that a clock is wrong.
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

/// What has expired by both of two looks: what only one has missed was missed by chance.
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
    fn what_has_expired_is_old_and_its_backup_is_gone_while_others_are_there() {
        let all = [entry("kept", 9), entry("gone", 9), entry("gone", 2), entry("gone", -9), entry("other", 4)];
        let report = compare(&all, &there(&["kept", "unrelated"]), &RULES).unwrap();
        assert_eq!(report, Report { expired: vec![&all[1], &all[4]], young: 2, kept: 1 });
        let exactly = [entry("kept", 3), entry("gone", 3)];
        assert_eq!(compare(&exactly, &there(&["kept"]), &RULES).unwrap().expired, [&exactly[1]]);
    }

    #[test]
    fn a_location_that_does_not_look_whole_is_believed_in_nothing() {
        let all = [entry("a", 9), entry("b", 9), entry("c", 1)];
        let sure = Rules { may_be_all: true, ..RULES };
        let mut unfinished = Backups::default();
        unfinished.add("a", false);
        for (backups, doubt) in [
            (there(&[]), Doubt::NoBackup),
            // `a` is there, and still: what nobody completed may be a directory of any kind.
            (unfinished.clone(), Doubt::NoBackup),
            (there(&["x", "y"]), Doubt::AllGone { snapshots: 3, others: 2 }),
        ] {
            assert_eq!(compare(&all, &backups, &RULES), Err(doubt));
            assert!(compare(&all, &backups, &sure).is_ok(), "somebody knows better");
        }
        assert_eq!(compare(&all, &unfinished, &sure).unwrap().expired, [&all[1]], "what is there is never taken");
        assert_eq!(compare(&[], &there(&[]), &RULES), Err(Doubt::NoBackup));
        assert_eq!(compare(&[], &there(&["x"]), &RULES), Ok(Report::default()));
        // Nothing is old enough to be doubted.
        assert_eq!(compare(&all[2..], &there(&["x"]), &RULES), Ok(Report { young: 1, ..Report::default() }));
        for may_be_all in [false, true] {
            let hasty = Rules { age: LEAST_AGE - Duration::from_secs(1), may_be_all, ..RULES };
            assert_eq!(compare(&all, &there(&["a"]), &hasty), Err(Doubt::Age { given: hasty.age }));
        }
    }

    /// The value is what Velero's `GetValidName` makes of the name, computed with `sha256sum`.
    #[test]
    fn a_long_name_is_compared_in_the_form_that_labels_have_of_it() {
        let name = format!("{}-{}", "a".repeat(40), "b".repeat(40));
        let label = format!("{}-{}f5e420", "a".repeat(40), "b".repeat(16));
        let all = [entry(&label, 9), entry(&name, 9), entry(&name[..63], 9)];
        let report = compare(&all, &there(&[&name]), &RULES).unwrap();
        assert_eq!((report.kept, report.expired), (2, vec![&all[2]]));
    }

    #[test]
    fn only_what_two_looks_miss_has_expired() {
        let all = [entry("a", 9), entry("b", 9), entry("c", 9)];
        let first = compare(&all, &there(&["c"]), &RULES).unwrap();
        let second = compare(&all, &there(&["b"]), &RULES).unwrap();
        assert_eq!(in_both(&first, &second), [&all[0]]);
    }

    #[test]
    fn only_snapshots_with_our_tags_are_looked_at() {
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
