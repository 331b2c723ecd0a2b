//! Any bytes as a key file and as a master key: no panic, and no key derivation beyond the memory bound.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::key_file::{KeyFile, decode_master, encode_master};

fuzz_target!(|json: &[u8]| {
    if let Ok(file) = KeyFile::decode(json) {
        let params = file.params();
        // What is cheap is derived; what is dear must be refused or is left to the limits' own test.
        if params.n.saturating_mul(u64::from(params.r).saturating_mul(u64::from(params.p).max(1))) < 1 << 10 {
            let _ = params.derive(b"password");
        }
        assert_eq!(KeyFile::decode(&file.encode()).expect("our own JSON").data, file.data);
    }
    if let Ok(key) = decode_master(json) {
        assert!(decode_master(&encode_master(&key)).expect("our own JSON") == key);
    }
});
