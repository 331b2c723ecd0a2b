//! The two directions in which data moves, as types: code that is the same for both is generic over
//! [`Direction`].

use super::record::MoverProgress;
use crate::work::{Reason, ReasonName};
use std::fmt::{self, Debug};

/// Out of a volume (backup) or into one (restore).
pub trait Direction: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The fields of an object's spec, in the terms of this controller.
    type Request: Clone + Debug + Default + Send + Sync;
    /// The data that is recorded when the request is admitted.
    type Started: Clone + Debug + fmt::Display + PartialEq + Send + Sync;
    /// The result that is recorded when the data has moved.
    type Moved: Clone + Debug + fmt::Display + PartialEq + Send + Sync;
}

/// A change of a request's recorded state. A dialect translates it to a status.
#[derive(Clone, Debug, PartialEq)]
pub enum Update<D: Direction> {
    Queued,
    /// Admitted: the request counts against the limit of its kind.
    Started(D::Started),
    /// The mover runs.
    Moving(MoverProgress),
    /// The data has moved. Holds everything that clients need before they see the end.
    Moved(D::Moved),
    /// The managed objects are being deleted.
    Cleaning,
    Completed,
    Failed {
        reason: ReasonName,
        message: String,
    },
    /// The Velero Backup or Restore that the request belongs to has failed.
    PartiallyFailed,
    /// The request makes no progress.
    Waiting {
        reason: Reason,
        message: String,
    },
    /// The request had ended, and its cleanup no longer waits for anything.
    Settled,
}

impl<D: Direction> Update<D> {
    pub fn failed(reason: impl Into<ReasonName>, message: impl Into<String>) -> Update<D> {
        Update::Failed { reason: reason.into(), message: message.into() }
    }
}

impl<D: Direction> fmt::Display for Update<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Update::Queued => f.write_str("Queued"),
            Update::Started(started) => write!(f, "Started ({started})"),
            Update::Moving(MoverProgress { pod, progress }) => {
                write!(f, "Moving (pod {pod}, {} of {} bytes)", progress.bytes_done, progress.total_bytes)
            }
            Update::Moved(moved) => write!(f, "Moved ({moved})"),
            Update::Cleaning => f.write_str("Cleaning"),
            Update::Completed => f.write_str("Completed"),
            Update::Failed { reason, message } => write!(f, "Failed ({reason}: {message})"),
            Update::PartiallyFailed => f.write_str("PartiallyFailed"),
            Update::Waiting { reason, message } => write!(f, "{} ({message})", reason.name()),
            Update::Settled => f.write_str("Settled"),
        }
    }
}

/// The message of [`Update::PartiallyFailed`].
pub const VELERO_FAILED: &str = "Velero's own Backup or Restore, which this is a part of, has failed";

/// The message of [`Reason::Incomplete`]: how many entries have problems, and the first of them.
pub fn incomplete(count: u64, first: &[String]) -> String {
    let first = first.first().map_or_else(String::new, |problem| format!(", the first: {problem}"));
    format!("{count} entries could not be moved{first}")
}
