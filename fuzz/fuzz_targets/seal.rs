//! Fuzzes sealing: any message under any key is sealed to the same bytes as by another
//! implementation of the same construction, and opens again.
#![no_main]
use aes256ctr_poly1305aes::Aes256CtrPoly1305Aes;
use aes256ctr_poly1305aes::aead::Aead;
use libfuzzer_sys::fuzz_target;
use vsm::crypto::Key;

fuzz_target!(|input: ([u8; 64], [u8; 16], Vec<u8>, u16)| {
    let (key, mut nonce, unit, repeats) = input;
    // The other implementation counts in 64 bits, restic and ours in 128 bits: here the lower half
    // never overflows.
    nonce[8] &= 0x7f;
    if nonce == [0; 16] {
        return;
    }
    // Some KiB, so that the kernels for long messages run.
    let message = unit.repeat(1 + usize::from(repeats) % 200);
    let ours = Key::from_bytes(&key);
    let mut sealed = Vec::new();
    ours.seal(&nonce, &message, &mut sealed);
    let theirs = Aes256CtrPoly1305Aes::new(&key.into()).encrypt(&nonce.into(), &message[..]).expect("it encrypts");
    assert_eq!(sealed[16..], theirs);
    let mut in_place = [&nonce[..], &message].concat();
    ours.seal_in_place(&mut in_place, 0);
    assert_eq!(in_place, sealed);
    let mut opened = Vec::new();
    ours.open(&sealed, &mut opened).expect("it opens");
    assert_eq!(opened, message);
});
