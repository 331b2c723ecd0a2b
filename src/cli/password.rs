//! Reads the password from a file, a command, the environment, or the terminal.
//!
//! White space around the content of a file or the output of a command is removed, as in restic;
//! the environment variable is used unchanged. The terminal does not echo a typed password, and its
//! echo is always restored.

use super::args::RepositoryArgs;
use crate::repo::Password;
use anyhow::{Context, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// The password from the options or the environment; `None` if a prompt is needed.
pub fn given(options: &RepositoryArgs) -> Result<Option<Password>> {
    let file = options.password_file.as_deref().filter(|file| !file.as_os_str().is_empty());
    let command = options.password_command.as_deref().filter(|command| !command.is_empty());
    let variable = std::env::var_os(options.password_variable).filter(|value| !value.is_empty());
    if options.insecure_no_password {
        if file.is_some() || command.is_some() || variable.is_some() {
            bail!("--insecure-no-password and a password exclude each other");
        }
        return Ok(Some(Password::new("")));
    }
    match (file, command, variable) {
        (Some(_), Some(_), _) => bail!("a password file and a password command exclude each other"),
        (Some(file), None, _) => from_file(file).map(Some),
        (None, Some(command), _) => from_command(command).map(Some),
        (None, None, Some(value)) => Ok(Some(Password::new(std::os::unix::ffi::OsStringExt::into_vec(value)))),
        (None, None, None) => Ok(None),
    }
}

/// Whether the password is read from standard input, because neither the options nor the
/// environment give one.
pub fn is_asked_for(options: &RepositoryArgs) -> bool {
    let is_set = |value: Option<&std::ffi::OsStr>| value.is_some_and(|value| !value.is_empty());
    !options.insecure_no_password
        && !is_set(options.password_file.as_deref().map(Path::as_os_str))
        && !is_set(options.password_command.as_deref().map(std::ffi::OsStr::new))
        && !is_set(std::env::var_os(options.password_variable).as_deref())
}

/// Reads the password from a file.
pub fn from_file(file: &Path) -> Result<Password> {
    let bytes = Zeroizing::new(
        std::fs::read(file).with_context(|| format!("cannot read the password file {}", file.display()))?,
    );
    not_empty(trim(&decode(&bytes)))
}

fn from_command(command: &str) -> Result<Password> {
    let words = split_words(command).with_context(|| format!("the password command {command:?}"))?;
    let (program, arguments) = words.split_first().context("the password command is empty")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run the password command {program:?}"))?;
    let text = Zeroizing::new(output.stdout);
    if !output.status.success() {
        bail!("the password command {program:?} failed: {}", output.status);
    }
    not_empty(trim(&text))
}

fn not_empty(bytes: &[u8]) -> Result<Password> {
    if bytes.is_empty() {
        bail!("an empty password is not allowed by default; --insecure-no-password allows it");
    }
    Ok(Password::new(bytes))
}

fn trim(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => bytes.trim_ascii(),
    }
}

/// Converts text with a byte order mark to UTF-8 without it. Other bytes stay as they are.
fn decode(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Zeroizing<Vec<u16>> =
            Zeroizing::new(bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect());
        Zeroizing::new(String::from_utf16_lossy(&units).into_bytes())
    };
    match bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => Zeroizing::new(text.to_vec()),
        [0xff, 0xfe, text @ ..] => wide(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => wide(text, u16::from_be_bytes),
        text => Zeroizing::new(text.to_vec()),
    }
}

/// Splits a command into words as a shell does, with quotes and backslashes.
fn split_words(command: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some('"') | None, '\\') => {
                let next = chars.next().context("ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        bail!("has a quote that is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// Whether standard input is a terminal, so that a prompt is possible.
pub fn can_prompt() -> bool {
    isatty(std::io::stdin())
}

/// Prompts for a password. Reads a line of standard input if that is not a terminal.
pub fn ask(prompt: &str) -> Result<Password> {
    if !can_prompt() {
        return not_empty(&read_line()?);
    }
    eprint!("{prompt}");
    std::io::stderr().flush().ok();
    let silenced = silence_terminal().context("cannot turn off the terminal's echo")?;
    let line = read_line();
    drop(silenced);
    eprintln!();
    not_empty(&line?)
}

/// Prompts for a new password, twice on a terminal.
pub fn ask_new(prompt: &str) -> Result<Password> {
    let first = ask(prompt)?;
    if can_prompt() && ask("enter password again: ")? != first {
        bail!("passwords do not match");
    }
    Ok(first)
}

fn read_line() -> Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::new());
    std::io::stdin().lock().read_until(b'\n', &mut line).context("cannot read the password from standard input")?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

/// The settings of the terminal before its echo was turned off.
static SILENCED: Mutex<Option<Termios>> = Mutex::new(None);

struct Silenced;

impl Drop for Silenced {
    fn drop(&mut self) {
        restore_terminal();
    }
}

fn silence_terminal() -> std::io::Result<Silenced> {
    let before = tcgetattr(std::io::stdin())?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO;
    *SILENCED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)?;
    Ok(Silenced)
}

/// Turns the terminal's echo on again if it was turned off.
pub fn restore_terminal() {
    if let Some(before) = SILENCED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // If this fails, there is no other way to restore the terminal.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_into_words_as_by_a_shell() {
        let words = |command| split_words(command).unwrap();
        assert_eq!(
            words("pass show 'my repo'  \"a \\\" b\" x\\ y ''"),
            ["pass", "show", "my repo", "a \" b", "x y", ""]
        );
        assert!(words("  ").is_empty());
        assert!(split_words("a 'b").is_err() && split_words("a\\").is_err());
    }

    #[test]
    fn byte_order_marks_and_white_space_are_removed_from_files() {
        assert_eq!(trim(&decode(b"\xef\xbb\xbfsecret \r\n")), b"secret");
        assert_eq!(trim(&decode(b"\xff\xfes\0e\0c\0\n\0")), b"sec");
        assert_eq!(trim(&decode(b"\xfe\xff\0s\0e\0c")), b"sec");
        assert_eq!(trim(&decode(b" \xe9t\xe9\n")), b"\xe9t\xe9");
        assert!(not_empty(b"").is_err());
    }
}
