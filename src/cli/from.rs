//! The repository that a command takes something from, beside the one it works on: restic's `--from-repo` and its kin.

use super::args::{Global, RepositoryArgs};
use super::context::Context;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The variable that holds its password.
const PASSWORD: &str = "RESTIC_FROM_PASSWORD";

/// Where it is, and how it is opened. Everything else is as for the command's own.
#[derive(clap::Args)]
pub struct From {
    /// Repository to take from
    #[arg(long, env = "RESTIC_FROM_REPOSITORY", value_name = "LOCATION", hide_env_values = true)]
    from_repo: Option<String>,
    /// File to read its location from
    #[arg(long, env = "RESTIC_FROM_REPOSITORY_FILE", value_name = "FILE", hide_env_values = true)]
    from_repository_file: Option<PathBuf>,
    /// File to read its password from [or RESTIC_FROM_PASSWORD holds the password itself]
    #[arg(long, env = "RESTIC_FROM_PASSWORD_FILE", value_name = "FILE", hide_env_values = true)]
    from_password_file: Option<PathBuf>,
    /// Command whose output is its password; run without a shell
    #[arg(long, env = "RESTIC_FROM_PASSWORD_COMMAND", value_name = "COMMAND", hide_env_values = true)]
    from_password_command: Option<String>,
    /// Id, or its beginning, of its key to try first
    #[arg(long, env = "RESTIC_FROM_KEY_HINT", value_name = "ID", hide_env_values = true)]
    from_key_hint: Option<String>,
    /// Its password is the empty one
    #[arg(long)]
    from_insecure_no_password: bool,
}

impl From {
    /// Whether one is named.
    pub fn is_given(&self) -> bool {
        let repo = self.from_repo.as_deref().is_some_and(|repo| !repo.is_empty());
        repo || self.from_repository_file.as_deref().is_some_and(|file| !file.as_os_str().is_empty())
    }

    /// The same run with that repository in the place of the command's own.
    pub fn context(&self, context: &Context) -> Result<Context> {
        if !self.is_given() {
            bail!("no repository to take from; use --from-repo, --from-repository-file, or RESTIC_FROM_REPOSITORY");
        }
        let repository = RepositoryArgs {
            repo: self.from_repo.clone(),
            repository_file: self.from_repository_file.clone(),
            password_file: self.from_password_file.clone(),
            password_command: self.from_password_command.clone(),
            key_hint: self.from_key_hint.clone(),
            insecure_no_password: self.from_insecure_no_password,
            password_variable: PASSWORD,
            ..context.global.repository.clone()
        };
        Ok(context.with(Global { repository, ..context.global.clone() }))
    }
}
