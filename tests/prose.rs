//! Checks the words and the line width of the project's prose, as `docs/STYLE.md` requires.
//!
//! `cargo test --test tests prose -- --nocapture` prints the rates of all directories.

use crate::common::files_below;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Columns of a line of Markdown or of a comment.
const WIDTH: usize = 100;

/// A phrase that the style guide replaces, and how often it may occur in 1,000 words.
struct Phrase {
    name: &'static str,
    most: f64,
    /// The words that it begins with, in lower case.
    forms: &'static [&'static [&'static str]],
}

const PHRASES: [Phrase; 4] = [
    Phrase { name: "tell", most: 0.2, forms: &[&["told"], &["tell"], &["tells"], &["telling"]] },
    Phrase {
        name: "what is",
        most: 0.4,
        forms: &[&["what", "is"], &["what", "was"], &["what", "are"], &["what", "were"]],
    },
    Phrase {
        name: "aside",
        most: 0.2,
        forms: &[&["put", "aside"], &["puts", "aside"], &["anew"], &["called", "off"], &["let", "go"], &["lets", "go"]],
    },
    Phrase { name: "somebody", most: 0.2, forms: &[&["somebody"], &["nobody"], &["nobody's"], &["whoever"]] },
];

/// Files whose prose is not ours, or quotes the phrases.
const EXEMPT: [&str; 2] = ["docs/STYLE.md", "tests/prose.rs"];

/// Directories without prose of ours.
const SKIPPED: [&str; 4] = [".git", "target", "fuzz/corpus", "fuzz/target"];

/// The prose of one file, and the numbers of its lines that are too wide.
#[derive(Default)]
struct Prose {
    text: String,
    wide: Vec<usize>,
}

impl Prose {
    fn of(path: &Path, content: &str) -> Option<Prose> {
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        match end {
            "md" => Some(Prose::of_markdown(content)),
            "rs" => Some(Prose::of_rust(content)),
            "yaml" | "toml" | "sh" | "py" => Some(Prose::of_comments(content, "#")),
            "" if content.starts_with("#!") => Some(Prose::of_comments(content, "#")),
            _ => None,
        }
    }

    fn of_markdown(content: &str) -> Prose {
        let mut prose = Prose::default();
        let mut in_code = false;
        for (number, line) in content.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                let is_table = line.trim_start().starts_with('|');
                prose.add(number, line, line, is_table);
            }
        }
        prose
    }

    /// Comments, messages, and the names of tests.
    fn of_rust(content: &str) -> Prose {
        let mut prose = Prose::of_comments(content, "//");
        for line in content.lines() {
            let code = comment(line, "//").map_or(line, |(code, _)| code);
            let messages = code.split('"').skip(1).step_by(2).filter(|text| text.split(' ').count() > 3);
            let name = code.trim_start().strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
            let names = name.map(|name| name.replace('_', " "));
            for text in messages.map(str::to_owned).chain(names) {
                prose.text.push_str(&text);
                prose.text.push('\n');
            }
        }
        prose
    }

    fn of_comments(content: &str, mark: &str) -> Prose {
        let mut prose = Prose::default();
        for (number, line) in content.lines().enumerate() {
            if let Some((code, text)) = comment(line, mark) {
                // The width of a line with code is rustfmt's matter.
                prose.add(number, line, text, !code.trim().is_empty());
            }
        }
        prose
    }

    fn add(&mut self, number: usize, line: &str, text: &str, may_be_wide: bool) {
        let is_breakable = text.split_whitespace().filter(|word| !word.starts_with("](")).count() > 2;
        if line.chars().count() > WIDTH && !may_be_wide && is_breakable && !text.contains("://") {
            self.wide.push(number + 1);
        }
        // Text in backquotes is a name or a command.
        self.text.extend(text.split('`').step_by(2).flat_map(|part| [part, " "]));
        self.text.push('\n');
    }

    fn words(&self) -> Vec<String> {
        let is_part = |c: char| c.is_alphanumeric() || c == '\'' || c == '-';
        let words = self.text.split(|c| !is_part(c)).filter(|word| word.starts_with(char::is_alphabetic));
        words.map(str::to_lowercase).collect()
    }
}

