//! The command `stats`: counts the files, blobs and bytes of snapshots.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::{go_float, is_zero};
use crate::cli::progress::Kind;
use crate::cli::render;
use crate::cli::select::Selection;
use crate::maintain::stats::{Compression, Mode, Stats, count};
use crate::repo::Index;
use anyhow::Result;
use serde::Serialize;

#[derive(clap::Args)]
#[command(mut_arg("ids", |ids| ids.help("Snapshots to count [default: all that the filters accept]")))]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo stats latest
  vsm-mover -r /srv/repo stats --mode raw-data")]
pub struct Args {
    /// Count in this mode
    #[arg(long, value_name = "MODE", default_value = "restore-size")]
    mode: ModeArg,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ModeArg {
    /// Files and bytes that a restore of each snapshot would write
    RestoreSize,
    /// Files with different content
    FilesByContents,
    /// Blobs, counted once for each file that contains them
    BlobsPerFile,
    /// Blobs as stored in the repository, compressed
    RawData,
}

#[derive(Serialize)]
struct StatsJson {
    total_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_uncompressed_size: u64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "go_float")]
    compression_ratio: f64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "go_float")]
    compression_progress: f64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "go_float")]
    compression_space_saving: f64,
    #[serde(skip_serializing_if = "is_zero")]
    total_file_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_blob_count: u64,
    snapshots_count: u64,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let (mode, name) = match args.mode {
        ModeArg::RestoreSize => (Mode::RestoreSize, "restore-size"),
        ModeArg::FilesByContents => (Mode::FilesByContents, "files-by-contents"),
        ModeArg::BlobsPerFile => (Mode::BlobsPerFile, "blobs-per-file"),
        ModeArg::RawData => (Mode::RawData, "raw-data"),
    };
    let repo = context.open_to_read()?;
    let select = || args.selection.snapshots(context, &repo);
    let ((snapshots, missing), index) = Index::load_beside(&repo, select, |(snapshots, _)| snapshots)?;
    context.out.note("scanning...")?;
    let orderly = context.orderly();
    let ticker = context.show_progress(Kind::Count("snapshots"));
    let stats = count(&repo, &index, &snapshots, mode, &context.progress)?;
    drop(ticker);
    drop(orderly);
    if context.out.is_json() {
        let Compression { uncompressed_size, ratio, progress, space_saving } = stats.compression.unwrap_or_default();
        context.out.json(&StatsJson {
            total_size: stats.total_size,
            total_uncompressed_size: uncompressed_size,
            compression_ratio: ratio,
            compression_progress: progress,
            compression_space_saving: space_saving,
            total_file_count: stats.files,
            total_blob_count: stats.blobs,
            snapshots_count: stats.snapshots,
        })?;
    } else {
        print(context, name, &stats)?;
    }
    Ok(match missing as u64 + context.progress.problem_count() {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} snapshots or parts of them are not counted, each listed above")),
    })
}

fn print(context: &Context, mode: &str, stats: &Stats) -> Result<()> {
    let line = |label: &str, value: String| context.out.line(format_args!("{label:>24}:  {value}"));
    context.out.line(format_args!("Stats in {mode} mode:"))?;
    line("Snapshots processed", stats.snapshots.to_string())?;
    if stats.blobs > 0 {
        line("Total Blob Count", stats.blobs.to_string())?;
    }
    if stats.files > 0 {
        line("Total File Count", stats.files.to_string())?;
    }
    if let Some(compression) = stats.compression {
        line("Total Uncompressed Size", render::bytes(compression.uncompressed_size))?;
    }
    line("Total Size", render::bytes(stats.total_size))?;
    if let Some(Compression { ratio, progress, space_saving, .. }) = stats.compression {
        line("Compression Progress", format!("{progress:.2}%"))?;
        line("Compression Ratio", format!("{ratio:.2}x"))?;
        line("Compression Space Saving", format!("{space_saving:.2}%"))?;
    }
    Ok(())
}
