//! Fuzzes the parsers of key files and master keys: no panic, and no key derivation beyond the
//! memory bound.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::key_file::{KeyFile, decode_master, encode_master};

fuzz_target!(|json: &[u8]| {
    if let Ok(file) = KeyFile::decode(json) {
        let params = file.params();
        // Only cheap parameters are derived; the limits have a test of their own for others.
        if params.n.saturating_mul(u64::from(params.r).saturating_mul(u64::from(params.p).max(1))) < 1 << 10 {
            let _ = params.derive(b"password");
        }
        assert_eq!(KeyFile::decode(&file.encode()).expect("our own JSON").data, file.data);
    }
    if let Ok(key) = decode_master(json) {
        assert!(decode_master(&encode_master(&key)).expect("our own JSON") == key);
    }
});
