//! Compares `docs/internals/architecture.md` with the cluster: every action in the controller's log
//! and every Event of one backup and one restore, in order. `VSM_UPDATE_DOCS=1` writes the document
//! instead.
//!
//! Lines that depend on timing are omitted: the queue, waits, and the progress of a mover, which
//! may end before it is seen to run.

use crate::app::{App, BACKUP, FILES, RESTORE};
use crate::cluster::{PROTECTED, name, text, wait_for};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The document with the sequences.
fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/internals/architecture.md")
}

/// The lines before and after a sequence in the document.
fn markers(of: &str) -> (String, String) {
    (format!("<!-- {of}: begin, written by tests/cluster/suite/sequence.rs -->\n"), format!("<!-- {of}: end -->\n"))
}

/// Parts of the lines that depend on timing.
const BY_TIMING: [&str; 6] = [
    "recorded Queued",
    "recorded Moving",
    "recorded Waiting",
    "MoverStarted",
    "failed action",
    "rewrote ConfigMap velero/vsm-vs",
];

fn is_stable(line: &str) -> bool {
    !BY_TIMING.iter().any(|part| line.contains(part))
}

/// The messages in the log of the deployed controller that concern one request, up to the removal
/// of its finalizer.
fn log(app: &App, kind: &str, request: &str) -> Vec<String> {
    let of_request = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = &line["fields"];
        let expected = (kind, &*app.namespace, request);
        let found = (text(fields, "/kind"), text(fields, "/namespace"), text(fields, "/name"));
        (found == expected).then(|| (text(&line, "/timestamp").to_owned(), text(fields, "/message").to_owned()))
    };
    let read = || {
        let pods = app.cluster.list("Pod", PROTECTED, "component=data-mover-controller");
        let logs = pods.iter().map(|pod| app.cluster.log(PROTECTED, name(pod)));
        let mut lines: Vec<_> = logs.flat_map(|log| log.lines().filter_map(of_request).collect::<Vec<_>>()).collect();
        lines.sort();
        let messages: Vec<String> = lines.into_iter().map(|(_, message)| message).collect();
        messages.last().is_some_and(|last| last.starts_with("removed the finalizer")).then_some(messages)
    };
    wait_for(Duration::from_secs(30), read)
        .expect("the log ends with the finalizer")
        .into_iter()
        .filter(|line| is_stable(line))
        .collect()
}

/// `type reason: message` of the Events of a request, oldest first.
fn events(app: &App, request: &str) -> Vec<String> {
    let mut all: Vec<Value> = app.cluster.list("Event", &app.namespace, "");
    all.retain(|event| text(event, "/regarding/name") == request);
    all.sort_by_key(|event| text(event, "/metadata/resourceVersion").parse::<u64>().expect("a version"));
    let line = |event: &Value| format!("{} {}: {}", text(event, "/type"), text(event, "/reason"), text(event, "/note"));
    all.iter().map(line).filter(|line| is_stable(line)).collect()
}

/// Replaces UIDs, such as that of the cluster in the path of a repository.
fn without_uids(line: &str) -> String {
    const LENGTH: usize = 36;
    let is_uid = |part: &str| {
        let hyphens = part.bytes().enumerate().all(|(at, byte)| (byte == b'-') == [8, 13, 18, 23].contains(&at));
        hyphens && part.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    };
    let mut text = line.to_owned();
    while let Some(at) = (0..text.len()).find(|at| text.get(*at..at + LENGTH).is_some_and(is_uid)) {
        text.replace_range(at..at + LENGTH, "UID");
    }
    text
}

/// Replaces everything that differs from run to run: names, UIDs, IDs, numbers.
fn normalized(line: &str, replacements: &[(String, &str)]) -> String {
    let mut line = line.to_owned();
    for (from, to) in replacements.iter().filter(|(from, _)| !from.is_empty()) {
        line = line.replace(from.as_str(), to);
    }
    let line = without_uids(&line);
    let words = line.split(' ').map(|word| {
        let end = word.trim_end_matches([',', ';', ':', ')']).len();
        let (core, rest) = word.split_at(end);
        let is_pod = core.starts_with("vsm-vs") && core.matches('-').count() == 3 && !core.ends_with("tidy");
        let is_record = core.contains("vsm-repository-");
        let is_number = !core.is_empty() && core.bytes().all(|byte| byte.is_ascii_digit());
        match (is_pod, is_number) {
            _ if is_record => format!("velero/vsm-repository-HASH{rest}"),
            (true, _) => format!("{}-POD{rest}", core.rsplit_once('-').expect("a suffix").0),
            (_, true) => format!("N{rest}"),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn sequence(app: &App, kind: (&str, &str), request: &str, replacements: &[(String, &str)]) -> String {
    let object = app.completed(kind.0, request);
    app.assert_bare(&object);
    let mut all = replacements.to_vec();
    all.push((text(&object, "/metadata/uid").to_owned(), "UID"));
    all.push((text(&object, "/status/snapshotID").to_owned(), "ID"));
    let for_request = format!(" for {} {}/{request}", kind.0, app.namespace);
    let lines = |all_lines: Vec<String>, mark: &str| -> String {
        let short = |line: &String| line.replace(&for_request, "");
        let lines = all_lines.iter().map(|line| format!("{mark}{}\n", normalized(&short(line), &all)));
        lines.collect()
    };
    let (log, events) = (lines(log(app, kind.1, request), ""), lines(events(app, request), ""));
    assert!(log.lines().count() > 10, "the log has every action: {log}");
    format!("Log of the controller:\n\n```text\n{log}```\n\nEvents:\n\n```text\n{events}```\n")
}

#[test]
fn the_documented_sequences_match_the_cluster() {
    let app = App::new("sequence");
    let volume = app.bound("data", FILES);
    fs::write(volume.join("file"), "text").expect("a file");
    let content = app.snapshot("snap", "data");
    app.cluster.create(&app.vsb("backup", "night", &content));
    let namespace = vec![(app.namespace.clone(), "shop")];
    let backup = sequence(&app, (BACKUP, "vsb"), "backup", &namespace);

    let vsb = app.completed(BACKUP, "backup");
    app.cluster.create(&app.direct("restore", &vsb, "mine", None));
    app.completed(RESTORE, "restore");
    let claim = app.get("PersistentVolumeClaim", "mine").expect("the claim");
    let replacements = vec![
        (app.namespace.clone(), "shop"),
        (text(&claim, "/spec/volumeName").to_owned(), "PV"),
        (text(&vsb, "/status/snapshotID").to_owned(), "ID"),
    ];
    let restore = sequence(&app, (RESTORE, "vsr"), "restore", &replacements);
    app.remove();

    let mut text = fs::read_to_string(document()).expect("the document");
    let mut stale = Vec::new();
    for (of, expected) in [("backup", backup), ("restore", restore)] {
        let (begin, end) = markers(of);
        let (before, rest) = text.split_once(&begin).expect("the begin of a sequence");
        let (current, after) = rest.split_once(&end).expect("the end of a sequence");
        if current.trim() != expected.trim() {
            stale.push(format!("{of}, documented:\n{current}\nas it happened:\n{expected}"));
        }
        text = format!("{before}{begin}\n{expected}\n{end}{after}");
    }
    if std::env::var_os("VSM_UPDATE_DOCS").is_some() {
        fs::write(document(), text).expect("the document is writable");
    } else {
        assert!(stale.is_empty(), "run the test with VSM_UPDATE_DOCS=1:\n{}", stale.join("\n"));
    }
}
