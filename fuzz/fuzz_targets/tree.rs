//! Any bytes as a tree: no panic, and what is understood and in order is written to JSON that means the same.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::tree::{TreeWriter, parse};

fuzz_target!(|json: &[u8]| {
    let Ok(nodes) = parse(json) else { return };
    let mut writer = TreeWriter::new();
    if nodes.iter().all(|node| writer.add(node).is_ok()) {
        let written = writer.finish();
        let again = parse(&written).expect("our own JSON");
        let mut second = TreeWriter::new();
        again.iter().for_each(|node| second.add(node).expect("the same order"));
        assert_eq!(second.finish(), written, "writing is a fixed point");
    }
});
