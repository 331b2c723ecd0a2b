//! Repositories that are quick to make and to open. On purpose, each start of a program costs half a second of key derivation, and restic's
//! `init` three; a test that starts hundreds of them is not about that. The key file has the weakest parameters that restic accepts. What is
//! here is written from the format's description, with another project's cipher.

use super::peers::{PASSWORD, Peer, Repo};
use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::Path;

const LOG_N: u8 = 1;

/// The one of the test vectors of restic's chunker.
const POLYNOMIAL: &str = "3da3358b4dc173";

/// Makes an empty repository of no tool's making in a new folder. All of them cut alike.
pub fn make(path: &Path, format: u32) {
    let [id, master] = [random::<32>().to_vec(), random::<64>().to_vec()];
    for id in 0..=255u8 {
        fs::create_dir_all(path.join(format!("data/{id:02x}"))).expect("directories");
    }
    for kind in ["index", "keys", "locks", "snapshots"] {
        fs::create_dir(path.join(kind)).expect("a directory");
    }
    let config = json!({"version": format, "id": hex(&id), "chunker_polynomial": POLYNOMIAL});
    fs::write(path.join("config"), seal(&master, config.to_string().as_bytes())).expect("written");
    let (encrypt, mac) = master.split_at(32);
    write_key(path, &STANDARD.encode(encrypt), &STANDARD.encode(&mac[..16]), &STANDARD.encode(&mac[16..]));
}

/// Replaces the key files of a folder repository by one with the same master key under the same password.
pub fn replace(repo: &Repo) {
    let master: serde_json::Value = repo.run(Peer::Restic019, ["cat", "masterkey"]).ok().json();
    let field = |value: &serde_json::Value| value.as_str().expect("base64").to_owned();
    for old in fs::read_dir(repo.path().join("keys")).expect("keys").flatten() {
        fs::remove_file(old.path()).expect("removed");
    }
    let mac = &master["mac"];
    write_key(repo.path(), &field(&master["encrypt"]), &field(&mac["k"]), &field(&mac["r"]));
}

/// Writes the key file for a master key, whose parts are in base64.
fn write_key(repository: &Path, encrypt: &str, k: &str, r: &str) {
    let plain = format!(r#"{{"mac":{{"k":"{k}","r":"{r}"}},"encrypt":"{encrypt}"}}"#);
    let salt = [7; 64];
    let mut derived = [0; 64];
    let parameters = scrypt::Params::new(LOG_N, 1, 1).expect("parameters");
    scrypt::scrypt(PASSWORD.as_bytes(), &salt, &parameters, &mut derived).expect("a key");
    let file = json!({
        "created": "2020-01-01T00:00:00Z", "username": "tests", "hostname": "tests", "kdf": "scrypt",
        "N": 1 << LOG_N, "r": 1, "p": 1,
        "salt": STANDARD.encode(salt), "data": STANDARD.encode(seal(&derived, plain.as_bytes())),
    });
    let file = file.to_string();
    fs::write(repository.join("keys").join(hex(&Sha256::digest(file.as_bytes()))), file).expect("written");
}

/// A nonce, and what is sealed with it.
fn seal(key: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce = random::<16>();
    let cipher = Aes256CtrPoly1305Aes::new(Key::from_slice(key));
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce), plain).expect("sealed");
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
