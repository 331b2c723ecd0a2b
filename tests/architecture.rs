//! Checks the architecture of the library in its sources: layers, import cycles, visibility, sizes.
//!
//! Tests inside the sources (`mod tests`, `testing`) may use any module. The rules search for plain
//! text, which keeps them readable, and ignore comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How the modules of one layer may use each other.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    /// A module may use those before it.
    Ordered,
    /// A module must not use the others.
    Apart,
}

/// Modules by layer, lowest first. A module may use those of lower layers.
const LAYERS: [(Within, &[&str]); 7] = [
    (
        Within::Ordered,
        &[
            "limits",
            "volume_mode",
            "host",
            "clock",
            "interrupt",
            "sync",
            "parallel",
            "room",
            "pattern",
            "progress",
            "aside",
            "memory",
            "concurrency",
            "hash",
            "id",
            "chunk",
            "crypto",
            "format",
        ],
    ),
    (Within::Apart, &["store"]),
    (Within::Apart, &["repo"]),
    (Within::Apart, &["backup", "restore", "maintain", "mount"]),
    (Within::Ordered, &["work", "provenance", "api", "manifest", "velero", "kubernetes"]),
    (Within::Apart, &["mover", "controller"]),
    (Within::Apart, &["cli"]),
];

/// The modules of `controller`: each may use those before it.
const CONTROLLER: [&str; 10] =
    ["domain", "config", "tenancy", "action", "observed", "mover_job", "dialect", "cluster", "kinds", "runtime"];

/// Limits for a file and a function without tests, and for the share of a module in all lines.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const PARAMETERS: usize = 5;
const MODULE_PERCENT: usize = 15;

/// Files that implement foreign traits, whose parameters are fixed.
const FOREIGN: [&str; 1] = ["mount/serve.rs"];

/// Texts that only the named modules or files may contain, and advice for all others.
const RESERVED: [(&[&str], &[&str], &str); 9] = [
    (
        &["println!", "eprintln!", "print!(", "eprint!(", "dbg!", "io::stdout", "io::stderr"],
        &["cli", "main"],
        "only the command line prints; report to `Progress`",
    ),
    (
        &["object_store", "reqwest", "tokio", "rustls", "hyper"],
        &["store", "controller", "controller_main", "kubernetes"],
        "only the stores and the controller reach a network; take a `&dyn Store`",
    ),
    (
        &["SystemTime::now", "getrandom", "Timestamp::now", "Zoned::now"],
        &["clock"],
        "only the clock reads time and randomness",
    ),
    (
        &["Instant::now", "thread::sleep", ".elapsed()"],
        &["clock", "kubernetes/leader_election.rs", "store/object/retry.rs"],
        "only the clock measures time and waits; where tokio waits, tokio's clock does, which a test can pause",
    ),
    (
        &[".get_opt("],
        &["controller/cluster/read.rs", "kubernetes/leader_election.rs"],
        "a tenant may have written the name; take `cluster::find`",
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
        &["velero", "Velero", "k8s_openapi", "kube::"],
        &[
            "api",
            "work",
            "provenance",
            "manifest",
            "velero",
            "kubernetes",
            "mover",
            "controller",
            "controller_main",
            "cli",
            "store/object/azure.rs",
            "lib",
        ],
        "the engine knows neither Kubernetes nor Velero; take a function or an option",
    ),
    (
        &["unsafe {", "unsafe fn", "unsafe impl"],
        &["chunk/sliced", "crypto/ctr/vaes.rs", "crypto/poly1305/ifma.rs", "hash/x86.rs"],
        "unsafe code only where measured speed needs it, beside a safe form with the same result",
    ),
];

/// Modules of bytes and types, and texts that mean I/O.
const PURE: [&str; 11] =
    ["id", "format", "crypto", "hash", "chunk", "pattern", "limits", "work", "provenance", "volume_mode", "manifest"];
const IMPURE: [&str; 5] = ["std::fs", "std::net", "std::process", "std::thread", "rustix::"];

/// A source file without comments and without its tests.
struct Source {
    /// The top-level module.
    module: String,
    /// The path below `src`.
    path: PathBuf,
    lines: Vec<(usize, String)>,
    /// The whole text, up to an inline `mod tests`.
    text: String,
}

