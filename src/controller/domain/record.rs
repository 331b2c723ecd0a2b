//! The recorded state of a request, whichever API it belongs to: its stage, progress and end.

use crate::volume_mode::VolumeMode;
use crate::work::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The stage of a backup or restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing has been recorded.
    #[default]
    New,
    /// Queued: other requests fill the limit.
    Queued,
    /// Admitted.
    Started,
    /// The result is recorded and may be used: from here on the request must not fail.
    Moved,
    /// The managed objects are being deleted.
    Cleaning,
    Ended(End),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Completed,
    Failed,
}

/// The `reason` of the condition `Progressing` while a mover makes progress.
pub const MOVING: &str = "Moving";

/// The condition `Progressing`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progressing {
    pub reason: String,
    pub message: String,
}

impl Progressing {
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason.name()
    }
}

/// The progress of a mover. Totals are 0 until it has scanned the volume or the snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub total_bytes: i64,
    pub bytes_done: i64,
    pub total_files: i64,
    pub files_done: i64,
    /// Bytes by which the repository grew; known at the end of a backup.
    pub added_bytes: Option<i64>,
}

/// The pod of a running mover and its progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MoverProgress {
    pub pod: String,
    pub progress: Progress,
}

/// Entries that could not be moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems {
    pub count: u64,
    /// The first of them, as `path: reason`.
    pub first: Vec<String>,
}

/// Everything that is recorded of a request. A dialect reads it from a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub stage: Stage,
    /// The phase as the API names it, for metrics.
    pub phase: String,
    /// The last pod of the mover and its progress.
    pub mover: Option<MoverProgress>,
    /// When `mover` was recorded last.
    pub progressed: Option<Time>,
    /// The condition `Progressing`; `None` if the request has ended and nothing was recorded since.
    pub progressing: Option<Progressing>,
    /// Whether the request counts against the limit of its kind.
    pub is_admitted: bool,
    /// Failed, or completed with problems.
    pub is_degraded: bool,
    /// When the request was admitted.
    pub started: Option<Time>,
    /// When the data had moved or the request failed.
    pub finished: Option<Time>,
    pub volume_mode: Option<VolumeMode>,
    /// The id of the restic snapshot.
    pub snapshot: Option<String>,
    pub is_empty_volume: bool,
    pub problems: Option<Problems>,
}

impl Record {
    /// The last instant at which the request or its mover is known to have made progress.
    pub fn last_progress(&self) -> Option<&Time> {
        self.started.iter().chain(self.progressed.as_ref()).max()
    }
}
