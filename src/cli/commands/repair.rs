//! `repair index`, `repair packs`, `repair snapshots`

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
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Make the index say what the packs hold
    Index(IndexArgs),
    /// Save what can be saved out of damaged packs, and remove them
    Packs {
        /// The damaged packs; `check --read-data` names them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<Id>,
    },
    /// Make snapshots anew without what is lost
    #[command(mut_arg("ids", |ids| ids.help("Snapshots to look at [default: all]")))]
    Snapshots {
        #[command(flatten)]
        selection: Selection,
        /// Remove the damaged snapshots
        #[arg(long)]
        forget: bool,
        /// Change nothing, only tell what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

#[derive(clap::Args)]
struct IndexArgs {
    /// Ask every pack, whatever the index says
    #[arg(long)]
    read_all_packs: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if context.global.repository.no_lock {
        bail!("--no-lock does not go here: a repair needs the repository alone");
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
    context.out.note("looking at the index and the packs")?;
    let ticker = context.show_progress(Kind::Count("packs"));
    let which = if args.read_all_packs { PacksToRead::All } else { PacksToRead::Doubtful };
    let Repaired { unreadable, forgotten, read, silent, written, removed } =
        repair::index::repair(repo, which, &context.progress)?;
    drop(ticker);
    context.out.note(format_args!(
        "{unreadable} index files could not be read; {forgotten} packs are forgotten, {read} were asked what they hold; \
         {removed} index files are replaced by {written}"
    ))?;
    Ok(match silent {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("{count} packs could not say what they hold, each told above")),
    })
}

fn packs(context: &Context, repo: &Arc<Repository>, ids: &[Id]) -> Result<Outcome> {
    context.out.note("saving copies of the packs in this directory")?;
    ids.iter().try_for_each(|&id| keep(context, repo, id))?;
    let Salvaged { saved, lost, left_behind } = repair::packs::repair(repo, ids, &context.progress)?;
    context.out.note(format_args!("{saved} blobs are saved, {lost} are lost"))?;
    if lost > 0 {
        context.out.note(
            "back up the same files again, which may bring lost blobs back; `repair snapshots` leaves out what stays lost",
        )?;
    }
    Ok(match (lost, left_behind) {
        (0, 0) => Outcome::Complete,
        (0, packs) => Outcome::Incomplete(format!("{packs} packs could not be removed; a prune tries again")),
        (blobs, _) => Outcome::Incomplete(format!("{blobs} blobs are lost, each told above")),
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
            Became::Repaired(None) => "would be made anew".to_owned(),
            Became::Repaired(Some(id)) => format!("is now snapshot {}", id.short()),
            Became::Nothing => "has nothing left".to_owned(),
        };
        changed += 1;
        // Who does not read it is no reason to stop halfway.
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
            "{count} snapshots could not be read; `repair snapshots --forget ID` removes such a one"
        )),
    })
}

/// Whether the file of a snapshot is there and not what it should be.
fn is_damaged(repo: &Repository, name: &str) -> repo::Result<bool> {
    let id = repo.find_id(FileType::Snapshot, name)?;
    let is_there = repo.store().size(File::new(FileType::Snapshot, id)).is_ok();
    Ok(is_there && repo.load_snapshot(id).is_err_and(|error| error.is_damage()))
}

/// Copies a pack into the current directory before anything is done to it. One that does not exist
/// leaves no copy. A copy of an earlier run is used again; a file of that name with another content
/// stays, and the copy gets a number.
fn keep(context: &Context, repo: &Repository, id: Id) -> Result<()> {
    let file = File::new(FileType::Pack, id);
    let size = match repo.store().size(file) {
        Err(StoreError::NotFound { .. }) => {
            context.out.warn(format_args!("pack {id} is not there"));
            return Ok(());
        }
        other => other?,
    };
    let name = format!("pack-{id}");
    let cannot_write = || format!("cannot write {name} in the current directory");
    // It gets its name when it is whole: what is called like a copy is one, whenever this ends.
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
                context.out.warn(format_args!("{name} is another file; the copy of the pack is {numbered}"));
                return Ok(());
            }
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => error.file,
            Err(error) => return Err(error.error).with_context(cannot_write),
        };
        // The pack as it is now, or as it was before it was damaged, which is better.
        if hash_of(Path::new(&numbered)).is_some_and(|found| found == content || found == id) {
            return Ok(context.out.note(format_args!("{numbered} is a copy already"))?);
        }
    }
    Ok(())
}

/// The hash of a file, if it is one that can be read.
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
