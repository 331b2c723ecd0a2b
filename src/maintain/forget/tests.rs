use super::*;
use crate::format::snapshot::Snapshot;
use crate::id::Id;

/// The twelve snapshots of the tests. The expected values below are those that `restic forget
/// --dry-run` 0.19.1 keeps.
const TIMES: [&str; 12] = [
    "2014-09-01T10:20:30Z",
    "2014-10-01T10:20:31Z",
    "2015-09-02T10:20:30Z",
    "2015-10-20T12:00:00Z",
    "2016-01-01T01:02:03Z",
    "2016-01-03T07:08:03Z",
    "2016-01-04T10:23:03Z",
    "2016-01-04T11:23:03Z",
    "2016-01-04T12:24:03Z",
    "2016-01-12T21:08:03Z",
    "2016-01-18T12:02:03Z",
    "2016-03-31T12:00:00Z",
];
/// The snapshot with the tags a and b.
const TAGGED: &str = "2016-01-12T21:08:03Z";

fn snapshot(time: &str, tags: &[&str]) -> StoredSnapshot {
    let json = format!(r#"{{"time":"{time}","tree":null,"paths":["/x"],"tags":{tags:?}}}"#);
    StoredSnapshot { id: Id::of(time.as_bytes()), snapshot: Snapshot::decode(json.as_bytes()).unwrap() }
}

fn snapshots() -> Vec<StoredSnapshot> {
    TIMES.iter().map(|time| snapshot(time, if *time == TAGGED { &["a", "b"] } else { &[] })).collect()
}

fn span(text: &str) -> Span {
    text.parse().unwrap()
}

fn count(period: Period, count: u32) -> Policy {
    let mut policy = Policy::default();
    policy.counts[period as usize] = count;
    policy
}

fn within(period: Period, text: &str) -> Policy {
    let mut policy = Policy::default();
    match period {
        Period::Last => policy.within = span(text),
        period => policy.within_periods[period as usize] = span(text),
    }
    policy
}

fn tags(lists: &[&[&str]], policy: Policy) -> Policy {
    let tags = lists.iter().map(|list| list.iter().map(|tag| (*tag).to_owned()).collect()).collect();
    Policy { tags, ..policy }
}

/// The positions in [`TIMES`] that are kept, oldest first, with the reasons.
fn kept(policy: &Policy) -> Vec<(usize, String)> {
    let now = Time::parse("2026-01-01T00:00:00Z").unwrap();
    let verdict = apply(snapshots(), policy, &now);
    assert_eq!(verdict.keep.len() + verdict.remove.len(), TIMES.len());
    let position = |kept: &Kept| TIMES.iter().position(|time| *time == kept.stored.snapshot.time.to_string()).unwrap();
    verdict.keep.iter().rev().map(|kept| (position(kept), kept.reasons.join("|"))).collect()
}

fn positions(policy: &Policy) -> Vec<usize> {
    kept(policy).into_iter().map(|(position, _)| position).collect()
}

#[test]
fn the_same_snapshots_are_kept_as_by_restic() {
    for (policy, expected) in [
        (count(Period::Last, 3), vec![9, 10, 11]),
        (count(Period::Last, 20), (0..12).collect()),
        (count(Period::Last, ALL), (0..12).collect()),
        (count(Period::Hour, 3), vec![9, 10, 11]),
        (count(Period::Day, 4), vec![8, 9, 10, 11]),
        (count(Period::Week, 5), vec![5, 8, 9, 10, 11]),
        (count(Period::Month, 30), vec![0, 1, 2, 3, 10, 11]),
        (count(Period::Year, 2), vec![3, 11]),
        (count(Period::Year, 10), vec![0, 1, 3, 11]),
        (within(Period::Last, "1m"), vec![11]),
        (within(Period::Last, "3m"), vec![4, 5, 6, 7, 8, 9, 10, 11]),
        (within(Period::Last, "1d5y"), (0..12).collect()),
        (within(Period::Month, "5m"), vec![10, 11]),
        (within(Period::Day, "10y"), vec![0, 1, 2, 3, 4, 5, 8, 9, 10, 11]),
        (tags(&[&["a", "b"]], count(Period::Last, 1)), vec![9, 11]),
        (tags(&[&[]], count(Period::Day, 1)), vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]),
        (tags(&[&["zz"]], Policy::default()), vec![]),
    ] {
        assert_eq!(positions(&policy), expected, "{policy}");
    }
}

