//! The command `work`: runs the work description of a mover's Job, and writes a report.

use crate::cli::context::Context;
use crate::cli::exit::{self, Outcome};
use crate::cli::panics::{self, Panicked};
use crate::cli::progress::Kind;
use crate::mover::{self, Mover};
use crate::progress::{Problem, Progress};
use crate::repo::Password;
use crate::store;
use crate::store::environment::{Environment, FILES, VARIABLES};
use crate::store::traffic::Account;
use crate::work::{self, Failed, Reason, Report, Task, VERSION, Work};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Names of files in the directory of secrets.
const PASSWORD: &str = "RESTIC_PASSWORD";
const CA: &str = "ca.crt";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  vsm-mover work work.json --secrets /etc/vsm/secrets --report report.json --job 8f6c")]
pub struct Args {
    /// File with the work description
    #[arg(value_name = "FILE")]
    work: PathBuf,
    /// Read secrets from the files of this directory: RESTIC_PASSWORD, the store's variables,
    /// ca.crt
    #[arg(long, value_name = "DIRECTORY")]
    secrets: PathBuf,
    /// Write the report to this file, even if the work fails
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Repeat this identity of the run in the report
    #[arg(long, env = "VSM_JOB", value_name = "UID", hide_env_values = true)]
    job: String,
}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let done = context.explained(panics::caught(|| perform(&args, context)));
    let report = report(&args.job, &done, &context.progress);
    let written = std::fs::write(&args.report, report.encode())
        .with_context(|| format!("cannot write the report to {}", args.report.display()));
    let told = context.cost().map_or(Ok(()), |account| context.out.json(&Cost { message_type: "cost", account }));
    // An error of the work comes before an error of its report.
    let outcome = done?;
    written?;
    told?;
    Ok(match problems(&outcome) {
        0 => Outcome::Complete,
        count => Outcome::Incomplete(format!("the result is incomplete: there were {count} problems")),
    })
}

fn report(job: &str, done: &Result<work::Outcome>, progress: &Progress) -> Report {
    let outcome = match done {
        Ok(outcome) => outcome.clone(),
        Err(error) => work::Outcome::Failed(Failed::new(reason(error), exit::message(error).unwrap_or_default())),
    };
    let describe = |problem: Problem| format!("{}: {}", problem.item, problem.message);
    let first_problems = progress.first_problems().into_iter().map(describe).collect();
    Report { version: VERSION, job: job.to_owned(), outcome, first_problems }
}

fn reason(error: &anyhow::Error) -> Reason {
    if error.is::<Panicked>() {
        return Reason::InternalError;
    }
    let known = error.chain().find_map(|cause| {
        let mover = || cause.downcast_ref().map(mover::Error::reason);
        let repository = || cause.downcast_ref().map(mover::of_repository);
        mover().or_else(repository).or_else(|| cause.downcast_ref().map(mover::of_store))
    });
    // Any other error comes from the work description or from a secret.
    known.unwrap_or(Reason::BadConfiguration)
}

/// The log line of a mover with its requests and bytes.
#[derive(Serialize)]
struct Cost {
    message_type: &'static str,
    #[serde(flatten)]
    account: Account,
}

fn problems(outcome: &work::Outcome) -> u64 {
    match outcome {
        work::Outcome::Saved(saved) => saved.problems,
        work::Outcome::Restored(restored) => restored.problems,
        work::Outcome::Discarded { .. } | work::Outcome::Failed(_) => 0,
    }
}

fn perform(args: &Args, context: &Context) -> Result<work::Outcome> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let work = Work::parse(&read(&args.work)?).map_err(anyhow::Error::msg)?;
    let password = secret(&args.secrets, PASSWORD)?
        .filter(|password| !password.is_empty())
        .with_context(|| format!("the secret {PASSWORD} is missing or empty"))?;
    let _orderly = context.orderly();
    let store = store::open(&work.repository.parse()?, &store_options(&args.secrets, context)?)?;
    let _ticker = context.show_progress(match work.task {
        Task::Restore(_) => Kind::Restore,
        Task::Backup(_) | Task::Discard(_) => Kind::Backup,
    });
    let mover = Mover {
        store,
        password: &Password::new(password),
        settings: context.settings(),
        progress: &context.progress,
        keep: &|lock| context.keep(lock),
    };
    Ok(mover.run(&work)?)
}

/// The options of the command line, with the secrets in place of this process's environment. The
/// value of a variable that names a file is the path of the secret's own file.
fn store_options(secrets: &Path, context: &Context) -> Result<store::Options> {
    let mut options = context.store_options()?;
    let mut variables = Vec::new();
    for name in VARIABLES {
        if let Some(value) = secret(secrets, name)? {
            // An editor may have added a line feed; keys have none.
            let value = String::from_utf8(value).with_context(|| format!("the secret {name} is not text"))?;
            let value = match value.trim() {
                text if FILES.contains(&name) && !text.is_empty() => secrets.join(name).to_string_lossy().into_owned(),
                text => text.to_owned(),
            };
            variables.push((name.to_owned(), value));
        }
    }
    options.environment = variables.into_iter().collect::<Environment>();
    let ca = secrets.join(CA);
    if ca.exists() {
        options.cacert = Some(ca);
    }
    Ok(options)
}

/// The bytes of a secret; `None` if no secret has this name.
fn secret(secrets: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    match std::fs::read(secrets.join(name)) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the secret {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo;
    use crate::store::StoreError;

    fn failed(done: &Result<work::Outcome>) -> Failed {
        let json = report("8f6c", done, &Progress::silent()).encode();
        let report = Report::parse(&json).expect("a report");
        assert_eq!(report.job, "8f6c");
        let work::Outcome::Failed(failed) = report.outcome else { panic!("{:?}", report.outcome) };
        failed
    }

    /// After exit code 1, the Job retries with another pod.
    #[test]
    fn a_panic_in_the_task_is_reported_as_an_internal_error() {
        let done = panics::caught(|| -> Result<work::Outcome> { panic!("index {} is out of range", 7) });
        let Failed { reason, message } = failed(&done);
        assert_eq!(reason, Reason::InternalError);
        assert!(message.contains("index 7 is out of range"), "{message}");
        assert_eq!(exit::exit_code(&done.expect_err("it panicked")), 1);
    }

    #[test]
    fn errors_outside_of_the_mover_have_a_reason() {
        let location = || "s3:https://host/bucket".to_owned();
        let missing = StoreError::NoBucket { bucket: "bucket".into(), location: location() };
        let late = mover::Error::from(repo::Error::WrongPassword { location: location(), tried: 1 });
        for (error, expected) in [
            (anyhow::anyhow!("the secret RESTIC_PASSWORD is missing"), "BadConfiguration"),
            (anyhow::Error::from(missing).context("while opening"), "BucketMissing"),
            (repo::Error::LockLost { reason: "it was removed".into() }.into(), "LockLost"),
            (late.into(), "WrongPassword"),
        ] {
            assert_eq!(failed(&Err(error)).reason.as_str(), expected);
        }
    }
}
