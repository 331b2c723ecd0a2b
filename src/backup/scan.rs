//! Counts the files and bytes that a backup will read, concurrently with it, so that its progress
//! has a total. Errors are ignored here, because the backup reports them.
//!
//! On a local disk, one thread counts ahead of the walk. On a volume with latency, the walk has
//! many operations in flight and ends first: then its own count is the total, and the volume is
//! spared the rest of the second pass.

use super::run::Run;
use super::source::{Kind, Tops};
use super::stat::{lstat, node_type};
use crate::format::node::NodeType;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// A directory or file to be counted.
pub struct Found {
    path: PathBuf,
    /// `st_dev` of the directory it was found in; `None` for a named entry.
    above: Option<u64>,
}

/// The entries at which the count begins.
pub fn roots(tops: &Tops) -> Vec<Found> {
    let mut roots = Vec::new();
    gather(tops, &mut roots);
    roots
}

/// Adds files and bytes to the totals until all is counted, the run stops, or the walk is done.
pub fn count(run: &Run<'_>, roots: Vec<Found>, is_walked: impl Fn() -> bool) {
    let is_over = || {
        if is_walked() {
            run.progress.files_total.store(run.counts.found_files.load(Ordering::Relaxed), Ordering::Relaxed);
            run.progress.bytes_total.store(run.counts.found_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
            return true;
        }
        run.is_stopped()
    };
    let mut dirs = Vec::new();
    for root in roots {
        if is_over() {
            return;
        }
        look(run, root, &mut dirs);
    }
    while let Some(Listed { path, device }) = dirs.pop() {
        if is_over() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            if is_over() {
                return;
            }
            let path = entry.path();
            if !run.options.exclude.patterns.matches(path.as_os_str().as_bytes()) {
                look(run, Found { path, above: Some(device) }, &mut dirs);
            }
        }
    }
}

/// A directory whose entries are to be counted.
struct Listed {
    path: PathBuf,
    /// Its `st_dev`.
    device: u64,
}

/// Counts a file at once, so that only the subdirectories of a large directory are held in memory.
fn look(run: &Run<'_>, Found { path, above }: Found, dirs: &mut Vec<Listed>) {
    let Ok(stat) = lstat(&path) else { return };
    match node_type(&stat) {
        NodeType::File => {
            run.progress.files_total.fetch_add(1, Ordering::Relaxed);
            run.progress.bytes_total.fetch_add(u64::try_from(stat.st_size).unwrap_or(0), Ordering::Relaxed);
        }
        NodeType::Dir if run.options.one_file_system && above.is_some_and(|above| above != stat.st_dev) => {}
        NodeType::Dir => dirs.push(Listed { path, device: stat.st_dev }),
        _ => {}
    }
}

fn gather(tops: &Tops, stack: &mut Vec<Found>) {
    for top in tops.values() {
        match top.kind {
            Kind::Partial => gather(&top.below, stack),
            // The named entries below it are counted with it.
            Kind::Target => stack.push(Found { path: top.path.clone(), above: None }),
            Kind::Found { device } => stack.push(Found { path: top.path.clone(), above: Some(device) }),
        }
    }
}
