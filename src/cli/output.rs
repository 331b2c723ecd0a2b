//! Prints all output: text or JSON lines on standard output, problems on standard error, and on a
//! terminal a status line below both.
//!
//! Errors of standard output are returned, never ignored: a truncated listing must not look
//! complete.

use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An error of standard output.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Failed(#[source] pub io::Error);

pub type Result<T> = std::result::Result<T, Failed>;

/// The amount of output: 0 quiet, 1 by default, 2 with `-v`, 3 with `-vv`.
pub type Verbosity = u8;

/// Whether the output is text for people or JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text,
    Json,
}

#[derive(Serialize)]
struct Warning {
    message_type: &'static str,
    message: String,
}

pub struct Output {
    format: OutputFormat,
    pub verbosity: Verbosity,
    /// Whether standard output is a terminal.
    pub terminal: bool,
    screen: Mutex<Screen>,
}

/// The buffered standard output.
type Out = BufWriter<Box<dyn Write + Send>>;

struct Screen {
    out: Out,
    /// The current status line on the terminal; empty for none.
    status: String,
}

impl Output {
    pub fn new(format: OutputFormat, verbosity: Verbosity) -> Output {
        Output { terminal: io::stdout().is_terminal(), ..Output::to(io::stdout(), format, verbosity) }
    }

    fn to(out: impl Write + Send + 'static, format: OutputFormat, verbosity: Verbosity) -> Output {
        let screen = Screen { out: BufWriter::new(Box::new(out)), status: String::new() };
        Output { format, verbosity, terminal: false, screen: Mutex::new(screen) }
    }

    pub fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Prints one line of the result. The line is written in one piece, so that it is printed
    /// completely or not at all, even if the process is killed.
    pub fn line(&self, text: impl Display) -> Result<()> {
        let line = format!("{text}\n");
        self.write(line.as_bytes())?;
        if self.terminal { self.flush() } else { Ok(()) }
    }

    /// Prints one JSON document and a line feed, and flushes the output.
    pub fn json(&self, document: &impl Serialize) -> Result<()> {
        self.write(format!("{}\n", to_json(document)).as_bytes())?;
        self.flush()
    }

    /// Prints text about the progress of the command, unless `--quiet` or `--json` is given.
    pub fn note(&self, text: impl Display) -> Result<()> {
        self.note_at(1, text)
    }

    /// Like [`Output::note`], at this verbosity or a higher one.
    pub fn note_at(&self, verbosity: Verbosity, text: impl Display) -> Result<()> {
        if self.is_json() || self.verbosity < verbosity {
            return Ok(());
        }
        self.line(text)?;
        self.flush()
    }

    /// Prints raw bytes of the result.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        self.screen().print(|out| out.write_all(bytes)).map_err(Failed)
    }

    pub fn flush(&self) -> Result<()> {
        self.screen().out.flush().map_err(Failed)
    }

    /// Prints one line on standard error.
    pub fn warn(&self, text: impl Display) {
        if self.is_json() {
            // As JSON, because the name of a file in the text may look like one of our JSON lines.
            return self.warn_json(&Warning { message_type: "warning", message: text.to_string() });
        }
        let mut screen = self.screen();
        screen.hide_status();
        stderr(text);
        screen.show_status();
    }

    /// Prints one JSON document on standard error.
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

/// A JSON document that is printed while it grows, such as a list of millions of matches.
///
/// The document is always closed, by [`List::finish`] or, after an error, when it is dropped, so
/// that a reader gets valid JSON.
pub struct List<'o> {
    out: &'o Output,
    /// Makes the closing text from the number of items.
    ending: Box<dyn Fn(u64) -> String + 'o>,
    items: u64,
    is_open: bool,
}

impl Output {
    /// Begins a document with `opening`.
    pub fn list<'o>(&'o self, opening: &str, ending: impl Fn(u64) -> String + 'o) -> Result<List<'o>> {
        self.write(opening.as_bytes())?;
        Ok(List { out: self, ending: Box::new(ending), items: 0, is_open: true })
    }
}

impl<'o> List<'o> {
    pub fn item(&mut self, document: &impl Serialize) -> Result<()> {
        let text = to_json(document);
        self.next(&text)
    }

