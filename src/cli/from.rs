//! The source repository of `copy` and `init`: the option `--from-repo` and its companions.

use super::args::{Global, RepositoryArgs};
use super::context::Context;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The environment variable that contains the password of the source repository.
const PASSWORD: &str = "RESTIC_FROM_PASSWORD";

/// Location and password of the source repository. The other global options apply to both
/// repositories.
#[derive(clap::Args)]
#[command(next_help_heading = "Source repository options")]
pub struct From {
    /// Use the source repository at this location
    #[arg(long, env = "RESTIC_FROM_REPOSITORY", value_name = "LOCATION", hide_env_values = true)]
    from_repo: Option<String>,
    /// Read the location of the source repository from a file
    #[arg(long, env = "RESTIC_FROM_REPOSITORY_FILE", value_name = "FILE", hide_env_values = true)]
    from_repository_file: Option<PathBuf>,
    /// Read the password of the source repository from a file (RESTIC_FROM_PASSWORD sets the
    /// password itself)
    #[arg(long, env = "RESTIC_FROM_PASSWORD_FILE", value_name = "FILE", hide_env_values = true)]
    from_password_file: Option<PathBuf>,
    /// Run a command, without a shell, and use its output as the password of the source repository
    #[arg(long, env = "RESTIC_FROM_PASSWORD_COMMAND", value_name = "COMMAND", hide_env_values = true)]
    from_password_command: Option<String>,
    /// Try the key of the source repository with this id, or beginning of an id, first
    #[arg(long, env = "RESTIC_FROM_KEY_HINT", value_name = "ID", hide_env_values = true)]
    from_key_hint: Option<String>,
    /// Use the empty password for the source repository (insecure)
    #[arg(long)]
    from_insecure_no_password: bool,
}

impl From {
    /// Whether a source repository is given.
    pub fn is_given(&self) -> bool {
        let repo = self.from_repo.as_deref().is_some_and(|repo| !repo.is_empty());
        repo || self.from_repository_file.as_deref().is_some_and(|file| !file.as_os_str().is_empty())
    }

    /// The context of the same run for the source repository.
    pub fn context(&self, context: &Context) -> Result<Context> {
        if !self.is_given() {
            bail!("no source repository given; use --from-repo, --from-repository-file, or RESTIC_FROM_REPOSITORY");
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
