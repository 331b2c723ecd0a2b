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

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<_> = ["src", "tests"].iter().flat_map(|folder| files_below(&root.join(folder))).collect();
    let sources: Vec<_> = sources.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    let code: String = sources.iter().map(|path| fs::read_to_string(path).expect("a source")).collect();
    let is_there = |named: &str| {
        let last = named.rsplit("::").next().expect("one at least");
        let is_module = |path: &Path| {
            path.file_stem().is_some_and(|stem| stem == last)
                || path.parent().is_some_and(|above| above.ends_with(last))
        };
        code.contains(&format!("fn {last}(")) || sources.iter().any(|path| is_module(path))
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