    /// Adds an item that is a list itself. It ends before the next item begins.
    pub fn nested(&mut self, opening: &str, ending: impl Fn(u64) -> String + 'o) -> Result<List<'o>> {
        self.next(opening)?;
        self.out.list("", ending)
    }

    fn next(&mut self, text: &str) -> Result<()> {
        let comma = if self.items > 0 { "," } else { "" };
        self.items += 1;
        self.out.write(format!("{comma}{text}").as_bytes())
    }

    pub fn finish(mut self) -> Result<()> {
        self.close()
    }

    fn close(&mut self) -> Result<()> {
        self.is_open = false;
        self.out.write((self.ending)(self.items).as_bytes())
    }
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // The command has already failed with its own error. If standard output has failed, the
            // flush at the end of the run returns that error.
            let _ = self.close();
        }
    }
}

fn to_json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("our documents have string keys")
}

impl Screen {
    fn print(&mut self, write: impl FnOnce(&mut Out) -> io::Result<()>) -> io::Result<()> {
        self.hide_status();
        let outcome = write(&mut self.out);
        self.show_status();
        outcome
    }

    fn hide_status(&mut self) {
        if !self.status.is_empty() {
            // An error of the status line is ignored: the next line of output returns it.
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

/// Prints one line on standard error, for code without an [`Output`]. A failure cannot be reported.
pub fn stderr(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub fn stderr_json(document: &impl Serialize) {
    stderr(to_json(document));
}

/// Serializes a float as Go does in JSON: a whole number has no fraction.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::Arc;

    /// The pieces that were written.
    #[derive(Clone, Default)]
    struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A list of lists, as `find` prints it, that fails after some items.
    fn print(out: &Output, fails_after: usize) -> Result<()> {
        let mut printed = 0;
        let mut count = || {
            printed += 1;
            if printed > fails_after { Err(Failed(io::ErrorKind::Other.into())) } else { Ok(()) }
        };
        let mut document = out.list("[", |_| "]\n".to_owned())?;
        for snapshot in ["a", "b"] {
            let ending = move |hits| format!("],\"hits\":{hits},\"snapshot\":\"{snapshot}\"}}");
            let mut matches = document.nested("{\"matches\":[", ending)?;
            for number in 0..3 {
                count()?;
                matches.item(&number)?;
            }
            matches.finish()?;
        }
        count()?;
        document.item(&"the last")?;
        document.finish()
    }

    #[test]
    fn a_json_document_is_closed_wherever_the_command_fails() {
        let lists = |counts: &[usize]| -> Vec<Value> {
            let list = |(&hits, snapshot): (&usize, &str)| {
                let matches: Vec<usize> = (0..hits).collect();
                serde_json::json!({"matches": matches, "hits": hits, "snapshot": snapshot})
            };
            counts.iter().zip(["a", "b"]).map(list).collect()
        };
        for (fails_after, expected) in
            [(0, &[0][..]), (1, &[1]), (2, &[2]), (3, &[3, 0]), (4, &[3, 1]), (5, &[3, 2]), (6, &[3, 3])]
        {
            let pieces = Pieces::default();
            let out = Output::to(pieces.clone(), OutputFormat::Json, 1);
            assert!(print(&out, fails_after).is_err());
            out.flush().unwrap();
            let text = pieces.0.lock().unwrap().concat();
            assert_eq!(serde_json::from_slice::<Vec<Value>>(&text).unwrap(), lists(expected));
        }
        let pieces = Pieces::default();
        let out = Output::to(pieces.clone(), OutputFormat::Json, 1);
        print(&out, 7).unwrap();
        out.flush().unwrap();
        let text = pieces.0.lock().unwrap().concat();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&text).unwrap()[2], "the last");
    }

    #[test]
    fn lines_are_not_split_at_the_end_of_the_buffer() {
        let pieces = Pieces::default();
        let out = Output::to(pieces.clone(), OutputFormat::Json, 1);
        for length in (0..20_000).step_by(97) {
            out.line("x".repeat(length)).unwrap();
            out.line(format_args!("{}{}", "y".repeat(length / 2), "z".repeat(7))).unwrap();
        }
        let pieces = pieces.0.lock().unwrap();
        assert!(pieces.len() > 10, "the buffer was full several times");
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")));
    }
}
