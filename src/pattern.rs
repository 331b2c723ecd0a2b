//! restic's patterns for paths: shell globs per component, `**` for any number of components, `!`
//! to negate.
//!
//! A pattern with a leading `/` starts at the root, any other matches at every depth. Both also
//! match everything below their matches. Components are matched as by Go's `filepath.Match`: `*`,
//! `?`, `[a-z]`, `[^a]`, and a backslash that makes the next character literal.

/// A malformed pattern.
#[derive(Debug, thiserror::Error)]
#[error("pattern {0:?} is malformed")]
pub struct BadPattern(String);

/// Whether a pattern distinguishes upper case from lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Sensitive,
    Ignore,
}

/// A list of patterns, later ones overriding earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    parts: Vec<Part>,
    anchored: bool,
    /// `!pattern`: cancels the earlier matches of its paths.
    negated: bool,
    case: Case,
}

#[derive(Clone, Debug)]
enum Part {
    /// `**`
    AnyDepth,
    Glob(Vec<u8>),
}

impl Patterns {
    /// Adds a pattern behind the others.
    pub fn push(&mut self, text: &str, case: Case) -> Result<(), BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let (negated, pattern) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let folded = match case {
            Case::Ignore => pattern.to_lowercase(),
            Case::Sensitive => pattern.to_owned(),
        };
        let mut parts = Vec::new();
        for part in folded.split('/').filter(|part| !part.is_empty() && *part != ".") {
            parts.push(if part == "**" {
                Part::AnyDepth
            } else {
                check(part.as_bytes()).ok_or_else(bad)?;
                Part::Glob(part.as_bytes().to_vec())
            });
        }
        if parts.is_empty() && !pattern.starts_with('/') {
            return Err(bad());
        }
        self.patterns.push(Pattern { parts, anchored: pattern.starts_with('/'), negated, case });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the path (absolute, `/` between components) or a directory above it matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.verdict(path, |pattern, components| pattern.matches(components))
    }

    /// Whether a path below the directory may match.
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        self.verdict(path, |pattern, components| pattern.matches(components) || pattern.leads_below(components))
    }

    fn verdict(&self, path: &[u8], test: impl Fn(&Pattern, &[&[u8]]) -> bool) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let lower = self
            .patterns
            .iter()
            .any(|pattern| pattern.case == Case::Ignore)
            .then(|| String::from_utf8_lossy(path).to_lowercase());
        let components = split(path);
        let folded = lower.as_ref().map(|lower| split(lower.as_bytes()));
        let mut meant = false;
        for pattern in &self.patterns {
            let components =
                if pattern.case == Case::Ignore { folded.as_ref().expect("made above") } else { &components };
            if pattern.negated {
                meant = meant && !pattern.matches(components);
            } else {
                meant = meant || test(pattern, components);
            }
        }
        meant
    }
}

fn split(path: &[u8]) -> Vec<&[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect()
}

impl Pattern {
    /// Whether the pattern matches the path or a directory above it.
    ///
    /// Compares each part once with each component, so that many `**` take no exponential time.
    fn matches(&self, path: &[&[u8]]) -> bool {
        // Whether the parts so far can end before the component of that number.
        let mut ends = vec![!self.anchored; path.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            match part {
                Part::AnyDepth => {
                    let first = ends.iter().position(|&end| end).unwrap_or(ends.len());
                    ends[first..].fill(true);
                }
                Part::Glob(glob) => {
                    for at in (0..path.len()).rev() {
                        ends[at + 1] = ends[at] && match_component(glob, path[at]);
                    }
                    ends[0] = false;
                }
            }
        }
        ends.contains(&true)
    }

    /// Whether a path below `path` could match.
    fn leads_below(&self, path: &[&[u8]]) -> bool {
        !self.anchored || leads(&self.parts, path)
    }
}

/// Whether the first parts match the whole path, so that the others may match below it.
fn leads(parts: &[Part], path: &[&[u8]]) -> bool {
    match (parts.split_first(), path.split_first()) {
        (_, None) | (Some((Part::AnyDepth, _)), _) => true,
        (None, _) => false,
        (Some((Part::Glob(glob), rest)), Some((name, below))) => match_component(glob, name) && leads(rest, below),
    }
}

/// Whether a well-formed glob matches a whole name.
fn match_component(glob: &[u8], name: &[u8]) -> bool {
    // Backtracking to the last star is enough: an earlier one could only take less.
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if glob.get(g) == Some(&b'*') {
            star = Some((g + 1, n));
            g += 1;
            continue;
        }
        if g == glob.len() && n == name.len() {
            return true;
        }
        let step = (g < glob.len() && n < name.len()).then(|| match_one(&glob[g..], &name[n..])).flatten();
        match (step, star) {
            (Some((glob_used, name_used)), _) => {
                g += glob_used;
                n += name_used;
            }
            (None, Some((after, from))) if from < name.len() => {
                star = Some((after, from + char_length(&name[from..])));
                (g, n) = (after, star.expect("just set").1);
            }
            _ => return false,
        }
    }
}

/// Length in bytes of the first character; an invalid byte is one.
fn char_length(bytes: &[u8]) -> usize {
    first_char(bytes).map_or(1, char::len_utf8)
}

