//! Tests that trees recorded from restic keep their ids when our code reads and writes them.
//!
//! The recording has one tree per line, after its id. restic 0.19.1 wrote them for a directory with
//! every node type and with unusual names, times, modes and attributes. If our reader or writer
//! loses or changes anything, the id differs.

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
