//! Stage 6: makes the snapshot that references the tree, with its summary.

use super::options::{Options, Source};
use super::run::Counts;
use crate::clock;
use crate::format::snapshot::{Snapshot, Summary, VOLUME_TAG};
use crate::format::time::Time;
use crate::host;
use crate::id::Id;
use crate::repo::writer::Written;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn now() -> Time {
    let (seconds, nanos) = clock::now();
    Time::utc(seconds, nanos)
}

pub fn summarise(counts: &Counts, written: &Written, start: Time) -> Summary {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Summary {
        backup_start: Some(start),
        backup_end: Some(now()),
        files_new: get(&counts.files_new),
        files_changed: get(&counts.files_changed),
        files_unmodified: get(&counts.files_unmodified),
        dirs_new: get(&counts.dirs_new),
        dirs_changed: get(&counts.dirs_changed),
        dirs_unmodified: get(&counts.dirs_unmodified),
        data_blobs: get(&written.data_blobs),
        tree_blobs: get(&written.tree_blobs),
        data_added: get(&written.plain_bytes),
        data_added_packed: get(&written.packed_bytes),
        total_files_processed: get(&counts.files),
        total_bytes_processed: get(&counts.bytes),
        ..Summary::default()
    }
}

/// The snapshot of a tree.
pub fn describe(options: &Options, paths: Vec<String>, tree: Id, parent: Option<Id>, summary: Summary) -> Snapshot {
    let mut tags = options.tags.clone();
    if matches!(options.source, Source::Volume(_)) && !tags.iter().any(|tag| tag == VOLUME_TAG) {
        tags.push(VOLUME_TAG.to_owned());
    }
    Snapshot {
        time: options.time,
        parent,
        tree: Some(tree),
        paths,
        hostname: options.hostname.clone(),
        username: host::username(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        excludes: options.exclude.recorded.clone(),
        tags,
        original: None,
        program_version: concat!("vsm-mover ", env!("CARGO_PKG_VERSION")).to_owned(),
        summary: Some(summary),
        extra: serde_json::Map::new(),
    }
}
