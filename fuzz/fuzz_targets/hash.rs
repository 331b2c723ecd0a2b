//! Any streams, in any portions and side by side, have the hashes that the `sha2` crate gives them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use sha2::Digest;
use vsm::hash::{Sha256, Stream, update_all};

fuzz_target!(|input: Vec<(Vec<u8>, Vec<u8>)>| {
    let mut hashes = vec![Sha256::new(); input.len()];
    // The second part of each is as long as the bytes before it make it: some KiB, so that whole blocks meet.
    let parts: Vec<[Vec<u8>; 2]> =
        input.into_iter().map(|(first, unit)| [first.clone(), unit.repeat(1 + first.len() % 40)]).collect();
    let slices: Vec<[&[u8]; 2]> = parts.iter().map(|[first, second]| [&first[..], second]).collect();
    update_all(hashes.iter_mut().zip(&slices).map(|(hash, parts)| Stream { hash, parts }).collect());
    for (hash, parts) in hashes.into_iter().zip(&parts) {
        assert_eq!(hash.finish()[..], sha2::Sha256::digest(parts.concat())[..]);
    }
});
