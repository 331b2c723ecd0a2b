//! The options every command takes, the choices several commands share, and restic's notations for sizes, durations and times.
//!
//! An empty environment variable counts as unset. A switch takes no value. Whatever is not defined here or with its command is an
//! error: an option that is silently without effect would be worse than none.

use super::output::OutputFormat;
use crate::format::compression::Compression;
use crate::format::time::Time;
use crate::host;
use crate::limits;
use crate::repo::SnapshotFilter;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of all commands.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Repository: a folder, s3:https://HOST/BUCKET/PREFIX, azure:CONTAINER:/PREFIX, or gs:BUCKET:/PREFIX
    #[arg(short, long, global = true, env = "RESTIC_REPOSITORY", value_name = "LOCATION", hide_env_values = true)]
    pub repo: Option<String>,
    /// File to read the repository's location from
    #[arg(long, global = true, env = "RESTIC_REPOSITORY_FILE", value_name = "FILE", hide_env_values = true)]
    pub repository_file: Option<PathBuf>,
    /// File to read the password from [or RESTIC_PASSWORD holds the password itself]
    #[arg(short, long, global = true, env = "RESTIC_PASSWORD_FILE", value_name = "FILE", hide_env_values = true)]
    pub password_file: Option<PathBuf>,
    /// Command whose output is the password; run without a shell
    #[arg(long, global = true, env = "RESTIC_PASSWORD_COMMAND", value_name = "COMMAND", hide_env_values = true)]
    pub password_command: Option<String>,
    /// The variable that holds the password.
    #[arg(skip = "RESTIC_PASSWORD")]
    pub password_variable: &'static str,
    /// Id, or its beginning, of the key to try first
    #[arg(long, global = true, env = "RESTIC_KEY_HINT", value_name = "ID", hide_env_values = true)]
    pub key_hint: Option<String>,
    /// Use the empty password
    #[arg(long, global = true)]
    pub insecure_no_password: bool,
    /// Take no lock; only for commands that write nothing
    #[arg(long, global = true)]
    pub no_lock: bool,
    /// How long to wait for a lock that another process holds, like 5m
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "0s", hide_default_value = true)]
    pub retry_lock: Duration,
    /// Print JSON: one document, or one message per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no comments
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; -vv or --verbose=2 tells every file
    #[arg(short, long, global = true, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "+",
          action = clap::ArgAction::Append)]
    pub verbose: Vec<String>,
    /// File of PEM certificates that are trusted besides the system's
    #[arg(long, global = true, env = "RESTIC_CACERT", value_name = "FILE", hide_env_values = true)]
    pub cacert: Option<PathBuf>,
    /// Extended option: azure.access-tier, azure.connections, azure.endpoint, gs.connections, gs.endpoint, gs.region, local.connections, s3.bucket-lookup, s3.connections, s3.region, s3.storage-class, s3.unsafe-anonymous-auth
    #[arg(short, long = "option", global = true, value_name = "KEY=VALUE")]
    pub option: Vec<String>,
    /// auto, off, fastest, better or max; repositories of version 1 are never compressed
    #[arg(long, global = true, env = "RESTIC_COMPRESSION", value_name = "MODE", value_parser = compression, default_value = "auto",
          hide_env_values = true)]
    pub compression: Compression,
    /// Pack size to aim at, in MiB: 4 to 128
    #[arg(long, global = true, env = "RESTIC_PACK_SIZE", value_name = "MIB", value_parser = pack_size, default_value = "16",
          hide_env_values = true)]
    pub pack_size: u64,
    /// Memory to be sized for, key derivation apart, like 256M [default: 128M, and what a larger index needs]
    #[arg(long, global = true, env = "VSM_MEMORY", value_name = "SIZE", value_parser = memory, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub memory: Memory,
    /// Cores to keep busy [default: all]
    #[arg(long, global = true, env = "VSM_THREADS", value_name = "N", value_parser = threads, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub threads: usize,
    /// Do not open sealed data again before it is uploaded
    #[arg(long, global = true)]
    pub no_extra_verify: bool,
    /// Time after which a request that does not move is made again
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub stuck_request_timeout: Duration,
    /// Most KiB of uploads to buckets a second, or a size like 20M
    #[arg(long, global = true, env = "VSM_LIMIT_UPLOAD", value_name = "KIB", value_parser = rate, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub limit_upload: Limit,
    /// Most KiB of downloads from buckets a second, or a size like 20M
    #[arg(long, global = true, env = "VSM_LIMIT_DOWNLOAD", value_name = "KIB", value_parser = rate, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub limit_download: Limit,
    /// Most requests to buckets a second
    #[arg(long, global = true, env = "VSM_LIMIT_REQUESTS", value_name = "N", value_parser = requests, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub limit_requests: Limit,
    /// Directory with limits that may change while this runs: files `upload`, `download` and `requests`
    #[arg(long, global = true, env = "VSM_LIMITS", value_name = "DIRECTORY", hide_env_values = true)]
    pub limits: Option<PathBuf>,
    /// Keep no copies of indexes, snapshots and trees on this machine
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Where to keep copies of indexes, snapshots and trees [default: $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, global = true, env = "RESTIC_CACHE_DIR", value_name = "DIRECTORY", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
    /// Without effect: what is old is always removed from the cache
    #[arg(long, global = true)]
    pub cleanup_cache: bool,
}

impl Global {
    pub fn format(&self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { OutputFormat::Text }
    }

