//! The protocol between the controller and a mover: the work description that a mover's Job is
//! given, and the report that it returns. Both are small JSON documents without secrets.
//!
//! Both have a version and reject unknown fields: a controller and a mover of different releases
//! must not misinterpret each other.

mod reason;

pub use reason::{Reason, ReasonName, Retry};

use crate::id::Id;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version of both documents; any other is rejected.
pub const VERSION: u32 = 1;

/// The most bytes of a report: Kubernetes truncates a container's termination message to this size.
const REPORT_SIZE: usize = 4096;

/// One task on one repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Work {
    pub version: u32,
    /// The repository's location, as restic writes it.
    pub repository: String,
    pub task: Task,
    /// Host names of movers whose pods are known to have ended. Only their locks are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    Backup(Backup),
    Restore(Restore),
    Discard(Discard),
}

/// Saves a volume as a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backup {
    /// The volume's path: a directory, or a block device.
    pub source: PathBuf,
    /// The snapshot's host name.
    pub hostname: String,
    /// The snapshot's tags besides `identity` and `lineage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The unique tag of this backup, which makes it idempotent: a snapshot with this tag is the
    /// result of an earlier run whose report was lost.
    pub identity: String,
    /// The tag that all backups of this volume share. The latest of them is the parent snapshot.
    pub lineage: String,
    /// Whether a missing repository may be created: only for a volume without earlier backups.
    pub initialize: bool,
}

/// Restores a snapshot into a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restore {
    /// The fresh volume's path: a directory, or a block device.
    pub target: PathBuf,
    pub pick: Pick,
    /// Whether a repository that provably does not exist means that the volume was empty when it
    /// was backed up: VolumeSnapshotMover wrote no repository for an empty volume.
    #[serde(default)]
    pub absent_is_empty: bool,
}

/// The snapshot to restore: exactly one must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pick {
    Id(Id),
    /// The snapshot with all of these tags.
    Tagged(Vec<String>),
    /// The newest snapshot: for repositories that have one backup of one volume.
    Newest,
}

/// Cleans up after a request that ended early: removes the locks of its movers and, if it was a
/// cancelled backup, its snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Discard {
    /// [`Backup::identity`] of the snapshot to remove; `None`: only locks are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl Work {
    pub fn parse(json: &[u8]) -> Result<Work, String> {
        parse("work description", json)
    }
}

/// Parses one of the two documents. The version is checked first: a document of another version may
/// have any other fields.
fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bad = |error: serde_json::Error| format!("the {what} cannot be read: {error}");
    let Versioned { version } = serde_json::from_slice(json).map_err(bad)?;
    if version != VERSION {
        return Err(format!(
            "the {what} has version {version} and this program knows version {VERSION}: the controller and the mover image are of different releases"
        ));
    }
    serde_json::from_slice(json).map_err(bad)
}

