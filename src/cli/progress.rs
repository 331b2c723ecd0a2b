//! Shows the progress of a command: a status line on a terminal, JSON status lines for programs,
//! and problems when they occur.

use super::output::{Output, go_float, is_zero};
use super::render;
use crate::clock::{self, Moment};
use crate::progress::{Action, Event, Phase, Problem, Progress};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Status lines per second. `RESTIC_PROGRESS_FPS` sets another rate, even with `--quiet` and for
/// pipes.
const RATE: f64 = 10.0;
const RATE_MAX: f64 = 60.0;

/// The kind of the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Backup,
    Restore,
    /// Counts objects of this name instead of files. JSON has no status lines for them.
    Count(&'static str),
}

/// Shows the progress of one phase until it is dropped.
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    out: Arc<Output>,
    started: Moment,
}

impl Ticker {
    /// Shows the counters of `progress`, if this run shows any.
    pub fn start(out: Arc<Output>, progress: Arc<Progress>, kind: Kind) -> Ticker {
        let started = clock::moment();
        let Some(interval) = interval(&out) else { return Ticker { stop: None, thread: None, out, started } };
        let (stop, stopped) = bounded(0);
        let thread_out = out.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                show(&thread_out, &progress, kind, clock::moment().since(started));
            }
        });
        Ticker { stop: Some(stop), thread: Some(thread), out, started }
    }

    /// Whether this run shows status lines.
    pub fn is_shown(&self) -> bool {
        self.thread.is_some()
    }

    /// The time since the ticker was started.
    pub fn duration(&self) -> Duration {
        clock::moment().since(self.started)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        // A panic of this thread has been printed, and affects only the display.
        self.thread.take().map(JoinHandle::join);
        self.out.status("");
    }
}

fn interval(out: &Output) -> Option<Duration> {
    let asked =
        std::env::var("RESTIC_PROGRESS_FPS").ok().and_then(|text| text.parse::<f64>().ok()).filter(|fps| *fps > 0.0);
    let shown = out.verbosity > 0 && (out.is_json() || out.terminal);
    let rate = asked.or(shown.then_some(RATE))?;
    Duration::try_from_secs_f64(1.0 / rate.min(RATE_MAX)).ok()
}

fn show(out: &Output, progress: &Progress, kind: Kind, elapsed: Duration) {
    let now = Status::read(progress, elapsed);
    // An error of a status line is ignored: the next line of output returns it.
    let _ = match (out.is_json(), kind) {
        (true, Kind::Backup) => out.json(&now.backup()),
        (true, Kind::Restore) => out.json(&now.restore()),
        (true, Kind::Count(_)) => Ok(()),
        (false, kind) if out.terminal => {
            out.status(&fit(now.line(kind)));
            Ok(())
        }
        (false, kind) => out.line(now.line(kind)),
    };
}

/// Cuts a line to the width of the terminal, because a wrapped line cannot be erased.
fn fit(line: String) -> String {
    let width = match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    };
    line.chars().take(width - 1).collect()
}

/// The counters at one moment.
struct Status {
    elapsed: Duration,
    files: u64,
    files_total: u64,
    bytes: u64,
    bytes_total: u64,
    problems: u64,
}

impl Status {
    fn read(progress: &Progress, elapsed: Duration) -> Status {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (files, bytes) = (get(&progress.files_done), get(&progress.bytes_done));
        let (files_total, bytes_total) = (get(&progress.files_total), get(&progress.bytes_total));
        Status { elapsed, files, files_total, bytes, bytes_total, problems: progress.problem_count() }
    }

    /// The completed share from 0 to 1; 0 while no total is known.
    fn done(&self) -> f64 {
        match (self.bytes_total, self.files_total) {
            (0, 0) => 0.0,
            (0, files) => (self.files as f64 / files as f64).min(1.0),
            (bytes, _) => (self.bytes as f64 / bytes as f64).min(1.0),
        }
    }

    fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    fn left(&self) -> Option<Duration> {
        let rate = self.bytes_per_second();
        let left = self.bytes_total.checked_sub(self.bytes).filter(|&left| left > 0 && self.bytes > 0)?;
        Duration::try_from_secs_f64(left as f64 / rate).ok()
    }

    fn line(&self, kind: Kind) -> String {
        let mut line = format!("[{}]", render::duration(self.elapsed));
        if self.bytes_total > 0 || self.files_total > 0 {
            line += &format!(" {:.2}%", self.done() * 100.0);
        }
        if let Kind::Count(what) = kind {
            return line + &format!("  {} / {} {what}", self.files, self.files_total);
        }
        line += &format!("  {} files {}", self.files, render::bytes(self.bytes));
        if self.files_total > 0 {
            line += &format!(", total {} files {}", self.files_total, render::bytes(self.bytes_total));
        }
        line += &format!(", {}/s", render::bytes(self.bytes_per_second() as u64));
        if kind == Kind::Backup || self.problems > 0 {
            line += &format!(", {} errors", self.problems);
        }
        if let Some(left) = self.left() {
            line += &format!(", {} left", render::duration(left));
        }
        line
    }

    fn backup(&self) -> BackupStatus {
        BackupStatus {
            message_type: "status",
            seconds_elapsed: self.elapsed.as_secs(),
            seconds_remaining: self.left().map_or(0, |left| left.as_secs()),
            percent_done: self.done(),
            total_files: self.files_total,
            files_done: self.files,
            total_bytes: self.bytes_total,
            bytes_done: self.bytes,
            error_count: self.problems,
        }
    }

