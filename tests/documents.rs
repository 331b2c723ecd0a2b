//! What the documents say of tests: that they are there.

use crate::common::files_below;
use std::fs;
use std::path::Path;

/// Documents each of whose sentences names its test.
const DOCUMENTS: [&str; 4] = ["SECURITY.md", "SEMANTICS.md", "DAMAGE.md", "COMPATIBILITY.md"];

fn is_path_of_names(text: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.contains("::") && text.split("::").all(is_name)
}

/// A source file by the names that lead to it, such as `engine`, `prune`.
struct Source {
    module: Vec<String>,
    code: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let below = path.strip_prefix(root).expect("below the root").with_extension("");
        let names = below.iter().map(|name| name.to_str().expect("UTF-8").to_owned());
        let module = names.filter(|name| name != "mod").collect();
        Source { module, code: fs::read_to_string(path).expect("a source") }
    }

    /// Whether a path of names ends in this module, or in a function or module that it has itself:
    /// the names before that are those of the modules around it.
    fn has(&self, names: &[&str]) -> bool {
        let is_module =
            |names: &[&str]| self.module.ends_with(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let (last, modules) = names.split_last().expect("one at least");
        is_module(names)
            || (is_module(modules)
                && [format!("fn {last}("), format!("mod {last} {{")].iter().any(|item| self.code.contains(item)))
    }
}

#[test]
fn a_name_counts_only_in_its_own_module() {
    let module = ["tests", "engine", "prune"].map(str::to_owned).to_vec();
    let source = Source { module, code: "#[test]\nfn of_two_copies_one_goes() {}".to_owned() };
    assert!(source.has(&["prune", "of_two_copies_one_goes"]) && source.has(&["engine", "prune"]));
    for names in [
        &["repair", "of_two_copies_one_goes"][..],
        &["prune", "of_two_copies"],
        &["engine", "repair"],
        &["copies", "prune"],
    ] {
        assert!(!source.has(names), "{names:?}");
    }
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<_> = ["src", "tests"].iter().flat_map(|folder| files_below(&root.join(folder))).collect();
    let sources: Vec<_> = sources.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    let sources: Vec<Source> = sources.iter().map(|path| Source::read(root, path)).collect();
    let is_there = |named: &str| {
        let names: Vec<&str> = named.split("::").collect();
        sources.iter().any(|source| source.has(&names))
    };
    let (mut named, mut missing) = (0, Vec::new());
    for document in DOCUMENTS {
        let text = fs::read_to_string(root.join("docs").join(document)).expect("a document");
        for quoted in text.split('`').skip(1).step_by(2) {
            let gone = if is_path_of_names(quoted) {
                !is_there(quoted)
            } else if quoted.ends_with(".rs") && quoted.contains('/') {
                !root.join(quoted).exists()
            } else {
                continue;
            };
            named += 1;
            missing.extend(gone.then(|| format!("{document}: {quoted}")));
        }
    }
    assert!(missing.is_empty() && named > 50, "of {named}: {missing:#?}");
}
