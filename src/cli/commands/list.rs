//! The command `list`: prints the ids of objects in the repository, one per line.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::repo::Index;
use crate::store::FileType;
use anyhow::Result;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo list snapshots
  vsm-mover -r /srv/repo list packs")]
pub struct Args {
    /// Type of the objects to list
    #[arg(value_name = "TYPE")]
    what: What,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    Blobs,
    Packs,
    Index,
    Snapshots,
    Keys,
    Locks,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    // Without a lock of our own, which would be listed, and without waiting for a conflicting one.
    let repo = if matches!(args.what, What::Locks) { context.open()? } else { context.open_to_read()? };
    let ty = match args.what {
        What::Blobs => {
            for location in Index::load(&repo)?.iter() {
                context.out.line(format_args!("{} {}", location.blob.ty, location.blob.id))?;
            }
            return Ok(Outcome::Complete);
        }
        What::Packs => FileType::Pack,
        What::Index => FileType::Index,
        What::Snapshots => FileType::Snapshot,
        What::Keys => FileType::Key,
        What::Locks => FileType::Lock,
    };
    for (id, _) in repo.store().list(ty)? {
        context.out.line(id)?;
    }
    Ok(Outcome::Complete)
}
