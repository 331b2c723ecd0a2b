//! Fuzzes processes that share a repository, with the simulation of the tests: the fuzzer draws
//! which processes run, in which order, and which of them end or fail.
//!
//! The model is that of the simulation: no complete snapshot is lost.
#![no_main]
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use vsm_fuzz::common::Random;
use vsm_fuzz::schedule::{Bed, run};
use vsm_fuzz::world::World;
use vsm_fuzz::{acts, repository, scratch};

/// The start of all worlds, and the directory of its sources.
static BED: LazyLock<(Bed, TempDir)> = LazyLock::new(|| {
    let dir = scratch();
    let write = |name: &str, content: &str| -> PathBuf {
        let path = dir.path().join(name);
        fs::create_dir_all(path.join("dir")).expect("a directory");
        fs::write(path.join("dir/same"), "same".repeat(1000)).expect("a file");
        fs::write(path.join("dir/other"), content.repeat(1000)).expect("a file");
        path
    };
    let process = World::alone(repository());
    let snapshots = ["first", "second"].map(|content| {
        let source = write("source", content);
        acts::back_up(Arc::new(process.clone()), &source).expect("a backup")
    });
    let sources = [write("source", "third"), write("another", "fourth")];
    (Bed::new(process.files(), snapshots.to_vec(), sources), dir)
});

fuzz_target!(|draws: &[u8]| {
    let Some((first, rest)) = draws.split_first() else { return };
    let (_, wrong) = run(&BED.0, first % 4 == 0, Random::new(rest));
    assert!(wrong.is_empty(), "{wrong:#?}");
});