#[test]
fn the_reasons_are_worded_as_in_restic() {
    let reasons = |policy: &Policy| kept(policy).into_iter().map(|(_, reasons)| reasons).collect::<Vec<_>>();
    assert_eq!(
        reasons(&count(Period::Year, 10)),
        ["oldest yearly snapshot", "yearly snapshot", "yearly snapshot", "yearly snapshot"]
    );
    let mut both = count(Period::Week, 2);
    both.counts[Period::Year as usize] = 3;
    assert_eq!(
        reasons(&both),
        ["yearly snapshot", "yearly snapshot", "weekly snapshot", "weekly snapshot|yearly snapshot"]
    );
    assert_eq!(positions(&both), [1, 3, 10, 11]);
    assert_eq!(reasons(&within(Period::Month, "5m")), ["monthly within 5m", "monthly within 5m"]);
    assert_eq!(reasons(&within(Period::Last, "1d5y"))[0], "within 5y1d");
    let tagged = kept(&tags(&[&[]], count(Period::Day, 1)));
    assert_eq!(tagged.last().unwrap().1, "has tags []|daily snapshot");
    assert_eq!(kept(&tags(&[&["a", "b"]], Policy::default())), [(9, "has tags [a, b]".to_owned())]);
}

#[test]
fn snapshots_in_the_future_are_not_the_newest() {
    let policy = within(Period::Last, "1m");
    let now = Time::parse("2016-01-15T00:00:00Z").unwrap();
    let verdict = apply(snapshots(), &policy, &now);
    let kept: Vec<String> = verdict.keep.iter().map(|kept| kept.stored.snapshot.time.to_string()).collect();
    // The span counts back a month from 12 January; snapshots in the future are newer than that.
    assert_eq!((kept.len(), kept.last().unwrap().as_str()), (8, TIMES[4]));
}

#[test]
fn periods_are_those_of_the_zone_a_time_was_written_in() {
    let snapshots = vec![snapshot("2024-01-01T00:30:00+02:00", &[]), snapshot("2023-12-31T23:00:00Z", &[])];
    let now = Time::parse("2026-01-01T00:00:00Z").unwrap();
    let verdict = apply(snapshots, &count(Period::Year, 2), &now);
    let years: Vec<i64> = verdict.keep.iter().map(|kept| kept.stored.snapshot.time.civil().0).collect();
    assert_eq!(years, [2023, 2024], "the first was written half an hour before the second, in the year after it");
}

#[test]
fn spans_are_parsed_and_counted_back_as_in_restic() {
    assert_eq!(span("1y5m7d2h"), Span { years: 1, months: 5, days: 7, hours: 2 });
    assert_eq!(span("2h1y").to_string(), "1y2h");
    assert!(span("").is_zero() && Policy::default().is_empty());
    for bad in ["1", "y", "1w", "-1d", "99999d", "1d "] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
    let before = |text: &str, time: &str| {
        let (seconds, nanos) = span(text).before(&Time::parse(time).unwrap());
        Time::utc(seconds, nanos).to_string()
    };
    // The results of Go's `time.AddDate(0, -1, 0)` and similar calls.
    assert_eq!(before("1m", "2023-03-31T12:00:00Z"), "2023-03-03T12:00:00Z");
    assert_eq!(before("1m", "2024-03-31T12:00:00Z"), "2024-03-02T12:00:00Z");
    assert_eq!(before("1y", "2024-02-29T00:00:00Z"), "2023-03-01T00:00:00Z");
    assert_eq!(before("1y2m3d4h", "2024-05-06T07:08:09.5Z"), "2023-03-03T03:08:09.5Z");
}
