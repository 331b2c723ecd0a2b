//! The layers of the library, and what only one of them may do, read from the sources.
//!
//! Tests inside the sources (`mod tests`, `testing`) may use what they like. What is looked for is plain text, so that the rules can
//! be read here; a comment does not count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module uses those below, and in the first layer each other.
const LAYERS: [(&str, &[&str]); 6] = [
    (
        "L0",
        &[
            "id",
            "limits",
            "memory",
            "clock",
            "host",
            "concurrency",
            "aside",
            "format",
            "crypto",
            "hash",
            "chunk",
            "pattern",
            "progress",
            "parallel",
            "room",
            "api",
            "work",
            "provenance",
            "expiry",
            "manifest",
        ],
    ),
    ("L1", &["store"]),
    ("L2", &["repo"]),
    ("L3", &["backup", "restore", "maintain", "mount"]),
    ("L4", &["mover", "controller"]),
    ("L5", &["cli"]),
];

/// What stands only in the modules or files named: where it stands anywhere else, the message says what to do.
const RESERVED: [(&[&str], &[&str], &str); 8] = [
    (
        &["println!", "eprintln!", "print!(", "eprint!(", "dbg!", "io::stdout", "io::stderr"],
        &["cli", "main"],
        "only the command line prints; tell `Progress`",
    ),
    (
        &["object_store", "reqwest", "tokio", "rustls", "hyper"],
        &["store", "controller", "controller_main"],
        "only the stores and the controller reach a network; take a `&dyn Store`",
    ),
    (
        &["SystemTime::now", "getrandom", "Timestamp::now", "Zoned::now"],
        &["clock"],
        "only the clock reads time and randomness",
    ),
    (
        &["Instant::now", "thread::sleep", ".elapsed()"],
        &["clock", "controller/runtime/leader_election.rs", "store/object/retry.rs"],
        "only the clock measures time and waits; where tokio waits, tokio's clock does, which a test can pause",
    ),
    (
        &["anyhow", "clap"],
        &["cli", "main", "controller_main"],
        "errors of the library are enums, and its options are structs",
    ),
    (
        &["std::env"],
        &["cli", "main", "controller_main", "store"],
        "the library does not read the environment; take an option",
    ),
    (
        &["dialect::"],
        &["controller/cluster", "controller/kinds/mod.rs", "controller/runtime/reconcile.rs"],
        "the words of VolumeSnapshotMover are translated at the edge, and nothing inside knows them",
    ),
    (
        &["unsafe {", "unsafe fn", "unsafe impl"],
        &["chunk/sliced", "crypto/ctr/vaes.rs", "crypto/poly1305/ifma.rs", "hash/x86.rs"],
        "unsafe code only where measured speed needs it, beside a safe form that says the same",
    ),
];

/// Modules of bytes and types, and what would be I/O in them.
const PURE: [&str; 11] =
    ["id", "format", "crypto", "hash", "chunk", "pattern", "limits", "work", "provenance", "expiry", "manifest"];
const IMPURE: [&str; 5] = ["std::fs", "std::net", "std::process", "std::thread", "rustix::"];

/// A source file without comments and without its tests.
struct Source {
    module: String,
    /// Below `src`.
    path: PathBuf,
    lines: Vec<(usize, String)>,
}

#[test]
fn modules_use_only_what_is_below_them() {
    let known: BTreeSet<&str> = LAYERS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    let mut found = BTreeSet::new();
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !is_root(&source.module)) {
        found.insert(source.module.clone());
        let from = layer(&source.module);
        for (number, used) in source.lines.iter().flat_map(|(number, line)| uses(line).map(move |used| (number, used)))
        {
            let to = layer(&used);
            let allowed = used == source.module || to < from || (to == Some(0) && from == Some(0));
            // `crate::` may also lead to an item of lib.rs; those are none of the layers' business.
            if known.contains(&*used) && !allowed {
                faults.push(format!("{}:{number}: {} uses {used}", source.path.display(), source.module));
            }
        }
    }
    assert!(faults.is_empty(), "upward or sideways:\n{}", faults.join("\n"));
    let known: BTreeSet<String> = known.into_iter().map(str::to_owned).collect();
    assert_eq!(found, known, "every module has a layer, and every layer's modules are there");
}

#[test]
fn what_is_reserved_to_a_module_stands_only_there() {
    let mut faults = Vec::new();
    for source in sources() {
        for (texts, owners, advice) in RESERVED {
            if !owners.iter().any(|owner| source.module == *owner || source.path.starts_with(owner)) {
                faults.extend(occurrences(&source, texts, advice));
            }
        }
        if PURE.contains(&&*source.module) {
            faults.extend(occurrences(&source, &IMPURE, "bytes and types only: no I/O, no threads"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_rules_find_what_they_are_for() {
    let names = |line: &str| uses(line).collect::<Vec<_>>();
    assert_eq!(names("use crate::cli::args; let x = crate::repo::Index::load();"), ["cli", "repo"]);
    assert_eq!(names("use crate::{backup, store::{File, Store}, id::Id};"), ["backup", "store", "id"]);
    assert!(names("use other_crate::cli; pub(crate) use reader::x; pub(in crate) fn f()").is_empty());
    let text = "use a;\n// println!\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod tests {\n println!()\n}\n";
    assert_eq!(code(text), [(1, "use a;".to_owned()), (3, "#[cfg(test)]".into()), (4, "mod tests;".into())]);
    let lines = vec![(7, "let x = tokio::spawn();".to_owned())];
    let source = Source { module: "repo".into(), path: "x.rs".into(), lines };
    assert_eq!(occurrences(&source, &["tokio"], "no").len(), 1);
}

fn is_root(module: &str) -> bool {
    matches!(module, "lib" | "main" | "controller_main")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

fn occurrences(source: &Source, texts: &[&str], advice: &str) -> Vec<String> {
    let hits = source.lines.iter().filter_map(|(number, line)| {
        let text = texts.iter().find(|text| line.contains(**text))?;
        Some(format!("{}:{number}: `{text}`: {advice}", source.path.display()))
    });
    hits.collect()
}

/// The modules that a line names after `crate::`.
fn uses(line: &str) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(top_level(list).map(|item| identifier(item.trim()))),
            None => names.push(identifier(rest)),
        }
    }
    names.into_iter()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The items of a list in braces, up to its closing one.
fn top_level(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let mut items = Vec::new();
    let mut start = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items.into_iter();
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items.into_iter()
}

/// All files below `src`. A `use` of several lines is read as one.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            if matches!(&*stem, "tests" | "testing" | "testdata") {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let lines = code(&fs::read_to_string(&path).unwrap());
            let path = path.strip_prefix(&root).unwrap().to_owned();
            let first = path.components().next().unwrap().as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            sources.push(Source { module, path, lines });
        }
    }
    assert!(sources.len() > 50, "the sources are where they were");
    sources
}

/// Numbered lines of code: comments are left out, and so is everything from an inline `mod tests` on, which stands last.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open_use = false;
    for (index, line) in text.lines().enumerate() {
        if line == "mod tests {" {
            // Its `#[cfg(test)]`.
            lines.pop();
            break;
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if open_use => last.push_str(line),
            _ => lines.push((index + 1, line.to_owned())),
        }
        let statement = &lines.last().unwrap().1;
        open_use = (statement.starts_with("use ") || statement.starts_with("pub use ")) && !statement.ends_with(';');
    }
    lines
}
