//! restic's notations for the values of options: sizes, rates, durations, times and lists.

use crate::format::compression::Compression;
use crate::format::time::Time;
use crate::host;
use crate::limits;
use std::time::Duration;

/// Splits `a,b` into a list. The empty text is the empty list.
pub fn split_list(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    Ok(match text {
        "" | "auto" => Compression::Auto,
        "off" => Compression::Off,
        "fastest" => Compression::Fastest,
        "better" => Compression::Better,
        "max" => Compression::Max,
        _ => return Err("must be auto, off, fastest, better or max".into()),
    })
}

pub(super) fn pack_size(text: &str) -> Result<u64, String> {
    let mib: u64 = match text {
        "" => 0,
        text => text.parse().map_err(|_| "must be a number of MiB".to_owned())?,
    };
    let bytes = if mib == 0 { limits::PACK_SIZE } else { mib.saturating_mul(1 << 20) };
    let bounds = limits::PACK_SIZES;
    if bounds.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("must be between {} and {} MiB", bounds.start() >> 20, bounds.end() >> 20))
}

/// A memory limit in bytes; `None` is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(pub Option<u64>);

pub(super) fn memory(text: &str) -> Result<Memory, String> {
    if text.is_empty() { Ok(Memory(None)) } else { size(text).map(|bytes| Memory(Some(bytes))) }
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    match text {
        "" => Ok(host::cores()),
        text => {
            text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "must be a number from 1 to 1024".into())
        }
    }
}

/// Parses a number of bytes, with or without one of restic's suffixes k, M, G and T (powers of
/// 1024).
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size like 500, 100k, 20M, 3G or 1T");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// A limit per second on bytes or requests; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// Parses bytes per second: a number of KiB as in restic, or a size with a unit.
pub fn rate(text: &str) -> Result<Limit, String> {
    let bytes = match text.parse::<u64>() {
        Ok(kib) => kib.checked_mul(1 << 10).ok_or_else(|| format!("{text:?} is too large"))?,
        Err(_) if text.is_empty() => 0,
        Err(_) => size(text)?,
    };
    Ok(Limit(Some(bytes).filter(|bytes| *bytes > 0)))
}

/// Parses a number of requests per second.
pub fn requests(text: &str) -> Result<Limit, String> {
    if text.is_empty() {
        return Ok(Limit(None));
    }
    let number = text.parse::<u64>().map_err(|_| format!("{text:?} is not a number of requests per second"))?;
    Ok(Limit(Some(number).filter(|number| *number > 0)))
}

/// Parses a duration in Go's notation: `1h30m`, `45s`, `1.5h`, `300ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration like 90s, 5m or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let value: f64 = rest[..rest.len() - number.len()].parse().map_err(|_| bad())?;
        let after = number.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match &number[..number.len() - after.len()] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(bad()),
        };
        let part = Duration::try_from_secs_f64(value * seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = after;
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

/// Parses a local time such as `2024-02-29 23:59:59`, or an RFC 3339 time with an offset.
pub fn time(text: &str) -> Result<Time, String> {
    if let Ok(time) = Time::parse(text) {
        return Ok(time);
    }
    let bad = || format!("{text:?} is not a time like \"2024-02-29 23:59:59\" or \"2024-02-29\"");
    let zoned = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(jiff::civil::DateTime::from))
        .and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()))
        .map_err(|_| bad())?;
    let nanos = u32::try_from(zoned.subsec_nanosecond()).map_err(|_| bad())?;
    let seconds = zoned.timestamp().as_nanosecond().div_euclid(1_000_000_000);
    Ok(Time { seconds: i64::try_from(seconds).map_err(|_| bad())?, nanos, offset: zoned.offset().seconds() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_parsed_as_by_restic() {
        for (text, bytes) in
            [("0", 0), ("500", 500), ("10k", 10 << 10), ("3M", 3 << 20), ("2g", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes));
        }
        for (text, millis) in [("0s", 0), ("5m", 300_000), ("1h30m", 5_400_000), ("1.5h", 5_400_000), ("250ms", 250)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "5", "m", "5x", "1h-3m", "1..2s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "k", "5kk", "-1", "1.5G", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_without_an_offset_are_local() {
        assert_eq!(time("2024-02-29T23:59:59+02:00").unwrap().offset, 7200);
        let (year, month, day, hour, ..) = time("2012-11-01 22:08:41").unwrap().civil();
        assert_eq!((year, month, day, hour), (2012, 11, 1, 22));
        assert_eq!(time("2012-11-01").unwrap().civil().3, 0);
        assert!(time("yesterday").is_err());
    }
}
