//! The command `init`: creates a repository.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::from::From;
use crate::cli::password;
use crate::format::Version;
use crate::id::Id;
use crate::repo::{self, InitOptions};
use anyhow::{Result, bail};
use serde::Serialize;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo init
  vsm-mover -r s3:https://s3.example.com/bucket/prefix -p /etc/vsm/password init
  vsm-mover -r /srv/repo init --from-repo /srv/old --copy-chunker-params")]
pub struct Args {
    /// Set the format version: 1, 2, stable or latest (both are 2)
    #[arg(long, value_name = "VERSION", value_parser = version, default_value = "stable")]
    repository_version: Version,
    /// Copy the chunker parameters of the source repository, so that equal files become equal blobs
    /// in both repositories
    #[arg(long)]
    copy_chunker_params: bool,
    #[command(flatten)]
    from: From,
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "1" => Ok(Version::V1),
        "2" | "stable" | "latest" | "" => Ok(Version::V2),
        _ => Err("must be 1, 2, stable or latest".into()),
    }
}

#[derive(Serialize)]
struct Initialized<'r> {
    message_type: &'static str,
    id: Id,
    repository: &'r str,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let polynomial = match (args.copy_chunker_params, args.from.is_given()) {
        (true, _) => Some(args.from.context(context)?.open()?.config().polynomial),
        (false, true) => bail!("--from-repo needs --copy-chunker-params"),
        (false, false) => None,
    };
    let store = context.store()?;
    let password = match password::given(&context.global.repository)? {
        Some(password) => password,
        None => password::ask_new("enter password for new repository: ")?,
    };
    let options = InitOptions { version: args.repository_version, polynomial, owner: repo::key_owner(None, None) };
    let repo = repo::init(store, &password, options, context.settings())?;
    let (id, repository) = (repo.config().id, repo.store().location());
    if context.out.is_json() {
        context.out.json(&Initialized { message_type: "initialized", id, repository })?;
    } else {
        context.out.note(format_args!("created restic repository {} at {repository}", &id.to_string()[..10]))?;
        context.out.note("")?;
        context
            .out
            .note("Keep the password safe: without it, the data in the repository cannot be read or recovered.")?;
    }
    Ok(Outcome::Complete)
}
