//! Fuzzes the index parser: no panic, a parsed index survives encoding and decoding, and the merged
//! index finds all its blobs.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::index_file::{decode, encode};
use vsm::repo::Index;

fuzz_target!(|json: &[u8]| {
    if let Ok(packs) = decode(json) {
        let mut json = Vec::new();
        encode(&packs, &mut json).expect("memory");
        assert_eq!(decode(&json).expect("our own JSON"), packs);
        let index = Index::from_packs(packs.clone());
        for blob in packs.iter().flat_map(|pack| &pack.blobs) {
            assert!(index.find(blob.ty, blob.id).iter().any(|found| found.blob == *blob));
        }
    }
});
