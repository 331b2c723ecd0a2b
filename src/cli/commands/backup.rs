//! The command `backup`: creates a snapshot of paths, a volume, standard input or a command's
//! output.

use crate::backup::{self, DeviceIds, Exclude, Input, Options, ParentChoice, Report, Source};
use crate::cli::args::{self, GroupBy, group_by, size, split_list};
use crate::cli::context::Context;
use crate::cli::dry_run::DryRun;
use crate::cli::exit::Outcome;
use crate::cli::output::{go_float, is_zero};
use crate::cli::password;
use crate::cli::patterns::ExcludePatterns;
use crate::cli::progress::Kind;
use crate::cli::render;
use crate::clock;
use crate::format::snapshot::Summary;
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::repo::{Index, LockMode};
use crate::store::traffic::Account;
use anyhow::{Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Headings of the help.
const SOURCE: &str = "Source options";
const SNAPSHOT: &str = "Snapshot options";
const CHANGES: &str = "Change detection options";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo backup /etc /home --exclude '*.tmp' --tag daily
  vsm-mover -r /srv/repo backup --volume /mnt/data
  vsm-mover -r /srv/repo backup --stdin-filename users.txt --stdin-from-command -- getent passwd
  vsm-mover -r /srv/repo backup --read-special /dev/vdb")]
pub struct Args {
    /// Files and directories to back up; block devices with --read-special; a command with
    /// --stdin-from-command
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Do not write anything, only report what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read this number of files of 512 KiB or more concurrently; the number of smaller files
    /// adapts to the volume
    #[arg(long, env = "RESTIC_READ_CONCURRENCY", value_name = "N", value_parser = concurrency, default_value = "2",
          hide_env_values = true)]
    read_concurrency: usize,
    /// Do not count the files first; progress then has no total
    #[arg(long)]
    no_scan: bool,
    /// Back up PATH as the root of a volume: store it as the directory `data` with its own owner,
    /// mode, times and attributes
    #[arg(long, help_heading = SOURCE)]
    volume: bool,
    /// Read standard input and store it as one file
    #[arg(long, help_heading = SOURCE)]
    stdin: bool,
    /// Run the command that the arguments give, and store its standard output as one file; make no
    /// snapshot if it fails
    #[arg(long, help_heading = SOURCE)]
    stdin_from_command: bool,
    /// Store standard input, or the output of the command, under this name
    #[arg(long, value_name = "NAME", default_value = "stdin", help_heading = SOURCE)]
    stdin_filename: String,
    /// Read block devices that are named, or that a named symlink leads to, as files
    #[arg(long, help_heading = SOURCE)]
    read_special: bool,
    /// Do not cross file system boundaries below the named paths
    #[arg(short = 'x', long, help_heading = SOURCE)]
    one_file_system: bool,
    #[command(flatten)]
    exclude: ExcludeArgs,
    /// Add tags to the snapshot (can be specified multiple times)
    #[arg(long, value_name = "TAG[,TAG,...]", help_heading = SNAPSHOT)]
    tag: Vec<String>,
    /// Set the host name of the snapshot
    #[arg(short = 'H', long, env = "RESTIC_HOST", value_name = "HOST", hide_env_values = true, help_heading = SNAPSHOT)]
    host: Option<String>,
    /// Set the time of the snapshot, like "2024-02-29 23:59:59" [default: now]
    #[arg(long, value_name = "TIME", value_parser = args::time, help_heading = SNAPSHOT)]
    time: Option<Time>,
    /// Store access times
    #[arg(long, help_heading = SNAPSHOT)]
    with_atime: bool,
    /// Store device numbers: `foreign` leaves out the source's own, which differs for every clone
    /// of a volume; `all` stores them as restic does, and times in the local zone
    #[arg(long, value_name = "WHICH", default_value = "foreign", help_heading = SNAPSHOT)]
    device_id: DeviceIdArg,
    /// Make no snapshot if nothing changed since the parent snapshot
    #[arg(long, help_heading = SNAPSHOT)]
    skip_if_unchanged: bool,
    /// Use this parent snapshot [default: the latest one of the group of --group-by]
    #[arg(long, value_name = "ID", help_heading = CHANGES)]
    parent: Option<String>,
    /// Find the parent among the snapshots with the same host, paths and/or tags
    #[arg(short, long, value_name = "KEYS", value_parser = group_by, default_value = "host,paths",
          help_heading = CHANGES)]
    group_by: GroupBy,
    /// Use no parent snapshot: read all files
    #[arg(short, long, help_heading = CHANGES)]
    force: bool,
    /// Ignore ctime when checking for changed files
    #[arg(long, help_heading = CHANGES)]
    ignore_ctime: bool,
    /// Ignore inode numbers and ctime when checking for changed files
    #[arg(long, help_heading = CHANGES)]
    ignore_inode: bool,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Exclude options")]
