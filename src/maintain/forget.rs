//! Decides which snapshots a retention policy keeps. It is a pure function of the snapshots, the
//! policy and the time.
//!
//! The rules are restic's. Each rule goes through a group from the newest snapshot to the oldest
//! and keeps the newest snapshot of each hour, day, week, month or year, up to its count. A
//! snapshot is kept if any rule keeps it. A rule whose count is not used up also keeps the oldest
//! snapshot, so that history does not shrink while it is shorter than the policy.

use crate::format::time::Time;
use crate::repo::StoredSnapshot;
use jiff::civil::Date;
use std::fmt;
use std::str::FromStr;

/// A count without a limit.
pub const ALL: u32 = u32::MAX;

/// The periods of which one snapshot each is kept. In `Last`, every snapshot is a period of its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Last,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    pub const ALL: [Period; 6] = [Period::Last, Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year];

    pub fn name(self) -> &'static str {
        match self {
            Period::Last => "last",
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        }
    }

    /// A number that identifies the period of a time, in the time zone of that time. Weeks are
    /// those of ISO 8601.
    fn of(self, time: &Time, position: usize) -> i64 {
        let (year, month, day, hour, ..) = time.civil();
        let day = (year * 100 + i64::from(month)) * 100 + i64::from(day);
        match self {
            Period::Last => i64::try_from(position).expect("snapshots are in memory"),
            Period::Hour => day * 100 + i64::from(hour),
            Period::Day => day,
            Period::Week => date(time).map_or(day, |date| {
                let week = date.iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }),
            Period::Month => day / 100,
            Period::Year => year,
        }
    }
}

/// The day of a time; `None` outside the range of `Date`.
fn date(time: &Time) -> Option<Date> {
    let (year, month, day, ..) = time.civil();
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

/// A length of time in calendar units, written like `1y5m7d2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub years: u16,
    pub months: u16,
    pub days: u16,
    pub hours: u16,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let bad = || format!("{text:?} is not a span like 1y5m7d2h (years, months, days, hours)");
        let mut span = Span::default();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u16 = rest[..digits].parse().map_err(|_| bad())?;
            let field = match rest.as_bytes()[digits] {
                b'y' => &mut span.years,
                b'm' => &mut span.months,
                b'd' => &mut span.days,
                b'h' => &mut span.hours,
                _ => return Err(bad()),
            };
            *field = field.checked_add(number).ok_or_else(bad)?;
            rest = &rest[digits + 1..];
        }
        Ok(span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Span {
    fn is_zero(self) -> bool {
        self == Span::default()
    }

    /// The instant that is this span before a time. A day that a month does not have overflows into
    /// the next month, as in Go: a month before 31 March is 2 or 3 March.
    fn before(self, time: &Time) -> (i64, u32) {
        let (year, month, ..) = time.civil();
        let this_month = year * 12 + i64::from(month) - 1;
        let that_month = this_month - i64::from(self.years) * 12 - i64::from(self.months);
        let first = |months: i64| {
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
            Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, 1).ok()
        };
        // Outside the range of `Date`, every snapshot is within the span.
        let (Some(from), Some(to)) = (first(this_month), first(that_month)) else { return (i64::MIN, 0) };
        let days = i64::from((to - from).get_days());
        let seconds = time.seconds + (days - i64::from(self.days)) * 86_400 - i64::from(self.hours) * 3600;
        (seconds, time.nanos)
    }
}

/// A retention policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The number of snapshots to keep for each period, in the order of [`Period::ALL`].
    pub counts: [u32; 6],
    /// Keep all snapshots that are younger than this, counted back from the newest.
    pub within: Span,
    /// Keep one snapshot of each period among those younger than this, in the order of
    /// [`Period::ALL`]; the first is unused.
    pub within_periods: [Span; 6],
    /// Keep snapshots that have all tags of one of these lists; an empty list means snapshots
    /// without tags.
    pub tags: Vec<Vec<String>>,
}

