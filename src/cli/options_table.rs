//! Tests that the published table of options is complete, and that the help has working examples.

use super::{Cli, definitions};
use crate::store;
use clap::Parser;
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../../docs/reference/cli.md");

/// The options of each command, such as `-r, --repo LOCATION`, with their environment variables.
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

/// The tables below second-level headings. A row is `| option | variable | … |`.
fn documented() -> Options {
    let mut options = Options::new();
    let mut heading = None;
    for line in DOCUMENT.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = Some(text.trim_matches('`').to_owned());
        } else if let (Some(heading), Some(row)) = (&heading, line.strip_prefix("| `")) {
            let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
            let row = (cells[0].to_owned(), cells[1].to_owned());
            assert!(options.entry(heading.clone()).or_default().insert(row), "{line} is listed twice");
        } else if let Some(heading) = &heading {
            options.entry(heading.clone()).or_default();
        }
    }
    options
}

#[test]
fn clap_accepts_the_definitions() {
    definitions().debug_assert();
}

#[test]
fn the_published_table_lists_exactly_the_defined_options() {
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
fn the_published_tables_list_extended_options_and_variables() {
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

#[test]
fn every_command_has_examples_that_parse() {
    let root = definitions();
    let mut commands = vec![&root];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        let name = command.get_name();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (heading, examples) = help.split_once('\n').unwrap_or_default();
        assert_eq!(heading, "Examples:", "{name}");
        for example in examples.lines() {
            assert!(example.starts_with("  vsm-mover "), "{name}: {example}");
            // Redirections and pipes are the shell's.
            let command_line = example.split([' ', '\'']).filter(|word| !word.is_empty());
            let words: Vec<&str> = command_line.take_while(|word| !matches!(*word, ">" | "|")).collect();
            assert!(words.contains(&name), "{example} is an example of {name}");
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }
}
