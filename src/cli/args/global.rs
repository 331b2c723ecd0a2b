//! The options that every command accepts, grouped by topic.

use super::values::{Limit, Memory, compression, duration, memory, pack_size, rate, requests, threads};
use crate::cli::output::{OutputFormat, Verbosity};
use crate::format::compression::Compression;
use crate::memory::Budget;
use crate::repo::Settings;
use crate::store::Location;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// Options of all commands.
#[derive(clap::Args, Clone, Debug)]
pub struct Global {
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub storage: StorageArgs,
    #[command(flatten)]
    pub performance: PerformanceArgs,
    #[command(flatten)]
    pub traffic: TrafficArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// The repository's location, password and lock.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global repository options")]
pub struct RepositoryArgs {
    /// Use the repository at this location: a folder, s3:https://HOST/BUCKET/PREFIX,
    /// azure:CONTAINER:/PREFIX, or gs:BUCKET:/PREFIX
    #[arg(short, long, global = true, env = "RESTIC_REPOSITORY", value_name = "LOCATION", hide_env_values = true)]
    pub repo: Option<String>,
    /// Read the repository's location from a file
    #[arg(long, global = true, env = "RESTIC_REPOSITORY_FILE", value_name = "FILE", hide_env_values = true)]
    pub repository_file: Option<PathBuf>,
    /// Read the password from a file (RESTIC_PASSWORD sets the password itself)
    #[arg(short, long, global = true, env = "RESTIC_PASSWORD_FILE", value_name = "FILE", hide_env_values = true)]
    pub password_file: Option<PathBuf>,
    /// Run a command, without a shell, and use its output as the password
    #[arg(long, global = true, env = "RESTIC_PASSWORD_COMMAND", value_name = "COMMAND", hide_env_values = true)]
    pub password_command: Option<String>,
    /// The environment variable that contains the password.
    #[arg(skip = "RESTIC_PASSWORD")]
    pub password_variable: &'static str,
    /// Try the key with this id, or beginning of an id, first
    #[arg(long, global = true, env = "RESTIC_KEY_HINT", value_name = "ID", hide_env_values = true)]
    pub key_hint: Option<String>,
    /// Use the empty password (insecure)
    #[arg(long, global = true)]
    pub insecure_no_password: bool,
    /// Do not lock the repository if the command only reads it
    #[arg(long, global = true)]
    pub no_lock: bool,
    /// Wait this long for a conflicting lock of another process, like 5m or 2h [default: do not
    /// wait]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "0s", hide_default_value = true)]
    pub retry_lock: Duration,
}

impl RepositoryArgs {
    pub fn location(&self) -> Result<Location> {
        let repo = self.repo.as_deref().filter(|repo| !repo.is_empty());
        let file = self.repository_file.as_deref().filter(|file| !file.as_os_str().is_empty());
        let text = match (repo, file) {
            (Some(_), Some(_)) => bail!("--repo and --repository-file exclude each other; give one of them"),
            (Some(repo), None) => repo.to_owned(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read the repository file {}", file.display()))?;
                text.trim().to_owned()
            }
            (None, None) => bail!("no repository given; use --repo, --repository-file, or RESTIC_REPOSITORY"),
        };
        Ok(text.parse()?)
    }

    /// The id, or beginning of an id, of the key to try first.
    pub fn hint(&self) -> Option<&str> {
        self.key_hint.as_deref().filter(|hint| !hint.is_empty())
    }
}

/// The format and the amount of output.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global output options")]
pub struct OutputArgs {
    /// Print JSON: one document, or one message per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no comments
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Be verbose; -vv or --verbose=2 also lists every file
    #[arg(short, long, global = true, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "+",
          action = clap::ArgAction::Append)]
    pub verbose: Vec<String>,
}

impl OutputArgs {
    pub fn format(&self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { OutputFormat::Text }
    }

