//! Tests the controller's command line; `tests/cluster/suite` tests its behaviour on a cluster.

use std::process::{Command, Output};

/// Runs the program, which ends before it connects to a cluster, because a setting is invalid.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsm-controller"));
    command.args(arguments).env_clear().env("DATAMOVER_CONCURRENT_BACKUP", "many").output().expect("the program runs")
}

#[test]
fn the_command_line_of_volume_snapshot_mover_is_accepted() {
    let old = ["--metrics-bind-address=127.0.0.1:8080", "--leader-elect", "--health-probe-bind-address", ":8082"];
    for understood in [&[] as &[_], &old, &["--leader-elect=false"]] {
        let output = run(understood);
        assert_eq!(output.status.code(), Some(1), "{understood:?}: {output:?}");
        let log = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(log.contains("DATAMOVER_CONCURRENT_BACKUP"), "{understood:?}: {log}");
    }
    for refused in [&["--leader-elect", "false"] as &[_], &["--kubeconfig=x"]] {
        let output = run(refused);
        assert_eq!(output.status.code(), Some(2), "{refused:?}: {output:?}");
    }
}

#[test]
fn every_option_of_the_controller_is_in_the_published_table() {
    let document = include_str!("../docs/operate/configuration.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `--")?.split_once("` | `"));
    let published: Vec<_> = rows.filter_map(|(option, rest)| Some((option, rest.split_once('`')?.0))).collect();
    let help = String::from_utf8(run(&["--help"]).stdout).expect("UTF-8");
    // Without the wraps of the help's lines.
    let text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let paragraphs = text.split("--").skip(1);
    let options = paragraphs.map(|text| {
        let option = text.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().expect("a name");
        let default = text.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
        (option, default.map_or("none", |(default, _)| default))
    });
    let defined: Vec<_> = options.filter(|(option, _)| !["help", "version"].contains(option)).collect();
    assert_eq!(published, defined, "{help}");
}
