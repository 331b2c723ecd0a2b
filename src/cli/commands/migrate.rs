//! The command `migrate`: upgrades a repository of format version 1 to version 2.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::format::Version;
use crate::maintain::check::Check;
use crate::repo::LockMode;
use anyhow::{Result, bail};

/// The only migration.
const UPGRADE: &str = "upgrade_repo_v2";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo migrate
  vsm-mover -r /srv/repo migrate upgrade_repo_v2")]
pub struct Args {
    /// Migrations to apply [default: list the available ones]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if let Some(unknown) = args.names.iter().find(|name| *name != UPGRADE) {
        bail!("unknown migration {unknown:?}; available: {UPGRADE}");
    }
    if context.global.repository.no_lock {
        bail!("--no-lock cannot be used with migrate: a migration needs an exclusive lock");
    }
    let repo = context.open_locked(LockMode::Exclusive)?;
    let needed = repo.config().version == Version::V1;
    if args.names.is_empty() {
        let what = if needed { "upgrade a repository of version 1 to version 2" } else { "nothing to do" };
        context.out.line(format_args!("{UPGRADE}: {what}"))?;
        return Ok(Outcome::Complete);
    }
    if !needed {
        bail!("{UPGRADE}: the repository already has version {}", repo.config().version.number());
    }
    let orderly = context.orderly();
    context.out.note("checking the repository first")?;
    let mut check = Check::start(&repo, &context.progress)?;
    check.packs()?;
    check.trees()?;
    if check.finish().errors > 0 {
        bail!("the repository contains errors, each listed above; nothing was changed");
    }
    drop(orderly);
    context.check_lock()?;
    repo.upgrade()?;
    context.out.note(
        "the repository now has version 2: new data is compressed; `prune --repack-uncompressed` compresses old data",
    )?;
    Ok(Outcome::Complete)
}
