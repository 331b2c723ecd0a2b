//! Formats numbers, times and modes for people, as restic does.

use crate::format::node::{Node, NodeType, mode};
use crate::format::text::lossy;
use crate::format::time::Time;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

/// Formats a size: `2.861 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| count >> shift > 0) {
        Some((shift, unit)) => format!("{:.3} {unit}", count as f64 / (1u64 << shift) as f64),
        None => format!("{count} B"),
    }
}

/// Formats a duration: `1:02:03` or `2:03`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Formats a time in the machine's time zone: `2024-02-29 23:59:59`.
pub fn local_time(time: &Time) -> String {
    let zoned = Timestamp::from_second(time.seconds).map(|stamp| stamp.to_zoned(TimeZone::system()));
    match zoned {
        Ok(zoned) => zoned.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        // Outside the range of the time zones' calendar: the time as recorded.
        Err(_) => {
            let (year, month, day, hour, minute, second) = time.civil();
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
        }
    }
}

/// The same time with the offset of the machine's time zone.
pub fn to_local(time: Time) -> Time {
    let offset = Timestamp::from_second(time.seconds).map(|stamp| TimeZone::system().to_offset(stamp).seconds());
    Time { offset: offset.unwrap_or(time.offset), ..time }
}

/// Formats a time with its own offset: `2024-02-29 23:59:59.123456789 +0000 UTC`.
pub fn full_time(time: &Time) -> String {
    let (year, month, day, hour, minute, second) = time.civil();
    let fraction = match time.nanos {
        0 => String::new(),
        nanos => format!(".{}", format!("{nanos:09}").trim_end_matches('0')),
    };
    let minutes = time.offset.abs() / 60;
    let sign = if time.offset < 0 { '-' } else { '+' };
    let zone = format!("{sign}{:02}{:02}", minutes / 60, minutes % 60);
    let name = if time.offset == 0 { "UTC" } else { &zone };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} {zone} {name}")
}

/// Formats a file mode as Go does: `drwxr-xr-x`.
pub fn permissions(go_mode: u32) -> String {
    let mut text: String = [
        (mode::DIR, 'd'),
        (mode::SYMLINK, 'L'),
        (mode::DEVICE, 'D'),
        (mode::NAMED_PIPE, 'p'),
        (mode::SOCKET, 'S'),
        (mode::SETUID, 'u'),
        (mode::SETGID, 'g'),
        (mode::CHAR_DEVICE, 'c'),
        (mode::STICKY, 't'),
        (mode::IRREGULAR, '?'),
    ]
    .iter()
    .filter(|(bit, _)| go_mode & bit != 0)
    .map(|(_, letter)| letter)
    .collect();
    if text.is_empty() {
        text.push('-');
    }
    for (index, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if go_mode & (0o400 >> index) != 0 { letter } else { '-' });
    }
    text
}

/// A path of a snapshot as text. Bytes that are not UTF-8 are replaced.
pub fn path(path: &[u8]) -> String {
    lossy(path)
}

/// The format of sizes in a long listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeFormat {
    /// Bytes: `3000000`.
    Bytes,
    /// With a unit: `2.861 MiB`.
    Units,
}

impl From<bool> for SizeFormat {
    /// Converts the option `--human-readable`.
    fn from(is_given: bool) -> SizeFormat {
        if is_given { SizeFormat::Units } else { SizeFormat::Bytes }
    }
}

/// Formats a line of a long listing.
pub fn long_line(path_text: &str, node: &Node, sizes: SizeFormat) -> String {
    let size = match sizes {
        SizeFormat::Units => bytes(node.size),
        SizeFormat::Bytes => format!("{:>6}", node.size),
    };
    let target = match node.ty {
        NodeType::Symlink => format!(" -> {}", path(&node.link_target)),
        _ => String::new(),
    };
    let (mode, time) = (permissions(go_mode(node)), local_time(&node.mtime));
    format!("{mode} {:>5} {:>5} {size} {time} {path_text}{target}", node.uid, node.gid)
}

/// The mode of an entry with its type bits, which old snapshots omit.
fn go_mode(node: &Node) -> u32 {
    node.mode
        | match node.ty {
            NodeType::Dir => mode::DIR,
            NodeType::Symlink => mode::SYMLINK,
            NodeType::Dev => mode::DEVICE,
            NodeType::CharDev => mode::DEVICE | mode::CHAR_DEVICE,
            NodeType::Fifo => mode::NAMED_PIPE,
            NodeType::Socket => mode::SOCKET,
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_formatted_as_by_restic() {
        assert_eq!([0, 1023, 1024, 3_000_000].map(bytes), ["0 B", "1023 B", "1.000 KiB", "2.861 MiB"]);
        assert_eq!([5, 65, 3665].map(|s| duration(Duration::from_secs(s))), ["0:05", "1:05", "1:01:05"]);
    }

    /// The expected texts were printed by Go.
    #[test]
    fn modes_and_times_are_formatted_as_by_go() {
        let printed = [
            0o755 | mode::DIR,
            0o644,
            0o777 | mode::SYMLINK,
            0o4755 & 0o777 | mode::SETUID,
            0o620 | mode::DEVICE | mode::CHAR_DEVICE,
        ];
        assert_eq!(printed.map(permissions), ["drwxr-xr-x", "-rw-r--r--", "Lrwxrwxrwx", "urwxr-xr-x", "Dcrw--w----"]);
        let time = Time::parse("2024-02-29T23:59:59.120+02:00").unwrap();
        assert_eq!(full_time(&time), "2024-02-29 23:59:59.12 +0200 +0200");
        assert_eq!(full_time(&Time::utc(0, 0)), "1970-01-01 00:00:00 +0000 UTC");
    }
}
