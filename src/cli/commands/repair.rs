//! The commands `repair index`, `repair packs` and `repair snapshots`.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::progress::Kind;
use crate::cli::select::{self, Selection};
use crate::id::Id;
use crate::maintain::repair::{self, index::PacksToRead, index::Repaired, packs::Salvaged, snapshots::Became};
use crate::maintain::rewrite::Replace;
use crate::repo::{self, LockMode, Repository};
use crate::store::{File, FileType, StoreError};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo repair index
  vsm-mover -r /srv/repo repair snapshots --forget")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Rebuild the index from the packs
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo repair index
  vsm-mover -r /srv/repo repair index --read-all-packs")]
    Index(IndexArgs),
    /// Salvage the intact blobs of damaged packs, and remove the packs
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo repair packs 5e0c8d2f1a3b4c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d")]
    Packs {
        /// Ids of the damaged packs, which `check --read-data` lists
        #[arg(value_name = "ID", required = true)]
        ids: Vec<Id>,
    },
    /// Rewrite damaged snapshots without the lost data
    #[command(mut_arg("ids", |ids| ids.help("Snapshots to repair [default: all that the filters accept]")))]
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo repair snapshots --dry-run
  vsm-mover -r /srv/repo repair snapshots --forget")]
    Snapshots {
        /// Remove the damaged snapshots
        #[arg(long)]
        forget: bool,
        /// Do not change anything, only report what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
        #[command(flatten)]
        selection: Selection,
    },
}

#[derive(clap::Args)]
struct IndexArgs {
    /// Read the headers of all packs, even of those that are consistent with the index
    #[arg(long)]
    read_all_packs: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if context.global.repository.no_lock {
        bail!("--no-lock cannot be used with repair: a repair needs an exclusive lock");
    }
    let repo = context.open_locked(LockMode::Exclusive)?;
    let _orderly = context.orderly();
    match args.what {
        What::Index(args) => index(context, &repo, &args),
        What::Packs { ids } => packs(context, &repo, &ids),
        What::Snapshots { selection, forget, dry_run } => {
            snapshots(context, &repo, selection, Replace { forget, dry_run })
        }
    }
}

fn index(context: &Context, repo: &Repository, args: &IndexArgs) -> Result<Outcome> {
    context.out.note("comparing the index with the packs")?;
    let ticker = context.show_progress(Kind::Count("packs"));
    let which = if args.read_all_packs { PacksToRead::All } else { PacksToRead::Doubtful };
    let Repaired { unreadable, forgotten, read, silent, written, removed } =
        repair::index::repair(repo, which, &context.progress)?;
    drop(ticker);
    context.out.note(format_args!(
        "{unreadable} index files could not be read; {forgotten} missing packs were dropped from the index, the \
         headers of {read} packs were read; {removed} index files were replaced by {written}"
    ))?;
    Ok(match silent {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("the headers of {count} packs could not be read, each listed above")),
    })
}

fn packs(context: &Context, repo: &Arc<Repository>, ids: &[Id]) -> Result<Outcome> {
    context.out.note("saving copies of the packs in this directory")?;
    ids.iter().try_for_each(|&id| keep(context, repo, id))?;
    let Salvaged { saved, lost, left_behind } = repair::packs::repair(repo, ids, &context.progress)?;
    context.out.note(format_args!("{saved} blobs are saved, {lost} are lost"))?;
    if lost > 0 {
        context.out.note(
            "back up the same files again, which may restore lost blobs; `repair snapshots` removes what stays lost",
        )?;
    }
    Ok(match (lost, left_behind) {
        (0, 0) => Outcome::Complete,
        (0, packs) => Outcome::Incomplete(format!("{packs} packs could not be removed; a prune tries again")),
        (blobs, _) => Outcome::Incomplete(format!("{blobs} blobs are lost, each listed above")),
    })
}

