//! The command `unlock`: removes stale locks. It takes no lock itself.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::repo::{self, LocksToRemove};
use anyhow::Result;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo unlock
  vsm-mover -r /srv/repo unlock --remove-all")]
pub struct Args {
    /// Remove all locks, even those of running processes
    #[arg(long)]
    remove_all: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let repo = context.open()?;
    let which = if args.remove_all { LocksToRemove::All } else { LocksToRemove::Stale };
    let removed = repo::unlock(&repo, which)?;
    if removed > 0 {
        context.out.note(format_args!("successfully removed {removed} locks"))?;
    }
    Ok(Outcome::Complete)
}
