//! What a flow tells while it runs: counters that anybody may read, and events as they happen. The engine itself never prints.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Problems that are kept for a report.
const FIRST_PROBLEMS: usize = 10;

/// Something that could not be done, while the rest goes on. It is counted, told at once, and makes the result incomplete.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The file, directory or repository object concerned.
    pub item: String,
    pub during: Phase,
    pub message: String,
}

/// What was being done when a problem came up, in restic's words.
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

/// What became of an item; told for people who want to follow every one.
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
    /// Worth knowing, and nothing is missing because of it.
    Warning(&'e str),
    Item {
        action: Action,
        path: &'e str,
        size: u64,
    },
    /// The system did not take something for an item: an owner, a label, a device node. Each kind is also told as one problem or warning.
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
    /// Set from outside to end the run early and in good order.
    stop: AtomicBool,
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
            stop: AtomicBool::new(false),
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

    /// Tells what became of an item, if anybody wants to know every one.
    pub fn item(&self, action: Action, path: impl FnOnce() -> String, size: u64) {
        if self.wants_items {
            (self.sink)(Event::Item { action, path: &path(), size });
        }
    }

    /// Tells that the system did not take something for an item, if anybody wants to know every one.
    pub fn refused(&self, kind: &str, path: impl FnOnce() -> String, why: impl fmt::Display) {
        if self.wants_items {
            (self.sink)(Event::Refused { kind, path: &path(), why: &why.to_string() });
        }
    }

    pub fn problem_count(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// A few of the problems, those that came first.
    pub fn first_problems(&self) -> Vec<Problem> {
        self.first_problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the run to end early.
    pub fn interrupt(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
