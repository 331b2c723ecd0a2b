//! Fuzzes opened files, compressed data and quoted names: no panic, and never more output than
//! allowed.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::compression::decompress;
use vsm::format::{text, unpacked};

fuzz_target!(|bytes: &[u8]| {
    const MAX: u64 = 1 << 20;
    if let Ok(json) = unpacked::decode("a file", bytes.to_vec(), MAX) {
        assert!(json.len() as u64 <= MAX.max(bytes.len() as u64));
    }
    let mut out = Vec::new();
    if decompress(bytes, Some(100), MAX, &mut out).is_ok() {
        assert_eq!(out.len(), 100);
    }
    if let Ok(quoted) = std::str::from_utf8(bytes) {
        if let Ok(name) = text::unquote(quoted) {
            let again = text::quote(&name);
            assert_eq!(
                text::unquote(std::str::from_utf8(&again).expect("quoted names are UTF-8")).expect("our own"),
                name
            );
        }
    }
});
