//! Checks the documents: the tests, files and links that they name exist, and their commands run.

use crate::common::peers::Peer;
use crate::common::{files_below, scratch};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

    /// Whether a path of names ends in this module, or in a function or inline module of this
    /// module. The names before must be those of the enclosing modules.
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
    let source = Source { module, code: "#[test]\nfn prune_removes_one_of_two_copies() {}".to_owned() };
    assert!(source.has(&["prune", "prune_removes_one_of_two_copies"]) && source.has(&["engine", "prune"]));
    for names in [
        &["repair", "prune_removes_one_of_two_copies"][..],
        &["prune", "prune_removes_one"],
        &["engine", "repair"],
        &["copies", "prune"],
    ] {
        assert!(!source.has(names), "{names:?}");
    }
}

fn sources(root: &Path) -> Vec<Source> {
    let paths = ["src", "tests"].iter().flat_map(|folder| files_below(&root.join(folder)));
    let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    paths.map(|path| Source::read(root, &path)).collect()
}

/// Whether there is a module or function of this name, such as `engine::prune`.
fn exists(sources: &[Source], name: &str) -> bool {
    let names: Vec<&str> = name.split("::").collect();
    sources.iter().any(|source| source.has(&names))
}

#[test]
fn every_test_and_module_named_in_a_document_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(root);
    let (mut named, mut missing) = (0, Vec::new());
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        for quoted in text.split('`').skip(1).step_by(2) {
            let found = if is_path_of_names(quoted) {
                exists(&sources, quoted)
            } else if quoted.ends_with(".rs") && quoted.contains('/') {
                root.join(quoted).exists()
            } else {
                continue;
            };
            named += 1;
            missing.extend((!found).then(|| format!("{}: {quoted}", path.display())));
        }
    }
    assert!(missing.is_empty() && named > 100, "of {named}: {missing:#?}");
}

/// All documents that are meant for readers of the project.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files_below(&root.join("docs"));
    documents.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root.join(name)));
    documents.extend(["mover-image/README.md", "tests/cluster/README.md"].map(|name| root.join(name)));
    documents.retain(|path| path.extension().is_some_and(|end| end == "md"));
    documents
}

/// A block of code: the line that opens it, without the backquotes, and its lines.
struct Block {
    mark: String,
    code: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for line in text.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(mark)) => open = Some(Block { mark: mark.to_owned(), code: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.code.extend([line.trim_start(), "\n"]),
            (None, None) => {}
        }
    }
    blocks
}

/// How the commands of a block are tested.
#[derive(Debug, PartialEq)]
enum Commands<'b> {
    /// By this module.
    Run,
    /// By a test or a script of this name.
    By(&'b str),
    /// Not at all, for this reason.
    NotRun(&'b str),
    Unmarked,
}

/// `None` for a block that is not of commands.
fn commands(mark: &str) -> Option<Commands<'_>> {
    let (language, mark) = mark.split_once(' ').unwrap_or((mark, ""));
    if !["sh", "bash", "console", "shell"].contains(&language) {
        return None;
    }
    let reason = || mark.strip_prefix("norun=\"")?.strip_suffix('"').filter(|reason| reason.len() > 5);
    Some(match (mark, mark.strip_prefix("by="), reason()) {
        ("run", _, _) => Commands::Run,
        (_, Some(test), _) => Commands::By(test),
        (_, _, Some(reason)) => Commands::NotRun(reason),
        _ => Commands::Unmarked,
    })
}

#[test]
fn the_marks_of_command_blocks_are_read() {
    assert_eq!(commands("yaml"), None);
    assert_eq!(commands("sh run"), Some(Commands::Run));
    assert_eq!(commands("sh by=manifests/test"), Some(Commands::By("manifests/test")));
    assert_eq!(commands("sh norun=\"needs a cluster\""), Some(Commands::NotRun("needs a cluster")));
    for mark in ["sh", "sh norun=\"\"", "console ran"] {
        assert_eq!(commands(mark), Some(Commands::Unmarked), "{mark}");
    }
}

#[test]
fn every_command_of_a_document_is_run_or_has_a_reason_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(root);
    let mut wrong = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        for block in blocks(&text) {
            let is_right = match commands(&block.mark) {
                Some(Commands::Unmarked) => false,
                Some(Commands::By(test)) => root.join(test).exists() || exists(&sources, test),
                Some(Commands::Run | Commands::NotRun(_)) | None => true,
            };
            if !is_right {
                wrong.push(format!("{}: {:?}: {}", path.display(), block.mark, block.code));
            }
        }
    }
    assert!(wrong.is_empty(), "mark these with run, by=TEST or norun=\"REASON\": {wrong:#?}");
}

/// One shell per document, in an empty directory, with our command line and stock restic.
#[test]
fn the_commands_of_documents_succeed() {
    let mut ran = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        let blocks: Vec<Block> =
            blocks(&text).into_iter().filter(|block| commands(&block.mark) == Some(Commands::Run)).collect();
        if blocks.is_empty() {
            continue;
        }
        ran += blocks.len();
        let place = scratch();
        let bin = place.path().join("bin");
        let work = place.path().join("work");
        fs::create_dir_all(&bin).expect("a directory");
        fs::create_dir_all(&work).expect("a directory");
        for (name, peer) in [("vsm-mover", Peer::Vsm), ("restic", Peer::Restic019)] {
            std::os::unix::fs::symlink(peer.program(), bin.join(name)).expect("a symlink");
        }
        let script: String = blocks.iter().map(|block| block.code.as_str()).collect();
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &script]).current_dir(&work).env_clear();
        shell.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())).env("HOME", place.path());
        shell.env("RESTIC_REPOSITORY", place.path().join("repository")).env("RESTIC_PASSWORD", "test");
        let output = shell.output().expect("bash");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{}: {}\n{script}\n{}\n{}",
            path.display(),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    assert!(ran >= 10, "only {ran} blocks were run");
}

/// The anchor that the usual renderers give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !in_code) {
            anchors.push(anchor(heading.trim_start_matches('#').trim()));
        }
    }
    anchors
}

#[test]
fn links_between_documents_resolve() {
    let (mut links, mut broken) = (0, Vec::new());
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().expect("a directory").join(file) };
            let has_heading = || {
                let text = fs::read_to_string(&file).unwrap_or_default();
                heading.is_empty() || anchors(&text).iter().any(|found| found == heading)
            };
            if !file.exists() || !has_heading() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty() && links > 50, "of {links}: {broken:#?}");
}
