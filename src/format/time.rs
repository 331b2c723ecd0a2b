//! Points in time as restic stores them: RFC 3339 with nanoseconds, as Go writes `time.Time` in
//! JSON.
//!
//! The text is part of a tree's hash: the fraction has no trailing zeros and is omitted at 0,
//! offset 0 is `Z`, and years outside 0..=9999 are moved to the bound. Calendar arithmetic follows
//! Howard Hinnant's `days_from_civil`.

use super::{FormatError, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// An instant and the UTC offset in which it is written. Two times are the same instant if all but
/// the offset are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// 0..1_000_000_000
    pub nanos: u32,
    /// Seconds east of UTC, less than a day.
    pub offset: i32,
}

impl Time {
    /// An instant written in UTC.
    pub fn utc(seconds: i64, nanos: u32) -> Time {
        Time { seconds, nanos, offset: 0 }
    }

    /// Go's zero time, 0001-01-01T00:00:00Z: restic's value for a time that was not recorded.
    pub const UNKNOWN: Time = Time { seconds: -62_135_596_800, nanos: 0, offset: 0 };

    /// The key by which instants are compared.
    pub fn instant(&self) -> (i64, u32) {
        (self.seconds, self.nanos)
    }

    pub fn parse(text: &str) -> Result<Time> {
        parse(text.as_bytes()).ok_or_else(|| FormatError::new("a time", format!("{text:?} is not RFC 3339")))
    }

    /// Year, month, day, hour, minute, second in the time's own offset.
    pub fn civil(&self) -> (i64, u32, u32, u32, u32, u32) {
        let local = self.seconds.saturating_add(i64::from(self.offset));
        let (year, month, day) = civil_from_days(local.div_euclid(86_400));
        let second = u32::try_from(local.rem_euclid(86_400)).expect("less than a day");
        (year, month, day, second / 3600, second / 60 % 60, second % 60)
    }
}

impl Default for Time {
    fn default() -> Time {
        Time::UNKNOWN
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut year, mut month, mut day, hour, minute, second) = self.civil();
        if !(0..=9999).contains(&year) {
            year = year.clamp(0, 9999);
            // Year 0 is a leap year and 9999 is not: Go moves 29 February 9999 to 1 March.
            if (month, day) == (2, 29) && year == 9999 {
                (month, day) = (3, 1);
            }
        }
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        if self.offset == 0 {
            return f.write_str("Z");
        }
        let minutes = self.offset.abs() / 60;
        write!(f, "{}{:02}:{:02}", if self.offset < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Time, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Time::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn parse(text: &[u8]) -> Option<Time> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        text.get(range)?.iter().try_fold(0i64, |n, &c| Some(n * 10 + i64::from(char::from(c).to_digit(10)?)))
    };
    let sign = |at: usize, wanted: &[u8]| text.get(at).is_some_and(|c| wanted.contains(c)).then_some(());
    sign(4, b"-").and(sign(7, b"-")).and(sign(10, b"Tt ")).and(sign(13, b":")).and(sign(16, b":"))?;
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0u32;
    if text.get(at) == Some(&b'.') {
        let digits = text[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..9 {
            let digit = if place < digits { u32::from(text[at + 1 + place] - b'0') } else { 0 };
            nanos = nanos * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset = match (text.get(at)?, text.len() - at) {
        (b'Z' | b'z', 1) => 0,
        (direction @ (b'+' | b'-'), 6) if text[at + 3] == b':' => {
            let seconds = number(at + 1..at + 3)? * 3600 + number(at + 4..at + 6)? * 60;
            if seconds >= 86_400 {
                return None;
            }
            if *direction == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let days = days_from_civil(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Time { seconds, nanos, offset: i32::try_from(offset).ok()? })
}

fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = u32::try_from(day_of_year - (153 * shifted + 2) / 5 + 1).expect("1..=31");
    let month = u32::try_from(if shifted < 10 { shifted + 3 } else { shifted - 9 }).expect("1..=12");
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_go() {
        let cases = [
            (Time::utc(0, 0), "1970-01-01T00:00:00Z"),
            (Time::utc(1_709_251_199, 120_000_000), "2024-02-29T23:59:59.12Z"),
            (Time::utc(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z"),
            (Time { offset: 7200, ..Time::utc(1_709_251_199, 0) }, "2024-03-01T01:59:59+02:00"),
            (Time { offset: -12_600, ..Time::utc(0, 1) }, "1969-12-31T20:30:00.000000001-03:30"),
            (Time::UNKNOWN, "0001-01-01T00:00:00Z"),
            (Time::utc(-62_167_219_200, 0), "0000-01-01T00:00:00Z"),
        ];
        for (time, text) in cases {
            assert_eq!(time.to_string(), text);
            assert_eq!(Time::parse(text).unwrap(), time);
        }
    }

    #[test]
    fn moves_years_to_the_bounds() {
        assert!(Time::utc(i64::MAX / 2, 0).to_string().starts_with("9999-"));
        assert!(Time::utc(i64::MIN / 2, 0).to_string().starts_with("0000-"));
        assert_eq!(Time::utc(253_402_300_800, 0).to_string(), "9999-01-01T00:00:00Z");
    }

    #[test]
    fn refuses_malformed_times() {
        for text in [
            "",
            "2024-02-29",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+25:00",
        ] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(seconds in -62_000_000_000i64..250_000_000_000, nanos in 0u32..1_000_000_000) {
            let text = Time::utc(seconds, nanos).to_string();
            let theirs: jiff::Timestamp = text.parse().unwrap();
            // jiff counts nanoseconds of negative seconds downwards.
            prop_assert_eq!(theirs.as_nanosecond(), i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
            prop_assert_eq!(Time::parse(&text).unwrap(), Time::utc(seconds, nanos));
        }
    }
}
