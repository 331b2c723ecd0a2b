//! Options that say which snapshots a command works on, and how it groups them.

use super::values::split_list;
use crate::repo::SnapshotFilter;
use std::path::{Path, PathBuf};

/// The snapshots that a command works on.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Filter {
    /// Only snapshots of this host; may be given several times
    #[arg(short = 'H', long, env = "RESTIC_HOST", value_name = "HOST", hide_env_values = true)]
    host: Vec<String>,
    /// Only snapshots with all of these tags; given several times, one list must fit
    #[arg(long, value_name = "TAG[,TAG,...]")]
    tag: Vec<String>,
    /// Only snapshots of this absolute path; given several times, all must be in it
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

/// A path as snapshots record it.
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
    /// Whether there is more than the one group of all snapshots.
    pub fn is_grouped(self) -> bool {
        self.host || self.paths || self.tags
    }
}

/// Parses `host,paths,tags`, or some of them; the empty text makes one group of all snapshots.
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
    fn groups_and_lists() {
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
