//! Fuzzes the SHA-256 of several streams in any portions: it equals that of the `sha2` crate.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sha2::Digest;
use vsm::hash::{Sha256, Stream, update_all};

fuzz_target!(|input: Vec<(Vec<u8>, Vec<u8>)>| {
    let mut hashes = vec![Sha256::new(); input.len()];
    // The second part is repeated up to 40 times, so that several streams have whole blocks.
    let parts: Vec<[Vec<u8>; 2]> =
        input.into_iter().map(|(first, unit)| [first.clone(), unit.repeat(1 + first.len() % 40)]).collect();
    let slices: Vec<[&[u8]; 2]> = parts.iter().map(|[first, second]| [&first[..], second]).collect();
    update_all(hashes.iter_mut().zip(&slices).map(|(hash, parts)| Stream { hash, parts }).collect());
    for (hash, parts) in hashes.into_iter().zip(&parts) {
        assert_eq!(hash.finish()[..], sha2::Sha256::digest(parts.concat())[..]);
    }
});