    fn restore(&self) -> RestoreStatus {
        RestoreStatus {
            message_type: "status",
            seconds_elapsed: self.elapsed.as_secs(),
            percent_done: self.done(),
            total_files: self.files_total,
            files_restored: self.files,
            total_bytes: self.bytes_total,
            bytes_restored: self.bytes,
        }
    }
}

#[derive(Serialize)]
struct BackupStatus {
    message_type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    seconds_elapsed: u64,
    #[serde(skip_serializing_if = "is_zero")]
    seconds_remaining: u64,
    #[serde(serialize_with = "go_float")]
    percent_done: f64,
    #[serde(skip_serializing_if = "is_zero")]
    total_files: u64,
    #[serde(skip_serializing_if = "is_zero")]
    files_done: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bytes_done: u64,
    #[serde(skip_serializing_if = "is_zero")]
    error_count: u64,
}

#[derive(Serialize)]
struct RestoreStatus {
    message_type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    seconds_elapsed: u64,
    #[serde(serialize_with = "go_float")]
    percent_done: f64,
    #[serde(skip_serializing_if = "is_zero")]
    total_files: u64,
    #[serde(skip_serializing_if = "is_zero")]
    files_restored: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bytes_restored: u64,
}

/// Prints the engine's events: problems to standard error, items to standard output.
pub fn sink(out: Arc<Output>) -> impl Fn(Event<'_>) + Send + Sync + 'static {
    move |event| match event {
        Event::Problem(problem) => show_problem(&out, problem),
        Event::Warning(text) => out.warn(format_args!("warning: {text}")),
        // An error of a listed item is ignored: the summary returns it.
        Event::Item { action, path, size } => drop(show_item(&out, action, path, size)),
        // JSON has one problem or warning for each kind instead.
        Event::Refused { .. } if out.is_json() => {}
        Event::Refused { kind, path, why } => drop(out.line(format!("refused   {path}: {kind}: {why}"))),
    }
}

#[derive(Serialize)]
struct ErrorMessage<'p> {
    message_type: &'static str,
    error: ErrorText<'p>,
    during: String,
    item: &'p str,
}

#[derive(Serialize)]
struct ErrorText<'p> {
    message: &'p str,
}

#[derive(Serialize)]
struct CheckError<'p> {
    message_type: &'static str,
    message: &'p str,
}

fn show_problem(out: &Output, problem: &Problem) {
    let Problem { item, during, message } = problem;
    // Errors of the repository often contain the id of their object.
    let id = item.rsplit(' ').next().unwrap_or(item);
    let full = if message.contains(id) { message.clone() } else { format!("{item}: {message}") };
    match (during, out.is_json()) {
        (Phase::Archival | Phase::Restore | Phase::Read, true) => {
            let error = ErrorText { message };
            out.warn_json(&ErrorMessage { message_type: "error", error, during: during.to_string(), item });
        }
        (Phase::Archival | Phase::Read, false) => out.warn(format_args!("error: {item}: {message}")),
        (Phase::Restore, false) => out.warn(format_args!("ignoring error for {item}: {message}")),
        // Errors of the repository have the form of restic's check.
        (Phase::Check | Phase::Prune | Phase::Repair | Phase::Copy, true) => {
            out.warn_json(&CheckError { message_type: "error", message: &full })
        }
        (Phase::Check | Phase::Prune | Phase::Repair | Phase::Copy, false) => out.warn(format_args!("error: {full}")),
    }
}

#[derive(Serialize)]
struct BackupItem<'p> {
    message_type: &'static str,
    action: &'static str,
    item: &'p str,
    duration: u64,
    data_size: u64,
    data_size_in_repo: u64,
    metadata_size: u64,
    metadata_size_in_repo: u64,
    total_files: u64,
}

#[derive(Serialize)]
struct ExcludedItem<'p> {
    message_type: &'static str,
    item: &'p str,
}

#[derive(Serialize)]
struct RestoreItem<'p> {
    message_type: &'static str,
    action: &'static str,
    item: &'p str,
    size: u64,
}

fn show_item(out: &Output, action: Action, item: &str, size: u64) -> super::output::Result<()> {
    let message_type = "verbose_status";
    let backup = |action, data_size| BackupItem {
        message_type,
        action,
        item,
        duration: 0,
        data_size,
        data_size_in_repo: 0,
        metadata_size: 0,
        metadata_size_in_repo: 0,
        total_files: 0,
    };
    let restore = |action| RestoreItem { message_type, action, item, size };
    if !out.is_json() {
        return out.line(item_line(action, item, size));
    }
    match action {
        Action::New => out.json(&backup("new", size)),
        Action::Changed => out.json(&backup("modified", size)),
        Action::Unchanged => out.json(&backup("unchanged", 0)),
        Action::Excluded => out.json(&ExcludedItem { message_type: "excluded_item", item }),
        Action::Restored => out.json(&restore("restored")),
        Action::Updated => out.json(&restore("updated")),
        Action::Deleted => out.json(&restore("deleted")),
        Action::Skipped => out.json(&restore("unchanged")),
    }
}

fn item_line(action: Action, item: &str, size: u64) -> String {
    let verb = match action {
        Action::New => "new",
        Action::Changed => "modified",
        Action::Unchanged | Action::Skipped => "unchanged",
        Action::Excluded => "excluded",
        Action::Restored => "restored",
        Action::Updated => "updated",
        Action::Deleted => "deleted",
    };
    match (action, size) {
        (Action::Excluded | Action::Deleted, _) | (_, 0) => format!("{verb:<9} {item}"),
        (_, size) => format!("{verb:<9} {item} with size {}", render::bytes(size)),
    }
}