#[test]
fn modules_use_only_lower_ones() {
    let known: BTreeSet<&str> = LAYERS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    let mut found = BTreeSet::new();
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !is_root(&source.module)) {
        found.insert(source.module.clone());
        for (number, used) in source.uses() {
            // `crate::` may also lead to an item of lib.rs.
            if known.contains(&*used[0]) && !may_use(&source.module, &used[0]) {
                faults.push(format!("{}:{number}: {} uses {}", source.path.display(), source.module, used[0]));
            }
        }
    }
    assert!(faults.is_empty(), "upward or sideways:\n{}", faults.join("\n"));
    let known: BTreeSet<String> = known.into_iter().map(str::to_owned).collect();
    assert_eq!(found, known, "every module has a layer, and every module of a layer exists");
}

#[test]
fn the_controllers_modules_use_only_lower_ones() {
    let rank = |name: &str| CONTROLLER.iter().position(|module| *module == name);
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.module == "controller") {
        let path = module_path(&source.path);
        let Some(from) = path.get(1).filter(|name| *name != "tests") else { continue };
        let from_rank = rank(from).unwrap_or_else(|| panic!("controller::{from} is missing in CONTROLLER"));
        for (number, used) in source.uses().filter(|(_, used)| used.len() > 1 && used[0] == "controller") {
            let to = rank(&used[1]).unwrap_or(usize::MAX);
            if used[1] != *from && to >= from_rank {
                faults.push(format!("{}:{number}: {from} uses {}", source.path.display(), used[1]));
            }
        }
    }
    assert!(faults.is_empty(), "upward:\n{}", faults.join("\n"));
}

#[test]
fn files_have_no_import_cycle() {
    let sources = sources();
    let files: BTreeMap<Vec<String>, &Source> =
        sources.iter().filter(|it| !is_root(&it.module)).map(|it| (module_path(&it.path), it)).collect();
    let mut edges: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for (module, source) in &files {
        // A re-export is part of a module's interface, not a use by the module.
        let lines = source.lines.iter().filter(|(_, line)| !line.starts_with("pub use "));
        let used = lines.flat_map(|(_, line)| paths(line)).filter_map(|path| resolve(module, &path, &files));
        edges.insert(module, used.filter(|used| *used != &module[..]).collect());
    }
    // A file that imports none of the others, or that none imports, is in no cycle.
    let mut left = edges;
    loop {
        let imported: BTreeSet<&[String]> = left.values().flatten().copied().collect();
        let outside = left
            .iter()
            .find(|(file, used)| !imported.contains(**file) || used.iter().all(|used| !left.contains_key(used)));
        let Some((file, _)) = outside else { break };
        let file = *file;
        left.remove(file);
    }
    let remaining: BTreeSet<&[String]> = left.keys().copied().collect();
    let faults: Vec<String> = left
        .iter()
        .flat_map(|(from, used)| used.iter().filter(|it| remaining.contains(*it)).map(move |to| (from, to)))
        .map(|(from, to)| format!("{} -> {}", from.join("::"), to.join("::")))
        .collect();
    assert!(faults.is_empty(), "import cycles:\n{}", faults.join("\n"));
}