struct ExcludeArgs {
    #[command(flatten)]
    patterns: ExcludePatterns,
    /// Exclude the contents of directories that contain a CACHEDIR.TAG file
    #[arg(long)]
    exclude_caches: bool,
    /// Exclude the contents of directories that contain this file, if it begins with HEADER
    #[arg(long, value_name = "NAME[:HEADER]")]
    exclude_if_present: Vec<String>,
    /// Exclude files larger than this, like 500M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    exclude_larger_than: Option<u64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum DeviceIdArg {
    Foreign,
    All,
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text {
        "" | "0" => Ok(2),
        text => text.parse().ok().filter(|&n| n <= 1000).ok_or_else(|| "must be a number from 1 to 1000".into()),
    }
}

/// The first bytes of a CACHEDIR.TAG file, by the Cache Directory Tagging Specification.
const CACHE_TAG: (&str, &[u8]) = ("CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

impl ExcludeArgs {
    fn build(&self) -> Result<Exclude> {
        let mut if_present: Vec<(String, Vec<u8>)> = Vec::new();
        for rule in &self.exclude_if_present {
            let (name, header) = rule.split_once(':').unwrap_or((rule, ""));
            if name.is_empty() || name.contains('/') {
                bail!("--exclude-if-present {rule:?}: {name:?} is not a file name");
            }
            if_present.push((name.to_owned(), header.as_bytes().to_vec()));
        }
        if self.exclude_caches {
            if_present.push((CACHE_TAG.0.to_owned(), CACHE_TAG.1.to_vec()));
        }
        Ok(Exclude {
            patterns: self.patterns.build()?,
            recorded: self.patterns.exclude.clone(),
            if_present,
            larger_than: self.exclude_larger_than,
        })
    }
}

impl Args {
    fn source(&self) -> Result<Source> {
        let stream = |input| Source::Stream { name: self.stdin_filename.clone(), input };
        if self.stdin_from_command {
            if self.stdin || self.volume {
                bail!("--stdin-from-command cannot be used with --stdin or --volume");
            }
            if self.paths.is_empty() {
                bail!("--stdin-from-command needs a command: `backup --stdin-from-command -- PROGRAM ARGUMENT...`");
            }
            let words = self.paths.iter().map(|word| word.clone().into_os_string());
            return Ok(stream(Input::Command(words.collect())));
        }
        match (&self.paths[..], self.stdin, self.volume) {
            ([], true, false) => Ok(stream(Input::Stdin)),
            (_, true, _) => bail!("--stdin cannot be used with paths or --volume"),
            ([path], false, true) => Ok(Source::Volume(path.clone())),
            (_, false, true) => bail!("--volume needs exactly one path: the volume's root"),
            ([], false, false) => bail!("nothing to back up; give paths, --stdin, or --stdin-from-command"),
            (paths, false, false) => Ok(Source::Paths(paths.to_vec())),
        }
    }

    fn options(&self) -> Result<Options> {
        let all_devices = matches!(self.device_id, DeviceIdArg::All);
        let (seconds, nanos) = clock::now();
        let time = self.time.unwrap_or_else(|| Time::utc(seconds, nanos));
        let GroupBy { host, paths, tags } = self.group_by;
        Ok(Options {
            source: self.source()?,
            hostname: self.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(host::hostname),
            tags: self.tag.iter().flat_map(|list| split_list(list)).collect(),
            time: if all_devices { render::to_local(time) } else { time },
            parent: match &self.parent {
                _ if self.force => ParentChoice::Force,
                Some(name) if !name.is_empty() => ParentChoice::Named(name.clone()),
                _ => ParentChoice::Group { host, paths, tags },
            },
            exclude: self.exclude.build()?,
            one_file_system: self.one_file_system,
            ignore_ctime: self.ignore_ctime,
            ignore_inode: self.ignore_inode,
            with_atime: self.with_atime,
            device_ids: if all_devices { DeviceIds::All } else { DeviceIds::Foreign },
            local_time: all_devices,
            read_special: self.read_special,
            skip_if_unchanged: self.skip_if_unchanged,
            dry_run: self.dry_run,
            read_concurrency: self.read_concurrency,
            scan: !self.no_scan,
        })
    }
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let mut options = args.options()?;
    if args.stdin && password::is_asked_for(&context.global.repository) {
        bail!(
            "cannot read both the password and the data from standard input; give the password in a file, by a command \
             or in the environment"
        );
    }
    let repo = if args.dry_run { context.open_to_read()? } else { context.open_locked(LockMode::Shared)? };
    let orderly = context.orderly();
    let ticker = context.show_progress(Kind::Backup);
    // Counting visits every entry, so the total is counted only if it is shown.
    options.scan &= ticker.is_shown();
    let report = backup::run(&repo, || Index::load(&repo), &options, &context.progress);
    let elapsed = ticker.duration();
    drop(ticker);
    drop(orderly);
    let report = report?;
    if context.out.is_json() {
        context.out.json(&SummaryMessage::new(&report, elapsed, DryRun::from(args.dry_run), context.cost()))?;
    } else {
        print_summary(context, &args, &report, elapsed)?;
    }
    Ok(match (report.problems, report.damage) {
        (0, 0) => Outcome::Complete,
        (0, count) => Outcome::Incomplete(format!(
            "the snapshot is complete, but the parent snapshot is damaged in {count} places; run check"
        )),
        (count, _) => {
            Outcome::Incomplete(format!("the snapshot is incomplete: {count} problems while reading the source"))
        }
    })
}

#[derive(Serialize)]
struct SummaryMessage<'r> {
    message_type: &'static str,
    files_new: u64,
    files_changed: u64,
    files_unmodified: u64,
    dirs_new: u64,
    dirs_changed: u64,
    dirs_unmodified: u64,
    data_blobs: u64,
    tree_blobs: u64,
    data_added: u64,
    data_added_packed: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
    #[serde(serialize_with = "go_float")]
    total_duration: f64,
    backup_start: &'r Option<Time>,
    backup_end: &'r Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<Id>,
    #[serde(skip_serializing_if = "is_zero")]
    dry_run: bool,
    /// Not in restic: the requests and bytes of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Account>,
}

