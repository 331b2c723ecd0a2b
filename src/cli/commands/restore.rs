//! The command `restore`: restores a snapshot, or a part of it, into a directory or a block device.

use crate::cli::args::Filter;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::is_zero;
use crate::cli::patterns::{ExcludePatterns, Lists};
use crate::cli::progress::Kind;
use crate::cli::{render, select};
use crate::repo::{Index, StoredSnapshot};
use crate::restore::{self, Options, Overwrite, Report, Restoring};
use crate::store::traffic::Account;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Heading of the help.
const TARGET: &str = "Target options";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo restore latest --target /tmp/restored
  vsm-mover -r /srv/repo restore latest:/etc --target /tmp/etc --include '*.conf'
  vsm-mover -r /srv/repo restore 1a2b3c4d --volume --target /mnt/data --verify
  vsm-mover -r /srv/repo restore latest:/dev/vdb --target /dev/vdc")]
pub struct Args {
    /// Snapshot to restore: an id or the beginning of one, or `latest`; `:PATH` restricts it to a
    /// path
    #[arg(value_name = "ID[:PATH]")]
    snapshot: String,
    /// Restore into this directory, or restore the one file of PATH to this block device
    #[arg(short, long, value_name = "DIR", help_heading = TARGET)]
    target: Option<PathBuf>,
    /// Overwrite existing files according to this rule
    #[arg(long, value_name = "BEHAVIOR", default_value = "always", help_heading = TARGET)]
    overwrite: OverwriteArg,
    /// Remove entries from the target that the snapshot does not contain
    #[arg(long, help_heading = TARGET)]
    delete: bool,
    /// Read the restored files again and verify their content
    #[arg(long, help_heading = TARGET)]
    verify: bool,
    /// Do nothing (for compatibility with restic): zeros in new files always become holes
    #[arg(long, help_heading = TARGET)]
    sparse: bool,
    /// Do not change anything, only report what would be done
    #[arg(long)]
    dry_run: bool,
    /// Restore the root of a volume to the target, even if the snapshot stores it as the directory
    /// `data`
    #[arg(long, help_heading = TARGET)]
    volume: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    patterns: PatternArgs,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Include options")]
struct PatternArgs {
    /// Include a pattern, exclude everything else (can be specified multiple times)
    #[arg(short, long, value_name = "PATTERN", allow_hyphen_values = true)]
    include: Vec<String>,
    /// Like --include, ignoring case
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    iinclude: Vec<String>,
    /// Read include patterns from a file, one per line (can be specified multiple times)
    #[arg(long, value_name = "FILE")]
    include_file: Vec<PathBuf>,
    /// Like --include-file, ignoring case
    #[arg(long, value_name = "FILE")]
    iinclude_file: Vec<PathBuf>,
    #[command(flatten)]
    exclude: ExcludePatterns,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OverwriteArg {
    /// Compare the content, and rewrite the parts that differ
    Always,
    /// Skip files with the same size and modification time
    IfChanged,
    /// Overwrite files that are older than in the snapshot
    IfNewer,
    /// Keep existing files
    Never,
}

impl Args {
    fn options(&self) -> Result<Options> {
        let target = self.target.clone().context("no directory to restore to; name it with --target")?;
        let PatternArgs { include, iinclude, include_file, iinclude_file, exclude } = &self.patterns;
        let include = Lists {
            patterns: include,
            ignoring_case: iinclude,
            files: include_file,
            files_ignoring_case: iinclude_file,
        }
        .build()?;
        let exclude = exclude.build()?;
        if !include.is_empty() && !exclude.is_empty() {
            bail!("include and exclude patterns exclude each other; give one kind");
        }
        let overwrite = match self.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Never => Overwrite::Never,
        };
        Ok(Options {
            volume: self.volume,
            include,
            exclude,
            overwrite,
            delete: self.delete,
            verify: self.verify,
            dry_run: self.dry_run,
            ..Options::new(target)
        })
    }
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let options = args.options()?;
    let repo = context.open_to_read()?;
    let (name, path) = select::split_folder(&args.snapshot);
    let find = || -> Result<StoredSnapshot> {
        let stored = repo.find_snapshot(name, &args.filter.build())?;
        context.out.note(format_args!("restoring {} to {}", select::describe(&stored), options.target.display()))?;
        Ok(stored)
    };
    let (stored, index) = Index::load_beside(&repo, find, std::slice::from_ref)?;
    let orderly = context.orderly();
    let ticker = context.show_progress(Kind::Restore);
    let restoring = Restoring { repo: &repo, index: &index, options: &options, progress: &context.progress };
    let report = restore::run(&restoring, &stored, path.as_bytes());
    let elapsed = ticker.duration();
    drop(ticker);
    drop(orderly);
    let report = report?;
    if context.out.is_json() {
        context.out.json(&SummaryMessage::new(&report, elapsed, context.cost()))?;
    } else {
        print_summary(context, &args, &report, elapsed)?;
    }
    let (problems, lacking) = (report.problems, report.snapshot_problems);
    let lacks = format!("the snapshot is incomplete: {lacking} entries could not be read when it was backed up");
    let of_all = is_all(path, &options);
    if lacking > 0 && (problems > 0 || !of_all) {
        // The snapshot does not record whether the requested part is affected.
        context.out.warn(format_args!("warning: {lacks}"));
    }
    match (problems, lacking) {
        (0, 0) => Ok(Outcome::Complete),
        (0, _) if of_all => {
            let what = if args.dry_run { "would be restored" } else { "is restored" };
            Ok(Outcome::Incomplete(format!("{lacks}; the rest {what}")))
        }
        (0, _) => Ok(Outcome::Complete),
        (count, _) => bail!("the restore is incomplete: there were {count} errors"),
    }
}

/// Whether the whole snapshot is to be restored.
fn is_all(path: &str, options: &Options) -> bool {
    let names_nothing = path.split('/').all(|name| name.is_empty() || name == ".");
    names_nothing && options.include.is_empty() && options.exclude.is_empty()
}

/// restic's summary, in which numbers that are 0 are left out.
#[derive(Serialize)]
struct SummaryMessage {
    message_type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    seconds_elapsed: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_files: u64,
    #[serde(skip_serializing_if = "is_zero")]
    files_restored: u64,
    #[serde(skip_serializing_if = "is_zero")]
    files_skipped: u64,
    #[serde(skip_serializing_if = "is_zero")]
    files_deleted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bytes_restored: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bytes_skipped: u64,
    /// Not in restic: entries that are missing or doubtful in the snapshot, by the summary of its
    /// backup.
    #[serde(skip_serializing_if = "is_zero")]
    snapshot_problems: u64,
    /// Not in restic: the requests and bytes of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Account>,
}

impl SummaryMessage {
    fn new(report: &Report, elapsed: Duration, store: Option<Account>) -> SummaryMessage {
        SummaryMessage {
            message_type: "summary",
            seconds_elapsed: elapsed.as_secs(),
            total_files: report.total_files,
            files_restored: report.files_restored,
            files_skipped: report.files_skipped,
            files_deleted: report.files_deleted,
            total_bytes: report.total_bytes,
            bytes_restored: report.bytes_restored,
            bytes_skipped: report.bytes_skipped,
            snapshot_problems: report.snapshot_problems,
            store,
        }
    }
}

fn print_summary(context: &Context, args: &Args, report: &Report, elapsed: Duration) -> Result<()> {
    let Report { files_restored, files_skipped, files_deleted, .. } = *report;
    let restored = render::bytes(report.bytes_restored);
    let mut line =
        format!("Summary: Restored {files_restored} files/dirs ({restored}) in {}", render::duration(elapsed));
    if files_skipped > 0 {
        line += &format!(", skipped {files_skipped} files/dirs {}", render::bytes(report.bytes_skipped));
    }
    if files_deleted > 0 {
        line += &format!(", deleted {files_deleted} files/dirs");
    }
    if args.dry_run {
        line += "; this was a dry run, and nothing was changed";
    }
    for (kind, count) in &report.not_applied {
        context.out.warn(format_args!("warning: {kind} not applied to {count} entries"));
    }
    context.out.note(line)?;
    context.note_cost()
}