    /// 0 quiet, 1 as usual, 2 and 3 for more.
    pub fn verbosity(&self) -> Result<u8, String> {
        if self.quiet {
            return Ok(0);
        }
        self.verbose.iter().try_fold(1u8, |level, value| match value.as_str() {
            "+" => Ok((level + 1).min(3)),
            number => match number.parse::<u8>() {
                Ok(number @ 0..=2) => Ok(number + 1),
                _ => Err(format!("--verbose={number}: the levels are 0, 1 and 2")),
            },
        })
    }
}

/// Which snapshots a command is about.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Filter {
    /// Only snapshots of this host; may be given several times
    #[arg(short = 'H', long, env = "RESTIC_HOST", value_name = "HOST", hide_env_values = true)]
    host: Vec<String>,
    /// Only snapshots with all of these tags; given several times, one list must fit
    #[arg(long, value_name = "TAG[,TAG,...]")]
    tag: Vec<String>,
    /// Only snapshots of this absolute path; given several times, all must be in it
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
}

impl Filter {
    pub fn build(&self) -> SnapshotFilter {
        filter(&self.host, &self.tag, &self.path)
    }
}

pub fn filter(hosts: &[String], tags: &[String], paths: &[PathBuf]) -> SnapshotFilter {
    SnapshotFilter {
        hosts: hosts.iter().filter(|host| !host.is_empty()).cloned().collect(),
        tags: tags.iter().map(|list| split_list(list)).collect(),
        paths: paths.iter().map(|path| absolute(path)).collect(),
    }
}

/// `a,b` as a list; nothing is the empty list.
pub fn split_list(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A path as snapshots record it.
fn absolute(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = absolute.to_string_lossy();
    if text.len() > 1 { text.trim_end_matches('/').to_owned() } else { text.into_owned() }
}

/// By what snapshots are grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupBy {
    pub host: bool,
    pub paths: bool,
    pub tags: bool,
}

/// `host,paths,tags` or some of them; nothing is one group of all.
pub fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy::default();
    for part in split_list(text) {
        match part.as_str() {
            "host" | "hosts" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            other => return Err(format!("{other:?} is not one of host, paths and tags")),
        }
    }
    Ok(by)
}

fn compression(text: &str) -> Result<Compression, String> {
    Ok(match text {
        "" | "auto" => Compression::Auto,
        "off" => Compression::Off,
        "fastest" => Compression::Fastest,
        "better" => Compression::Better,
        "max" => Compression::Max,
        _ => return Err("it is auto, off, fastest, better or max".into()),
    })
}

fn pack_size(text: &str) -> Result<u64, String> {
    let mib: u64 = match text {
        "" => 0,
        text => text.parse().map_err(|_| "it is a number of MiB".to_owned())?,
    };
    let bytes = if mib == 0 { limits::PACK_SIZE } else { mib.saturating_mul(1 << 20) };
    let bounds = limits::PACK_SIZES;
    if bounds.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("it is between {} and {} MiB", bounds.start() >> 20, bounds.end() >> 20))
}

/// A limit in bytes, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(pub Option<u64>);

fn memory(text: &str) -> Result<Memory, String> {
    if text.is_empty() { Ok(Memory(None)) } else { size(text).map(|bytes| Memory(Some(bytes))) }
}

fn threads(text: &str) -> Result<usize, String> {
    match text {
        "" => Ok(host::cores()),
        text => {
            text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "it is a number from 1 to 1024".into())
        }
    }
}

/// Bytes, with one of restic's suffixes k, M, G, T (powers of 1024) or without.
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

/// A limit on what passes in a second; none if there is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// Bytes a second: KiB, as restic has it, or a size with its unit.
pub fn rate(text: &str) -> Result<Limit, String> {
    let bytes = match text.parse::<u64>() {
        Ok(kib) => kib.checked_mul(1 << 10).ok_or_else(|| format!("{text:?} is too large"))?,
        Err(_) if text.is_empty() => 0,
        Err(_) => size(text)?,
    };
    Ok(Limit(Some(bytes).filter(|bytes| *bytes > 0)))
}

/// Requests a second.
pub fn requests(text: &str) -> Result<Limit, String> {
    if text.is_empty() {
        return Ok(Limit(None));
    }
    let number = text.parse::<u64>().map_err(|_| format!("{text:?} is not a number of requests a second"))?;
    Ok(Limit(Some(number).filter(|number| *number > 0)))
}

/// A duration as Go writes it: `1h30m`, `45s`, `1.5h`, `300ms`.
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

/// A time as people write it (in the machine's zone), or with its own offset as RFC 3339 has it.
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
    fn sizes_and_durations_are_those_of_restic() {
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
    fn times_may_carry_an_offset_or_none() {
        assert_eq!(time("2024-02-29T23:59:59+02:00").unwrap().offset, 7200);
        let (year, month, day, hour, ..) = time("2012-11-01 22:08:41").unwrap().civil();
        assert_eq!((year, month, day, hour), (2012, 11, 1, 22));
        assert_eq!(time("2012-11-01").unwrap().civil().3, 0);
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn groups_and_lists() {
        assert_eq!(group_by("host,paths"), Ok(GroupBy { host: true, paths: true, tags: false }));
        assert_eq!(group_by(""), Ok(GroupBy::default()));
        assert!(group_by("size").is_err());
        let filter = filter(&[String::new()], &["a,b".into(), String::new()], &["/x/".into()]);
        assert_eq!(
            (filter.hosts.len(), filter.tags, filter.paths),
            (0, vec![vec!["a".into(), "b".into()], vec![]], vec!["/x".into()])
        );
    }
}
