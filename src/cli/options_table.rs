//! `docs/OPTIONS.md` says what the definitions say: every command, option and variable is in it, and nothing else.

use super::definitions;
use crate::store;
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../../docs/OPTIONS.md");

/// Options of a command by its name: `-r, --repo LOCATION` and the variable behind it.
type Options = BTreeMap<String, BTreeSet<(String, String)>>;

fn defined() -> Options {
    let mut root = definitions();
    root.build();
    let mut options = Options::new();
    let mut commands = vec![(String::new(), &root)];
    while let Some((name, command)) = commands.pop() {
        let heading = if name.is_empty() { "Global options".to_owned() } else { name.clone() };
        let own = command.get_arguments().filter(|arg| name.is_empty() || !arg.is_global_set());
        options.insert(heading, own.filter(|arg| !is_no_option(arg)).map(describe).collect());
        for inner in command.get_subcommands() {
            commands.push((format!("{name} {}", inner.get_name()).trim().to_owned(), inner));
        }
    }
    options
}

fn is_no_option(arg: &clap::Arg) -> bool {
    arg.is_positional() || matches!(arg.get_id().as_str(), "help" | "version")
}

fn describe(arg: &clap::Arg) -> (String, String) {
    let values = arg.get_value_names().filter(|_| arg.get_action().takes_values());
    let value = values.and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let flags: Vec<String> =
        [arg.get_short().map(|short| format!("-{short}")), arg.get_long().map(|long| format!("--{long}"))]
            .into_iter()
            .flatten()
            .collect();
    let text = [flags.join(", "), value].join(" ").trim().to_owned();
    (text, arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

/// The tables below headings of the second level; a row is `| option | variable | … |`.
fn documented() -> Options {
    let mut options = Options::new();
    let mut heading = None;
    for line in DOCUMENT.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = Some(text.trim_matches('`').to_owned());
        } else if let (Some(heading), Some(row)) = (&heading, line.strip_prefix("| `")) {
            let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
            let row = (cells[0].to_owned(), cells[1].to_owned());
            assert!(options.entry(heading.clone()).or_default().insert(row), "{line} is there twice");
        } else if let Some(heading) = &heading {
            options.entry(heading.clone()).or_default();
        }
    }
    options
}

#[test]
fn definitions_are_sound() {
    definitions().debug_assert();
}

#[test]
fn every_option_is_in_the_published_table_and_nothing_else() {
    let mut documented = documented();
    for extra in ["Extended options", "Environment", "Not supported"] {
        assert!(documented.remove(extra).is_some(), "the document has a section {extra}");
    }
    if cfg!(not(feature = "mount")) {
        documented.remove("mount");
    }
    for (command, options) in defined() {
        let in_document = documented.remove(&command).unwrap_or_default();
        let missing: Vec<_> = options.difference(&in_document).map(|(o, v)| format!("| `{o}` | `{v}` |")).collect();
        let extra: Vec<_> = in_document.difference(&options).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{command}: add\n{}\nremove {extra:?}", missing.join("\n"));
    }
    assert!(documented.is_empty(), "no such commands: {:?}", documented.keys());
}

#[test]
fn extended_options_and_variables_are_in_the_published_tables() {
    let documented = documented();
    let names = |section: &str| documented[section].iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let extended = store::Options::TABLE.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(names("Extended options"), extended);
    let variables = names("Environment");
    for variable in store::environment::VARIABLES.into_iter().filter(|name| *name != "HOME") {
        assert!(variables.contains(variable), "{variable} is missing");
    }
    for (_, variable) in defined().into_values().flatten().filter(|(_, variable)| !variable.is_empty()) {
        assert!(variables.contains(&variable), "{variable} is missing");
    }
}
