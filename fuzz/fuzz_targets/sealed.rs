//! Fuzzes opening: no panic, and no message opens that was not sealed with the key.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::crypto::Key;

fuzz_target!(|bytes: &[u8]| {
    let key = Key::from_bytes(&[7; 64]);
    assert!(key.open(bytes, &mut Vec::new()).is_err());
});
