//! Fuzzes the snapshot parser: no panic, and a parsed snapshot survives encoding and decoding.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::snapshot::Snapshot;

fuzz_target!(|json: &[u8]| {
    if let Ok(snapshot) = Snapshot::decode(json) {
        let again = Snapshot::decode(&snapshot.encode()).expect("our own JSON");
        assert_eq!(
            (again.time.instant(), again.tree, again.paths),
            (snapshot.time.instant(), snapshot.tree, snapshot.paths)
        );
    }
});
