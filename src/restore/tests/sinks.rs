//! Tests of stage 4 with sinks that fail, and of panics in threads.

use super::*;
use crate::repo;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fetches what a plan for `tree` needs into the sink.
fn fetched(bed: &Bed, tree: Id, sink: &dyn Sink) -> Result<()> {
    let index = Index::load(&bed.repo).unwrap();
    let (trees, progress) = (TreeReader::new(&bed.repo, &index), Progress::silent());
    let (origin, options) = (Origin::Dir { tree, meta: None }, Options::new(bed.target()));
    let restoring = Restoring { repo: &bed.repo, index: &index, options: &options, progress: &progress };
    let walk = Walk { trees: &trees, origin: &origin, selection: Selection::of(&options), progress: &progress };
    let plan = planner::plan(&walk, &index, ALL).unwrap();
    let table = plan.table(0).unwrap();
    fetch::run(&restoring, &table.uses, plan.memory() + table.memory(), sink)
}

/// A tree over many packs, so that each thread has several to read.
fn many_packs(bed: &Bed) -> Id {
    let files: Vec<Node> =
        (0..20u8).map(|number| bed.store(|blobs| blobs.file(&format!("{number:02}"), &[&[number; 9]]))).collect();
    bed.store(|blobs| blobs.tree(files))
}

enum What {
    Panic,
    Fail,
}

struct Failing {
    what: What,
    writes: AtomicUsize,
}

impl Sink for Failing {
    fn wants(&self, _: usize, _: &Use) -> bool {
        true
    }

    fn write(&self, _: Piece<'_>) -> Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        match self.what {
            What::Panic => panic!("the sink is broken"),
            What::Fail => Err(Error::Full { path: "/x".into(), source: std::io::ErrorKind::StorageFull.into() }),
        }
    }

    fn lack(&self, _: &Use, why: &repo::Error) -> Result<()> {
        panic!("nothing is lacking: {why}")
    }
}

#[test]
fn a_panic_in_a_thread_ends_the_restore_with_an_error() {
    let bed = Bed::new();
    let tree = many_packs(&bed);
    let sink = Failing { what: What::Panic, writes: AtomicUsize::new(0) };
    let error = fetched(&bed, tree, &sink).unwrap_err();
    assert!(matches!(&error, Error::Panicked { message, .. } if message == "the sink is broken"), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert!(sink.writes.into_inner() < 20, "the other threads stop");
}

#[test]
fn an_error_of_the_sink_ends_the_restore() {
    let bed = Bed::new();
    let tree = many_packs(&bed);
    let sink = Failing { what: What::Fail, writes: AtomicUsize::new(0) };
    let error = fetched(&bed, tree, &sink).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(sink.writes.into_inner() < 20, "the other threads stop");
}

#[test]
fn a_panic_while_files_are_read_back_is_an_error() {
    let bed = Bed::new();
    let tree = sample(&bed);
    let progress = Progress::new(|event| {
        if let Event::Problem(_) = event {
            panic!("the listener is broken");
        }
    });
    let spoil = || fs::write(bed.at("plain"), "first secund").unwrap();
    let error = disturbed_with(&bed, tree, &progress, || {}, spoil).unwrap_err();
    assert!(matches!(&error, Error::Panicked { message, .. } if message == "the listener is broken"), "{error}");
}
