//! Counts what a backup will read, beside it, so that its progress has a total. What cannot be counted is left to the backup to report.

use super::Run;
use super::source::{Kind, Tops};
use super::stat::{lstat, node_type};
use crate::format::node::NodeType;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Where the count begins.
pub fn roots(tops: &Tops) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    gather(tops, &mut roots);
    roots
}

/// Adds files and bytes to the totals until all is counted or the run stops.
pub fn count(run: &Run<'_>, roots: Vec<PathBuf>) {
    let mut stack = roots;
    while let Some(path) = stack.pop() {
        if run.is_stopped() {
            return;
        }
        let Ok(stat) = lstat(&path) else { continue };
        match node_type(&stat) {
            NodeType::File => {
                run.progress.files_total.fetch_add(1, Ordering::Relaxed);
                run.progress.bytes_total.fetch_add(u64::try_from(stat.st_size).unwrap_or(0), Ordering::Relaxed);
            }
            NodeType::Dir => list(run, &path, &mut stack),
            _ => {}
        }
    }
}

fn gather(tops: &Tops, stack: &mut Vec<PathBuf>) {
    for top in tops.values() {
        match top.kind {
            Kind::Partial => gather(&top.below, stack),
            // What is named below it is counted with it.
            Kind::Target | Kind::Found { .. } => stack.push(top.path.clone()),
        }
    }
}

fn list(run: &Run<'_>, dir: &Path, stack: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !run.options.exclude.patterns.matches(path.as_os_str().as_bytes()) {
            stack.push(path);
        }
    }
}