#[test]
fn public_items_are_used_by_other_files() {
    let texts = all_texts();
    let words: BTreeMap<&Path, BTreeSet<&str>> = texts.iter().map(|(path, text)| (&**path, words(text))).collect();
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !is_root(&source.module)) {
        let path = Path::new("src").join(&source.path);
        let is_mod = path.file_stem().is_some_and(|stem| stem == "mod");
        let dir = if is_mod { path.parent().expect("below src").to_owned() } else { path.with_extension("") };
        // Uses in a file's own tests do not count.
        let own_tests = path.with_file_name("").join(path.file_stem().expect("a name"));
        let own = |other: &Path| other == path || other.starts_with(&own_tests);
        for (number, line) in &source.lines {
            if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'))
                && !words
                    .iter()
                    .any(|(other, words)| **other != path && !other.starts_with(&dir) && words.contains(name))
            {
                faults.push(format!("{}:{number}: no module outside uses `{name}`", path.display()));
            }
            let item = ["pub fn ", "pub const fn ", "pub async fn ", "pub const ", "pub static "]
                .iter()
                .find_map(|prefix| line.strip_prefix(prefix));
            let name = item.map(identifier).filter(|name| !name.is_empty());
            if let Some(name) = name
                && !words.iter().any(|(other, words)| !own(other) && words.contains(&*name))
            {
                faults.push(format!("{}:{number}: no other file uses `{name}`", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "make these private:\n{}", faults.join("\n"));
}

#[test]
fn files_functions_and_modules_are_small() {
    let mut faults = Vec::new();
    let mut modules: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources() {
        let path = source.path.display();
        let lines = source.text.lines().count();
        *modules.entry(source.module.clone()).or_default() += lines;
        if lines > FILE_LINES {
            faults.push(format!("{path}: {lines} lines"));
        }
        for Function { name, line, lines, parameters } in functions(&source.text) {
            if lines > FUNCTION_LINES {
                faults.push(format!("{path}:{line}: {name} has {lines} lines"));
            }
            if parameters > PARAMETERS && !FOREIGN.iter().any(|foreign| source.path.ends_with(foreign)) {
                faults.push(format!("{path}:{line}: {name} has {parameters} parameters"));
            }
        }
    }
    let total: usize = modules.values().sum();
    let large = modules.iter().filter(|(_, lines)| **lines * 100 > total * MODULE_PERCENT);
    faults.extend(large.map(|(module, lines)| format!("{module}: {lines} of {total} lines")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn reserved_texts_occur_only_in_their_modules() {
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
fn the_rules_detect_violations() {
    let names = |line: &str| paths(line).iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(names("let x = crate::repo::Index::load(super::y());"), ["crate::repo::Index::load", "super::y"]);
    let tree = "use crate::{backup, store::{self, File, object::Store as _}, id::Id};";
    let expected =
        ["crate::backup", "crate::store", "crate::store::File", "crate::store::object::Store", "crate::id::Id"];
    assert_eq!(names(tree), expected);
    assert!(
        names("use other_crate::cli; pub(crate) fn f() -> other::crate_x").iter().all(|it| it.starts_with("other"))
    );
    let text = "use a;\n// println!\n#[cfg(test)]\nmod tests;\n";
    assert_eq!(code(text), [(1, "use a;".to_owned()), (3, "#[cfg(test)]".into()), (4, "mod tests;".into())]);
    let lines = vec![(7, "let x = tokio::spawn();".to_owned())];
    let source = Source { module: "repo".into(), path: "x.rs".into(), lines, text: String::new() };
    assert_eq!(occurrences(&source, &["tokio"], "no").len(), 1);
    assert!(may_use("repo", "store") && may_use("id", "hash"));
    assert!(!may_use("hash", "id") && !may_use("store", "repo") && !may_use("backup", "restore"));
    let text = "impl X {\n    pub fn f<T: Fn(A, B)>(\n        &self,\n        a: [u8; 3],\n        b: (A, B),\n    ) {\n    }\n}\nfn g() {}\n";
    let found: Vec<_> = functions(text).into_iter().map(|it| (it.name, it.line, it.lines, it.parameters)).collect();
    assert_eq!(found, [("f".to_owned(), 2, 6, 3), ("g".to_owned(), 9, 1, 0)]);
}

impl Source {
    /// The paths below `crate` that the file names, with the numbers of their lines.
    fn uses(&self) -> impl Iterator<Item = (usize, Vec<String>)> {
        let module = module_path(&self.path);
        let absolute = move |path: Vec<String>| match &*path[0] {
            "crate" => Some(path[1..].to_vec()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let parent = &module[..module.len().saturating_sub(up)];
                Some(parent.iter().chain(&path[up..]).cloned().collect())
            }
            _ => None,
        };
        let all = self.lines.iter().flat_map(|(number, line)| paths(line).into_iter().map(move |it| (*number, it)));
        all.filter_map(move |(number, path)| Some((number, absolute(path)?))).filter(|(_, path)| !path.is_empty())
    }
}

fn is_root(module: &str) -> bool {
    matches!(module, "lib" | "main" | "controller_main")
}

fn may_use(from: &str, to: &str) -> bool {
    let place = |name: &str| {
        LAYERS.iter().enumerate().find_map(|(layer, (within, modules))| {
            let rank = modules.iter().position(|module| *module == name)?;
            Some((layer, *within, rank))
        })
    };
    match (place(from), place(to)) {
        (Some((from_layer, within, from_rank)), Some((to_layer, _, to_rank))) => {
            from == to
                || to_layer < from_layer
                || (to_layer == from_layer && within == Within::Ordered && to_rank < from_rank)
        }
        _ => false,
    }
}

fn occurrences(source: &Source, texts: &[&str], advice: &str) -> Vec<String> {
    let hits = source.lines.iter().filter_map(|(number, line)| {
        let text = texts.iter().find(|text| line.contains(**text))?;
        Some(format!("{}:{number}: `{text}`: {advice}", source.path.display()))
    });
    hits.collect()
}

/// The module of a file below `src`: `store/object.rs` and `store/object/mod.rs` are
/// `store::object`.
fn module_path(path: &Path) -> Vec<String> {
    let path = path.with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").collect()
}

/// The file that a path leads to: the longest prefix that is a module with its own file.
fn resolve<'f>(module: &[String], path: &[String], files: &'f BTreeMap<Vec<String>, &Source>) -> Option<&'f [String]> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (mut current, rest) = match &*path[0] {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (module.to_vec(), &path[1..]),
        "super" => (module[..module.len() - ups].to_vec(), &path[ups..]),
        _ => {
            let mut child = module.to_vec();
            child.push(path[0].clone());
            files.contains_key(&child).then_some(())?;
            (module.to_vec(), path)
        }
    };
    let mut found = files.get_key_value(&current).map(|(key, _)| &**key);
    for part in rest {
        current.push(part.clone());
        match files.get_key_value(&current) {
            Some((key, _)) => found = Some(key),
            None => break,
        }
    }
    found
}

/// The paths in a line: those of a `use` tree, and those that begin with `crate::` or `super::`.
fn paths(line: &str) -> Vec<Vec<String>> {
    let statement = line.strip_prefix("pub ").unwrap_or(line);
    let statement = match statement.strip_prefix("(crate) ").or_else(|| statement.strip_prefix("(super) ")) {
        Some(rest) => rest,
        None => statement,
    };
    let mut found = Vec::new();
    if let Some(tree) = statement.strip_prefix("use ") {
        expand(&[], tree.split(';').next().unwrap_or_default(), &mut found);
        return found;
    }
    for root in ["crate::", "super::"] {
        for (at, _) in line.match_indices(root) {
            let before = line[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                let text: String =
                    line[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
                found.push(text.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
            }
        }
    }
    found
}

/// The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (head, list) = match tree.split_once('{') {
        Some((head, list)) => (head, list.strip_suffix('}')),
        None => (tree.split(" as ").next().unwrap_or_default(), None),
    };
    let parts = head.split("::").filter(|part| !part.is_empty() && *part != "self").map(str::to_owned);
    let path: Vec<String> = prefix.iter().cloned().chain(parts).collect();
    match list {
        Some(list) => top_level(list).filter(|item| !item.trim().is_empty()).for_each(|it| expand(&path, it, found)),
        None if path.is_empty() => {}
        None => found.push(path),
    }
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The comma-separated items of a list, up to its closing brace.
fn top_level(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let mut items = Vec::new();
    let mut start = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' | '(' | '[' | '<' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items.into_iter();
            }
            '>' if list[..at].ends_with('-') => {}
            '}' | ')' | ']' | '>' => depth -= 1,
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

/// A function in a source text.
struct Function {
    name: String,
    /// The number of its first line.
    line: usize,
    lines: usize,
    /// `self` included.
    parameters: usize,
}

fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let Some(at) = trimmed.find("fn ") else { continue };
        let qualifiers = trimmed[..at].split_whitespace();
        if !qualifiers.clone().all(|word| word.starts_with("pub") || matches!(word, "const" | "async" | "unsafe")) {
            continue;
        }
        let name = identifier(&trimmed[at + 3..]);
        let rest = lines[index..].join("\n");
        let signature = &rest[rest.find(&*name).expect("the name") + name.len()..];
        let end = match trimmed.ends_with('}') {
            true => 1,
            false => lines[index..].iter().position(|line| **line == format!("{indent}}}")).map_or(1, |at| at + 1),
        };
        found.push(Function { name, line: index + 1, lines: end, parameters: parameters(signature) });
    }
    found
}

/// The number of parameters of a signature without its name.
fn parameters(signature: &str) -> usize {
    let mut depth = 0_i32;
    let mut open = None;
    for (at, c) in signature.char_indices() {
        match c {
            '(' if depth == 0 => {
                open = Some(at + 1);
                break;
            }
            '>' if signature[..at].ends_with('-') => {}
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    let list = &signature[open.expect("a parameter list")..];
    let mut depth = 0;
    let close = list
        .char_indices()
        .find(|(_, c)| {
            depth += i32::from(*c == '(') - i32::from(*c == ')');
            depth < 0
        })
        .map_or(list.len(), |(at, _)| at);
    top_level(&list[..close]).filter(|item| !item.trim().is_empty()).count()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

/// All Rust files of the project, by their path below its root.
fn all_texts() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = BTreeMap::new();
    let mut dirs: Vec<PathBuf> = ["src", "tests", "benches", "fuzz"].iter().map(|dir| root.join(dir)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "target" {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
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
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            let path = path.strip_prefix(&root).unwrap().to_owned();
            let first = path.components().next().unwrap().as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            sources.push(Source { module, path, lines: code(&text), text });
        }
    }
    assert!(sources.len() > 50, "the sources were found");
    sources
}

/// Numbered lines of code without comments.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open_use = false;
    for (index, line) in text.lines().enumerate() {
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
