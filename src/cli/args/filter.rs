//! Options that select the snapshots a command works on, and group them.

use super::values::split_list;
use crate::repo::SnapshotFilter;
use std::path::{Path, PathBuf};

/// The snapshots that a command works on.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Snapshot filter options")]
pub struct Filter {
    /// Only consider snapshots of this host (can be specified multiple times)
    #[arg(short = 'H', long, env = "RESTIC_HOST", value_name = "HOST", hide_env_values = true)]
    host: Vec<String>,
    /// Only consider snapshots with all of these tags (can be specified multiple times: one of the
    /// lists must match)
    #[arg(long, value_name = "TAG[,TAG,...]")]
    tag: Vec<String>,
    /// Only consider snapshots of this absolute path (can be specified multiple times: the snapshot
    /// must include all of them)
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
}

impl Filter {
    pub fn build(&self) -> SnapshotFilter {
        SnapshotFilter {
            hosts: self.host.iter().filter(|host| !host.is_empty()).cloned().collect(),
            tags: self.tag.iter().map(|list| split_list(list)).collect(),
            paths: self.path.iter().map(|path| absolute(path)).collect(),
        }
    }
}

/// The absolute path as snapshots record it, without a final slash.
fn absolute(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = absolute.to_string_lossy();
    if text.len() > 1 { text.trim_end_matches('/').to_owned() } else { text.into_owned() }
}

/// The properties that the snapshots of one group have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupBy {
    pub host: bool,
    pub paths: bool,
    pub tags: bool,
}

impl GroupBy {
    /// Whether snapshots are divided into groups at all.
    pub fn is_grouped(self) -> bool {
        self.host || self.paths || self.tags
    }
}

/// Parses `host,paths,tags` or some of these keys. The empty text makes one group of all snapshots.
pub fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy::default();
    for part in split_list(text) {
        match part.as_str() {
            "host" | "hosts" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            other => return Err(format!("{other:?} is not one of host, paths and tags")),
        }
    }
    Ok(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_keys_are_parsed_and_filters_drop_empty_values() {
        assert_eq!(group_by("host,paths"), Ok(GroupBy { host: true, paths: true, tags: false }));
        assert_eq!(group_by(""), Ok(GroupBy::default()));
        assert!(group_by("size").is_err());
        let filter =
            Filter { host: vec![String::new()], tag: vec!["a,b".into(), String::new()], path: vec!["/x/".into()] };
        let filter = filter.build();
        assert_eq!(
            (filter.hosts.len(), filter.tags, filter.paths),
            (0, vec![vec!["a".into(), "b".into()], vec![]], vec!["/x".into()])
        );
    }
}
