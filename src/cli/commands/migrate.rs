//! `migrate`

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::format::Version;
use crate::maintain::check::Check;
use crate::repo::LockMode;
use anyhow::{Result, bail};

/// The one that there is.
const UPGRADE: &str = "upgrade_repo_v2";

#[derive(clap::Args)]
pub struct Args {
    /// Migrations to do; without any, those that could be done are listed
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    if let Some(unknown) = args.names.iter().find(|name| *name != UPGRADE) {
        bail!("{unknown:?} is no migration; there is {UPGRADE}");
    }
    if context.global.repository.no_lock {
        bail!("--no-lock does not go here: a migration needs the repository alone");
    }
    let repo = context.open_locked(LockMode::Exclusive)?;
    let needed = repo.config().version == Version::V1;
    if args.names.is_empty() {
        let what = if needed { "upgrade a repository of version 1 to version 2" } else { "nothing is to be done" };
        context.out.line(format_args!("{UPGRADE}: {what}"))?;
        return Ok(Outcome::Complete);
    }
    if !needed {
        bail!("{UPGRADE}: the repository is of version {} already", repo.config().version.number());
    }
    let orderly = context.orderly();
    context.out.note("checking the repository first")?;
    let mut check = Check::start(&repo, &context.progress)?;
    check.packs()?;
    check.trees()?;
    if check.finish().errors > 0 {
        bail!("the repository contains errors, each told above; nothing was changed");
    }
    drop(orderly);
    context.check_lock()?;
    repo.upgrade()?;
    context.out.note("the repository is of version 2 now; what is added is compressed, and `prune --repack-uncompressed` compresses the rest")?;
    Ok(Outcome::Complete)
}
