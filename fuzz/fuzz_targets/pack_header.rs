//! Fuzzes the decoders of a pack's header and its length: no panic, and a decoded header encodes to
//! the same bytes.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::pack::{decode_header, encode_header, file_size, header_length};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(blobs) = decode_header(bytes) {
        assert_eq!(encode_header(&blobs), bytes);
        let _ = file_size(&blobs);
    }
    if let Some((field, rest)) = bytes.split_first_chunk() {
        if let Ok(length) = header_length(*field, rest.len() as u64) {
            assert!(length <= rest.len());
        }
    }
});
