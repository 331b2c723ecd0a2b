//! The commands `key list`, `add`, `remove` and `passwd`: manage the passwords of a repository.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::password;
use crate::cli::{render, table::Table};
use crate::id::Id;
use crate::repo::{self, KeyInfo, LockMode, Password, Repository};
use crate::store::FileType;
use anyhow::{Result, bail};
use serde::Serialize;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover -r /srv/repo key list
  vsm-mover -r /srv/repo key add --user backup --host server
  vsm-mover -r /srv/repo key passwd")]
pub struct Args {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(clap::Subcommand)]
enum KeyCommand {
    /// List the keys
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo key list")]
    List,
    /// Add a key with a new password
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo key add
  vsm-mover -r /srv/repo key add --new-password-file /etc/vsm/new-password")]
    Add(NewKey),
    /// Remove a key other than the one in use
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo key remove 1a2b3c4d")]
    Remove {
        /// Id of the key, or its beginning
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Replace the key in use by one with a new password
    #[command(after_help = "Examples:
  vsm-mover -r /srv/repo key passwd
  vsm-mover -r /srv/repo key passwd --new-password-file /etc/vsm/new-password")]
    Passwd(NewKey),
}

#[derive(clap::Args)]
struct NewKey {
    /// Read the new password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "new_insecure_no_password")]
    new_password_file: Option<PathBuf>,
    /// Use the empty password as the new one (insecure)
    #[arg(long)]
    new_insecure_no_password: bool,
    /// Record this user name in the key
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Record this host name in the key
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl NewKey {
    fn password(&self) -> Result<Password> {
        match &self.new_password_file {
            Some(file) => password::from_file(file),
            None if self.new_insecure_no_password => Ok(Password::new("")),
            None => password::ask_new("enter new password: "),
        }
    }
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    match args.command {
        KeyCommand::List => list(context)?,
        KeyCommand::Add(new) => {
            let repo = context.open_locked(LockMode::Shared)?;
            let id = repo.add_key(&new.password()?, repo::key_owner(new.user, new.host))?;
            context.out.note(format_args!("saved new key with ID {id}"))?;
        }
        KeyCommand::Remove { id } => {
            let repo = context.open_locked(LockMode::Exclusive)?;
            let id = repo.find_id(FileType::Key, &id)?;
            if !repo.store().list(FileType::Key)?.iter().any(|&(known, _)| known == id) {
                bail!("the repository has no key {id}");
            }
            repo.remove_key(id)?;
            context.out.note(format_args!("removed key {id}"))?;
        }
        KeyCommand::Passwd(new) => {
            let repo = context.open_locked(LockMode::Exclusive)?;
            let id = repo.change_password(&new.password()?, repo::key_owner(new.user, new.host))?;
            context.out.note(format_args!("saved new key with ID {id}"))?;
        }
    }
    Ok(Outcome::Complete)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyJson {
    current: bool,
    id: Id,
    user_name: String,
    host_name: String,
    created: String,
}

fn list(context: &Context) -> Result<()> {
    let repo = context.open_to_read()?;
    let keys: Vec<KeyJson> = readable_keys(context, &repo)?
        .into_iter()
        .map(|KeyInfo { id, current, owner }| KeyJson {
            current,
            id,
            user_name: owner.username,
            host_name: owner.hostname,
            created: render::local_time(&owner.created),
        })
        .collect();
    if context.out.is_json() {
        return Ok(context.out.json(&keys)?);
    }
    let mut table = Table::new(vec![" ID", "User", "Host", "Created"]);
    for KeyJson { current, id, user_name, host_name, created } in keys {
        let mark = if current { '*' } else { ' ' };
        table.row(vec![format!("{mark}{}", id.short()), user_name, host_name, created]);
    }
    table.lines().iter().try_for_each(|line| context.out.line(line))?;
    Ok(())
}

fn readable_keys(context: &Context, repo: &Repository) -> Result<Vec<KeyInfo>> {
    let mut keys = Vec::new();
    for (id, info) in repo.keys()? {
        match info {
            Ok(info) => keys.push(info),
            Err(error) => context.out.warn(format_args!("key {id} cannot be read: {error}")),
        }
    }
    keys.sort_by_key(|key| key.id);
    Ok(keys)
}