impl Policy {
    /// Whether the policy keeps no snapshot at all.
    pub fn is_empty(&self) -> bool {
        self.counts == [0; 6]
            && self.within.is_zero()
            && self.within_periods.iter().all(|span| span.is_zero())
            && self.tags.is_empty()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (period, count) in Period::ALL.iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            let count = if count == ALL { "all".to_owned() } else { count.to_string() };
            parts.push(format!("{count} {}", if *period == Period::Last { "latest" } else { period.name() }));
        }
        if !self.within.is_zero() {
            parts.push(format!("all within {}", self.within));
        }
        for (period, span) in Period::ALL.iter().zip(self.within_periods).filter(|(_, span)| !span.is_zero()) {
            parts.push(format!("{} within {span}", period.name()));
        }
        for tags in &self.tags {
            parts.push(format!("all with tags [{}]", tags.join(", ")));
        }
        f.write_str(&parts.join(", "))
    }
}

/// A snapshot that is kept, and the reasons.
#[derive(Clone, Debug)]
pub struct Kept {
    pub stored: StoredSnapshot,
    pub reasons: Vec<String>,
}

/// The decision of a policy about a group; both lists are sorted newest first.
#[derive(Debug, Default)]
pub struct Verdict {
    pub keep: Vec<Kept>,
    pub remove: Vec<StoredSnapshot>,
}

/// The state of a rule while it goes through a group.
struct Rule {
    period: Period,
    left: u32,
    /// The rule applies to snapshots after this instant.
    since: Option<(i64, u32)>,
    span: Span,
    last: Option<i64>,
}

/// A snapshot and its position in the group, counted from the newest.
struct InGroup<'s> {
    time: &'s Time,
    position: usize,
    /// The number of snapshots in the group.
    count: usize,
}

impl InGroup<'_> {
    fn is_oldest(&self) -> bool {
        self.position + 1 == self.count
    }
}

impl Rule {
    /// Returns why the rule keeps the snapshot, or `None`.
    fn judge(&mut self, snapshot: &InGroup<'_>) -> Option<String> {
        let InGroup { time, position, .. } = *snapshot;
        if self.left == 0 || self.since.is_some_and(|since| time.instant() <= since) {
            return None;
        }
        let now = self.period.of(time, position);
        let new = self.last != Some(now);
        if !new && !snapshot.is_oldest() {
            return None;
        }
        if self.left != ALL {
            self.left -= 1;
        }
        self.last = Some(now);
        let name = self.period.name();
        let text =
            if self.since.is_some() { format!("{name} within {}", self.span) } else { format!("{name} snapshot") };
        Some(if new { text } else { format!("oldest {text}") })
    }
}

/// Applies a policy to one group of snapshots. Spans count back from the newest snapshot that is
/// not later than `now`.
pub fn apply(mut snapshots: Vec<StoredSnapshot>, policy: &Policy, now: &Time) -> Verdict {
    snapshots.sort_by_key(|stored| std::cmp::Reverse((stored.snapshot.time.instant(), stored.id)));
    let reference =
        snapshots.iter().find(|stored| stored.snapshot.time.instant() <= now.instant()).or(snapshots.last());
    let Some(reference) = reference.map(|stored| stored.snapshot.time) else { return Verdict::default() };
    let counted = Period::ALL.into_iter().zip(policy.counts);
    let rule = |(period, left)| Rule { period, left, since: None, span: Span::default(), last: None };
    let mut rules: Vec<Rule> = counted.map(rule).collect();
    for (period, span) in Period::ALL.into_iter().zip(policy.within_periods).filter(|(_, span)| !span.is_zero()) {
        rules.push(Rule { period, left: ALL, since: Some(span.before(&reference)), span, last: None });
    }
    let within = (!policy.within.is_zero()).then(|| policy.within.before(&reference));
    let mut verdict = Verdict::default();
    let count = snapshots.len();
    for (position, stored) in snapshots.into_iter().enumerate() {
        let (time, tags) = (&stored.snapshot.time, &stored.snapshot.tags);
        let mut reasons: Vec<String> = Vec::new();
        for list in &policy.tags {
            if if list.is_empty() { tags.is_empty() } else { stored.snapshot.has_tags(list) } {
                reasons.push(format!("has tags [{}]", list.join(", ")));
            }
        }
        if within.is_some_and(|since| time.instant() > since) {
            reasons.push(format!("within {}", policy.within));
        }
        let snapshot = InGroup { time, position, count };
        reasons.extend(rules.iter_mut().filter_map(|rule| rule.judge(&snapshot)));
        if reasons.is_empty() {
            verdict.remove.push(stored);
        } else {
            verdict.keep.push(Kept { stored, reasons });
        }
    }
    verdict
}

#[cfg(test)]
mod tests;
