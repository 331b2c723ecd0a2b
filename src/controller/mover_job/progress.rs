//! The progress of a mover, parsed from its log.

use crate::controller::domain::record::Progress;
use serde::Deserialize;

/// A status line of `vsm-mover --json`: of a backup, or of a restore.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    message_type: String,
    total_files: i64,
    files_done: i64,
    files_restored: i64,
    total_bytes: i64,
    bytes_done: i64,
    bytes_restored: i64,
}

/// The progress that a line of a mover's log reports, if it does.
pub fn parse(line: &str) -> Option<Progress> {
    let line: Line = serde_json::from_str(line).ok().filter(|line: &Line| line.message_type == "status")?;
    Some(Progress {
        total_files: line.total_files,
        files_done: line.files_done.max(line.files_restored),
        total_bytes: line.total_bytes,
        bytes_done: line.bytes_done.max(line.bytes_restored),
        added_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_status_lines_are_progress() {
        let backup = r#"{"message_type":"status","total_files":4,"files_done":1,"total_bytes":8,"bytes_done":2}"#;
        let expected = Progress { total_files: 4, files_done: 1, total_bytes: 8, bytes_done: 2, added_bytes: None };
        assert_eq!(parse(backup), Some(expected.clone()));
        let restore =
            r#"{"message_type":"status","total_files":4,"files_restored":1,"total_bytes":8,"bytes_restored":2}"#;
        assert_eq!(parse(restore), Some(expected));
        for other in ["", "{", r#"{"message_type":"summary","total_files":4}"#, "[1]"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
