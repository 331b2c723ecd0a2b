//! A key file: plain JSON that wraps the master key with a key derived from a password.

use super::time::Time;
use super::{FormatError, Result, base64_bytes};
use crate::crypto::Key;
use crate::crypto::kdf::Params;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// A key file, fields in restic's order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyFile {
    #[serde(default)]
    pub created: Time,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    #[serde(with = "base64_bytes")]
    salt: Vec<u8>,
    /// The sealed master key.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

/// The creator of a key, and its creation time, for display only.
#[derive(Clone, Debug, Default)]
pub struct KeyOwner {
    pub created: Time,
    pub username: String,
    pub hostname: String,
}

#[derive(Serialize, Deserialize)]
struct RawMac {
    #[serde(with = "base64_bytes")]
    k: Vec<u8>,
    #[serde(with = "base64_bytes")]
    r: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct RawKey {
    mac: RawMac,
    #[serde(with = "base64_bytes")]
    encrypt: Vec<u8>,
}

impl Drop for RawKey {
    fn drop(&mut self) {
        [&mut self.encrypt, &mut self.mac.k, &mut self.mac.r].into_iter().for_each(Zeroize::zeroize);
    }
}

impl KeyFile {
    pub fn new(owner: KeyOwner, params: &Params, data: Vec<u8>) -> KeyFile {
        let KeyOwner { created, username, hostname } = owner;
        let Params { n, r, p, ref salt } = *params;
        KeyFile { created, username, hostname, kdf: "scrypt".into(), n, r, p, salt: salt.clone(), data }
    }

    pub fn decode(json: &[u8]) -> Result<KeyFile> {
        let file: KeyFile = serde_json::from_slice(json).map_err(|error| FormatError::new("a key file", error))?;
        match file.kdf.as_str() {
            "scrypt" => Ok(file),
            other => Err(FormatError::new("a key file", format!("its key derivation {other:?} is unknown"))),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }

    pub fn params(&self) -> Params {
        Params { n: self.n, r: self.r, p: self.p, salt: self.salt.clone() }
    }
}

/// The JSON of a master key, to be sealed into [`KeyFile::data`].
pub fn encode_master(key: &Key) -> Zeroizing<Vec<u8>> {
    let mac = RawMac { k: key.mac_k.to_vec(), r: key.mac_r.to_vec() };
    let raw = RawKey { mac, encrypt: key.encrypt.to_vec() };
    Zeroizing::new(serde_json::to_vec(&raw).expect("plain data"))
}

/// The master key in an opened [`KeyFile::data`].
pub fn decode_master(json: &[u8]) -> Result<Key> {
    // serde's messages can quote the input, which is secret here.
    let bad = || FormatError::new("a master key", "not the JSON of a key");
    let raw: RawKey = serde_json::from_slice(json).map_err(|_| bad())?;
    let array = |bytes: &[u8]| bytes.try_into().map_err(|_| bad());
    let key = Key {
        encrypt: raw.encrypt.as_slice().try_into().map_err(|_| bad())?,
        mac_k: array(&raw.mac.k)?,
        mac_r: array(&raw.mac.r)?,
    };
    if !key.is_usable() {
        return Err(FormatError::new("a master key", "a part of it is all zeros"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key file computed by an independent implementation.
    #[test]
    fn opens_the_published_key_file() {
        use base64::Engine;
        let salt: Vec<u8> = (0..64).collect();
        let salt = base64::engine::general_purpose::STANDARD.encode(salt);
        let data = concat!(
            "8PHy8/T19vf4+fr7/P3+/4i41PwW5IxCYdN2nh4p0cLpTdzpIGTcGIvaeUAwKJ5OxL7E49k/gRzvSXHGC2y9mCyWeg5Fiv8yQ6u6PqtfiV3Uzr/5s64BB1I1",
            "xvJ0UtUcva/JT1sqK+Ccfi+m3ZbuxfO/mF5vuR2a0uUnsH2mL6K5D1SaNmUCu+vxYn5FF/mAJM1h+jQ2ACDvvm2GcglT3A=="
        );
        let json = format!(r#"{{"kdf":"scrypt","N":1024,"r":8,"p":1,"salt":"{salt}","data":"{data}"}}"#);
        let file = KeyFile::decode(json.as_bytes()).unwrap();
        let wrapping = file.params().derive(b"test password").unwrap();
        let mut master = Vec::new();
        wrapping.open(&file.data, &mut master).unwrap();
        assert_eq!(encode_master(&decode_master(&master).unwrap())[..], master);
        let key = decode_master(&master).unwrap();
        assert_eq!((key.encrypt[31], key.mac_k[15], key.mac_r[15]), (0x1f, 0x4f, 0x8f));
        let wrong = file.params().derive(b"other").unwrap();
        assert!(wrong.open(&file.data, &mut Vec::new()).is_err());
    }

    #[test]
    fn refuses_damage_without_quoting_secrets() {
        for bad in ["", "{}", r#"{"kdf":"argon2","N":2,"r":1,"p":1,"salt":"","data":""}"#] {
            assert!(KeyFile::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let secret = br#"{"mac":{"k":"c2VjcmV0","r":"c2VjcmV0"},"encrypt":"c2VjcmV0"}"#;
        let error = decode_master(secret).unwrap_err().to_string();
        assert!(!error.contains("c2V"), "{error}");
    }
}