fn snapshots(context: &Context, repo: &Arc<Repository>, selection: Selection, replace: Replace) -> Result<Outcome> {
    let would = if replace.dry_run { "would be " } else { "" };
    let Selection { ids, filter } = selection;
    // A snapshot that cannot be read can be removed only by its id.
    let (damaged, names): (Vec<_>, Vec<_>) =
        ids.into_iter().partition(|name| replace.forget && is_damaged(repo, name).unwrap_or(false));
    for name in &damaged {
        let id = repo.find_id(FileType::Snapshot, name)?;
        if !replace.dry_run {
            repo.remove_snapshot(id)?;
        }
        context.out.note(format_args!("snapshot {} cannot be read, and is {would}removed", id.short()))?;
    }
    let only_damaged = !damaged.is_empty() && names.is_empty();
    let (snapshots, missing) =
        if only_damaged { (Vec::new(), 0) } else { select::snapshots(context, repo, &names, &filter.build())? };
    let mut changed = damaged.len();
    repair::snapshots::repair(repo, &snapshots, replace, &context.progress, &mut |stored, changes, became| {
        let text = match became {
            Became::Unchanged => return,
            Became::Repaired(None) => "would be rewritten".to_owned(),
            Became::Repaired(Some(id)) => format!("is now snapshot {}", id.short()),
            Became::Nothing => "has no data left".to_owned(),
        };
        changed += 1;
        // A closed standard output must not abort the repair.
        let tell = |text: String| drop(context.out.note(text));
        tell(select::describe(stored));
        changes.iter().for_each(|change| tell(format!("  {change}")));
        tell(format!("  {text}"));
        if replace.forget {
            tell(format!("  {would}removed"));
        }
    })?;
    context.out.note(format_args!("{changed} snapshots {would}changed"))?;
    Ok(match missing {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!(
            "{count} snapshots could not be read; `repair snapshots --forget ID` removes such a snapshot"
        )),
    })
}

/// Whether the file of a snapshot exists, but is damaged.
fn is_damaged(repo: &Repository, name: &str) -> repo::Result<bool> {
    let id = repo.find_id(FileType::Snapshot, name)?;
    let is_there = repo.store().size(File::new(FileType::Snapshot, id)).is_ok();
    Ok(is_there && repo.load_snapshot(id).is_err_and(|error| error.is_damage()))
}

/// Copies a pack into the current directory before the pack is changed. A missing pack is reported
/// and not copied. A copy of an earlier run is used again; if a file of that name has another
/// content, the copy gets a number.
fn keep(context: &Context, repo: &Repository, id: Id) -> Result<()> {
    let file = File::new(FileType::Pack, id);
    let size = match repo.store().size(file) {
        Err(StoreError::NotFound { .. }) => {
            context.out.warn(format_args!("pack {id} does not exist"));
            return Ok(());
        }
        other => other?,
    };
    let name = format!("pack-{id}");
    let cannot_write = || format!("cannot write {name} in the current directory");
    // The file gets its name when it is complete, so that an interrupted run leaves no partial
    // copy.
    let mut copy = tempfile::Builder::new().prefix(&format!(".{name}-")).tempfile_in(".").with_context(cannot_write)?;
    let mut download = repo.store().download(file, 0, size)?;
    let mut piece = vec![0; 1 << 20];
    let mut hasher = Sha256::new();
    let mut left = size;
    while left > 0 {
        if context.progress.is_interrupted() {
            return Err(repo::Error::Interrupted.into());
        }
        let length = left.min(piece.len() as u64);
        let piece = &mut piece[..usize::try_from(length).expect("a piece")];
        download.read(piece)?;
        hasher.update(&*piece);
        copy.write_all(piece).with_context(cannot_write)?;
        left -= length;
    }
    copy.as_file().sync_all().with_context(cannot_write)?;
    let content = Id(hasher.finalize().into());
    for number in 1u64.. {
        let numbered = if number == 1 { name.clone() } else { format!("{name}-{number}") };
        copy = match copy.persist_noclobber(&numbered) {
            Ok(_) if number == 1 => return Ok(()),
            Ok(_) => {
                context
                    .out
                    .warn(format_args!("{name} exists with another content; the copy of the pack is {numbered}"));
                return Ok(());
            }
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => error.file,
            Err(error) => return Err(error.error).with_context(cannot_write),
        };
        // Either the current content of the pack, or the content from before the damage.
        if hash_of(Path::new(&numbered)).is_some_and(|found| found == content || found == id) {
            return Ok(context.out.note(format_args!("{numbered} already is a copy of the pack"))?);
        }
    }
    Ok(())
}

/// The hash of a regular file; `None` if it cannot be read.
fn hash_of(path: &Path) -> Option<Id> {
    let mut file = fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).ok()? {
            0 => return Some(Id(hasher.finalize().into())),
            length => hasher.update(&piece[..length]),
        }
    }
}
