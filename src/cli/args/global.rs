//! The options of all commands, by what they are about.

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
#[command(next_help_heading = "Global options")]
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

/// The repository, what opens it, and its lock.
#[derive(clap::Args, Clone, Debug)]
pub struct RepositoryArgs {
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

    /// The id of the key to try first, or its beginning.
    pub fn hint(&self) -> Option<&str> {
        self.key_hint.as_deref().filter(|hint| !hint.is_empty())
    }
}

/// What is printed, and how.
#[derive(clap::Args, Clone, Debug)]
pub struct OutputArgs {
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
}

impl OutputArgs {
    pub fn format(&self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { OutputFormat::Text }
    }

    /// What `--quiet` and `--verbose` say together.
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
pub struct StorageArgs {
    /// File of PEM certificates that are trusted besides the system's
    #[arg(long, global = true, env = "RESTIC_CACERT", value_name = "FILE", hide_env_values = true)]
    pub cacert: Option<PathBuf>,
    /// Extended option: azure.access-tier, azure.connections, azure.endpoint, gs.connections, gs.endpoint, gs.region, local.connections, s3.bucket-lookup, s3.connections, s3.region, s3.storage-class, s3.unsafe-anonymous-auth
    #[arg(short, long = "option", global = true, value_name = "KEY=VALUE")]
    pub option: Vec<String>,
}

/// How packs are made, and the memory and cores that the process may use.
#[derive(clap::Args, Clone, Debug)]
pub struct PerformanceArgs {
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
pub struct TrafficArgs {
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
}

/// The local cache.
#[derive(clap::Args, Clone, Debug)]
pub struct CacheArgs {
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

impl CacheArgs {
    /// The directory that the caches of all repositories are below. There is none without a cache,
    /// or without a home directory.
    pub fn directory(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let given = self.cache_dir.clone().filter(|directory| !directory.as_os_str().is_empty());
        given.or_else(usual).filter(|_| !self.no_cache).map(|parent| parent.join("vsm-mover"))
    }
}
