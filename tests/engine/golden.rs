//! Trees that restic wrote once and that never change: one per line, after the id that restic gave it.
//!
//! Recorded with restic 0.19.1 from a directory with every node type and with awkward names, times, modes and attributes. A change to our reader
//! or writer that loses or respells anything gives another id.

use vsm::format::tree::{TreeWriter, parse};
use vsm::id::Id;

const TREES: &[u8] = include_bytes!("../golden/restic-0.19-trees");

#[test]
fn recorded_trees_keep_restics_ids() {
    let mut nodes = 0;
    for line in TREES.split_inclusive(|&byte| byte == b'\n') {
        let (id, json) = line.split_at(64);
        let id = Id::parse(id).expect("an id");
        let json = &json[1..];
        assert_eq!(Id::of(json), id, "the recording is whole");
        let read = parse(json).expect("restic's tree");
        let mut writer = TreeWriter::new();
        for node in &read {
            writer.add(node).expect("in order");
        }
        nodes += read.len();
        let written = writer.finish();
        assert_eq!(Id::of(&written), id, "\n{}\n{}", String::from_utf8_lossy(json), String::from_utf8_lossy(&written));
    }
    assert!(nodes > 290, "{nodes} nodes");
}