impl SummaryMessage<'_> {
    fn new(report: &Report, elapsed: Duration, dry_run: DryRun, store: Option<Account>) -> SummaryMessage<'_> {
        let summary = &report.summary;
        SummaryMessage {
            message_type: "summary",
            files_new: summary.files_new,
            files_changed: summary.files_changed,
            files_unmodified: summary.files_unmodified,
            dirs_new: summary.dirs_new,
            dirs_changed: summary.dirs_changed,
            dirs_unmodified: summary.dirs_unmodified,
            data_blobs: summary.data_blobs,
            tree_blobs: summary.tree_blobs,
            data_added: summary.data_added,
            data_added_packed: summary.data_added_packed,
            total_files_processed: summary.total_files_processed,
            total_bytes_processed: summary.total_bytes_processed,
            total_duration: elapsed.as_secs_f64(),
            backup_start: &summary.backup_start,
            backup_end: &summary.backup_end,
            snapshot_id: report.snapshot,
            dry_run: dry_run == DryRun::Yes,
            store,
        }
    }
}

fn print_summary(context: &Context, args: &Args, report: &Report, elapsed: Duration) -> Result<()> {
    let out = &context.out;
    let Summary { data_blobs, tree_blobs, data_added, data_added_packed, .. } = report.summary;
    let Summary { total_files_processed: files, total_bytes_processed: bytes, .. } = report.summary;
    match report.parent {
        Some(parent) => out.note(format_args!("using parent snapshot {}", parent.short()))?,
        None if !args.stdin && !args.stdin_from_command => out.note("no parent snapshot: all files were read")?,
        None => {}
    }
    let Summary { files_new, files_changed, files_unmodified, .. } = report.summary;
    let Summary { dirs_new, dirs_changed, dirs_unmodified, .. } = report.summary;
    out.note("")?;
    out.note(format_args!(
        "Files:       {files_new:5} new, {files_changed:5} changed, {files_unmodified:5} unmodified"
    ))?;
    out.note(format_args!("Dirs:        {dirs_new:5} new, {dirs_changed:5} changed, {dirs_unmodified:5} unmodified"))?;
    out.note_at(2, format_args!("Data Blobs:  {data_blobs:5} new"))?;
    out.note_at(2, format_args!("Tree Blobs:  {tree_blobs:5} new"))?;
    let (added, stored) = (render::bytes(data_added), render::bytes(data_added_packed));
    let verb = if args.dry_run { "Would add" } else { "Added" };
    out.note(format_args!("{verb} to the repository: {added:<5} ({stored:<5} stored)"))?;
    out.note("")?;
    let (bytes, elapsed) = (render::bytes(bytes), render::duration(elapsed));
    out.note(format_args!("processed {files} files, {bytes} in {elapsed}"))?;
    match report.snapshot {
        Some(id) => out.note(format_args!("snapshot {} saved", id.short()))?,
        None if args.dry_run => {}
        None => out.note("nothing changed: no snapshot made")?,
    }
    context.note_cost()
}
