//! Makes an empty repository that opens quickly, for tests that start hundreds of programs.
//!
//! An ordinary key costs each start of a program half a second of key derivation, and restic's
//! `init` three. This module follows the description of the format, with the cipher of another
//! project.

use super::peers::PASSWORD;
use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::Path;

/// The weakest scrypt parameters that restic accepts: this exponent of N, and 1 for r and p.
const LOG_N: u8 = 1;

/// The polynomial of the test vectors of restic's chunker.
const POLYNOMIAL: &str = "3da3358b4dc173";

/// Makes an empty repository in a new folder. All such repositories have the same polynomial.
pub fn make(path: &Path, format: u32) {
    for prefix in 0..=255u8 {
        fs::create_dir_all(path.join(format!("data/{prefix:02x}"))).expect("directories");
    }
    for kind in ["index", "keys", "locks", "snapshots"] {
        fs::create_dir(path.join(kind)).expect("a directory");
    }
    let master = random::<64>();
    let key = key_file(&master);
    fs::write(path.join("keys").join(hex(&Sha256::digest(&key))), key).expect("written");
    let config = json!({"version": format, "id": hex(&random::<32>()), "chunker_polynomial": POLYNOMIAL});
    fs::write(path.join("config"), seal(&master, &config.to_string())).expect("written");
}

/// The key file for a master key, which is the cipher's key and then the two halves of the MAC's.
fn key_file(master: &[u8; 64]) -> String {
    let (encrypt, k, r) = (&master[..32], &master[32..48], &master[48..]);
    let plain = json!({
        "mac": {"k": STANDARD.encode(k), "r": STANDARD.encode(r)}, "encrypt": STANDARD.encode(encrypt),
    });
    let salt = random::<64>();
    let mut derived = [0; 64];
    let parameters = scrypt::Params::new(LOG_N, 1, 1).expect("parameters");
    scrypt::scrypt(PASSWORD.as_bytes(), &salt, &parameters, &mut derived).expect("a key");
    let file = json!({
        "created": "2020-01-01T00:00:00Z", "username": "tests", "hostname": "tests", "kdf": "scrypt",
        "N": 1 << LOG_N, "r": 1, "p": 1,
        "salt": STANDARD.encode(salt), "data": STANDARD.encode(seal(&derived, &plain.to_string())),
    });
    file.to_string()
}

/// A nonce, followed by the text sealed with it.
fn seal(key: &[u8; 64], plain: &str) -> Vec<u8> {
    let nonce = random::<16>();
    let cipher = Aes256CtrPoly1305Aes::new(Key::from_slice(key));
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce), plain.as_bytes()).expect("sealed");
    [&nonce[..], &sealed].concat()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom").and_then(|mut from| from.read_exact(&mut bytes)).expect("random bytes");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