/// How a mover ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    pub version: u32,
    /// The Job's uid. A report that the content of a volume forged, or one of another run, does not
    /// have it.
    pub job: String,
    pub outcome: Outcome,
    /// Some of the problems, as `item: message`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Saved(Saved),
    Restored(Restored),
    Discarded { snapshots: u64 },
    Failed(Failed),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Saved {
    pub snapshot: Id,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    pub files: u64,
    pub bytes: u64,
    /// Bytes by which the repository grew.
    pub added_bytes: u64,
    /// Entries that are missing or may be wrong.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub problems: u64,
    /// The volume was empty.
    #[serde(default)]
    pub empty: bool,
    /// The snapshot was saved by an earlier run whose report was lost.
    #[serde(default)]
    pub found: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restored {
    /// `None`: the repository does not exist, and [`Restore::absent_is_empty`] is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Id>,
    pub files: u64,
    pub bytes: u64,
    /// Entries that are missing or may be wrong, including those that the snapshot itself lacks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub problems: u64,
    /// The volume was provably empty when it was backed up.
    #[serde(default)]
    pub empty: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failed {
    pub reason: ReasonName,
    /// For the user: the operation that failed, its object, and what to do.
    pub message: String,
}

impl Failed {
    pub fn new(reason: Reason, message: impl Into<String>) -> Failed {
        Failed { reason: reason.into(), message: message.into() }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    pub fn parse(json: &[u8]) -> Result<Report, String> {
        parse("report", json)
    }

    /// Encodes the report in at most [`REPORT_SIZE`] bytes: texts are truncated, and problems
    /// omitted from the last one on, until it fits.
    pub fn encode(mut self) -> Vec<u8> {
        /// The most bytes of a problem, and of the message of a failure, before JSON escapes them.
        const TEXT: usize = 400;
        const MESSAGE: usize = 1200;
        if let Outcome::Failed(Failed { message, .. }) = &mut self.outcome {
            cut(message, MESSAGE);
        }
        self.first_problems.iter_mut().for_each(|problem| cut(problem, TEXT));
        loop {
            let json = serde_json::to_vec(&self).expect("plain data");
            if json.len() <= REPORT_SIZE {
                return json;
            }
            if self.first_problems.pop().is_none() {
                // JSON escapes a control character with six bytes.
                let Outcome::Failed(Failed { message, .. }) = &mut self.outcome else { return json };
                let half = message.len() / 2;
                cut(message, half);
            }
        }
    }
}

/// Truncates a text to at most this number of bytes, and marks its end.
fn cut(text: &mut String, most: usize) {
    const MARK: &str = "…";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(MARK.len())));
        text.push_str(MARK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: String, first_problems: Vec<String>) -> Report {
        let outcome = Outcome::Failed(Failed { reason: "Failed".to_owned().into(), message });
        Report { version: VERSION, job: "8f6c".into(), outcome, first_problems }
    }

    #[test]
    fn an_encoded_report_always_fits_and_can_be_parsed() {
        for text in ["x".repeat(100_000), "\u{1}".repeat(100_000), "\u{1f980}\"".repeat(30_000), String::new()] {
            let json = failed(text.clone(), vec![text.clone(); 50]).encode();
            assert!(json.len() <= REPORT_SIZE, "{} bytes", json.len());
            let report = Report::parse(&json).unwrap();
            assert_eq!(report.job, "8f6c");
            let Outcome::Failed(Failed { message, .. }) = report.outcome else { panic!() };
            assert_eq!(message.ends_with('…'), !text.is_empty());
            assert!(text.starts_with(message.trim_end_matches('…')));
        }
        let short = failed("why".into(), vec!["a: b".into()]);
        assert_eq!(Report::parse(&short.clone().encode()).unwrap(), short);
        let other = Report { version: 2, ..short.clone() };
        assert!(Report::parse(&other.encode()).unwrap_err().contains("different releases"));
        let mut more = serde_json::to_value(&short).unwrap();
        more["forged"] = 1.into();
        assert!(Report::parse(more.to_string().as_bytes()).unwrap_err().contains("forged"));
    }

    #[test]
    fn work_of_another_version_or_with_unknown_fields_is_rejected() {
        let work = Work {
            version: VERSION,
            repository: "s3:https://host/bucket".into(),
            task: Task::Restore(Restore { target: "/data".into(), pick: Pick::Newest, absent_is_empty: false }),
            gone: vec!["pod-1".into()],
        };
        let json = serde_json::to_value(&work).unwrap();
        let parse = |json: &serde_json::Value| Work::parse(json.to_string().as_bytes());
        assert_eq!(parse(&json).unwrap(), work);
        let mut newer = json.clone();
        newer["version"] = 2.into();
        newer["task"] = serde_json::json!({"unheard-of": {}});
        assert!(parse(&newer).unwrap_err().contains("different releases"));
        let mut more = json.clone();
        more["task"]["restore"]["overwrite"] = true.into();
        assert!(parse(&more).unwrap_err().contains("overwrite"));
        assert!(parse(&serde_json::json!({"version": 1})).is_err());
    }
}