fn first_char(bytes: &[u8]) -> Option<char> {
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next()?;
    chunk.valid().chars().next()
}

/// Matches one unit of the glob (not a star) with one character; returns the bytes of each that
/// were used.
fn match_one(glob: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    let length = char_length(name);
    match glob[0] {
        b'?' => Some((1, length)),
        b'[' => {
            // Go reads an invalid byte as the replacement character.
            let c = first_char(name).unwrap_or(char::REPLACEMENT_CHARACTER);
            match_class(glob, c).and_then(|(used, hit)| hit.then_some((used, length)))
        }
        b'\\' => (glob.get(1) == name.first()).then_some((2, 1)),
        byte => (byte == name[0]).then_some((1, 1)),
    }
}

/// Reads `[…]`: its length, and whether it holds the character. `None` if it is malformed.
fn match_class(glob: &[u8], c: char) -> Option<(usize, bool)> {
    let mut at = 1;
    let negated = glob.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut hit = false;
    loop {
        let low = class_char(glob, &mut at)?;
        let mut high = low;
        if glob.get(at) == Some(&b'-') {
            at += 1;
            high = class_char(glob, &mut at)?;
        }
        hit |= (low..=high).contains(&c);
        if *glob.get(at)? == b']' {
            return Some((at + 1, hit != negated));
        }
    }
}

/// One character of a class. As in Go, `-` and `]` are characters only behind a backslash.
fn class_char(glob: &[u8], at: &mut usize) -> Option<char> {
    match *glob.get(*at)? {
        b'-' | b']' => return None,
        b'\\' => *at += 1,
        _ => {}
    }
    let c = first_char(glob.get(*at..)?)?;
    *at += c.len_utf8();
    Some(c)
}

/// Checks a glob: `None` for a malformed class or a backslash at the end.
fn check(glob: &[u8]) -> Option<()> {
    let mut at = 0;
    while let Some(&byte) = glob.get(at) {
        at += match byte {
            b'\\' => glob.get(at + 1).map(|_| 2)?,
            b'[' => match_class(&glob[at..], char::REPLACEMENT_CHARACTER)?.0,
            _ => 1,
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Patterns {
        let mut patterns = Patterns::default();
        list.iter().for_each(|text| patterns.push(text, Case::Sensitive).unwrap());
        patterns
    }

    /// The examples of restic's documentation on excludes, and of Go's filepath.Match.
    #[test]
    fn matches_as_restic() {
        for (pattern, path, expected) in [
            ("*.c", "/home/user/docs/foo.c", true),
            ("*.c", "/home/user/docs/foo.c/below", true),
            ("foo/**/bar", "/dir1/foo/dir2/bar/file", true),
            ("foo/**/bar", "/foo/bar/file", true),
            ("foo/**/bar", "/tmp/foo/bar", true),
            ("/home/user/docs", "/home/user/docs/file", true),
            ("/home/user/docs", "/srv/home/user/docs", false),
            ("home/*/x", "/a/home/b/x", true),
            ("a?c", "/abc", true),
            ("a?c", "/aäc", true),
            ("a[b-d]e", "/ace", true),
            ("a[^b-d]e", "/ace", false),
            ("a\\*b", "/a*b", true),
            ("a\\*b", "/axb", false),
            ("lost+found", "/data/lost+found", true),
            ("*a*b*c", "/xaybzcc", true),
            ("*a*b", "/ab/c", true),
        ] {
            assert_eq!(patterns(&[pattern]).matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        assert!(!patterns(&["*.c", "!keep.c"]).matches(b"/x/keep.c"));
        assert!(patterns(&["*.c", "!keep.c"]).matches(b"/x/other.c"));
    }

    /// Trying every distribution of the components would exceed the time of the test.
    #[test]
    fn many_wildcards_take_no_exponential_time() {
        let pattern = format!("/{}x", "**/a/".repeat(40));
        assert!(!patterns(&[&pattern]).matches("/a".repeat(100).as_bytes()));
        assert!(patterns(&[&pattern]).matches(format!("{}/x", "/a".repeat(100)).as_bytes()));
    }

    #[test]
    fn matches_below_a_directory_are_ruled_out_by_an_anchored_pattern_only() {
        let some = patterns(&["/a/b/*.txt"]);
        assert!(some.may_match_below(b"/a") && some.may_match_below(b"/a/b") && !some.may_match_below(b"/x"));
        assert!(patterns(&["*.txt"]).may_match_below(b"/x"));
    }

    #[test]
    fn ignores_case_on_request() {
        let mut some = Patterns::default();
        some.push("*.JPG", Case::Ignore).unwrap();
        assert!(some.matches("/PHOTOS/Ä.jpg".as_bytes()));
    }

    #[test]
    fn refuses_malformed_patterns() {
        // Malformed in Go, too: a bare `-` or `]` is no character of a class.
        for bad in
            ["[", "[a", "a\\", "[a-]", "", "[]", "[]a]", "[-a]", "[a-b-c]", "[--z]", "[^", "[^]", "[a\\", "x[a-\\"]
        {
            assert!(Patterns::default().push(bad, Case::Sensitive).is_err(), "{bad}");
        }
        let some = patterns(&["[\\-\\]]"]);
        assert!(some.matches(b"-") && some.matches(b"]") && !some.matches(b"a"));
    }
}
