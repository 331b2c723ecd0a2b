//! Progress of a running operation: counters that any thread may read, and events as they happen.
//! The engine itself never prints.

use crate::interrupt::Interrupt;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Problems that are kept for a report.
const FIRST_PROBLEMS: usize = 10;

/// The failure of one item, which does not stop the operation. It is reported at once, counted, and
/// makes the result incomplete.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The file, directory or repository object concerned.
    pub item: String,
    pub during: Phase,
    pub message: String,
}

/// The operation during which a problem occurred, in restic's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Archival,
    Restore,
    /// A command that only reads: `find`, `ls`, `stats`, `diff`, `dump`.
    Read,
    Check,
    Prune,
    Repair,
    Copy,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Archival => "archival",
            Phase::Restore => "restore",
            Phase::Read => "read",
            Phase::Check => "check",
            Phase::Prune => "prune",
            Phase::Repair => "repair",
            Phase::Copy => "copy",
        })
    }
}

/// The outcome of an item, for reports that list every item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    New,
    Changed,
    Unchanged,
    Excluded,
    Restored,
    Updated,
    Deleted,
    Skipped,
}

#[derive(Clone, Debug)]
pub enum Event<'e> {
    Problem(&'e Problem),
    /// Worth knowing, but the result is complete.
    Warning(&'e str),
    Item {
        action: Action,
        path: &'e str,
        size: u64,
    },
    /// The system refused an operation on an item, such as setting its owner or label or creating a
    /// device node. Each kind is also reported once, as a problem or a warning.
    Refused {
        kind: &'e str,
        path: &'e str,
        why: &'e str,
    },
}

type Sink = Box<dyn Fn(Event<'_>) + Send + Sync>;

/// The counters of one run, and where its events go.
pub struct Progress {
    pub files_total: AtomicU64,
    pub bytes_total: AtomicU64,
    pub files_done: AtomicU64,
    pub bytes_done: AtomicU64,
    pub problems: AtomicU64,
    first_problems: Mutex<Vec<Problem>>,
    /// Set by another thread to end the run early and in an orderly way.
    stop: Interrupt,
    wants_items: bool,
    sink: Sink,
}

impl Progress {
    pub fn new(sink: impl Fn(Event<'_>) + Send + Sync + 'static) -> Progress {
        Progress {
            files_total: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            problems: AtomicU64::new(0),
            first_problems: Mutex::default(),
            stop: Interrupt::default(),
            wants_items: false,
            sink: Box::new(sink),
        }
    }

    /// Also sends [`Event::Item`]s, one per file and directory.
    pub fn with_items(self) -> Progress {
        Progress { wants_items: true, ..self }
    }

    /// Counts only; events go nowhere.
    pub fn silent() -> Progress {
        Progress::new(|_| {})
    }

    pub fn problem(&self, during: Phase, item: impl Into<String>, message: impl fmt::Display) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        let problem = Problem { item: item.into(), during, message: message.to_string() };
        (self.sink)(Event::Problem(&problem));
        let mut first = self.first_problems.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < FIRST_PROBLEMS {
            first.push(problem);
        }
    }

    pub fn warning(&self, message: &str) {
        (self.sink)(Event::Warning(message));
    }

    /// Reports the outcome of an item, if items are wanted.
    pub fn item(&self, action: Action, path: impl FnOnce() -> String, size: u64) {
        if self.wants_items {
            (self.sink)(Event::Item { action, path: &path(), size });
        }
    }

    /// Reports that the system refused an operation on an item, if items are wanted.
    pub fn refused(&self, kind: &str, path: impl FnOnce() -> String, why: impl fmt::Display) {
        if self.wants_items {
            (self.sink)(Event::Refused { kind, path: &path(), why: &why.to_string() });
        }
    }

    pub fn problem_count(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// The first few problems.
    pub fn first_problems(&self) -> Vec<Problem> {
        self.first_problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the run to end early.
    pub fn interrupt(&self) {
        self.stop.set();
    }

    pub fn is_interrupted(&self) -> bool {
        self.stop.is_set()
    }

    /// The interrupt of this run, for code that does not know its progress.
    pub fn interrupt_signal(&self) -> Interrupt {
        self.stop.clone()
    }
}
