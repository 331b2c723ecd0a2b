//! Everything that is printed goes through here: text or JSON lines on standard output, problems on standard error, and on a
//! terminal a status line below both.
//!
//! Errors of standard output are returned, never ignored: a listing that was cut short must not look complete.

use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Failed(#[source] pub io::Error);

pub type Result<T> = std::result::Result<T, Failed>;

/// How much is told: 0 quiet, 1 as usual, 2 with `-v`, 3 with `-vv`.
pub type Verbosity = u8;

#[derive(Serialize)]
struct Warning {
    message_type: &'static str,
    message: String,
}

pub struct Output {
    pub json: bool,
    pub verbosity: Verbosity,
    /// Standard output is a terminal.
    pub terminal: bool,
    screen: Mutex<Screen>,
}

struct Screen {
    out: BufWriter<Stdout>,
    /// The status line that is on the terminal now; empty for none.
    status: String,
}

impl Output {
    pub fn new(json: bool, verbosity: Verbosity) -> Output {
        let screen = Screen { out: BufWriter::new(io::stdout()), status: String::new() };
        Output { json, verbosity, terminal: io::stdout().is_terminal(), screen: Mutex::new(screen) }
    }

    /// One line of what was asked for.
    pub fn line(&self, text: impl Display) -> Result<()> {
        self.screen().print(|out| writeln!(out, "{text}")).map_err(Failed)?;
        if self.terminal { self.flush() } else { Ok(()) }
    }

    /// One JSON document and a line feed, seen by the reader at once.
    pub fn json(&self, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(document).expect("our documents have string keys");
        self.screen().print(|out| writeln!(out, "{text}")).map_err(Failed)?;
        self.flush()
    }

    /// Text about what is going on; not told with `--quiet` or `--json`.
    pub fn note(&self, text: impl Display) -> Result<()> {
        self.note_at(1, text)
    }

    /// Text about what is going on that is told from a verbosity on.
    pub fn note_at(&self, verbosity: Verbosity, text: impl Display) -> Result<()> {
        if self.json || self.verbosity < verbosity {
            return Ok(());
        }
        self.line(text)?;
        self.flush()
    }

    /// Raw bytes of what was asked for.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        self.screen().print(|out| out.write_all(bytes)).map_err(Failed)
    }

    pub fn flush(&self) -> Result<()> {
        self.screen().out.flush().map_err(Failed)
    }

    /// One line on standard error.
    pub fn warn(&self, text: impl Display) {
        if self.json {
            // A file may be called what a line of ours looks like.
            return self.warn_json(&Warning { message_type: "warning", message: text.to_string() });
        }
        let mut screen = self.screen();
        screen.hide_status();
        stderr(text);
        screen.show_status();
    }

    /// One JSON document on standard error.
    pub fn warn_json(&self, document: &impl Serialize) {
        let mut screen = self.screen();
        screen.hide_status();
        stderr_json(document);
        screen.show_status();
    }

    /// Replaces the status line; an empty one removes it. Only for terminals.
    pub fn status(&self, text: &str) {
        let mut screen = self.screen();
        screen.hide_status();
        text.clone_into(&mut screen.status);
        screen.show_status();
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Screen {
    fn print(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) -> io::Result<()> {
        self.hide_status();
        let outcome = write(&mut self.out);
        self.show_status();
        outcome
    }

    fn hide_status(&mut self) {
        if !self.status.is_empty() {
            // A status line is a courtesy: if the terminal is gone, the next real line finds out.
            let _ = write!(self.out, "\r\x1b[2K");
            let _ = self.out.flush();
        }
    }

    fn show_status(&mut self) {
        if !self.status.is_empty() {
            let _ = write!(self.out, "{}", self.status);
            let _ = self.out.flush();
        }
    }
}

/// One line on standard error, for when there is no [`Output`] any more. If that fails, nobody is left to tell.
pub fn stderr(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub fn stderr_json(document: &impl Serialize) {
    stderr(serde_json::to_string(document).expect("our documents have string keys"));
}

/// A float as Go writes it in JSON: no fraction where there is none.
pub fn go_float<S: serde::Serializer>(number: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

/// Whether a number is left out of JSON, as Go's `omitempty` does.
pub fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}
