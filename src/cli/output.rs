//! Everything that is printed goes through here: text or JSON lines on standard output, problems on standard error, and on a
//! terminal a status line below both.
//!
//! Errors of standard output are returned, never ignored: a listing that was cut short must not look complete.

use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Failed(#[source] pub io::Error);

pub type Result<T> = std::result::Result<T, Failed>;

/// How much is printed: 0 quiet, 1 as usual, 2 with `-v`, 3 with `-vv`.
pub type Verbosity = u8;

/// Whether the output is for people or for programs.
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
    /// Standard output is a terminal.
    pub terminal: bool,
    screen: Mutex<Screen>,
}

/// Standard output.
type Out = BufWriter<Box<dyn Write + Send>>;

struct Screen {
    out: Out,
    /// The status line that is on the terminal now; empty for none.
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

    /// One line of what was asked for. It is written in one piece: whatever ends the process, a
    /// line is out as a whole or not at all.
    pub fn line(&self, text: impl Display) -> Result<()> {
        let line = format!("{text}\n");
        self.write(line.as_bytes())?;
        if self.terminal { self.flush() } else { Ok(()) }
    }

    /// One JSON document and a line feed, seen by the reader at once.
    pub fn json(&self, document: &impl Serialize) -> Result<()> {
        self.write(format!("{}\n", to_json(document)).as_bytes())?;
        self.flush()
    }

    /// Text about what is going on; not told with `--quiet` or `--json`.
    pub fn note(&self, text: impl Display) -> Result<()> {
        self.note_at(1, text)
    }

    /// Text about what is going on that is told from a verbosity on.
    pub fn note_at(&self, verbosity: Verbosity, text: impl Display) -> Result<()> {
        if self.is_json() || self.verbosity < verbosity {
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
        if self.is_json() {
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

/// A JSON document that is printed while it grows, such as a list of millions of matches. Whatever
/// ends the command, the document is closed: by [`List::finish`] or, after an error, when it is
/// dropped. A reader always gets a whole document.
pub struct List<'o> {
    out: &'o Output,
    /// What closes it, made from the number of its items.
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
            // The command has failed already, and says why; if standard output has failed, the end
            // of the run meets that again.
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
    stderr(to_json(document));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::Arc;

    /// What was written, each piece on its own.
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
    fn a_document_is_closed_wherever_the_command_fails() {
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
    fn lines_are_never_cut_where_the_buffer_ends() {
        let pieces = Pieces::default();
        let out = Output::to(pieces.clone(), OutputFormat::Json, 1);
        for length in (0..20_000).step_by(97) {
            out.line("x".repeat(length)).unwrap();
            out.line(format_args!("{}{}", "y".repeat(length / 2), "z".repeat(7))).unwrap();
        }
        let pieces = pieces.0.lock().unwrap();
        assert!(pieces.len() > 10, "the buffer was full now and then");
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")));
    }
}