    /// The verbosity that `--quiet` and `--verbose` set.
    pub fn verbosity(&self) -> Result<Verbosity, String> {
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

/// The service that stores the repository.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global storage options")]
pub struct StorageArgs {
    /// Trust the PEM certificates in a file, in addition to the system's
    #[arg(long, global = true, env = "RESTIC_CACERT", value_name = "FILE", hide_env_values = true)]
    pub cacert: Option<PathBuf>,
    /// Set an extended option: azure.access-tier, azure.connections, azure.endpoint,
    /// gs.connections, gs.endpoint, gs.region, local.connections, s3.bucket-lookup, s3.connections,
    /// s3.region, s3.storage-class, s3.unsafe-anonymous-auth
    #[arg(short, long = "option", global = true, value_name = "KEY=VALUE")]
    pub option: Vec<String>,
}

/// How packs are made, and the memory and cores that the process may use.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global performance options")]
pub struct PerformanceArgs {
    /// Set the compression mode: auto, off, fastest, better or max (repositories of version 1 are
    /// never compressed)
    #[arg(long, global = true, env = "RESTIC_COMPRESSION", value_name = "MODE", value_parser = compression, default_value = "auto",
          hide_env_values = true)]
    pub compression: Compression,
    /// Set the target pack size in MiB, from 4 to 128
    #[arg(long, global = true, env = "RESTIC_PACK_SIZE", value_name = "MIB", value_parser = pack_size, default_value = "16",
          hide_env_values = true)]
    pub pack_size: u64,
    /// Set the memory budget, excluding key derivation, like 256M [default: 128M, or more if the
    /// index needs it]
    #[arg(long, global = true, env = "VSM_MEMORY", value_name = "SIZE", value_parser = memory, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub memory: Memory,
    /// Use this number of cores [default: all]
    #[arg(long, global = true, env = "VSM_THREADS", value_name = "N", value_parser = threads, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub threads: usize,
    /// Do not decrypt and verify data again before it is uploaded
    #[arg(long, global = true)]
    pub no_extra_verify: bool,
}

impl PerformanceArgs {
    pub fn settings(&self) -> Settings {
        let PerformanceArgs { compression, pack_size, no_extra_verify, memory, threads } = *self;
        let budget = Budget { memory: memory.0, threads };
        let aside = Some(std::env::temp_dir());
        Settings { compression, pack_size, extra_verify: !no_extra_verify, budget, aside, ..Settings::default() }
    }
}

/// Timeouts and rate limits of requests to buckets.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global traffic options")]
pub struct TrafficArgs {
    /// Retry a request to a bucket that makes no progress for this time
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub stuck_request_timeout: Duration,
    /// Limit uploads to buckets to this rate in KiB/s, or in bytes/s with a unit like 20M
    #[arg(long, global = true, env = "VSM_LIMIT_UPLOAD", value_name = "KIB", value_parser = rate, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub limit_upload: Limit,
    /// Limit downloads from buckets to this rate in KiB/s, or in bytes/s with a unit like 20M
    #[arg(long, global = true, env = "VSM_LIMIT_DOWNLOAD", value_name = "KIB", value_parser = rate, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub limit_download: Limit,
    /// Limit requests to buckets to this number per second
    #[arg(long, global = true, env = "VSM_LIMIT_REQUESTS", value_name = "N", value_parser = requests, default_value = "",
          hide_default_value = true, hide_env_values = true)]
    pub limit_requests: Limit,
    /// Read limits from the files `upload`, `download` and `requests` in a directory, and apply
    /// changes while the command runs
    #[arg(long, global = true, env = "VSM_LIMITS", value_name = "DIRECTORY", hide_env_values = true)]
    pub limits: Option<PathBuf>,
}

/// The local cache.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Global cache options")]
pub struct CacheArgs {
    /// Do not use the local cache
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Cache indexes, snapshots and trees in this directory [default: $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, global = true, env = "RESTIC_CACHE_DIR", value_name = "DIRECTORY", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
    /// Do nothing (for compatibility with restic): old cache files are always removed
    #[arg(long, global = true)]
    pub cleanup_cache: bool,
}

impl CacheArgs {
    /// The directory that contains the caches of all repositories; `None` with `--no-cache`, or
    /// if no option or variable names a directory.
    pub fn directory(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let given = self.cache_dir.clone().filter(|directory| !directory.as_os_str().is_empty());
        given.or_else(usual).filter(|_| !self.no_cache).map(|parent| parent.join("vsm-mover"))
    }
}