/// A line's code and the text of its comment.
fn comment<'l>(line: &'l str, mark: &str) -> Option<(&'l str, &'l str)> {
    let starts = line.match_indices(mark).map(|(at, _)| at);
    let is_first = |&at: &usize| at == 0 || line[..at].ends_with(char::is_whitespace);
    let at = starts.into_iter().find(is_first)?;
    Some((&line[..at], line[at + mark.len()..].trim_start_matches(['/', '!'])))
}

fn count(words: &[String], phrase: &Phrase) -> usize {
    let begins = |at: usize, form: &[&str]| {
        words.get(at..at + form.len()).is_some_and(|found| found.iter().zip(form).all(|(one, other)| one == other))
    };
    (0..words.len()).filter(|&at| phrase.forms.iter().any(|form| begins(at, form))).count()
}

/// The first two parts of a path, which is one in `src` or `tests`, or the first.
fn directory(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    match &parts[..] {
        [one, two, _, ..] if one == "src" || one == "tests" => format!("{one}/{two}"),
        [one, _, ..] => one.to_string(),
        _ => ".".to_owned(),
    }
}

#[derive(Default)]
struct Figures {
    words: usize,
    counts: [usize; PHRASES.len()],
    wide: Vec<String>,
}

impl Figures {
    fn rate(&self, phrase: usize) -> f64 {
        self.counts[phrase] as f64 * 1000.0 / (self.words.max(1) as f64)
    }

    fn add(&mut self, path: &Path, prose: &Prose) {
        let words = prose.words();
        self.words += words.len();
        for (total, phrase) in self.counts.iter_mut().zip(&PHRASES) {
            *total += count(&words, phrase);
        }
        self.wide.extend(prose.wide.iter().map(|line| format!("{}:{line}", path.display())));
    }
}

fn measured() -> BTreeMap<String, Figures> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
    let top = fs::read_dir(root).expect("the root").map(|entry| entry.expect("an entry").path());
    let top = top.filter(|path| !SKIPPED.iter().any(|name| path.ends_with(name)));
    let (directories, files): (Vec<_>, Vec<_>) = top.partition(|path| path.is_dir());
    for path in directories.iter().flat_map(|directory| files_below(directory)).chain(files) {
        let below = path.strip_prefix(root).expect("below the root").to_owned();
        if SKIPPED.iter().any(|name| below.starts_with(name)) || EXEMPT.iter().any(|name| below == Path::new(name)) {
            continue;
        }
        let Ok(content) = fs::read_to_string(&path) else { continue };
        let Some(prose) = Prose::of(&below, &content) else { continue };
        for name in [directory(&below), "all".to_owned()] {
            figures.entry(name).or_default().add(&below, &prose);
        }
    }
    figures
}

#[test]
fn prose_uses_the_words_of_the_style_guide_and_wraps() {
    let figures = measured();
    let names = PHRASES.map(|phrase| format!("{:>9}", phrase.name)).concat();
    println!("{:<22} {:>7}{names}    wide", "per 1,000 words", "words");
    for (directory, figures) in &figures {
        let rates: String = (0..PHRASES.len()).map(|phrase| format!("{:>9.2}", figures.rate(phrase))).collect();
        println!("{directory:<22} {:>7}{rates} {:>7}", figures.words, figures.wide.len());
    }
    let all = &figures["all"];
    assert!(all.words > 50_000, "the prose of the project is found: {}", all.words);
    for (number, phrase) in PHRASES.iter().enumerate() {
        assert!(all.rate(number) <= phrase.most, "\"{}\": {:.2} per 1,000 words", phrase.name, all.rate(number));
    }
    assert!(all.wide.is_empty(), "prose wraps at {WIDTH} columns: {:#?}", all.wide);
}

#[test]
fn phrases_are_found_in_comments_messages_names_and_markdown() {
    let rust = "fn an_error_is_told() {}\nlet x = \"nobody tells what is wrong\"; // Put aside, once told.\n";
    let markdown = "Told:\n```\ntold\n```\nand `told` is not prose\n";
    let counts =
        |prose: Option<Prose>| PHRASES.each_ref().map(|phrase| count(&prose.as_ref().unwrap().words(), phrase));
    assert_eq!(counts(Prose::of(Path::new("a.rs"), rust)), [3, 1, 1, 1]);
    assert_eq!(counts(Prose::of(Path::new("a.md"), markdown)), [1, 0, 0, 0]);
    let wide = format!("/// {}\n{}\n", "word ".repeat(30), "code();".repeat(30));
    assert_eq!(Prose::of(Path::new("a.rs"), &wide).unwrap().wide, [1]);
}
