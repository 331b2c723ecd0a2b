//! Makes a repository cheap to open. Each start of a program costs half a second of key derivation, on purpose; a test that
//! starts hundreds of them is not about that. The repository's key file is replaced by one with the same master key under
//! the same password, with the weakest parameters that restic accepts. The cipher is another project's crate.

use super::peers::{PASSWORD, Peer, Repo};
use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

const LOG_N: u8 = 1;

/// Replaces the one key file of a folder repository.
pub fn replace(repo: &Repo) {
    let master: serde_json::Value = repo.run(Peer::Restic019, ["cat", "masterkey"]).ok().json();
    let field = |value: &serde_json::Value| value.as_str().expect("base64").to_owned();
    let plain = format!(
        r#"{{"mac":{{"k":"{}","r":"{}"}},"encrypt":"{}"}}"#,
        field(&master["mac"]["k"]),
        field(&master["mac"]["r"]),
        field(&master["encrypt"])
    );
    let salt = [7; 64];
    let mut derived = [0; 64];
    let parameters = scrypt::Params::new(LOG_N, 1, 1).expect("parameters");
    scrypt::scrypt(PASSWORD.as_bytes(), &salt, &parameters, &mut derived).expect("a key");
    let nonce = [9; 16];
    let cipher = Aes256CtrPoly1305Aes::new(Key::from_slice(&derived));
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce), plain.as_bytes()).expect("sealed");
    let file = json!({
        "created": "2020-01-01T00:00:00Z", "username": "tests", "hostname": "tests", "kdf": "scrypt",
        "N": 1 << LOG_N, "r": 1, "p": 1,
        "salt": STANDARD.encode(salt), "data": STANDARD.encode([&nonce[..], &sealed].concat()),
    });
    let file = file.to_string();
    let keys = repo.path().join("keys");
    for old in std::fs::read_dir(&keys).expect("keys").flatten() {
        std::fs::remove_file(old.path()).expect("removed");
    }
    let name: String = Sha256::digest(file.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(keys.join(name), file).expect("written");
}
