//! Reads include and exclude patterns from options and from files.
//!
//! A pattern file has one pattern per line. White space around a pattern is removed, lines that
//! start with `#` are comments, `$NAME` and `${NAME}` are environment variables, and `$$` is a
//! dollar sign.

use crate::pattern::{Case, Patterns};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Exclude patterns.
#[derive(clap::Args)]
#[command(next_help_heading = "Exclude options")]
pub struct ExcludePatterns {
    /// Exclude a pattern (can be specified multiple times)
    #[arg(short, long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub exclude: Vec<String>,
    /// Like --exclude, ignoring case
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    iexclude: Vec<String>,
    /// Read exclude patterns from a file, one per line (can be specified multiple times)
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Like --exclude-file, ignoring case
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
}

impl ExcludePatterns {
    pub fn build(&self) -> Result<Patterns> {
        let ExcludePatterns { exclude, iexclude, exclude_file, iexclude_file } = self;
        Lists { patterns: exclude, ignoring_case: iexclude, files: exclude_file, files_ignoring_case: iexclude_file }
            .build()
    }
}

/// The patterns of options, and the files with further ones.
pub struct Lists<'a> {
    pub patterns: &'a [String],
    pub ignoring_case: &'a [String],
    pub files: &'a [PathBuf],
    pub files_ignoring_case: &'a [PathBuf],
}

impl Lists<'_> {
    pub fn build(&self) -> Result<Patterns> {
        let mut patterns = Patterns::default();
        for (list, case) in [(self.patterns, Case::Sensitive), (self.ignoring_case, Case::Ignore)] {
            list.iter().try_for_each(|pattern| patterns.push(pattern, case))?;
        }
        for (files, case) in [(self.files, Case::Sensitive), (self.files_ignoring_case, Case::Ignore)] {
            for file in files {
                push_file(&mut patterns, file, case)?;
            }
        }
        Ok(patterns)
    }
}

fn push_file(patterns: &mut Patterns, file: &Path, case: Case) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the pattern file {}", file.display()))?;
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pattern = expand(line, |name| std::env::var(name).unwrap_or_default());
        patterns.push(&pattern, case).with_context(|| format!("pattern file {}", file.display()))?;
    }
    Ok(())
}

/// Replaces variables as Go's `os.Expand` does for plain names.
fn expand(line: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let length = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = braced {
            out.push_str(&value(name));
            rest = after;
        } else if length > 0 {
            out.push_str(&value(&after[..length]));
            rest = &after[length..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_patterns_are_replaced() {
        let value = |name: &str| if name == "HOME" { "/home/me".to_owned() } else { String::new() };
        for (line, expected) in [
            ("$HOME/x", "/home/me/x"),
            ("a${HOME}b", "a/home/meb"),
            ("$$HOME", "$HOME"),
            ("$UNSET.c", ".c"),
            ("cost $", "cost $"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(line, value), expected);
        }
    }

    #[test]
    fn pattern_files_may_have_comments_and_white_space() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("patterns");
        std::fs::write(&file, "\u{feff}# comment\n\n  *.tmp  \r\n").unwrap();
        let files = [file];
        let patterns =
            Lists { patterns: &[], ignoring_case: &[], files: &files, files_ignoring_case: &[] }.build().unwrap();
        assert!(patterns.matches(b"/a.tmp") && !patterns.matches(b"/# comment"));
    }
}
