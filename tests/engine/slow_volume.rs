//! Volumes with latency, by a file system that counts what is asked of it.

use crate::common::slow::Slow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Operations that a caller waits for.
fn waited_for(counts: &BTreeMap<&'static str, u64>) -> u64 {
    let sent_only = ["release", "releasedir"];
    counts.iter().filter(|(kind, _)| !sent_only.contains(kind)).map(|(_, count)| count).sum()
}

/// Mounts `VSM_SLOW_CONTENT` at `VSM_SLOW_MOUNT` with `VSM_SLOW_DELAY` microseconds per operation
/// until it is unmounted, and prints what was asked of it: for measurements by hand.
#[test]
#[ignore = "mounts a file system for measurements by hand, and waits until it is unmounted"]
fn mount_a_slow_file_system_until_it_is_unmounted() {
    let given = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let (content, mount) = (given("VSM_SLOW_CONTENT"), given("VSM_SLOW_MOUNT"));
    let delay = Duration::from_micros(given("VSM_SLOW_DELAY").parse().expect("microseconds"));
    let (counts, most) = Slow::mount(Path::new(&content), Path::new(&mount), delay).until_unmounted();
    println!("{} operations waited for, {most} in flight at most: {counts:?}", waited_for(&counts));
}
